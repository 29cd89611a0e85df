/*
 * source.c - a checkpoint of either kind. See source.h.
 */
#include "engine/model/source.h"

#include <stdlib.h>
#include <sys/stat.h>

enum status source_open(const char *path, struct source **out, struct err *err) {
    struct stat st;
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    struct source *s = xcalloc(1, sizeof *s);
    enum status result = folder ? source_open_hf(path, s, err) : source_open_gguf(path, s, err);
    if (result != ST_OK) {
        source_close(s);
        return result;
    }
    *out = s;
    return ST_OK;
}

void source_close(struct source *s) {
    if (s && s->ops)
        s->ops->close(s);
    free(s);
}

enum status source_find(struct source *s, const char *name, const struct source_tensor **out,
                        struct err *err) {
    *out = NULL;
    return s->ops->find(s, name, out, err);
}

enum status source_all_used(struct source *s, struct err *err) {
    return s->ops->all_used(s, err);
}

const char *source_text(const struct source *s, const char *what) {
    return s->ops->text(s, what);
}

enum status source_vocab(struct source *s, struct vocab_data *out, struct err *err) {
    return s->ops->vocab(s, out, err);
}

enum status source_intact(const struct source *s, bool at_end, struct err *err) {
    return s->ops->intact(s, at_end, err);
}

void source_hash(const struct source *s, char hex[65], const _Atomic bool *stop) {
    s->ops->hash(s, hex, stop);
}
