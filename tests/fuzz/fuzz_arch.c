/*
 * fuzz_arch.c - any bytes as GGUF metadata or as a config.json: what makes hyperparameters of
 * them either fails or gives numbers within arch_check()'s bounds, in bounded time.
 */
#include "engine/model/arch.h"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum status count_slot(void *user, const struct arch_slot *s, struct err *err) {
    (void)s;
    if (++*(int *)user > 10000) /* the rest is more of the same */
        return err_set(err, ST_LIMIT, "enough");
    return ST_OK;
}

static void walk(const struct arch *a, const struct hparams *hp) {
    struct err err;
    int n = 0;
    if (arch_check(hp, "fuzz", &err) != ST_OK)
        abort();
    arch_visit(a, hp, count_slot, &n, &err);
}

static void as_gguf(const uint8_t *data, size_t size) {
    struct gguf *g = NULL;
    struct gguf_str name = {"", 0};
    const struct arch *a;
    static struct hparams hp;
    struct err err;
    if (gguf_parse(data, size, "fuzz", &g, &err) != ST_OK)
        return;
    gguf_get_str(g, "general.architecture", false, &name, &err);
    char *arch = xstrndup(name.p, name.len);
    if (arch_find(arch, "fuzz", &a, &err) == ST_OK && arch_from_gguf(a, g, &hp, &err) == ST_OK)
        walk(a, &hp);
    free(arch);
    gguf_close(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct hf_json c;
    const struct arch *a;
    static struct hparams hp;
    struct err err;
    if (size == 0 || data[0] != '{') {
        as_gguf(data, size);
        return 0;
    }
    if (hf_json_parse((const char *)data, size, "fuzz", &c, &err) != ST_OK)
        return 0;
    if (arch_of_config(&c, &a, &err) == ST_OK && arch_from_hf(a, &c, &hp, &err) == ST_OK) {
        float factors[512];
        int n;
        arch_rope_factors(&c, "short_factor", 512, factors, &n, &err);
        walk(a, &hp);
    }
    hf_json_release(&c);
    return 0;
}
