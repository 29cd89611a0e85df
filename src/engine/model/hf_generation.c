/*
 * hf_generation.c - see hf_generation.h.
 *
 * Only a file that says do_sample counts: without it transformers takes the likeliest token
 * and never looks at the numbers, which are then often leftovers. A number that is at
 * transformers' own default is not written into the file by save_pretrained(), so a missing
 * one means that default: top_k 50, everything else off.
 */
#include "engine/model/hf_generation.h"
#include "engine/model/hf_json.h"

#include <stdlib.h>

static const struct {
    const char *theirs, *ours;
    bool whole;
    double missing, min, max;
} numbers[] = {
    {"temperature", "temperature", false, 1, 0, 5},
    {"top_k", "top_k", true, 50, 0, 1000},
    {"top_p", "top_p", false, 1, 0, 1},
    {"min_p", "min_p", false, 0, 0, 1},
    {"typical_p", "typical_p", false, 1, 0, 1},
    {"repetition_penalty", "repeat_penalty", false, 1, 0.1, 5},
};

static enum status suggest(const struct hf_json *j, json_t *out, struct err *err) {
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        float v = (float)numbers[i].missing;
        CHECK(hf_num(j, numbers[i].theirs, false, &v, err));
        if ((double)v < numbers[i].min || (double)v > numbers[i].max)
            return err_set(err, ST_FORMAT, "%s: %s is %g, wanted %g..%g", j->file,
                           numbers[i].theirs, (double)v, numbers[i].min, numbers[i].max);
        json_t *number =
            hf_get(j, numbers[i].theirs); /* as written: 0.6, not the float's 0.6 */
        double d = number ? json_number_value(number) : numbers[i].missing;
        json_object_set_new(out, numbers[i].ours,
                            numbers[i].whole ? json_integer((json_int_t)d) : json_real(d));
    }
    return ST_OK;
}

enum status hf_generation(const char *dir, char **out, struct err *err) {
    struct hf_json j = {0};
    json_t *all = json_object();
    bool sample = false;
    enum status st;
    *out = NULL;
    TRY(hf_json_load(dir, "generation_config.json", false, 1 << 20, &j, err));
    if (j.root)
        TRY(hf_bool(&j, "do_sample", &sample, err));
    if (sample)
        TRY(suggest(&j, all, err));
    if (json_object_size(all))
        *out = json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(10));
out:
    hf_json_release(&j);
    json_decref(all);
    return st;
}
