/*
 * test_engine_model.c - the whole engine with the default model, made from the GGUF file that
 * LLMCHAT_TEST_GGUF names (without it: skipped). The expected perplexity of
 * tests/golden/perplexity/page.txt comes from tests/oracle/perplexity.py.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/path.h"
#include "base/utf8.h"
#include "engine/engine.h"
#include "engine/models.h"
#include "engine/text.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/llmchat-test-model-XXXXXX";
static char *nf4_path, *f32_path, *logits_path;

/* ---- helpers ---- */

static char *make_model(const char *name, enum quant quant) {
    char *path = path_join(dir, name);
    const struct create_params p = {.out_path = path,
                                    .from = getenv("LLMCHAT_TEST_GGUF"),
                                    .quant = quant,
                                    .head_quant = QUANT_N};
    struct err err = {0};
    if (models_create(&p, &err) != ST_OK) {
        fprintf(stderr, "%s: %s\n", name, err.msg);
        free(path);
        return NULL;
    }
    return path;
}

static struct engine *open_engine(const char *path) {
    const struct engine_params p = {.ctx_tok = 1024};
    struct engine *e;
    struct err err = {0};
    if (engine_open(path, &p, &e, &err) != ST_OK)
        fail_msg("%s", err.msg);
    return e;
}

static char *golden(const char *name) {
    const char *srcdir = getenv("srcdir");
    return xasprintf("%s/tests/golden/perplexity/%s", srcdir ? srcdir : ".", name);
}

struct expected {
    int ctx, scored, count;
    double perplexity, nf4_perplexity;
    struct tok_list ids;
};

static void read_expected(struct expected *x) {
    char *path = golden("expected.txt"), word[64];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    *x = (struct expected){0};
    while (fscanf(f, "%63s", word) == 1) {
        if (word[0] == '#')
            while (fgetc(f) != '\n' && !feof(f))
                ;
        else if (strcmp(word, "ctx") == 0)
            assert_int_equal(fscanf(f, "%d", &x->ctx), 1);
        else if (strcmp(word, "scored") == 0)
            assert_int_equal(fscanf(f, "%d", &x->scored), 1);
        else if (strcmp(word, "count") == 0)
            assert_int_equal(fscanf(f, "%d", &x->count), 1);
        else if (strcmp(word, "perplexity") == 0)
            assert_int_equal(fscanf(f, "%lf", &x->perplexity), 1);
        else if (strcmp(word, "nf4_perplexity") == 0)
            assert_int_equal(fscanf(f, "%lf", &x->nf4_perplexity), 1);
        else if (strcmp(word, "ids") == 0)
            for (int id; fscanf(f, "%d", &id) == 1;)
                tok_list_add(&x->ids, id);
    }
    fclose(f);
    free(path);
    assert_int_equal(x->ids.n, x->count);
}

struct answer {
    int32_t tokens[256];
    int n_tok;
    struct buf text;
    struct event last;
};

static void ask_request(struct answer *a, struct session *s, const struct request *r) {
    struct mailbox *m = mailbox_new(event_free);
    struct err err = {0};
    *a = (struct answer){0};
    if (session_generate(s, r, 1, m, &err) != ST_OK)
        fail_msg("%s", err.msg);
    for (bool end = false; !end;) {
        struct event *e = mailbox_wait(m, -1);
        if (e->type == EVENT_TOKEN && e->token >= 0)
            a->tokens[a->n_tok++] = e->token;
        buf_adds(&a->text, e->text);
        end = e->type == EVENT_FINISHED || e->type == EVENT_ERROR;
        if (end)
            a->last = *e;
        event_free(e);
    }
    assert_int_equal(a->last.type, EVENT_FINISHED);
    mailbox_unref(m);
}

static void ask(struct answer *a, struct session *s, const struct tok_list *prompt,
                int max_tok) {
    const struct request r = {.tokens = prompt->v,
                              .n_tok = prompt->n,
                              .max_tok = max_tok,
                              .sampling = {.top_p = 1, .typical_p = 1, .repeat_penalty = 1}};
    ask_request(a, s, &r);
}

static void chat_prompt(const struct engine *e, const char *messages, struct tok_list *out) {
    const struct render_opts opts = {.messages_json = messages, .add_generation_prompt = true};
    struct err err = {0};
    if (text_prompt(engine_text(e), &opts, out, &err) != ST_OK)
        fail_msg("%s", err.msg);
}

/* ---- tests ---- */

static void page_becomes_the_oracles_tokens(void **state) {
    (void)state;
    struct engine *e = open_engine(nf4_path);
    struct expected x;
    struct err err = {0};
    struct buf page = {0};
    struct tok_list got = {0};
    read_expected(&x);
    char *path = golden("page.txt");
    assert_int_equal(file_read(path, 1 << 20, &page, &err), ST_OK);
    const struct encode_opts opts = {.bos = text_adds_bos(engine_text(e))};
    assert_int_equal(text_encode(engine_text(e), page.p, page.len, &opts, &got, &err), ST_OK);
    assert_int_equal(got.n, x.ids.n);
    assert_memory_equal(got.v, x.ids.v, got.n * sizeof *got.v);
    free(path);
    buf_release(&page);
    tok_list_release(&got);
    tok_list_release(&x.ids);
    engine_close(e);
}

/* The oracle computes in f32 from the same dequantised weights. What is left are the order of
 * sums and the format of keys and values in the cache: 0.1 % of a perplexity is 0.001 nats in
 * the mean over 765 tokens, ten times what f16 keys and values change; a wrong position, norm
 * or scale changes whole nats. */
static void f32_perplexity_is_the_oracles(void **state) {
    (void)state;
    struct engine *e = open_engine(f32_path);
    struct expected x;
    struct eval_result r;
    struct err err = {0};
    read_expected(&x);
    const struct eval_params p = {.ctx = x.ctx, .save_logits = logits_path};
    if (engine_perplexity(e, x.ids.v, x.ids.n, &p, &r, &err) != ST_OK)
        fail_msg("%s", err.msg);
    printf("f32: perplexity %.4f, the oracle's %.4f\n", r.perplexity, x.perplexity);
    assert_int_equal(r.tokens, x.scored);
    assert_float_equal(r.perplexity / x.perplexity, 1, 0.001);
    tok_list_release(&x.ids);
    engine_close(e);
}

/* The oracle's NF4 weights are ours bit for bit; it multiplies them by f32 activations and
 * leaves the head in f32, where we have int8 for both. With int8 weights everywhere those two
 * cost 0.3 % here; on a model that NF4 has already bent by a fifth they cost more, so 2 % is
 * the limit. A wrong scale or table entry costs far more than that. */
static void nf4_perplexity_is_near_the_oracles(void **state) {
    (void)state;
    struct engine *e = open_engine(nf4_path);
    struct expected x;
    struct eval_result r;
    struct err err = {0};
    read_expected(&x);
    const struct eval_params p = {.ctx = x.ctx, .kl_base = logits_path};
    if (engine_perplexity(e, x.ids.v, x.ids.n, &p, &r, &err) != ST_OK)
        fail_msg("%s", err.msg);
    printf("nf4: perplexity %.4f, the oracle's %.4f, KL %.5f, same top token %.4f\n",
           r.perplexity, x.nf4_perplexity, r.kl, r.top1);
    assert_true(r.has_kl);
    assert_float_equal(r.perplexity / x.nf4_perplexity, 1, 0.02);
    assert_true(r.kl > 0 && r.kl < 0.3);
    assert_true(r.top1 > 0.6 && r.top1 < 1);
    tok_list_release(&x.ids);
    engine_close(e);
}

static void greedy_answer_is_text_and_repeats(void **state) {
    (void)state;
    struct engine *e = open_engine(nf4_path);
    struct session *s = session_new(e), *t = session_new(e);
    struct tok_list prompt = {0};
    struct answer a, b;
    chat_prompt(e, "[{\"role\":\"user\",\"content\":\"What is the capital of France?\"}]",
                &prompt);
    ask(&a, s, &prompt, 48);
    printf("answer: %s\n", buf_str(&a.text));
    assert_true(a.n_tok > 0);
    assert_true(utf8_valid(buf_str(&a.text), a.text.len));
    assert_non_null(strstr(buf_str(&a.text), "Paris"));
    ask(&b, t, &prompt, 48);
    assert_int_equal(a.n_tok, b.n_tok);
    assert_memory_equal(a.tokens, b.tokens, (size_t)a.n_tok * sizeof *a.tokens);
    assert_true(b.last.cached_tok >= 16); /* the first session's blocks */
    buf_release(&a.text);
    buf_release(&b.text);
    tok_list_release(&prompt);
    engine_close(e);
}

static void second_turn_computes_only_new_tokens(void **state) {
    (void)state;
    struct engine *e = open_engine(nf4_path);
    struct session *s = session_new(e), *other = session_new(e);
    struct tok_list prompt = {0}, second = {0};
    struct answer a, b;
    const char *question = "[{\"role\":\"user\",\"content\":\"Say hello.\"}";
    char *messages = xasprintf("%s]", question);
    chat_prompt(e, messages, &prompt);
    ask(&a, s, &prompt, 12);
    /* the same history as a chat sends it: what was computed is the prompt and the answer but
     * its last token */
    for (size_t i = 0; i < prompt.n; i++)
        tok_list_add(&second, prompt.v[i]);
    for (int i = 0; i < a.n_tok; i++)
        tok_list_add(&second, a.tokens[i]);
    int held = (int)second.n - (a.last.finish == FINISH_LENGTH);
    struct encode_opts opts = {.special = true};
    const char *more =
        "<|im_end|>\n<|im_start|>user\nAnd goodbye.<|im_end|>\n<|im_start|>assistant\n";
    struct err err;
    assert_int_equal(text_encode(engine_text(e), more, strlen(more), &opts, &second, &err),
                     ST_OK);
    ask(&b, other, &prompt, 4); /* another conversation between */
    buf_release(&b.text);
    ask(&b, s, &second, 4);
    assert_int_equal(b.last.cached_tok, held);
    assert_int_equal(b.last.prompt_tok, second.n);
    buf_release(&a.text);
    buf_release(&b.text);
    tok_list_release(&prompt);
    tok_list_release(&second);
    free(messages);
    engine_close(e);
}

/* A state of about 600 tokens that comes from a file: only the new tokens are computed, and the
 * answer is the one without it. */
static void state_from_a_file_gives_the_same_answer(void **state) {
    (void)state;
    char *states = path_join(dir, "states"), *page_path = golden("page.txt");
    struct tok_list prompt = {0};
    struct answer first, whole, saved;
    struct buf page = {0};
    struct err err = {0};
    assert_int_equal(path_make_dirs(states, &err), ST_OK);
    assert_int_equal(file_read(page_path, 1 << 20, &page, &err), ST_OK);
    const struct engine_params p = {
        .ctx_tok = 1024, .kv_dir = states, .kv_dir_bytes = 1u << 30};
    for (int i = 0; i < 2; i++) {
        struct engine *e;
        assert_int_equal(engine_open(nf4_path, &p, &e, &err), ST_OK);
        struct session *s = session_new(e);
        session_keep(s, 1);
        if (i == 0) {
            assert_int_equal(text_encode(engine_text(e), page.p, 2000, &(struct encode_opts){0},
                                         &prompt, &err),
                             ST_OK);
            ask(&first, s, &prompt, 5);
            for (int k = 0; k < first.n_tok; k++)
                tok_list_add(&prompt, first.tokens[k]);
            for (int k = 0; k < 20; k++)
                tok_list_add(&prompt, prompt.v[k * 7]);
        } else {
            ask(&saved, s, &prompt, 24);
        }
        engine_close(e);
    }
    struct engine *e = open_engine(nf4_path); /* without files */
    ask(&whole, session_new(e), &prompt, 24);
    engine_close(e);
    printf("%zu tokens, %d of them from a file\n", prompt.n, saved.last.cached_tok);
    assert_int_equal(whole.last.cached_tok, 0);
    assert_int_equal(saved.last.cached_tok, (int)prompt.n - 21);
    assert_int_equal(whole.n_tok, saved.n_tok);
    assert_memory_equal(whole.tokens, saved.tokens, (size_t)saved.n_tok * sizeof *saved.tokens);
    char *clean = xasprintf("rm -r '%s'", states);
    assert_int_equal(system(clean), 0);
    free(clean);
    buf_release(&first.text);
    buf_release(&whole.text);
    buf_release(&saved.text);
    buf_release(&page);
    tok_list_release(&prompt);
    free(states);
    free(page_path);
}

/* The first greedy token is the best of the evaluation's logits at the prompt's last position.
 */
static void logits_and_generation_agree(void **state) {
    (void)state;
    struct engine *e = open_engine(nf4_path);
    struct session *s = session_new(e);
    struct tok_list prompt = {0};
    struct answer a;
    struct err err = {0};
    int n_vocab = engine_info(e)->n_vocab;
    chat_prompt(e, "[{\"role\":\"user\",\"content\":\"Name three primary colors.\"}]", &prompt);
    ask(&a, s, &prompt, 1);
    float *logits = xcalloc((size_t)n_vocab, sizeof *logits);
    int n = (int)prompt.n, best = 0;
    if (engine_logits(e, prompt.v, n, n - 1, logits, &err) != ST_OK)
        fail_msg("%s", err.msg);
    for (int i = 1; i < n_vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    assert_int_equal(best, a.tokens[0]);
    assert_int_equal(session_cached_tok(s), n);
    free(logits);
    buf_release(&a.text);
    tok_list_release(&prompt);
    engine_close(e);
}

/* ---- */

static int make(void **state) {
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    logits_path = path_join(dir, "logits");
    nf4_path = make_model("nf4.safetensors", QUANT_NF4);
    f32_path = make_model("f32.safetensors", QUANT_F32);
    return !nf4_path || !f32_path;
}

/* Depends on the kernels' promise that a row has the same bits in a batch of any shape. */
static void speculation_changes_no_token(void **state) {
    (void)state;
    struct engine *e;
    struct err err = {0};
    const struct engine_params p = {.ctx_tok = 1024, .draft_path = nf4_path};
    if (engine_open(f32_path, &p, &e, &err) != ST_OK)
        fail_msg("%s", err.msg);
    assert_true(*engine_info(e)->draft && engine_info(e)->draft_bytes > 1000000);
    struct tok_list t = {0};
    chat_prompt(e,
                "[{\"role\":\"user\",\"content\":\"Repeat this: the tide comes in and the tide "
                "goes out, and the moon pulls the tide in and lets it out.\"}]",
                &t);
    int accepted = 0;
    for (int64_t seed = 0; seed < 3; seed++) {
        static struct answer a[2];
        for (int i = 0; i < 2; i++) {
            struct session *s = session_new(e);
            const struct request r = {.tokens = t.v,
                                      .n_tok = t.n,
                                      .max_tok = 40,
                                      .sampling = {.temperature = (double)seed / 2,
                                                   .top_p = 1,
                                                   .typical_p = 1,
                                                   .repeat_penalty = 1,
                                                   .seed = seed},
                                      .speculation = !i          ? SPECULATION_OFF
                                                     : seed == 1 ? SPECULATION_DRAFT
                                                                 : SPECULATION_AUTO};
            ask_request(&a[i], s, &r);
            session_free(s);
        }
        assert_int_equal(a[0].n_tok, a[1].n_tok);
        assert_memory_equal(a[0].tokens, a[1].tokens, (size_t)a[0].n_tok * sizeof *a[0].tokens);
        assert_int_equal(a[0].last.drafted_tok, 0);
        accepted += a[1].last.accepted_tok;
        buf_release(&a[0].text);
        buf_release(&a[1].text);
    }
    assert_true(accepted > 0);
    tok_list_release(&t);
    engine_close(e);
}

static int remove_all(void **state) {
    (void)state;
    char *paths[] = {logits_path, nf4_path, f32_path};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (paths[i])
            unlink(paths[i]);
        free(paths[i]);
    }
    return rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_becomes_the_oracles_tokens),
        cmocka_unit_test(f32_perplexity_is_the_oracles),
        cmocka_unit_test(nf4_perplexity_is_near_the_oracles),
        cmocka_unit_test(greedy_answer_is_text_and_repeats),
        cmocka_unit_test(second_turn_computes_only_new_tokens),
        cmocka_unit_test(state_from_a_file_gives_the_same_answer),
        cmocka_unit_test(logits_and_generation_agree),
        cmocka_unit_test(speculation_changes_no_token),
    };
    if (!getenv("LLMCHAT_TEST_GGUF")) {
        fprintf(stderr, "LLMCHAT_TEST_GGUF names no model: skipped\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, make, remove_all);
}
