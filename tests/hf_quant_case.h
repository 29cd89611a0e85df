/* hf_quant_case.h - the golden checkpoints of test_hf_quant*.c: behind cmocka.h. */
#ifndef LLMCHAT_TESTS_HF_QUANT_CASE_H
#define LLMCHAT_TESTS_HF_QUANT_CASE_H

#include "engine/model/hf_json.h"
#include "engine/model/hf_quant.h"
#include "ok.h"
#include <stdio.h>
#include <stdlib.h>

/* tests/golden/hf_quant/NAME with an ending; until the next call. */
static inline const char *golden_path(const char *name, const char *ending) {
    static char path[512];
    const char *dir = getenv("srcdir");
    snprintf(path, sizeof path, "%s/tests/golden/hf_quant/%s%s", dir ? dir : ".", name, ending);
    return path;
}

struct checkpoint {
    struct hf_json config;
    struct hf_quant *quant;
    struct shards *shards;
};

static inline void open_checkpoint(struct checkpoint *c, const char *dir) {
    *c = (struct checkpoint){0};
    OK(hf_json_load(dir, "config.json", true, 1 << 20, &c->config, &e));
    OK(hf_quant_open(dir, &c->config, &c->quant, &e));
    OK(shards_open(dir, &c->shards, &e));
}

static inline void close_checkpoint(struct checkpoint *c) {
    hf_quant_free(c->quant);
    shards_close(c->shards);
    hf_json_release(&c->config);
}

#endif
