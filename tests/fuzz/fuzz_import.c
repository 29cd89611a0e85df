/*
 * fuzz_import.c - any bytes as a file to import: all of it or nothing, and what was taken can
 * be exported again.
 */
#include "chat/export.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void export_all(struct store *s, const struct strlist *ids) {
    for (size_t i = 0; i < ids->n && i < 4; i++)
        for (int f = 0; f < EXPORT_N; f++) {
            struct buf b = {0};
            if (export_conversation(s, atoll(ids->v[i]), (enum export_format)f, f % 2, &b,
                                    NULL) != ST_OK)
                abort(); /* what was stored must be readable */
            buf_release(&b);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct store *s; /* opened once; what is imported is undone below */
    struct strlist ids = {0};
    struct conversation_list l;
    struct err err;
    if (!s && store_open(":memory:", &s, &err) != ST_OK)
        abort();
    if (store_begin(s, &err) != ST_OK)
        abort();
    if (import_text(s, size ? (const char *)data : "", size, "fuzz", &ids, &err) == ST_OK)
        export_all(s, &ids);
    store_rollback(s);
    strlist_release(&ids);
    if (store_conv_list(s, 1, &l, &err) != ST_OK || l.n != 0)
        abort();
    conversation_list_release(&l);
    return 0;
}
