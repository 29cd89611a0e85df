/*
 * test_create.c - models made from GGUF files: what comes out, what is refused, and that
 * failing leaves nothing behind.
 *
 * The sources are tiny Llama models built here, with sizes that are no multiples of 16 and 64.
 * All files live under a folder of their own, through LLMCHAT_HOME.
 */
#include "base/file_map.h"
#include "base/path.h"
#include "base/sha256.h"
#include "engine/engine.h"
#include "engine/model/model.h"
#include "engine/quant/pack.h"
#include "engine/text.h"
#include "gguf_build.h"
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the headers that it needs */
#include <cmocka.h>

enum { EMBD = 80, FF = 72, HEADS = 5, KV = 1, VOCAB = 21, LAYERS = 2 };

static char dir[64], source[96];

static int make_dir(void **state) {
    (void)state;
    strcpy(dir, "/tmp/llmchat-create-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(source, sizeof source, "%s/tiny.gguf", dir);
    setenv("LLMCHAT_HOME", dir, 1);
    signal(SIGXFSZ, SIG_IGN);
    return 0;
}

static int drop_dir(void **state) {
    (void)state;
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd);
}

/* What is to differ from a right file. */
struct tiny {
    const char *architecture, *scaling, *extra_tensor, *leave_out, *wide, *odd_type;
    uint32_t kv_heads, rope_dim, parts;
    int head, freqs; /* 1: with output.weight, rope_freqs.weight */
    bool head_f16;   /* output.weight is F16 */
    float first;     /* value of the first weight of token_embd */
    const char *chat_template, *tool_template;
};

static const struct tiny right = {
    .architecture = "llama", .kv_heads = KV, .rope_dim = EMBD / HEADS, .first = 0.5f};

/* The value of element i of a tensor; any but the first of token_embd. */
static float value(const char *name, size_t i) {
    uint32_t s = 0;
    for (; *name; name++)
        s = s * 31 + (unsigned char)*name;
    s = (s + (uint32_t)i) * 2654435761u;
    return ((float)(s >> 8) / 8388608.0f - 1.0f) * 0.1f;
}

struct builder {
    const struct tiny *t;
    struct buf info, data;
    uint64_t n;
};

static void add(struct builder *b, const char *name, uint64_t ne0, uint64_t ne1) {
    if (b->t->leave_out && strcmp(name, b->t->leave_out) == 0)
        return;
    if (b->t->wide && strcmp(name, b->t->wide) == 0)
        ne0 += 1;
    bool odd = b->t->odd_type && strcmp(name, b->t->odd_type) == 0;
    bool half = b->t->head_f16 && strcmp(name, "output.weight") == 0;
    gb_tensor(&b->info, name, ne1 ? 2 : 1, odd ? 256 : ne0, ne1, odd ? 16 : half, b->data.len);
    for (size_t i = 0; half && i < ne0 * ne1; i += 2)
        gb_f32(&b->data, 0);
    for (size_t i = 0; !half && i < ne0 * (ne1 ? ne1 : 1); i++)
        gb_f32(&b->data,
               i == 0 && strcmp(name, "token_embd.weight") == 0 ? b->t->first : value(name, i));
    for (int i = 0; odd && i < 66 * 100; i++) /* room for the odd type */
        buf_addc(&b->data, 0);
    gb_align(&b->data, 32);
    b->n++;
}

static void add_layer(struct builder *b, int l) {
    static const struct {
        const char *name;
        uint64_t ne0, ne1;
    } tensors[] = {
        {"attn_norm", EMBD, 0},    {"attn_q", EMBD, EMBD},      {"attn_k", EMBD, 16 * KV},
        {"attn_v", EMBD, 16 * KV}, {"attn_output", EMBD, EMBD}, {"ffn_norm", EMBD, 0},
        {"ffn_gate", EMBD, FF},    {"ffn_up", EMBD, FF},        {"ffn_down", FF, EMBD}};
    char name[64];
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", l, tensors[i].name);
        add(b, name, tensors[i].ne0, tensors[i].ne1);
    }
}

static void write_tiny(const struct tiny *t) {
    struct builder b = {.t = t};
    struct buf f = {0};
    struct err err = {0};
    add(&b, "token_embd.weight", EMBD, VOCAB);
    add(&b, "output_norm.weight", EMBD, 0);
    if (t->freqs)
        add(&b, "rope_freqs.weight", EMBD / HEADS / 2, 0);
    if (t->head)
        add(&b, "output.weight", EMBD, VOCAB);
    for (int l = 0; l < LAYERS; l++)
        add_layer(&b, l);
    if (t->extra_tensor)
        add(&b, t->extra_tensor, EMBD, 0);
    gb_head(&f, 3, b.n, t->tool_template ? 20 : 18);
    gb_kv_u32(&f, "split.count", t->parts);
    gb_kv_str(&f, "general.architecture", t->architecture);
    gb_kv_str(&f, "general.name", "Tiny");
    gb_kv_str(&f, "general.license", "mit");
    gb_kv_u32(&f, "llama.block_count", LAYERS);
    gb_kv_u32(&f, "llama.embedding_length", EMBD);
    gb_kv_u32(&f, "llama.feed_forward_length", FF);
    gb_kv_u32(&f, "llama.attention.head_count", HEADS);
    gb_kv_u32(&f, "llama.attention.head_count_kv", t->kv_heads);
    gb_kv_u32(&f, "llama.context_length", 256);
    gb_kv_u32(&f, "llama.rope.dimension_count", t->rope_dim);
    gb_kv_f32(&f, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gb_kv_str(&f, "llama.rope.scaling.type", t->scaling ? t->scaling : "none");
    gb_kv_f32(&f, "llama.rope.scaling.factor", 4);
    gb_kv_str(&f, "tokenizer.ggml.model", "gpt2");
    gb_kv_str(&f, "tokenizer.chat_template",
              t->chat_template ? t->chat_template : "{{ messages }}");
    if (t->tool_template) {
        gb_kv_array(&f, "tokenizer.chat_templates", GGUF_STR, 1);
        gb_str(&f, "tool_use");
        gb_kv_str(&f, "tokenizer.chat_template.tool_use", t->tool_template);
    }
    gb_kv_array(&f, "tokenizer.ggml.tokens", GGUF_STR, VOCAB);
    for (int i = 0; i < VOCAB; i++)
        gb_str(&f, (char[]){(char)('a' + i), 0});
    gb_kv_u32(&f, "tokenizer.ggml.eos_token_id", 5);
    buf_add(&f, b.info.p, b.info.len);
    gb_align(&f, 32);
    buf_add(&f, b.data.p, b.data.len);
    assert_int_equal(file_write_atomic(source, f.p, f.len, &err), ST_OK);
    buf_release(&b.info);
    buf_release(&b.data);
    buf_release(&f);
}

static enum status create(const char *name, enum quant q, struct err *err) {
    struct create_params p = {
        .name = name, .from = source, .quant = q, .head_quant = QUANT_N, .replace = true};
    *err = (struct err){0};
    return models_create(&p, err);
}

static char *model_path(const char *name) {
    return xasprintf("%s/data/models/%s.safetensors", dir, name);
}

/* Files in the models folder. */
static int n_files(void) {
    char path[128];
    int n = 0;
    snprintf(path, sizeof path, "%s/data/models", dir);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

/* w holds the generated tensor `name`, as packing it as type t gives it. */
static void check_weight(const struct weight *w, enum weight_type t, const char *name, int N,
                         int K) {
    float *x = xreallocarray(NULL, (size_t)N * (size_t)K, sizeof *x);
    float got[EMBD], want[EMBD];
    struct weight expect;
    for (size_t i = 0; i < (size_t)N * (size_t)K; i++)
        x[i] = value(name, i);
    if (strcmp(name, "token_embd.weight") == 0)
        x[0] = right.first;
    weight_pack(&expect, t, x, N, K);
    assert_int_equal(w->type, t);
    assert_int_equal(w->N, N);
    assert_int_equal(w->K, K);
    assert_int_equal((uintptr_t)w->data % 64, 0);
    for (int n = 0; n < expect.Np; n++) {
        weight_unpack_row(w, n, got);
        weight_unpack_row(&expect, n, want);
        assert_memory_equal(got, want, (size_t)K * sizeof *got);
    }
    weight_pack_release(&expect);
    free(x);
}

static void check_model(const struct model *m, enum quant q, enum quant head) {
    static const enum weight_type types[] = {WEIGHT_Q4, WEIGHT_I8, WEIGHT_BF16, WEIGHT_F32,
                                             WEIGHT_F32}; /* keep: as the source has it */
    assert_int_equal(m->hp.n_layer, LAYERS);
    assert_int_equal(m->hp.n_vocab, VOCAB);
    assert_int_equal(m->hp.head_dim, EMBD / HEADS);
    assert_int_equal(m->hp.n_head_kv, KV);
    assert_true(m->hp.norm_eps == 1e-5f && m->hp.rope_base == 10000 && m->hp.rope_scale == 1);
    assert_string_equal(m->info.quant, q == QUANT_KEEP ? "F32" : quant_name(q));
    assert_string_equal(m->info.head_quant, q == QUANT_KEEP ? "F32" : quant_name(head));
    check_weight(&m->embd.w, types[head], "token_embd.weight", VOCAB, EMBD);
    check_weight(&m->layers[1].wk.w, types[q], "blk.1.attn_k.weight", 16 * KV, EMBD);
    check_weight(&m->layers[0].gate.w, types[q], "blk.0.ffn_gate.weight", FF, EMBD);
    check_weight(&m->layers[1].down.w, types[q], "blk.1.ffn_down.weight", EMBD, FF);
    for (size_t i = 0; i < EMBD; i++) {
        assert_true(m->layers[1].ffn_norm.g[i] == value("blk.1.ffn_norm.weight", i));
        assert_true(m->out_norm.g[i] == value("output_norm.weight", i));
    }
    assert_int_equal(text_n_vocab(m->text), VOCAB);
    assert_int_equal(text_eos(m->text), 5);
    assert_string_equal(text_chat_template(m->text), "{{ messages }}");
}

static void every_quantisation_opens_with_its_values(void **state) {
    (void)state;
    static const enum quant heads[] = {QUANT_INT8, QUANT_INT8, QUANT_BF16, QUANT_F32,
                                       QUANT_KEEP};
    struct err err;
    struct model *m;
    write_tiny(&right);
    for (int q = 0; q < QUANT_N; q++) {
        char *path = model_path("tiny");
        assert_int_equal(create("tiny", (enum quant)q, &err), ST_OK);
        if (model_open(path, &m, &err) != ST_OK)
            fail_msg("%s", err.msg);
        check_model(m, (enum quant)q, heads[q]);
        assert_ptr_equal(m->head.w.data, m->embd.w.data); /* tied */
        assert_null(m->rope_freqs);
        model_close(m);
        free(path);
    }
    assert_int_equal(n_files(), 1);
}

static void separate_head_and_rope_factors_are_kept(void **state) {
    (void)state;
    struct tiny t = right;
    struct err err;
    struct model *m;
    t.head = t.freqs = 1;
    t.scaling = "linear";
    write_tiny(&t);
    char *path = model_path("tiny");
    assert_int_equal(create("tiny", QUANT_NF4, &err), ST_OK);
    assert_int_equal(model_open(path, &m, &err), ST_OK);
    assert_ptr_not_equal(m->head.w.data, m->embd.w.data);
    check_weight(&m->head.w, WEIGHT_I8, "output.weight", VOCAB, EMBD);
    assert_true(m->hp.rope_scale == 4);
    for (size_t i = 0; i < EMBD / HEADS / 2; i++)
        assert_true(m->rope_freqs[i] == value("rope_freqs.weight", i));
    model_close(m);
    free(path);
}

static void an_embedding_and_a_head_of_two_types_are_both_named(void **state) {
    (void)state;
    static const char *const words[2] = {"F32", "F32 and F16"};
    struct tiny t = right;
    struct err err;
    t.head = 1;
    for (int other = 0; other < 2; other++) {
        struct model_info info;
        struct model *m;
        t.head_f16 = other;
        write_tiny(&t);
        char *path = model_path("tiny");
        assert_int_equal(create("tiny", QUANT_KEEP, &err), ST_OK);
        assert_int_equal(model_open(path, &m, &err), ST_OK);
        assert_string_equal(m->info.head_quant, words[other]);
        model_close(m);
        assert_int_equal(models_info(source, &info, &err), ST_OK);
        assert_string_equal(info.head_quant, words[other]);
        model_info_release(&info);
        free(path);
    }
}

static void provenance_is_recorded(void **state) {
    (void)state;
    struct err err;
    struct model_info info;
    struct buf file = {0};
    struct sha256 s;
    char hex[65];
    write_tiny(&right);
    assert_int_equal(create("tiny", QUANT_BF16, &err), ST_OK);
    assert_int_equal(models_info("tiny", &info, &err), ST_OK);
    assert_int_equal(file_read(source, 1 << 24, &file, &err), ST_OK);
    sha256_init(&s);
    sha256_add(&s, file.p, file.len);
    sha256_hex(&s, hex);
    assert_string_equal(info.source_sha256, hex);
    assert_string_equal(info.source, "tiny.gguf");
    assert_string_equal(info.title, "Tiny");
    assert_string_equal(info.license, "mit");
    assert_string_equal(info.architecture, "llama");
    assert_string_equal(info.name, "tiny");
    assert_int_equal(strlen(info.created), 20);
    assert_int_equal(info.n_params, VOCAB * EMBD + EMBD +
                                        LAYERS * (2 * EMBD + 2 * EMBD * EMBD +
                                                  2 * 16 * KV * EMBD + 3 * EMBD * FF));
    model_info_release(&info);
    buf_release(&file);
}

static void sha256_of_known_texts(void **state) {
    (void)state;
    static const struct {
        const char *text, *hex;
    } known[] = {/* FIPS 180-2, appendix B */
                 {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
                 {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
                 {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        for (size_t step = 1; step < 70; step++) { /* fed in pieces of all sizes */
            struct sha256 s;
            char hex[65];
            size_t len = strlen(known[i].text);
            sha256_init(&s);
            for (size_t at = 0; at < len; at += step)
                sha256_add(&s, known[i].text + at, len - at < step ? len - at : step);
            sha256_hex(&s, hex);
            assert_string_equal(hex, known[i].hex);
        }
}

/* A source that differs so must be refused, with this word in the message, and leave no file.
 */
static void source_refused(const struct tiny *t, enum status want, const char *word) {
    struct err err;
    int before = n_files();
    write_tiny(t);
    enum status st = create("refused", QUANT_NF4, &err);
    if (st != want || !strstr(err.msg, word) || !strstr(err.msg, "tiny.gguf"))
        fail_msg("got %d \"%s\", wanted %d with \"%s\"", st, err.msg, want, word);
    assert_int_equal(n_files(), before);
}

static void wrong_sources_are_refused_by_name(void **state) {
    (void)state;
    struct tiny t = right;
    t.architecture = "mamba";
    source_refused(&t, ST_UNSUPPORTED, "architecture mamba is not supported; supported: ");
    t = right;
    t.parts = 2;
    source_refused(&t, ST_FORMAT, "-00001-of-00002.gguf");
    t = right;
    t.scaling = "magic";
    source_refused(&t, ST_UNSUPPORTED, "magic");
    t = right;
    t.leave_out = "blk.1.ffn_up.weight";
    source_refused(&t, ST_FORMAT, "tensor blk.1.ffn_up.weight is missing");
    t = right;
    t.leave_out = "token_embd.weight";
    source_refused(&t, ST_FORMAT, "tensor token_embd.weight is missing");
    t = right;
    t.wide = "blk.0.attn_v.weight";
    source_refused(&t, ST_FORMAT, "blk.0.attn_v.weight is 16 x 81, wanted 16 x 80");
    t = right;
    t.extra_tensor = "blk.0.attn_q.lora";
    source_refused(&t, ST_UNSUPPORTED, "blk.0.attn_q.lora: it is not supported");
    t = right;
    t.extra_tensor = "blk.0.ffn_gate_exps.weight";
    source_refused(&t, ST_UNSUPPORTED, "blk.0.ffn_gate_exps.weight");
    t = right;
    t.odd_type = "blk.0.attn_q.weight";
    source_refused(&t, ST_UNSUPPORTED, "IQ2_XXS");
    t = right;
    t.kv_heads = 2;
    source_refused(&t, ST_FORMAT, "5 heads are no multiple of 2 KV heads");
    t = right;
    t.kv_heads = 0;
    source_refused(&t, ST_FORMAT, "head_count_kv");
    t = right;
    t.rope_dim = 15;
    source_refused(&t, ST_FORMAT, "15 rope dimensions");
    t = right;
    t.rope_dim = 18;
    source_refused(&t, ST_FORMAT, "18 rope dimensions");
    t = right;
    t.first = NAN;
    source_refused(&t, ST_FORMAT, "token_embd.weight: a value among rows 0..15 is not finite");
    t.first = INFINITY;
    source_refused(&t, ST_FORMAT, "not finite");
}

static void what_16_bits_cannot_hold_is_refused(void **state) {
    (void)state;
    struct tiny t = right;
    struct err err;
    t.first = 0x1.ffp127f; /* halfway between the largest BF16 and infinity */
    write_tiny(&t);
    assert_int_equal(create("large", QUANT_BF16, &err), ST_FORMAT);
    assert_non_null(strstr(err.msg, "token_embd.weight: a value among rows 0..15"));
    assert_non_null(strstr(err.msg, "BF16"));
    assert_int_equal(create("large", QUANT_F32, &err), ST_OK);
    assert_int_equal(models_remove("large", &err), ST_OK);
    t.first = 0x1.fefffep127f;
    write_tiny(&t);
    assert_int_equal(create("large", QUANT_BF16, &err), ST_OK);
    assert_int_equal(models_remove("large", &err), ST_OK);
}

static bool cancel_at(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)what;
    assert_true(done <= total);
    return done < *(uint64_t *)user;
}

static void cancelling_leaves_nothing(void **state) {
    (void)state;
    struct err err = {0};
    uint64_t limit = 0;
    write_tiny(&right);
    int before = n_files();
    struct create_params p = {.name = "cancelled",
                              .from = source,
                              .quant = QUANT_NF4,
                              .head_quant = QUANT_N,
                              .progress = cancel_at,
                              .user = &limit};
    assert_int_equal(models_create(&p, &err), ST_CANCELLED);
    assert_int_equal(n_files(), before);
}

static bool cut_source(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)what, (void)done, (void)total;
    return truncate(source, *(off_t *)user) == 0;
}

static void a_source_that_is_cut_meanwhile_makes_no_model(void **state) {
    (void)state;
    struct stat sb;
    file_map_guard();
    write_tiny(&right);
    assert_int_equal(stat(source, &sb), 0);
    int before = n_files();
    const off_t sizes[] = {0, 5000, sb.st_size / 2, sb.st_size - 1, sb.st_size + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct err err = {0};
        off_t size = sizes[i];
        struct create_params p = {.name = "cut",
                                  .from = source,
                                  .quant = QUANT_NF4,
                                  .head_quant = QUANT_N,
                                  .progress = cut_source,
                                  .user = &size};
        write_tiny(&right);
        assert_int_equal(models_create(&p, &err), ST_IO);
        assert_int_equal(strncmp(err.msg, "tiny.gguf: ", 11), 0);
        assert_int_equal(n_files(), before);
    }
}

static void a_model_that_is_cut_in_use_ends_the_answer(void **state) {
    (void)state;
    struct err err = {0};
    struct engine *e;
    const struct engine_params params = {.ctx_tok = 64};
    static const int32_t prompt[3] = {1, 2, 3};
    const struct request r = {.tokens = prompt,
                              .n_tok = 3,
                              .max_tok = 5,
                              .sampling = {.top_p = 1, .typical_p = 1, .repeat_penalty = 1}};
    char *path = model_path("used");
    file_map_guard();
    write_tiny(&right);
    assert_int_equal(create("used", QUANT_NF4, &err), ST_OK);
    if (engine_open(path, &params, &e, &err) != ST_OK)
        fail_msg("%s", err.msg);
    struct mailbox *m = mailbox_new(event_free);
    struct session *s = session_new(e);
    assert_int_equal(truncate(path, 4096), 0);
    assert_int_equal(session_generate(s, &r, 1, m, &err), ST_OK);
    struct event *ev = mailbox_wait(m, -1);
    while (ev->type != EVENT_FINISHED && ev->type != EVENT_ERROR) {
        event_free(ev);
        ev = mailbox_wait(m, -1);
    }
    assert_int_equal(ev->type, EVENT_ERROR);
    assert_non_null(strstr(ev->err.msg, "used.safetensors: a part could not be read"));
    event_free(ev);
    session_free(s);
    mailbox_unref(m);
    engine_close(e);
    assert_int_equal(models_remove("used", &err), ST_OK);
    free(path);
}

static char *repeat(char c, size_t n) {
    char *s = xmalloc(n + 1);
    memset(s, c, n);
    s[n] = 0;
    return s;
}

/* A model whose texts no reader would take must not be made. */
static void texts_too_long_to_be_read_again_make_no_model(void **state) {
    (void)state;
    struct err err = {0};
    struct tiny t = right;
    char *large = repeat('a', 5 << 20), *huge = repeat('\1', 6 << 20); /* "\u0001" in JSON */
    int before = n_files();
    t.chat_template = large;
    write_tiny(&t);
    assert_int_equal(create("long", QUANT_NF4, &err), ST_LIMIT);
    assert_non_null(
        strstr(err.msg, "tiny.gguf: key tokenizer.chat_template has 5242880 bytes"));
    write_tiny(&right);
    struct create_params p = {.name = "long",
                              .from = source,
                              .system = huge,
                              .quant = QUANT_NF4,
                              .head_quant = QUANT_N};
    assert_int_equal(models_create(&p, &err), ST_LIMIT);
    assert_non_null(strstr(err.msg, "the longest text is system"));
    assert_int_equal(n_files(), before);
    free(large);
    free(huge);
}

static void a_full_disk_leaves_nothing(void **state) {
    (void)state;
    struct err err;
    write_tiny(&right);
    assert_int_equal(create("whole", QUANT_F32, &err), ST_OK);
    char *path = model_path("whole");
    struct stat sb;
    struct rlimit old, small;
    assert_int_equal(stat(path, &sb), 0);
    assert_int_equal(models_remove("whole", &err), ST_OK);
    int before = n_files();
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    for (int i = 0; i < 20; i++) { /* writes fail at twenty places */
        small = old;
        small.rlim_cur = (rlim_t)(sb.st_size * i / 20);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        enum status st = create("whole", QUANT_F32, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_int_equal(st, ST_IO);
        assert_non_null(strstr(err.msg, "can't write"));
        assert_int_equal(n_files(), before);
    }
    free(path);
}

static bool die(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)user, (void)what, (void)done, (void)total;
    kill(getpid(), SIGKILL);
    return true;
}

static void what_a_killed_process_left_is_swept(void **state) {
    (void)state;
    struct err err = {0};
    struct model_list l;
    int how;
    write_tiny(&right);
    int before = n_files();
    pid_t pid = fork();
    if (pid == 0) {
        struct create_params p = {.name = "killed",
                                  .from = source,
                                  .quant = QUANT_F32,
                                  .head_quant = QUANT_N,
                                  .progress = die};
        models_create(&p, &err);
        _exit(1);
    }
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFSIGNALED(how));
    assert_int_equal(n_files(),
                     before + 1); /* the temporary file is there, so the sweep is tested */
    assert_int_equal(models_list(&l, &err), ST_OK);
    assert_int_equal(n_files(), before);
    assert_int_equal(l.broken.n, 0);
    model_list_release(&l);
}

/* Files in the cache folder with converted copies. */
static int n_converted(void) {
    struct err err = {0};
    char *at;
    int n = 0;
    assert_int_equal(path_in(PATH_CACHE, "converted/x", &at, &err), ST_OK);
    *strrchr(at, '/') = 0;
    DIR *d = opendir(at);
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    free(at);
    return n;
}

static void what_a_killed_conversion_left_is_swept(void **state) {
    (void)state;
    struct err err = {0};
    struct model_list l;
    int how, before = n_converted();
    char *path;
    write_tiny(&right);
    pid_t pid = fork();
    if (pid == 0) {
        models_resolve(source, die, NULL, &path, &err);
        _exit(1);
    }
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFSIGNALED(how));
    assert_int_equal(n_converted(), before + 1);
    assert_int_equal(models_list(&l, &err), ST_OK);
    assert_int_equal(n_converted(), before);
    model_list_release(&l);
}

static void names_are_checked(void **state) {
    (void)state;
    struct err err;
    assert_true(models_name_ok("smollm2-135m:q4_1+x.y"));
    assert_false(models_name_ok(""));
    assert_false(models_name_ok(".hidden"));
    assert_false(models_name_ok("-f"));
    assert_false(models_name_ok("a/b"));
    assert_false(models_name_ok("a b"));
    assert_int_equal(create("../escape", QUANT_NF4, &err), ST_USAGE);
}

static void existing_models_are_kept_unless_replaced(void **state) {
    (void)state;
    struct err err;
    struct create_params p = {
        .name = "kept", .from = source, .quant = QUANT_NF4, .head_quant = QUANT_N};
    write_tiny(&right);
    assert_int_equal(models_create(&p, &err), ST_OK);
    assert_int_equal(models_create(&p, &err), ST_EXISTS);
    p.replace = true;
    assert_int_equal(models_create(&p, &err), ST_OK);
    assert_int_equal(models_remove("kept", &err), ST_OK);
}

/* The template that a person gives is the only one, whatever the model is made from: one for
 * tools that the source brought would be used where there are tools. */
static void a_template_of_ones_own_replaces_all(void **state) {
    (void)state;
    struct tiny t = right;
    t.tool_template = "tools {{ messages }}";
    write_tiny(&t);
    char *first = model_path("first");
    const char *from[] = {source, first}, *names[] = {"first", "second"};
    struct err err = {0};
    for (int own = 0; own < 2; own++)
        for (int i = 0; i < 2; i++) {
            struct model *m;
            char *path = model_path(names[i]);
            struct create_params p = {.name = names[i],
                                      .from = from[i],
                                      .quant = QUANT_N,
                                      .head_quant = QUANT_N,
                                      .chat_template = own && i ? "mine {{ messages }}" : NULL,
                                      .replace = true};
            if (models_create(&p, &err) != ST_OK || model_open(path, &m, &err) != ST_OK)
                fail_msg("%s", err.msg);
            const char *dflt = text_chat_template(m->text),
                       *more = text_template_name(m->text, 0);
            assert_string_equal(dflt, p.chat_template ? p.chat_template : "{{ messages }}");
            assert_string_equal(more ? more : "", p.chat_template ? "" : "tool_use");
            model_close(m);
            free(path);
        }
    assert_int_equal(models_remove("first", &err), ST_OK);
    assert_int_equal(models_remove("second", &err), ST_OK);
    free(first);
}

/* What another process does while a model is made. */
static bool take_the_name(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)what;
    if (done == total) {
        FILE *f = fopen(user, "w");
        assert_non_null(f);
        fputs("theirs", f);
        fclose(f);
    }
    return true;
}

static void a_model_made_meanwhile_is_kept(void **state) {
    (void)state;
    struct err err;
    char *folder, *path;
    struct buf b = {0};
    assert_int_equal(models_dir(&folder, &err), ST_OK);
    path = path_join(folder, "raced.safetensors");
    struct create_params p = {.name = "raced",
                              .from = source,
                              .quant = QUANT_NF4,
                              .head_quant = QUANT_N,
                              .progress = take_the_name,
                              .user = path};
    write_tiny(&right);
    int before = n_files();
    assert_int_equal(models_create(&p, &err), ST_EXISTS);
    assert_string_equal(err.msg, "a model named raced exists already");
    assert_int_equal(n_files(), before + 1);
    assert_int_equal(file_read(path, 100, &b, &err), ST_OK);
    assert_string_equal(buf_str(&b), "theirs");
    assert_int_equal(models_remove("raced", &err), ST_OK);
    buf_release(&b);
    free(path);
    free(folder);
}

static void the_library_lists_copies_and_removes(void **state) {
    (void)state;
    struct err err;
    struct model_list l;
    write_tiny(&right);
    assert_int_equal(create("zeta", QUANT_NF4, &err), ST_OK);
    assert_int_equal(models_copy("zeta", "alpha", &err), ST_OK);
    assert_int_equal(models_copy("zeta", "alpha", &err), ST_EXISTS);
    assert_int_equal(models_copy("nothing", "beta", &err), ST_NOT_FOUND);
    char *broken = model_path("broken");
    assert_int_equal(file_write_atomic(broken, "junk", 4, &err), ST_OK);
    assert_int_equal(models_list(&l, &err), ST_OK);
    assert_true(l.n >= 2);
    assert_string_equal(l.v[0].name, "alpha");
    assert_string_equal(l.v[l.n - 1].name, "zeta");
    assert_int_equal(l.broken.n, 1);
    assert_int_equal(strncmp(l.broken.v[0], "broken", 6), 0);
    model_list_release(&l);
    assert_int_equal(models_remove("broken", &err), ST_OK);
    assert_int_equal(models_remove("zeta", &err), ST_OK);
    assert_int_equal(models_remove("zeta", &err), ST_NOT_FOUND);
    assert_non_null(strstr(err.msg, "alpha"));
    struct model_info info;
    assert_int_equal(models_info("alpha", &info, &err), ST_OK);
    model_info_release(&info);
    assert_int_equal(models_remove("alpha", &err), ST_OK);
    free(broken);
}

static bool count_calls(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)what, (void)done, (void)total;
    ++*(int *)user;
    return true;
}

static void a_gguf_path_is_converted_once(void **state) {
    (void)state;
    struct err err = {0};
    char *first, *second, *third;
    int calls = 0;
    struct model *m;
    write_tiny(&right);
    assert_int_equal(models_resolve(source, count_calls, &calls, &first, &err), ST_OK);
    assert_true(calls > 0);
    assert_int_equal(model_open(first, &m, &err), ST_OK);
    assert_string_equal(m->info.quant, "nf4");
    model_close(m);
    calls = 0;
    assert_int_equal(models_resolve(source, count_calls, &calls, &second, &err), ST_OK);
    assert_int_equal(calls, 0);
    assert_string_equal(first, second);
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(AT_FDCWD, source, times, 0), 0); /* another file now */
    assert_int_equal(models_resolve(source, count_calls, &calls, &third, &err), ST_OK);
    assert_true(calls > 0);
    assert_string_not_equal(first, third);
    free(first);
    free(second);
    free(third);
}

static void a_folder_of_one_gguf_model_is_that_model(void **state) {
    (void)state;
    struct err err = {0};
    char *folder = path_join(dir, "files"), *path, *out;
    static const char *const beside[] = {"mmproj-tiny.gguf", "b-00002-of-00002.gguf", ".c.gguf",
                                         "README.md"};
    write_tiny(&right);
    assert_int_equal(mkdir(folder, 0700), 0);
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        path = path_join(folder, beside[i]);
        assert_int_equal(file_write_atomic(path, "x", 1, &err), ST_OK);
        free(path);
    }
    assert_int_equal(models_find(folder, &out, &err), ST_OK);
    assert_string_equal(out, folder); /* none: what is wrong is said by who reads the folder */
    free(out);
    path = path_join(folder, "tiny-00001-of-00001.gguf");
    assert_int_equal(link(source, path), 0);
    assert_int_equal(models_find(folder, &out, &err), ST_OK);
    assert_string_equal(out, path);
    free(out);
    assert_int_equal(models_resolve(folder, NULL, NULL, &out, &err), ST_OK);
    free(out);
    free(path);
    path = path_join(folder, "another.gguf");
    assert_int_equal(link(source, path), 0);
    assert_int_equal(models_find(folder, &out, &err), ST_USAGE);
    assert_non_null(strstr(err.msg, "another.gguf, tiny-00001-of-00001.gguf"));
    free(path);
    path = path_join(folder, "config.json"); /* then it is what it says */
    assert_int_equal(file_write_atomic(path, "{}", 2, &err), ST_OK);
    assert_int_equal(models_find(folder, &out, &err), ST_OK);
    assert_string_equal(out, folder);
    free(out);
    free(path);
    free(folder);
}

static void a_repository_of_the_hubs_cache_is_its_snapshot(void **state) {
    (void)state;
    struct err err = {0};
    char *repo = path_join(dir, "models--a--b"), *out;
    static const char *const parts[] = {"", "/refs", "/snapshots", "/snapshots/0a1b"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char *folder = xasprintf("%s%s", repo, parts[i]);
        assert_int_equal(mkdir(folder, 0700), 0);
        free(folder);
    }
    char *ref = path_join(repo, "refs/main"), *want = path_join(repo, "snapshots/0a1b");
    static const struct {
        const char *ref;
        bool found;
    } cases[] = {{"0a1b", true}, {"ffff", false}, {"../../..", false}, {"", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(file_write_atomic(ref, cases[i].ref, strlen(cases[i].ref), &err),
                         ST_OK);
        assert_int_equal(models_find(repo, &out, &err), ST_OK);
        assert_string_equal(out, cases[i].found ? want : repo);
        free(out);
    }
    free(ref);
    free(want);
    free(repo);
}

static void names_and_our_files_resolve_to_themselves(void **state) {
    (void)state;
    struct err err;
    char *path, *again, *want = model_path("mine");
    write_tiny(&right);
    assert_int_equal(create("mine", QUANT_INT8, &err), ST_OK);
    assert_int_equal(models_resolve("mine", NULL, NULL, &path, &err), ST_OK);
    assert_string_equal(path, want);
    assert_int_equal(models_resolve(path, NULL, NULL, &again, &err), ST_OK);
    assert_string_equal(again, want);
    free(path);
    free(again);
    free(want);
    assert_int_equal(models_resolve("none", NULL, NULL, &path, &err), ST_NOT_FOUND);
    assert_non_null(strstr(err.msg, "installed:"));
    assert_int_equal(models_resolve("", NULL, NULL, &path, &err), ST_NOT_FOUND);
    assert_int_equal(models_resolve("/nowhere/x", NULL, NULL, &path, &err), ST_NOT_FOUND);
    assert_string_equal(err.msg, "/nowhere/x: there is no such file or folder");
    char *folder = path_join(dir, "nothing");
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(models_resolve(folder, NULL, NULL, &path, &err), ST_NOT_FOUND);
    assert_non_null(strstr(err.msg, "config.json"));
    free(folder);
}

static void damaged_models_are_refused_when_opened(void **state) {
    (void)state;
    struct err err;
    struct buf b = {0};
    struct model *m;
    char *path = model_path("damaged");
    write_tiny(&right);
    assert_int_equal(create("damaged", QUANT_NF4, &err), ST_OK);
    assert_int_equal(file_read(path, 1 << 24, &b, &err), ST_OK);
    for (size_t len = 0; len < b.len; len += b.len / 50) { /* truncated */
        assert_int_equal(file_write_atomic(path, b.p, len, &err), ST_OK);
        err = (struct err){0};
        assert_int_equal(model_open(path, &m, &err), ST_FORMAT);
        assert_non_null(strstr(err.msg, "damaged.safetensors"));
    }
    uint64_t header;
    memcpy(&header, b.p, 8);
    for (size_t i = 0; i < 8 + header; i += 7) { /* a bit of the header */
        b.p[i] ^= 1;
        assert_int_equal(file_write_atomic(path, b.p, b.len, &err), ST_OK);
        err = (struct err){0};
        enum status st = model_open(path, &m, &err);
        b.p[i] ^= 1;
        assert_true(st == ST_OK || *err.msg);
        if (st == ST_OK)
            model_close(m);
    }
    models_remove("damaged", &err);
    buf_release(&b);
    free(path);
}

/* The value of a metadata key is replaced by one of the same length; opening must refuse it. */
static void meta_refused(const char *from, const char *to, enum status want, const char *word) {
    struct err err;
    struct buf b = {0};
    struct model *m;
    char *path = model_path("meta");
    assert_int_equal(create("meta", QUANT_NF4, &err), ST_OK);
    assert_int_equal(file_read(path, 1 << 24, &b, &err), ST_OK);
    char *at = memmem(b.p, b.len, from, strlen(from));
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    assert_int_equal(file_write_atomic(path, b.p, b.len, &err), ST_OK);
    enum status st = model_open(path, &m, &err);
    if (st != want || !strstr(err.msg, word))
        fail_msg("%s: got %d \"%s\", wanted %d with \"%s\"", to, st, err.msg, want, word);
    models_remove("meta", &err);
    buf_release(&b);
    free(path);
}

static void wrong_metadata_is_refused_when_opened(void **state) {
    (void)state;
    write_tiny(&right);
    meta_refused("\"llmchat.layout\":\"2\"", "\"llmchat.layout\":\"3\"", ST_UNSUPPORTED,
                 "newer");
    meta_refused("\"llmchat.layout\"", "\"llmchat.leyout\"", ST_FORMAT, "llmchat.layout");
    meta_refused("\"architecture\":\"llama\"", "\"architecture\":\"lhama\"", ST_UNSUPPORTED,
                 "lhama");
    meta_refused("\"layers\":\"00\"", "\"layers\":\"0x\"", ST_FORMAT, "layers");
    meta_refused("\"n_layer\":\"2\"", "\"n_layer\":\"3\"", ST_FORMAT, "layers has 2 digits");
    meta_refused("\"n_layer\":\"2\"", "\"n_layer\":\"x\"", ST_FORMAT, "n_layer");
    meta_refused("\"n_embd\":\"80\"", "\"n_embd\":\"99\"", ST_FORMAT, "wanted");
    meta_refused("\"n_head_kv\":\"1\"", "\"n_head_kv\":\"2\"", ST_FORMAT, "KV heads");
    meta_refused("\"n_vocab\":\"21\"", "\"n_vocab\":\"22\"", ST_FORMAT, "22 rows");
    meta_refused("blk.0.attn_q.code", "blk.0.attn_q.coda", ST_FORMAT, "blk.0.attn_q.scale");
}

static void the_default_model_is_made_whole(void **state) {
    (void)state;
    const char *gguf = getenv("LLMCHAT_TEST_GGUF");
    if (!gguf)
        skip();
    struct err err = {0};
    struct model *m;
    char *path = model_path("default");
    struct create_params p = {.name = "default",
                              .from = gguf,
                              .quant = QUANT_NF4,
                              .head_quant = QUANT_N,
                              .replace = true};
    if (models_create(&p, &err) != ST_OK || model_open(path, &m, &err) != ST_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(m->info.n_params, 134515008);
    assert_int_equal(m->hp.n_layer, 30);
    assert_int_equal(m->hp.n_embd, 576);
    assert_int_equal(m->hp.n_head_kv, 3);
    assert_true(m->hp.rope_base == 100000);
    assert_int_equal(m->embd.w.type, WEIGHT_I8);
    assert_int_equal(m->layers[29].down.w.type, WEIGHT_Q4);
    assert_int_equal(text_n_vocab(m->text), 49152);
    /* 4.25 bits and a little for each linear weight, 8.5 for the embedding, plus vocabulary and
     * header */
    assert_true(m->info.file_bytes < 90u << 20);
    model_close(m);
    assert_int_equal(models_remove("default", &err), ST_OK);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_of_known_texts),
        cmocka_unit_test(every_quantisation_opens_with_its_values),
        cmocka_unit_test(separate_head_and_rope_factors_are_kept),
        cmocka_unit_test(an_embedding_and_a_head_of_two_types_are_both_named),
        cmocka_unit_test(provenance_is_recorded),
        cmocka_unit_test(wrong_sources_are_refused_by_name),
        cmocka_unit_test(what_16_bits_cannot_hold_is_refused),
        cmocka_unit_test(cancelling_leaves_nothing),
        cmocka_unit_test(a_source_that_is_cut_meanwhile_makes_no_model),
        cmocka_unit_test(a_model_that_is_cut_in_use_ends_the_answer),
        cmocka_unit_test(texts_too_long_to_be_read_again_make_no_model),
        cmocka_unit_test(a_full_disk_leaves_nothing),
        cmocka_unit_test(what_a_killed_process_left_is_swept),
        cmocka_unit_test(what_a_killed_conversion_left_is_swept),
        cmocka_unit_test(names_are_checked),
        cmocka_unit_test(existing_models_are_kept_unless_replaced),
        cmocka_unit_test(a_template_of_ones_own_replaces_all),
        cmocka_unit_test(a_model_made_meanwhile_is_kept),
        cmocka_unit_test(the_library_lists_copies_and_removes),
        cmocka_unit_test(a_gguf_path_is_converted_once),
        cmocka_unit_test(a_folder_of_one_gguf_model_is_that_model),
        cmocka_unit_test(a_repository_of_the_hubs_cache_is_its_snapshot),
        cmocka_unit_test(names_and_our_files_resolve_to_themselves),
        cmocka_unit_test(damaged_models_are_refused_when_opened),
        cmocka_unit_test(wrong_metadata_is_refused_when_opened),
        cmocka_unit_test(the_default_model_is_made_whole),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
