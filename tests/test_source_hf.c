/*
 * test_source_hf.c - a Hugging Face folder as a source: tensors under all the names that
 * checkpoints come with, the head and the embedding, and what is refused.
 */
#include "base/sha256.h"
#include "engine/model/view.h"
#include "hf_folder.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/stat.h>
/* after the headers that it needs */
#include "ok.h"
#include <cmocka.h>

/* A Llama of one layer: vocabulary 6, embedding 8, 2 heads of 4, 1 KV head, feed-forward 12. */
#define SIZES                                                                                  \
    "\"vocab_size\": 6, \"hidden_size\": 8, \"num_hidden_layers\": 1, "                        \
    "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"intermediate_size\": 12, "      \
    "\"max_position_embeddings\": 32, \"rms_norm_eps\": 1e-5, \"hidden_act\": \"silu\""
#define CONFIG(more) "{\"model_type\": \"llama\", " SIZES more "}"
#define TIED         ", \"tie_word_embeddings\": true"
#define UNTIED       ", \"tie_word_embeddings\": false"
/* A model that sees, around one that speaks. */
#define OUTER(more, inner)                                                                     \
    "{\"model_type\": \"mistral3\"" more                                                       \
    ", \"text_config\": {\"model_type\": \"mistral\", " SIZES inner "}}"

static const struct {
    const char *name, *shape;
    size_t n;
} layer_tensors[] = {
    {"input_layernorm", "[8]", 8},     {"self_attn.q_proj", "[8,8]", 64},
    {"self_attn.k_proj", "[4,8]", 32}, {"self_attn.v_proj", "[4,8]", 32},
    {"self_attn.o_proj", "[8,8]", 64}, {"post_attention_layernorm", "[8]", 8},
    {"mlp.gate_proj", "[12,8]", 96},   {"mlp.up_proj", "[12,8]", 96},
    {"mlp.down_proj", "[8,12]", 96},
};
enum { N_LAYER_TENSORS = sizeof layer_tensors / sizeof *layer_tensors };

static int make_folder(void **state) {
    (void)state;
    folder_make();
    return 0;
}

static int empty_folder(void **state) {
    (void)state;
    folder_empty();
    return 0;
}

static int drop_folder(void **state) {
    (void)state;
    folder_drop();
    return 0;
}

/* All of the model but the embedding and the head, with a prefix before "layers" and "norm". */
static void add_body(struct st_file *s, const char *prefix) {
    char name[128];
    for (size_t i = 0; i < N_LAYER_TENSORS; i++) {
        snprintf(name, sizeof name, "%slayers.0.%s.weight", prefix, layer_tensors[i].name);
        st_count(s, name, layer_tensors[i].shape, layer_tensors[i].n, (float)i * 100);
    }
    snprintf(name, sizeof name, "%snorm.weight", prefix);
    st_count(s, name, "[8]", 8, 0);
}

static void add_embedding(struct st_file *s, const char *prefix) {
    char name[128];
    snprintf(name, sizeof name, "%sembed_tokens.weight", prefix);
    st_count(s, name, "[6,8]", 48, 1000);
}

static struct source *opened(void) {
    struct source *s = NULL;
    OK(source_open(folder, &s, &e));
    return s;
}

static void open_fails(enum status want, const char *words) {
    struct source *s = NULL;
    struct err err = {0};
    enum status st = source_open(folder, &s, &err);
    if (st != want || !strstr(err.msg, words))
        fail_msg("got %d \"%s\", wanted %d with \"%s\"", st, err.msg, want, words);
}

static const struct source_tensor *found(struct source *s, const char *name) {
    const struct source_tensor *t = NULL;
    OK(source_find(s, name, &t, &e));
    return t;
}

static float first_of(const struct source_tensor *t) {
    float v[64];
    uint64_t row = 0;
    assert_true(t && t->K <= 64);
    t->format->rows(t, &row, 1, v);
    return v[0];
}

/* Asks for all that a Llama has. */
static void ask_for_all(struct source *s) {
    char name[128];
    for (size_t i = 0; i < N_LAYER_TENSORS; i++) {
        snprintf(name, sizeof name, "model.layers.0.%s.weight", layer_tensors[i].name);
        assert_true(first_of(found(s, name)) == (float)i * 100);
    }
    assert_non_null(found(s, "model.norm.weight"));
    assert_non_null(found(s, "model.embed_tokens.weight"));
    found(s, "lm_head.weight");
}

static void a_folder_opens_and_gives_its_tensors(void **state) {
    (void)state;
    struct st_file st = {0};
    struct buf file = {0};
    folder_text("config.json", CONFIG(UNTIED));
    add_body(&st, "model.");
    add_embedding(&st, "model.");
    st_count(&st, "lm_head.weight", "[6,8]", 48, 2000);
    st_end(&st, &file);
    folder_put("model.safetensors", file.p, file.len);
    struct source *s = opened();
    assert_string_equal(s->arch->name, "llama");
    assert_int_equal(s->hp.n_embd, 8);
    assert_int_equal(s->hp.head_dim, 4);
    assert_false(s->interleaved || s->is_gguf);
    assert_int_equal(s->file_bytes, file.len);
    assert_string_equal(source_text(s, "title"), path_base(folder));
    assert_null(source_text(s, "license"));
    assert_int_equal(source_all_used(s, &e), ST_UNSUPPORTED);
    ask_for_all(s);
    OK(source_all_used(s, &e));
    const struct source_tensor *t = found(s, "model.layers.0.self_attn.k_proj.weight");
    assert_int_equal(t->E, 1);
    assert_int_equal(t->N, 4);
    assert_int_equal(t->K, 8);
    assert_int_equal(t->n_bytes, 128);
    assert_string_equal(t->type, "F32");
    float v[16];
    const uint64_t rows[] = {3, 1};
    t->format->rows(t, rows, 2, v);
    assert_true(v[0] == 224 && v[7] == 231 && v[8] == 208);
    assert_ptr_equal(t, found(s, "model.layers.0.self_attn.k_proj.weight"));
    assert_true(first_of(found(s, "lm_head.weight")) == 2000);
    assert_int_equal(found(s, "model.norm.weight")->N, 1);
    assert_null(found(s, "model.layers.0.self_attn.k_proj.bias"));
    source_close(s);
    buf_release(&file);
}

static void names_are_found_under_every_prefix(void **state) {
    (void)state;
    static const char *const prefixes[] = {"model.", "", "language_model.model.",
                                           "model.language_model."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        struct st_file st = {0};
        folder_text("config.json", CONFIG(TIED));
        add_body(&st, prefixes[i]);
        add_embedding(&st, prefixes[i]);
        folder_st("model.safetensors", &st);
        struct source *s = opened();
        ask_for_all(s);
        OK(source_all_used(s, &e));
        source_close(s);
    }
}

#define GPT2                                                                                   \
    "\"model_type\": \"gpt2\", \"vocab_size\": 6, \"n_embd\": 8, \"n_layer\": 1, "             \
    "\"n_head\": 2, \"n_positions\": 16, \"n_ctx\": 16"

static void gpt2_is_found_with_its_prefix_and_without(void **state) {
    (void)state;
    for (int with = 0; with < 2; with++) {
        struct st_file st = {0};
        const char *p = with ? "transformer." : "";
        char name[64];
        folder_text("config.json", "{" GPT2 "}");
        snprintf(name, sizeof name, "%swte.weight", p);
        st_count(&st, name, "[6,8]", 48, 3);
        snprintf(name, sizeof name, "%sh.0.ln_1.bias", p);
        st_count(&st, name, "[8]", 8, 5);
        snprintf(name, sizeof name, "%sh.0.attn.bias", p);
        st_add(&st, name, "U8", "[1,1,2,2]", "\1\0\1\1", 4);
        folder_st("model.safetensors", &st);
        struct source *s = opened();
        assert_true(first_of(found(s, "transformer.wte.weight")) == 3);
        assert_true(first_of(found(s, "transformer.h.0.ln_1.bias")) == 5);
        assert_null(found(s, "lm_head.weight"));
        OK(source_all_used(s, &e)); /* the causal mask means nothing */
        source_close(s);
    }
}

struct sought {
    struct source *s;
    const char *name;
    struct view view;
};

static enum status take_view(void *user, const struct arch_slot *slot, struct err *err) {
    struct sought *x = user;
    return strcmp(slot->name, x->name) == 0 ? view_find(x->s, slot, &x->view, err) : ST_OK;
}

/* A transposed matrix of floats, and the same one as a library for quantising leaves it. */
static void a_conv1d_of_codes_is_a_linear_layer(void **state) {
    (void)state;
    enum { N = 24, K = 8 };
    for (int codes = 0; codes < 2; codes++) {
        struct st_file st = {0};
        float turned[K][N], scb[N], row[K];
        int8_t q[N][K];
        folder_text("config.json",
                    codes ? "{" GPT2 ", \"quantization_config\": {\"load_in_8bit\": true}}"
                          : "{" GPT2 "}");
        for (int n = 0; n < N; n++)
            for (int k = 0; k < K; k++) {
                q[n][k] = (int8_t)(n * 5 - k * 3);
                turned[k][n] = q[n][k];
            }
        for (int n = 0; n < N; n++)
            scb[n] = 127;
        st_count(&st, "transformer.wte.weight", "[6,8]", 48, 3);
        if (codes) {
            st_add(&st, "transformer.h.0.attn.c_attn.weight", "I8", "[24,8]", q, sizeof q);
            st_add(&st, "transformer.h.0.attn.c_attn.SCB", "F32", "[24]", scb, sizeof scb);
        } else
            st_add(&st, "transformer.h.0.attn.c_attn.weight", "F32", "[8,24]", turned,
                   sizeof turned);
        folder_st("model.safetensors", &st);
        struct source *s = opened();
        struct sought x = {.s = s, .name = "blk.0.attn_k"};
        OK(arch_visit(s->arch, &s->hp, take_view, &x, &e));
        assert_true(x.view.t && x.view.N == 8 && x.view.K == K);
        assert_int_equal(view_has_codes(&x.view), codes);
        for (int n = 0; n < 8; n++) {
            view_rows(&x.view, (uint64_t)n, 1, row);
            for (int k = 0; k < K; k++) /* codes: 127 / 127, not quite 1 */
                assert_true(fabsf(row[k] - q[8 + n][k]) < 1e-4f);
        }
        view_release(&x.view);
        source_close(s);
    }
}

/* What the head and the embedding are, where config.json says `more`, and the file has an
 * embedding, a head, a head with other values. First values; -1: there is none. */
static void head_case(const char *config, bool embd, bool head, float head_first,
                      float want_embd, float want_head) {
    struct st_file st = {0};
    folder_text("config.json", config);
    add_body(&st, "model.");
    if (embd)
        add_embedding(&st, "model.");
    if (head)
        st_count(&st, "lm_head.weight", "[6,8]", 48, head_first);
    folder_st("model.safetensors", &st);
    struct source *s = opened();
    const struct source_tensor *t = found(s, "lm_head.weight");
    assert_true((t ? first_of(t) : -1) == want_head);
    assert_true(first_of(found(s, "model.embed_tokens.weight")) == want_embd);
    ask_for_all(s);
    OK(source_all_used(s, &e));
    source_close(s);
}

static void a_tied_head_counts_only_where_it_differs(void **state) {
    (void)state;
    head_case(CONFIG(TIED), true, false, 0, 1000, -1);
    head_case(CONFIG(TIED), true, true, 1000, 1000, -1);
    head_case(CONFIG(TIED), true, true, 2000, 1000, 2000);
    head_case(CONFIG(TIED), false, true, 2000, 2000, -1);
    head_case(CONFIG(UNTIED), true, true, 2000, 1000, 2000);
    head_case(CONFIG(UNTIED), true, true, 1000, 1000, 1000);
    head_case(CONFIG(""), true, true, 2000, 1000, 2000);
    head_case(OUTER("", UNTIED), true, false, 0, 1000, -1);
    head_case(OUTER("", UNTIED), true, true, 2000, 1000, 2000);
    head_case(OUTER(UNTIED, TIED), true, true, 1000, 1000, 1000);
}

static void a_head_that_is_neither_tied_nor_there_is_missed(void **state) {
    (void)state;
    struct st_file st = {0};
    add_body(&st, "model.");
    add_embedding(&st, "model.");
    folder_st("model.safetensors", &st);
    folder_text("config.json", CONFIG(UNTIED));
    open_fails(ST_FORMAT, "tie_word_embeddings");
    folder_text("config.json", CONFIG("")); /* a Llama's head is its own */
    open_fails(ST_FORMAT, "tie_word_embeddings");
    folder_text("config.json", CONFIG(", \"tie_word_embeddings\": 1"));
    open_fails(ST_FORMAT, "tie_word_embeddings is 1, wanted true or false");
    add_body(&st, "model.");
    folder_st("model.safetensors", &st);
    folder_text("config.json", CONFIG(TIED));
    open_fails(ST_FORMAT, "has no embedding");
}

static void a_tensor_that_nobody_asks_for_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool ignored;
    } cases[] = {
        {"model.layers.0.self_attn.rotary_emb.inv_freq", true},
        {"model.layers.0.self_attn.extra.weight", false},
        {"model.layers.1.self_attn.q_proj.weight", false},
        {"vision_tower.patch.weight", false}, /* a config of one part has no other senses */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct st_file st = {0};
        folder_text("config.json", CONFIG(TIED));
        add_body(&st, "model.");
        add_embedding(&st, "model.");
        st_count(&st, cases[i].name, "[2]", 2, 0);
        folder_st("model.safetensors", &st);
        struct source *s = opened();
        ask_for_all(s);
        enum status result = source_all_used(s, &e);
        assert_int_equal(result, cases[i].ignored ? ST_OK : ST_UNSUPPORTED);
        if (!cases[i].ignored)
            assert_non_null(strstr(e.msg, cases[i].name));
        source_close(s);
    }
}

/* The text part of a model that sees as well. */
static void a_model_of_several_parts_gives_its_text_part(void **state) {
    (void)state;
    static const char *const seeing[] = {"vision_tower.patch.weight",
                                         "multi_modal_projector.linear.weight",
                                         "model.vision_tower.patch.weight"};
    static const char llama[] = "{\"model_type\": \"llama\"";
    struct st_file st = {0};
    struct buf config = {0};
    buf_adds(&config, "{\"model_type\": \"mistral3\", \"tie_word_embeddings\": true, "
                      "\"vision_config\": {\"hidden_size\": 99}, "
                      "\"text_config\": {\"model_type\": \"mistral\"");
    buf_adds(&config, CONFIG(", \"sliding_window\": null") + strlen(llama));
    buf_addc(&config, '}');
    folder_text("config.json", buf_str(&config));
    add_body(&st, "language_model.model.");
    add_embedding(&st, "language_model.model.");
    for (size_t i = 0; i < sizeof seeing / sizeof *seeing; i++)
        st_count(&st, seeing[i], "[2]", 2, 0);
    folder_st("model.safetensors", &st);
    struct source *s = opened();
    assert_int_equal(s->hp.n_embd, 8);
    ask_for_all(s);
    OK(source_all_used(s, &e));
    assert_null(found(s, "lm_head.weight"));
    source_close(s);
    buf_release(&config);
}

static void shapes_become_experts_rows_and_columns(void **state) {
    (void)state;
    struct st_file st = {0};
    unsigned char bytes[32] = {0};
    folder_text("config.json", CONFIG(TIED));
    add_embedding(&st, "model.");
    st_count(&st, "model.stack", "[2,3,4]", 24, 0);
    st_count(&st, "model.scalar", "[]", 1, 7);
    st_count(&st, "model.four", "[1,1,1,2]", 2, 0);
    st_add(&st, "model.empty", "F32", "[0,4]", bytes, 0);
    st_add(&st, "model.wide", "I64", "[1,2]", bytes, 16);
    st_add(&st, "model.fp8", "F8_E4M3", "[1,2]", "\x38\xb8", 2);
    folder_st("model.safetensors", &st);
    struct source *s = opened();
    const struct source_tensor *t = found(s, "model.stack");
    assert_true(t->E == 2 && t->N == 3 && t->K == 4);
    float v[64];
    uint64_t row = 4; /* the second expert's second */
    t->format->rows(t, &row, 1, v);
    assert_true(v[0] == 16 && v[3] == 19);
    t = found(s, "model.scalar");
    assert_true(t->E == 1 && t->N == 1 && t->K == 1 && first_of(t) == 7);
    t = found(s, "model.fp8");
    assert_true(first_of(t) == 1 && t->keep == WEIGHT_BF16);
    assert_int_equal(source_find(s, "model.four", &t, &e), ST_FORMAT);
    assert_non_null(strstr(e.msg, "model.four has 4 dimensions"));
    assert_int_equal(source_find(s, "model.empty", &t, &e), ST_FORMAT);
    assert_int_equal(source_find(s, "model.wide", &t, &e), ST_UNSUPPORTED);
    assert_string_equal(e.msg, "model.safetensors: tensor model.wide has type I64, which is no "
                               "type of weights; supported: F64, F32, F16, BF16, F8_E4M3, "
                               "F8_E5M2, I8, U8");
    source_close(s);
}

static void factors_that_config_json_lists_are_a_tensor(void **state) {
    (void)state;
    struct st_file st = {0};
    add_embedding(&st, "model.");
    folder_st("model.safetensors", &st);
    folder_text("config.json",
                CONFIG(TIED ", \"rope_scaling\": {\"type\": \"longrope\", \"factor\": 2.0, "
                            "\"short_factor\": [1.5, 2.5], \"long_factor\": [3.0, 4.0]}"));
    struct source *s = opened();
    const struct source_tensor *t = found(s, "config.json:long_factor");
    float v[2];
    uint64_t row = 0;
    assert_true(t && t->N == 1 && t->K == 2);
    t->format->rows(t, &row, 1, v);
    assert_true(v[0] == 3 && v[1] == 4);
    assert_true(first_of(found(s, "config.json:short_factor")) == 1.5f);
    assert_null(found(s, "config.json:other_factor"));
    source_close(s);
}

static void the_hash_is_that_of_all_files_in_order(void **state) {
    (void)state;
    struct st_file st = {0};
    struct buf a = {0}, b = {0};
    struct sha256 sum;
    char want[65], got[65];
    add_embedding(&st, "model.");
    st_end(&st, &b);
    add_body(&st, "model.");
    st_end(&st, &a);
    folder_put("b.safetensors", b.p, b.len);
    folder_put("a.safetensors", a.p, a.len);
    folder_text("model.safetensors.index.json",
                "{\"weight_map\": {\"model.embed_tokens.weight\": \"b.safetensors\", "
                "\"model.norm.weight\": \"a.safetensors\"}}");
    folder_text("config.json", CONFIG(TIED));
    sha256_init(&sum);
    sha256_add(&sum, a.p, a.len);
    sha256_add(&sum, b.p, b.len);
    sha256_hex(&sum, want);
    struct source *s = opened();
    _Atomic bool stop = false;
    source_hash(s, got, &stop);
    assert_string_equal(got, want);
    atomic_store(&stop, true);
    source_hash(s, got, &stop); /* of nothing */
    assert_memory_equal(got, "e3b0c442", 8);
    assert_int_equal(s->file_bytes, a.len + b.len);
    ask_for_all(s);
    OK(source_all_used(s, &e));
    source_close(s);
    buf_release(&a);
    buf_release(&b);
}

static void the_licence_is_the_model_cards(void **state) {
    (void)state;
    static const struct {
        const char *card, *want;
    } cases[] = {
        {"---\nlanguage:\n- en\nlicense: apache-2.0\n---\n# Model\n", "apache-2.0"},
        {"---\r\nlicense: \"mit\"\r\n---\r\n", "mit"},
        {"---\nlicense: other\nlicense_name: llama3.2\n---\n", "llama3.2"},
        {"---\nlicense: other\n---\n", NULL},
        {"---\nlanguage: en\n---\nlicense: mit\n", NULL},
        {"---\nlicense:\n- mit\n---\n", NULL},
        {"---\nlicense: a word too many\n---\n", NULL},
        {"---\nlicense: \x1b[31mred\n---\n", NULL},
        {"---\nlicense: mit", "mit"},
        {"license: mit\n", NULL},
        {"---", NULL},
        {"", NULL},
    };
    struct st_file st = {0};
    add_embedding(&st, "model.");
    folder_st("model.safetensors", &st);
    folder_text("config.json", CONFIG(TIED));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        folder_text("README.md", cases[i].card);
        struct source *s = opened();
        const char *got = source_text(s, "license");
        if ((got != NULL) != (cases[i].want != NULL) ||
            (got && strcmp(got, cases[i].want) != 0))
            fail_msg("%s: license %s", cases[i].card, got ? got : "none");
        source_close(s);
    }
}

/* As the hub's client lays it out: models--ORG--NAME/snapshots/HASH. */
static void a_snapshot_of_the_hub_has_the_repositorys_name(void **state) {
    (void)state;
    struct st_file st = {0};
    struct buf file = {0};
    char top[128], mid[160], dir[256], path[320];
    struct source *s = NULL;
    snprintf(top, sizeof top, "%s/models--org--Some-Model-1B", folder);
    snprintf(mid, sizeof mid, "%s/snapshots", top);
    snprintf(dir, sizeof dir, "%s/0123abc", mid);
    assert_int_equal(mkdir(top, 0700) | mkdir(mid, 0700) | mkdir(dir, 0700), 0);
    add_embedding(&st, "model.");
    st_end(&st, &file);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    OK(file_write_atomic(path, file.p, file.len, &e));
    snprintf(path, sizeof path, "%s/config.json", dir);
    OK(file_write_atomic(path, CONFIG(TIED), strlen(CONFIG(TIED)), &e));
    OK(source_open(dir, &s, &e));
    assert_string_equal(source_text(s, "title"), "Some-Model-1B");
    source_close(s);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    rmdir(dir);
    rmdir(mid);
    rmdir(top);
    buf_release(&file);
}

static void incomplete_folders_say_what_is_missing(void **state) {
    (void)state;
    struct st_file st = {0};
    open_fails(ST_NOT_FOUND, "has no file config.json");
    folder_text("adapter_config.json", "{\"peft_type\": \"LORA\"}");
    open_fails(ST_UNSUPPORTED, "adapter");
    folder_text("config.json", CONFIG(TIED));
    open_fails(ST_NOT_FOUND, "model.safetensors");
    folder_text("pytorch_model.bin", "x");
    open_fails(ST_UNSUPPORTED, "pickle");
    add_embedding(&st, "model.");
    folder_st("model.safetensors", &st);
    source_close(opened());
    folder_text("config.json", "{\"model_type\": \"nonesuch\"}");
    open_fails(ST_UNSUPPORTED, "nonesuch");
    folder_text("config.json", "{}");
    open_fails(ST_FORMAT, "config.json: model_type is missing");
    folder_text("config.json", "{\"model_type\": \"llama\"}");
    open_fails(ST_FORMAT, "config.json: ");
}

static void cut_files_are_refused(void **state) {
    (void)state;
    struct st_file st = {0};
    struct buf file = {0};
    static const char config[] = CONFIG(TIED);
    add_body(&st, "model.");
    add_embedding(&st, "model.");
    st_end(&st, &file);
    folder_put("model.safetensors", file.p, file.len);
    for (size_t i = 0; i < 8; i++) {
        folder_put("config.json", config, strlen(config) * i / 8);
        open_fails(ST_FORMAT, "config.json: ");
    }
    folder_text("config.json", config);
    for (size_t i = 0; i < 8; i++) {
        folder_put("model.safetensors", file.p, file.len * i / 8);
        open_fails(ST_FORMAT, "model.safetensors: ");
    }
    folder_put("model.safetensors", file.p, file.len);
    source_close(opened());
    buf_release(&file);
}

int main(void) {
#define T(f) cmocka_unit_test_setup(f, empty_folder)
    const struct CMUnitTest tests[] = {
        T(a_folder_opens_and_gives_its_tensors),
        T(names_are_found_under_every_prefix),
        T(gpt2_is_found_with_its_prefix_and_without),
        T(a_conv1d_of_codes_is_a_linear_layer),
        T(a_tied_head_counts_only_where_it_differs),
        T(a_head_that_is_neither_tied_nor_there_is_missed),
        T(a_tensor_that_nobody_asks_for_is_refused),
        T(a_model_of_several_parts_gives_its_text_part),
        T(shapes_become_experts_rows_and_columns),
        T(factors_that_config_json_lists_are_a_tensor),
        T(the_hash_is_that_of_all_files_in_order),
        T(the_licence_is_the_model_cards),
        T(a_snapshot_of_the_hub_has_the_repositorys_name),
        T(incomplete_folders_say_what_is_missing),
        T(cut_files_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
