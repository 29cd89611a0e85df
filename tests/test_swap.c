/*
 * test_swap.c - a real engine on a device (the host shim, or a GPU) with a pool that is too
 * small for two conversations: what goes to the host and comes back is what was computed. The
 * model is tiny and random (mkmodel), with weights of f32, whose products have the same bits
 * however many tokens are multiplied at once, and large ones, so that attention decides what is
 * said: a block that is not the one that was computed changes the words. Sums of attention are
 * cut up by how many tokens are in a batch: an f32 path, f32 keys and values included, stays
 * within 1e-4 of logits of size 1 (test_graph.c). Logits here are sums of 64 numbers of
 * deviation 1 by weights from -0.3 to 0.3: their deviation is 0.3 / sqrt(3) * 8 = 1.4, the
 * largest of some hundred is below 10.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cuda_device.h"
#include "engine/engine.h"
#include "toy_file.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CTX = 160, BLOCK = 16, PROMPT = 110, MORE = 6, ANSWER = 10, TURNS = 3 };

static char dir[] = "/tmp/llmchat-test-swap-XXXXXX";
static char *model_path;

struct talk {
    struct session *session;
    int32_t tokens[CTX];
    int n_tok;
    float logprob[CTX]; /* of the tokens that were answered */
    int cached[TURNS];  /* tokens that were not computed again */
};

/* n tokens more of the asker's own, then what the model answers to all. */
static void turn(struct talk *t, int who, int number, int n) {
    struct mailbox *m = mailbox_new(event_free);
    struct err err = {0};
    for (int i = 0; i < n; i++, t->n_tok++)
        t->tokens[t->n_tok] = (t->n_tok * 31 + who * 17 + number * 5) % 250;
    const struct request r = {
        .tokens = t->tokens,
        .n_tok = (size_t)t->n_tok,
        .max_tok = ANSWER,
        .ignore_eos = true,
        .n_logprobs = 1,
        .sampling = {.top_p = 1, .typical_p = 1, .repeat_penalty = 1, .seed = 1}};
    assert_int_equal(session_generate(t->session, &r, 1, m, &err), ST_OK);
    for (bool end = false; !end;) {
        struct event *e = mailbox_wait(m, -1);
        if (e->type == EVENT_ERROR)
            fail_msg("%s", e->err.msg);
        if (e->type == EVENT_TOKEN && e->token >= 0) {
            t->logprob[t->n_tok] = e->logprob;
            t->tokens[t->n_tok++] = e->token;
        }
        end = e->type == EVENT_FINISHED;
        if (end)
            t->cached[number] = e->cached_tok;
        event_free(e);
    }
    mailbox_unref(m);
}

/* Two conversations in turns, over a pool of n_block blocks. */
static void converse(struct talk t[2], int n_gpu, int n_block, uint64_t swap_blocks) {
    struct engine_params p = {
        .device = DEVICE_CUDA, .tensor_parallel = n_gpu, .ctx_tok = CTX, .kv_type = KV_F32};
    struct engine *e;
    struct err err = {0};
    assert_int_equal(engine_open(model_path, &p, &e, &err), ST_OK);
    size_t block_bytes = engine_info(e)->kv_bytes_per_tok * BLOCK;
    engine_close(e);
    p.kv_bytes = (size_t)n_block * block_bytes;
    p.swap_bytes = swap_blocks * block_bytes;
    assert_int_equal(engine_open(model_path, &p, &e, &err), ST_OK);
    for (int i = 0; i < 2; i++)
        t[i] = (struct talk){.session = session_new(e)};
    for (int i = 0; i < TURNS; i++)
        for (int k = 0; k < 2; k++)
            turn(&t[k], k, i, i ? MORE : PROMPT);
    engine_close(e);
}

enum { SMALL = CTX / BLOCK + 1, LARGE = 3 * CTX / BLOCK };

/* large: the same with room for all */
static void brings_back_what_was_computed(int n_gpu, struct talk large[2]) {
    static struct talk swapped[2];
    converse(large, n_gpu, LARGE, 0);
    converse(swapped, n_gpu, SMALL, 100);
    for (int k = 0; k < 2; k++) {
        assert_memory_equal(swapped[k].tokens, large[k].tokens, sizeof large[k].tokens);
        for (int i = 0; i < CTX; i++)
            assert_true(fabsf(swapped[k].logprob[i] - large[k].logprob[i]) < 1e-3f);
        for (int i = 1; i < TURNS; i++) {
            int held = PROMPT + i * ANSWER + (i - 1) * MORE - 1; /* by the turn before */
            assert_int_equal(large[k].cached[i], held);
            assert_int_equal(swapped[k].cached[i], held / BLOCK * BLOCK);
        }
    }
}

static void swap_brings_back_what_was_computed(void **state) {
    (void)state;
    static struct talk large[2], bare[2];
    if (!cuda_is_here())
        skip();
    brings_back_what_was_computed(1, large);
    converse(bare, 1, SMALL, 0);
    for (int k = 0; k < 2; k++) {
        assert_memory_equal(bare[k].tokens, large[k].tokens, sizeof large[k].tokens);
        for (int i = 1; i < TURNS; i++)
            assert_true(bare[k].cached[i] < large[k].cached[i] / 2);
    }
}

static void and_what_two_devices_computed(void **state) {
    (void)state;
    static struct talk large[2];
    if (!nccl_is_here())
        skip();
    brings_back_what_was_computed(2, large);
}

static int make(void **state) {
    (void)state;
    return (model_path = toy_file(dir, "ctx=512 scale=300", QUANT_F32)) ? 0 : -1;
}

static int clean(void **state) {
    (void)state;
    toy_file_free(dir, model_path);
    return 0;
}

int main(void) {
    if (!getenv("MKMODEL"))
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(swap_brings_back_what_was_computed),
        cmocka_unit_test(and_what_two_devices_computed),
    };
    return cmocka_run_group_tests(tests, make, clean);
}
