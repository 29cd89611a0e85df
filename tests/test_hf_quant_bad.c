/*
 * test_hf_quant_bad.c - quantised Hugging Face checkpoints: where their configuration may be,
 * what is refused by name, and files whose parts are wrong.
 *
 * The wrong files are the golden checkpoints of test_hf_quant.c with one tensor changed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* after the headers that it needs */
#include <cmocka.h>

#include "engine/model/hf_quant_impl.h"
#include "hf_quant_case.h"

/* -- configurations ------------------------------------------------------------------- */

static char dir[64], path[128];

static int make_dir(void **state) {
    (void)state;
    strcpy(dir, "/tmp/llmchat-hfq-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state) {
    static const char *const files[] = {"model.safetensors", "quantize_config.json",
                                        "quant_config.json"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    return rmdir(dir);
}

static void put_file(const char *name, const char *text) {
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static enum status try_config(const char *json, char name[64]) {
    struct hf_json c;
    struct hf_quant *q = NULL;
    e = (struct err){0};
    OK(hf_json_parse(json, strlen(json), "config.json", &c, &e));
    enum status st = hf_quant_open(dir, &c, &q, &e);
    name[0] = 0;
    if (q)
        snprintf(name, 64, "%s, %d bits, group %d, block %d", q->method->name, q->bits[0],
                 q->group, (int)q->block[1]);
    hf_quant_free(q);
    hf_json_release(&c);
    return st;
}

static void the_configuration_is_found_where_it_may_be(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"{}", ""},
        {"{\"quantization_config\": null}", ""},
        {"{\"quantization_config\": {\"load_in_8bit\": true}}",
         "bitsandbytes, 0 bits, group 0, block 0"},
        {"{\"quantization_config\": {\"quant_method\": \"bitsandbytes\", \"_load_in_4bit\": "
         "true, \"load_in_4bit\": true}}",
         "bitsandbytes, 0 bits, group 0, block 0"},
        {"{\"text_config\": {\"quantization_config\": {\"quant_method\": \"awq\", \"bits\": 4, "
         "\"group_size\": 128, \"version\": \"GEMM\"}}}",
         "awq, 0 bits, group 128, block 0"},
        {"{\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": "
         "-1}}",
         "gptq, 4 bits, group 0, block 0"},
        {"{\"compression_config\": {\"quant_method\": \"compressed-tensors\", \"format\": "
         "\"pack-quantized\", \"config_groups\": {\"group_0\": {\"weights\": {\"num_bits\": 4, "
         "\"type\": \"int\"}}}, \"sparsity_config\": {\"format\": \"dense\"}}}",
         "compressed-tensors, 4 bits, group 0, block 0"},
        {"{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [128, "
         "128]}}",
         "fp8, 0 bits, group 0, block 128"},
    };
    char name[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        OK(try_config(cases[i][0], name));
        assert_string_equal(name, cases[i][1]);
    }
    put_file("quant_config.json", "{\"zero_point\": true, \"q_group_size\": 64, \"w_bit\": 4, "
                                  "\"version\": \"GEMM\"}");
    OK(try_config("{}", name));
    assert_string_equal(name, "awq, 0 bits, group 64, block 0");
    put_file("quantize_config.json", "{\"bits\": 8, \"group_size\": 32, \"desc_act\": true}");
    OK(try_config("{}", name));
    assert_string_equal(name, "gptq, 8 bits, group 32, block 0");
}

#define QC(rest) "{\"quantization_config\": {" rest "}}"

static void methods_and_settings_that_we_cannot_read_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *json;
        enum status code;
        const char *words[2];
    } cases[] = {
        {QC("\"quant_method\": \"hqq\""), ST_UNSUPPORTED, {"\"hqq\"", "bitsandbytes, gptq"}},
        {QC("\"quant_method\": \"eetq\""), ST_UNSUPPORTED, {"\"eetq\"", "compressed-tensors"}},
        {QC("\"quant_method\": \"aqlm\""), ST_UNSUPPORTED, {"\"aqlm\"", "awq"}},
        {QC("\"bits\": 4"), ST_FORMAT, {"quant_method", "config.json"}},
        {QC("\"quant_method\": 4"), ST_FORMAT, {"quant_method", "config.json"}},
        {"{\"quantization_config\": [1]}", ST_FORMAT, {"quantization_config", "config.json"}},
        {QC("\"quant_method\": \"gptq\""), ST_FORMAT, {"bits", "config.json"}},
        {QC("\"quant_method\": \"gptq\", \"bits\": 5"),
         ST_UNSUPPORTED,
         {"5 bits", "2, 3, 4, 8"}},
        {QC("\"quant_method\": \"gptq\", \"bits\": 4000000000"), ST_FORMAT, {"bits", "8"}},
        {QC("\"quant_method\": \"gptq\", \"bits\": 4, \"checkpoint_format\": \"marlin\""),
         ST_UNSUPPORTED,
         {"\"marlin\"", "gptq_v2"}},
        {QC("\"quant_method\": \"gptq\", \"bits\": 4, \"is_marlin_format\": true"),
         ST_UNSUPPORTED,
         {"\"marlin\"", "gptq_v2"}},
        {QC("\"quant_method\": \"awq\", \"bits\": 4, \"version\": \"gemv\""),
         ST_UNSUPPORTED,
         {"\"gemv\"", "gemm"}},
        {QC("\"quant_method\": \"awq\", \"bits\": 8"), ST_UNSUPPORTED, {"8 bits", "4"}},
        {QC("\"quant_method\": \"fp8\", \"weight_block_size\": [128]"),
         ST_FORMAT,
         {"weight_block_size", "two whole numbers"}},
        {QC("\"quant_method\": \"fp8\", \"weight_block_size\": [0, 128]"),
         ST_FORMAT,
         {"weight_block_size", "two whole numbers"}},
        {QC("\"quant_method\": \"compressed-tensors\", \"format\": \"marlin-24\""),
         ST_UNSUPPORTED,
         {"\"marlin-24\"", "pack-quantized"}},
        {QC("\"quant_method\": \"compressed-tensors\", \"format\": \"nvfp4-pack-quantized\""),
         ST_UNSUPPORTED,
         {"\"nvfp4-pack-quantized\"", "int-quantized"}},
        {QC("\"quant_method\": \"compressed-tensors\", \"format\": \"dense\", "
            "\"sparsity_config\": {\"format\": \"sparse-24-bitmask\"}"),
         ST_UNSUPPORTED,
         {"\"sparse-24-bitmask\"", "sparsity"}},
        {QC("\"quant_method\": \"compressed-tensors\", \"format\": \"int-quantized\", "
            "\"transform_config\": {\"config_groups\": {\"R1\": {}}}"),
         ST_UNSUPPORTED,
         {"transform_config", "none"}},
        {QC("\"quant_method\": \"compressed-tensors\", \"format\": \"mixed-precision\", "
            "\"config_groups\": {\"a\": {\"format\": \"mxfp4-pack-quantized\"}}"),
         ST_UNSUPPORTED,
         {"\"mxfp4-pack-quantized\"", "int-quantized"}},
        {QC("\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"a\": "
            "{\"weights\": {\"num_bits\": 4, \"type\": \"float\"}}}"),
         ST_UNSUPPORTED,
         {"float with 4 bits", "float with 8"}},
    };
    char name[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(try_config(cases[i].json, name), cases[i].code);
        for (int w = 0; w < 2; w++)
            if (!strstr(e.msg, cases[i].words[w]))
                fail_msg("\"%s\" says nothing of %s", e.msg, cases[i].words[w]);
    }
}

/* -- parts that are wrong ------------------------------------------------------------- */

/* A tensor of a golden checkpoint, changed. */
struct change {
    const char *from, *base; /* the checkpoint, and the matrix that is looked up */
    const char *tensor;
    bool drop;
    int dtype;         /* -1: as it is */
    uint64_t shape[3]; /* all 0: as it is; bytes are cut or zeros are added */
    int word;          /* -1, or the place of a 4-byte word to be replaced … */
    uint32_t value;    /* … by this */
    const char *text;  /* or NULL: all bytes are these */
    const char *words[2];
    enum status code;
};

static void put_tensor(struct container_writer *w, const struct ctensor *t, bool declare,
                       const struct change *x) {
    enum dtype dtype = t->dtype;
    uint64_t shape[CONTAINER_MAX_DIMS], n = 1;
    int n_dims = t->n_dims;
    memcpy(shape, t->shape, sizeof shape);
    if (x && x->dtype >= 0)
        dtype = (enum dtype)x->dtype;
    if (x && x->shape[0]) {
        memcpy(shape, x->shape, sizeof x->shape);
        n_dims = x->shape[2] ? 3 : x->shape[1] ? 2 : 1;
    }
    if (x && x->text) {
        shape[0] = strlen(x->text);
        n_dims = 1;
    }
    for (int d = 0; d < n_dims; d++)
        n *= shape[d];
    size_t len = n * dtype_size(dtype);
    if (declare) {
        container_writer_declare(w, t->name, dtype, n_dims, shape);
        return;
    }
    unsigned char *bytes = calloc(1, len + 4);
    memcpy(bytes, t->data, len < t->n_bytes ? len : t->n_bytes);
    if (x && x->text)
        memcpy(bytes, x->text, len);
    if (x && x->word >= 0)
        memcpy(bytes + 4 * x->word, &x->value, 4);
    OK(container_writer_put(w, bytes, len, &e));
    OK(container_writer_end_tensor(w, &e));
    free(bytes);
}

static void write_changed(const struct shards *s, const struct change *x) {
    struct container_writer *w = container_writer_new();
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    for (int pass = 0; pass < 2; pass++) {
        bool met = false, used;
        for (size_t i = 0; i < shards_n(s); i++) {
            const struct ctensor *t = shards_tensor(s, i, &used);
            bool is = strcmp(t->name, x->tensor) == 0;
            met |= is;
            if (!is || !x->drop)
                put_tensor(w, t, pass == 0, is ? x : NULL);
        }
        assert_true(met);
        if (pass == 0)
            OK(container_writer_begin(w, path, &e));
    }
    OK(container_writer_commit(w, &e));
    container_writer_free(w);
}

static void check_change(const struct change *x) {
    struct checkpoint c;
    struct shards *changed;
    struct source_tensor t;
    bool found;
    open_checkpoint(&c, golden_path(x->from, ""));
    write_changed(c.shards, x);
    OK(shards_open(dir, &changed, &e));
    e = (struct err){0};
    enum status st = hf_quant_find(c.quant, changed, x->base, &found, &t, &e);
    if (st != x->code)
        fail_msg("%s of %s: %s (%s), wanted %s", x->tensor, x->from, status_words(st), e.msg,
                 status_words(x->code));
    for (int w = 0; w < 2 && x->words[w]; w++)
        if (!strstr(e.msg, x->words[w]))
            fail_msg("\"%s\" says nothing of %s", e.msg, x->words[w]);
    shards_close(changed);
    close_checkpoint(&c);
}

#define SAME .dtype = -1, .word = -1
static const struct change changes[] = {
    /* parts that are not there */
    {"gptq_v1", "act", "act.qzeros", .drop = true, SAME, .words = {"act.qweight", "act.qzeros"},
     .code = ST_FORMAT},
    {"gptq_v1", "act", "act.scales", .drop = true, SAME, .words = {"act.qweight", "act.scales"},
     .code = ST_FORMAT},
    {"awq", "g64", "g64.qzeros", .drop = true, SAME, .words = {"g64.qweight", "g64.qzeros"},
     .code = ST_FORMAT},
    {"bnb4", "nf4", "nf4.weight", .drop = true, SAME,
     .words = {"nf4.weight.absmax", "no nf4.weight,"}, .code = ST_FORMAT},
    {"bnb4", "nf4", "nf4.weight.absmax", .drop = true, SAME, .words = {"no nf4.weight.absmax"},
     .code = ST_FORMAT},
    {"bnb4", "nf4", "nf4.weight.quant_map", .drop = true, SAME,
     .words = {"no nf4.weight.quant_map"}, .code = ST_FORMAT},
    {"bnb4", "nf4", "nf4.weight.nested_absmax", .drop = true, SAME,
     .words = {"no nf4.weight.nested_absmax"}, .code = ST_FORMAT},
    {"bnb4", "nf4", "nf4.weight.nested_quant_map", .drop = true, SAME,
     .words = {"nested_quant_map"}, .code = ST_FORMAT},
    {"bnb4", "nf4", "nf4.weight.quant_state.bitsandbytes__nf4", .drop = true, SAME,
     .words = {"quant_state"}, .code = ST_FORMAT},
    {"bnb8", "a", "a.weight", .drop = true, SAME, .words = {"a.SCB", "a.weight"},
     .code = ST_FORMAT},
    {"bnb8", "a", "a.weight_format", .drop = true, SAME, .code = ST_OK},
    {"ct_packed", "g64", "g64.weight_scale", .drop = true, SAME,
     .words = {"no g64.weight_scale"}, .code = ST_FORMAT},
    {"ct_packed", "g64", "g64.weight_shape", .drop = true, SAME,
     .words = {"no g64.weight_shape"}, .code = ST_FORMAT},
    {"ct_int", "channel", "channel.weight", .drop = true, SAME, .words = {"no channel.weight"},
     .code = ST_FORMAT},
    {"fp8", "even", "even.weight", .drop = true, SAME, .words = {"no even.weight"},
     .code = ST_FORMAT},
    {"mxfp4", "experts", "experts_scales", .drop = true, SAME, .words = {"no experts_scales"},
     .code = ST_FORMAT},
    {"mxfp4", "experts", "experts_blocks", .drop = true, SAME, .words = {"no experts_blocks"},
     .code = ST_FORMAT},
    /* codes without scales are no values */
    {"bnb8", "a", "a.SCB", .drop = true, SAME, .words = {"a.weight is I8", "SCB"},
     .code = ST_FORMAT},
    {"ct_int", "channel", "channel.weight_scale", .drop = true, SAME,
     .words = {"channel.weight is I8", "weight_scale"}, .code = ST_FORMAT},
    {"ct_float", "block", "block.weight_scale", .drop = true, SAME,
     .words = {"block.weight is F8_E4M3", "weight_scale"}, .code = ST_FORMAT},
    {"fp8", "even", "even.weight_scale_inv", .drop = true, SAME,
     .words = {"even.weight is F8_E4M3", "weight_scale_inv"}, .code = ST_FORMAT},
    /* shapes */
    {"mxfp4", "experts", "experts_scales", SAME, .shape = {3, 40, 1},
     .words = {"experts_scales is U8 3 x 40 x 1", "U8 3 x 20 x 2"}, .code = ST_FORMAT},
    {"mxfp4", "experts", "experts_blocks", SAME, .shape = {3, 80, 8},
     .words = {"experts_blocks is U8 3 x 80 x 8", "groups x 16"}, .code = ST_FORMAT},
    {"mxfp4", "experts", "experts_blocks", SAME, .shape = {60, 32}, .words = {"experts_blocks"},
     .code = ST_FORMAT},
    {"mxfp4", "experts", "experts_scales", .dtype = -1, .word = 1, .value = 0xe3807f7f,
     .words = {"experts_scales: scale 7 is 2^100"}, .code = ST_FORMAT},
    {"gptq_v1", "act", "act.qweight", SAME, .shape = {15, 64},
     .words = {"act.qweight is I32 15 x 64", "I32 16 x 64"}, .code = ST_FORMAT},
    {"gptq_v1", "act", "act.qweight", SAME, .shape = {1024},
     .words = {"act.qweight", "two dimensions"}, .code = ST_FORMAT},
    {"gptq_v1", "act", "act.qzeros", SAME, .shape = {4, 7},
     .words = {"act.qzeros is I32 4 x 7", "I32 4 x 8"}, .code = ST_FORMAT},
    {"gptq_v1", "act", "act.qzeros", SAME, .shape = {3, 8},
     .words = {"act.qzeros is I32 3 x 8", "I32 4 x 8"}, .code = ST_FORMAT},
    {"gptq_v1", "act", "act.scales", SAME, .shape = {4, 63},
     .words = {"act.scales", "groups x 64"}, .code = ST_FORMAT},
    {"gptq_v1", "act", "act.g_idx", SAME, .shape = {127}, .words = {NULL}, .code = ST_OK},
    {"gptq_v1", "act", "act.g_idx", SAME, .shape = {129},
     .words = {"act.qweight", "I32 17 x 64"}, .code = ST_FORMAT},
    {"gptq_v1", "act", "act.g_idx", SAME, .shape = {16, 8}, .words = {"act.g_idx", "I32 128"},
     .code = ST_FORMAT},
    {"gptq_v1", "noidx", "noidx.qweight", SAME, .shape = {13, 32},
     .words = {"noidx.scales", "4 rows"}, .code = ST_FORMAT},
    {"awq", "g64", "g64.qweight", SAME, .shape = {192, 11},
     .words = {"g64.qweight", "I32 inputs x 12"}, .code = ST_FORMAT},
    {"awq", "g64", "g64.qweight", SAME, .shape = {191, 12},
     .words = {"g64.scales", "divides 191"}, .code = ST_FORMAT},
    {"awq", "g64", "g64.qzeros", SAME, .shape = {2, 12}, .words = {"g64.qzeros", "I32 3 x 12"},
     .code = ST_FORMAT},
    {"awq", "g64", "g64.scales", SAME, .shape = {3, 95},
     .words = {"g64.scales", "multiple of 8"}, .code = ST_FORMAT},
    {"bnb4", "nf4", "nf4.weight", SAME, .shape = {3071, 1},
     .words = {"nf4.weight is U8 3071 x 1", "3072 bytes"}, .code = ST_FORMAT},
    {"bnb4", "nf4", "nf4.weight.absmax", SAME, .shape = {95},
     .words = {"nf4.weight.absmax", "96 values"}, .code = ST_FORMAT},
    {"bnb4", "nf4_nested", "nf4_nested.weight.nested_absmax", SAME, .shape = {1},
     .words = {"nested_absmax", "F32 2"}, .code = ST_FORMAT},
    {"bnb4", "nf4", "nf4.weight.nested_quant_map", SAME, .shape = {255},
     .words = {"nested_quant_map", "F32 256"}, .code = ST_FORMAT},
    {"bnb4", "nf4", "nf4.weight.quant_map", SAME, .shape = {15},
     .words = {"quant_map", "F32 16"}, .code = ST_FORMAT},
    {"bnb8", "a", "a.SCB", SAME, .shape = {47}, .words = {"a.SCB", "F32 48"},
     .code = ST_FORMAT},
    {"bnb8", "a", "a.weight", SAME, .shape = {48, 2, 64},
     .words = {"a.weight", "two dimensions"}, .code = ST_FORMAT},
    {"ct_packed", "g64", "g64.weight_packed", SAME, .shape = {48, 15},
     .words = {"weight_packed is I32 48 x 15", "I32 48 x 16"}, .code = ST_FORMAT},
    {"ct_packed", "g64", "g64.weight_scale", SAME, .shape = {48, 3},
     .words = {"weight_scale", "divides 128"}, .code = ST_FORMAT},
    {"ct_packed", "g64", "g64.weight_scale", SAME, .shape = {47, 2},
     .words = {"weight_scale", "48 x groups"}, .code = ST_FORMAT},
    {"ct_packed", "g32_asym", "g32_asym.weight_zero_point", SAME, .shape = {4, 3},
     .words = {"weight_zero_point", "I32 5 x 3"}, .code = ST_FORMAT},
    {"ct_packed", "actorder", "actorder.weight_g_idx", SAME, .shape = {64},
     .words = {"weight_g_idx", "I32 128"}, .code = ST_FORMAT},
    {"ct_int", "channel", "channel.weight", SAME, .shape = {3200},
     .words = {"channel.weight", "two dimensions"}, .code = ST_FORMAT},
    {"fp8", "even", "even.weight_scale_inv", SAME, .shape = {5, 3},
     .words = {"even.weight_scale_inv", "2 x 3"}, .code = ST_FORMAT},
    {"fp8", "even", "even.weight_scale_inv", SAME, .shape = {2, 3, 1},
     .words = {"even.weight_scale_inv", "block"}, .code = ST_FORMAT},
    /* types */
    {"gptq_v1", "act", "act.qweight", .dtype = DTYPE_F32, .word = -1,
     .words = {"act.qweight is F32", "I32"}, .code = ST_FORMAT},
    {"gptq_v1", "act", "act.qzeros", .dtype = DTYPE_F32, .word = -1,
     .words = {"act.qzeros is F32", "I32"}, .code = ST_FORMAT},
    {"gptq_v1", "act", "act.scales", .dtype = DTYPE_I16, .word = -1,
     .words = {"act.scales is I16", "F16"}, .code = ST_FORMAT},
    {"gptq_v1", "act", "act.g_idx", .dtype = DTYPE_F32, .word = -1,
     .words = {"act.g_idx is F32", "I32 128"}, .code = ST_FORMAT},
    {"bnb4", "nf4", "nf4.weight.quant_map", .dtype = DTYPE_I32, .word = -1,
     .words = {"quant_map is I32", "F32 16"}, .code = ST_FORMAT},
    {"bnb4", "nf4_single", "nf4_single.weight.absmax", .dtype = DTYPE_I32, .word = -1,
     .words = {"absmax is I32", "F32"}, .code = ST_FORMAT},
    {"bnb8", "a", "a.weight", .dtype = DTYPE_U8, .word = -1, .words = {"a.weight is U8", "I8"},
     .code = ST_FORMAT},
    {"ct_packed", "g64", "g64.weight_shape", .dtype = DTYPE_F64, .word = -1,
     .words = {"weight_shape is F64", "I64 2"}, .code = ST_FORMAT},
    {"ct_int", "channel", "channel.weight", .dtype = DTYPE_U8, .word = -1,
     .words = {"channel.weight is U8", "I8"}, .code = ST_FORMAT},
    {"fp8", "even", "even.weight", .dtype = DTYPE_U8, .word = -1,
     .words = {"even.weight is U8", "F8_E4M3"}, .code = ST_FORMAT},
    /* values */
    {"gptq_v1", "act", "act.g_idx", .dtype = -1, .word = 5, .value = 4,
     .words = {"act.g_idx: column 5 is in group 4", "0 to 3"}, .code = ST_FORMAT},
    {"gptq_v1", "act", "act.g_idx", .dtype = -1, .word = 127, .value = 0xffffffff,
     .words = {"act.g_idx: column 127 is in group -1", "0 to 3"}, .code = ST_FORMAT},
    {"gptq_v1", "act", "act.g_idx", .dtype = -1, .word = 0, .value = 0x80000000,
     .words = {"act.g_idx: column 0"}, .code = ST_FORMAT},
    {"gptq_v1", "f32", "f32.scales", .dtype = -1, .word = 3, .value = 0x7f800000,
     .words = {"f32.scales: scale 3 is inf"}, .code = ST_FORMAT},
    {"bnb4", "nf4_single", "nf4_single.weight.absmax", .dtype = -1, .word = 7,
     .value = 0x7fc00000, .words = {"absmax: scale 7 is nan"}, .code = ST_FORMAT},
    {"bnb4", "nf4", "nf4.weight.quant_map", .dtype = -1, .word = 15, .value = 0x40000000,
     .words = {"quant_map: value 15 is 2", "wanted 1 of nf4"}, .code = ST_UNSUPPORTED},
    {"bnb4", "nf4", "nf4.weight.quant_map", .dtype = -1, .word = 2, .value = 0x7fc00000,
     .words = {"quant_map: value 2 is nan"}, .code = ST_UNSUPPORTED},
    {"bnb8", "a", "a.SCB", .dtype = -1, .word = 0, .value = 0x7f7fffff,
     .words = {"a.SCB: scale 0", "2^100"}, .code = ST_FORMAT},
    {"ct_packed", "g64", "g64.weight_shape", .dtype = -1, .word = 0, .value = 0,
     .words = {"weight_shape", "0 x 128"}, .code = ST_FORMAT},
    {"ct_packed", "g64", "g64.weight_shape", .dtype = -1, .word = 3, .value = 0xffffffff,
     .words = {"weight_shape", "2^31"}, .code = ST_FORMAT},
    {"ct_packed", "g64", "g64.weight_shape", .dtype = -1, .word = 2, .value = 72,
     .words = {"weight_packed is I32 48 x 16", "48 x 9"}, .code = ST_FORMAT},
    {"ct_packed", "actorder", "actorder.weight_g_idx", .dtype = -1, .word = 9, .value = 4,
     .words = {"weight_g_idx: column 9"}, .code = ST_FORMAT},
};

#define STATE(text_, code_, ...)                                                               \
    {                                                                                          \
        "bnb4", "nf4", "nf4.weight.quant_state.bitsandbytes__nf4",                             \
            .dtype = -1, .word = -1, .text = text_, .words = {__VA_ARGS__}, .code = code_      \
    }
#define NF4 "\"quant_type\": \"nf4\", \"dtype\": \"bfloat16\", "
static const struct change states[] = {
    STATE("{", ST_FORMAT, "bitsandbytes__nf4"),
    STATE("[]", ST_FORMAT, "bitsandbytes__nf4"),
    STATE("{}", ST_FORMAT, "quant_type"),
    STATE("{\"quant_type\": \"af4\", \"dtype\": \"bfloat16\", \"blocksize\": 64, \"shape\": "
          "[48, 128]}",
          ST_UNSUPPORTED, "\"af4\"", "nf4, fp4"),
    STATE("{" NF4 "\"blocksize\": 0, \"shape\": [48, 128]}", ST_FORMAT, "blocksize"),
    STATE("{" NF4 "\"blocksize\": -64, \"shape\": [48, 128]}", ST_FORMAT, "blocksize"),
    STATE("{" NF4 "\"blocksize\": 1e300, \"shape\": [48, 128]}", ST_FORMAT, "blocksize"),
    STATE("{" NF4 "\"blocksize\": 64}", ST_FORMAT, "shape"),
    STATE("{" NF4 "\"blocksize\": 64, \"shape\": [48]}", ST_FORMAT, "shape"),
    STATE("{" NF4 "\"blocksize\": 64, \"shape\": [48, 1, 128]}", ST_FORMAT, "shape"),
    STATE("{" NF4 "\"blocksize\": 64, \"shape\": \"48\"}", ST_FORMAT, "shape"),
    STATE("{" NF4 "\"blocksize\": 64, \"shape\": [4294967296, 4294967297]}", ST_FORMAT,
          "shape"),
    STATE("{" NF4 "\"blocksize\": 64, \"shape\": [0, 128]}", ST_FORMAT, "shape"),
    STATE("{" NF4 "\"blocksize\": 64, \"shape\": [49, 128]}", ST_FORMAT, "nf4.weight",
          "49 x 128"),
    STATE("{" NF4 "\"blocksize\": 128, \"shape\": [48, 128], \"nested_blocksize\": 256}",
          ST_FORMAT, "absmax", "48 values"),
    STATE("{" NF4 "\"blocksize\": 64, \"shape\": [48, 128]}", ST_FORMAT, "nested_blocksize"),
    STATE("{" NF4 "\"blocksize\": 64, \"shape\": [48, 128], \"nested_blocksize\": 0}",
          ST_FORMAT, "nested_blocksize"),
    STATE("{" NF4 "\"blocksize\": 64, \"shape\": [48, 128], \"nested_blocksize\": 256, "
          "\"nested_offset\": 1e38}",
          ST_FORMAT, "nested_offset", "2^100"),
    STATE("{" NF4 "\"blocksize\": 64, \"shape\": [48, 128], \"nested_blocksize\": 256, "
          "\"nested_offset\": NaN}",
          ST_FORMAT, "nested_offset", "NaN"),
    STATE("{" NF4 "\"blocksize\": 64, \"shape\": [48, 128], \"nested_blocksize\": 256, "
          "\"nested_dtype\": \"float16\"}",
          ST_UNSUPPORTED, "nested_dtype", "float32"),
};

static void parts_that_are_wrong_are_named(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
        check_change(&changes[i]);
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        check_change(&states[i]);
}

/* What a configuration says that parts cannot: whether one of them may be missing. */
static void parts_that_the_configuration_promises_are_missed(void **state) {
    (void)state;
#define GPTQ(more) QC("\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 32" more)
#define CT(weights)                                                                            \
    QC("\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", "            \
       "\"config_groups\": {" weights "}")
#define ASYM "\"weights\": {\"num_bits\": 4, \"symmetric\": false}"
    static const struct {
        const char *from, *json, *base, *words;
    } cases[] = {
        {"gptq_v1", GPTQ(", \"desc_act\": true"), "noidx", "no noidx.g_idx"},
        {"gptq_v1", GPTQ(", \"desc_act\": true"), "act", NULL},
        {"gptq_v1", GPTQ(", \"desc_act\": true"), "channel", NULL}, /* one group */
        {"gptq_v1", GPTQ(", \"desc_act\": true, \"static_groups\": true"), "noidx", NULL},
        {"gptq_v1", GPTQ(", \"desc_act\": false"), "noidx", NULL},
        {"ct_packed", CT("\"a\": {" ASYM "}"), "g64", "no g64.weight_zero_point"},
        {"ct_packed", CT("\"a\": {" ASYM "}"), "g32_asym", NULL},
        {"ct_packed", CT("\"a\": {" ASYM "}, \"b\": {\"weights\": {\"num_bits\": 4}}"), "g64",
         NULL},
        {"ct_packed", CT("\"b\": {\"weights\": {\"num_bits\": 4}}, \"a\": {" ASYM "}"), "g64",
         NULL},
        {"ct_packed", CT("\"a\": {\"weights\": null}"), "g64", "num_bits"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct checkpoint c;
        struct hf_json j;
        struct hf_quant *q;
        struct source_tensor t;
        bool found;
        open_checkpoint(&c, golden_path(cases[i].from, ""));
        OK(hf_json_parse(cases[i].json, strlen(cases[i].json), "config.json", &j, &e));
        OK(hf_quant_open(dir, &j, &q, &e));
        e = (struct err){0};
        enum status st = hf_quant_find(q, c.shards, cases[i].base, &found, &t, &e);
        if (st != (cases[i].words ? ST_FORMAT : ST_OK) ||
            (cases[i].words && !strstr(e.msg, cases[i].words)))
            fail_msg("%s with %s: \"%s\"", cases[i].base, cases[i].json, e.msg);
        hf_quant_free(q);
        hf_json_release(&j);
        close_checkpoint(&c);
    }
}

static void floats_of_8_bits_become_the_type_of_their_scales(void **state) {
    (void)state;
    static const struct change x = {"fp8", "bf16", "bf16.weight_scale_inv", .dtype = DTYPE_F16,
                                    .word = -1};
    struct checkpoint c;
    struct shards *changed;
    struct source_tensor t;
    bool found;
    open_checkpoint(&c, golden_path(x.from, ""));
    write_changed(c.shards, &x);
    OK(shards_open(dir, &changed, &e));
    OK(hf_quant_find(c.quant, changed, x.base, &found, &t, &e));
    assert_int_equal(t.keep, WEIGHT_F16);
    assert_non_null(strstr(t.inexact, "F16"));
    shards_close(changed);
    close_checkpoint(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_configuration_is_found_where_it_may_be, make_dir,
                                        drop_dir),
        cmocka_unit_test_setup_teardown(
            methods_and_settings_that_we_cannot_read_are_refused_by_name, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(parts_that_are_wrong_are_named, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(parts_that_the_configuration_promises_are_missed,
                                        make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(floats_of_8_bits_become_the_type_of_their_scales,
                                        make_dir, drop_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
