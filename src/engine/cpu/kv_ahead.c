/*
 * kv_ahead.c - asking for the KV of the next attention while products run.
 *
 * Products of many tokens do 32 and more cycles of work with each line of weights, so that the
 * memory has little to do; the attention behind them waits for it, since a layer's parts of the
 * KV pool are short pieces all over it. So from the end of one attention to the next each
 * thread asks for the keys and values that it will probably read, a line for each line of
 * weights, in bursts between groups of inputs. What does not fit into the second-level cache is
 * found in the third. A step of 8 to 64 sequences takes 4 to 5 % less time (Zen 4); with 5 or
 * 6, whose weights are read at the memory's speed, it was 1 %.
 *
 * Attention goes on to ask by itself, since the processor drops requests (without: 4 % longer).
 *
 * Rejected: a line in every round of the inner loop, in functions of their own (no faster; one
 * function, which goes on asking for lines that are there already, made a step 8 % longer); two
 * lines for one of weights (the same); the same calls in the loops for many tokens of
 * avx2_int16.h (a step of 32 sequences 10 % longer).
 */
#include "engine/cpu/cpu_internal.h"

void cpu_expect_nothing(struct cpu *c) {
    for (int i = 0; i < c->be.threads; i++)
        c->scratch[i].ahead = (struct kv_ahead){0};
}

/* A thread begins with the same part of every loop (pool.c), so with these sequences. */
void cpu_expect(struct backend *be, const struct kv_layer *kv, int window) {
    struct cpu *c = cpu_of(be);
    const struct step *s = c->step;
    for (int i = 0; i < be->threads; i++)
        c->scratch[i].ahead = (struct kv_ahead){.step = s,
                                                .kv = *kv,
                                                .window = window,
                                                .seq = s->n_seq * i / be->threads,
                                                .end = s->n_seq * (i + 1) / be->threads};
}

bool kv_ahead_next(struct kv_ahead *a) {
    for (; a->seq < a->end; a->seq++, a->n_block = 0) {
        const struct step_seq *q = &a->step->seqs[a->seq];
        if (a->n_block == 0) {
            a->block = cpu_window_from(a->window, q->n_past + 1) / BACKEND_KV_BLOCK;
            a->n_block = (q->n_past + q->n_tok + BACKEND_KV_BLOCK - 1) / BACKEND_KV_BLOCK;
        }
        if (a->block == a->n_block)
            continue;
        a->at = (const char *)(a->values ? a->kv.v : a->kv.k);
        a->at += (size_t)q->blocks[a->block] * a->kv.stride;
        a->stop = a->at + (size_t)a->kv.Hkv * kv_head_bytes(a->kv.type, a->kv.D);
        a->block += a->values;
        a->values = !a->values;
        return true;
    }
    return false;
}
