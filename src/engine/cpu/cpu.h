/*
 * cpu.h - the CPU backend from inside: the kernels of an instruction set, and what drives them.
 *
 * cpu.c cuts operations into items for the pool and knows no instruction set; a kernel works on
 * the rows or row tiles it is given, on one thread. Results don't depend on how the work was
 * cut: for each output element a kernel does the same operations in the same order however many
 * tokens it is given at once. So a prompt computed in pieces gives the bits of a prompt
 * computed whole.
 *
 * Q4 and I8 weights meet activations of 16 bits: each 64 inputs of a token become q = round(x /
 * absmax * steps), and a group's sum of products is exact in int32. Eight bits double the dot
 * products of an instruction but move the model; avx512_vbmi.c has them, and floats for the
 * largest. KL divergence from f32 activations on prose (SmolLM2-135M in NF4): 16 bits 3e-6,
 * those 1.2e-3 to 1.5e-3, 8 bits for all 5e-3. The scalar reference uses f32 activations.
 */
#ifndef LLMCHAT_ENGINE_CPU_CPU_H
#define LLMCHAT_ENGINE_CPU_CPU_H

#include "engine/backend.h"

enum {
    CPU_ATT_ROWS = 24, /* query rows of one attention item */
    CPU_ATT_CHUNK =
        256, /* keys whose scores are held at once; softmax parts are merged in this grain */
    CPU_PANEL_TILES = 2, /* row tiles that are expanded at once for many tokens */
};

/* The part of the KV cache that a thread asks for while it multiplies: kv_ahead.c. */
struct kv_ahead {
    const struct step *step;
    struct kv_layer kv;
    int window;
    int seq, end;          /* sequences that are left */
    int block, n_block;    /* of the first of them; n_block 0: not begun */
    bool values;           /* come next of the block */
    const char *at, *stop; /* of the keys, or values, of all heads of a block */
};
bool kv_ahead_next(struct kv_ahead *a); /* the next at .. stop; false: there is none */

/* False: nothing is left to ask for. True: something, or the end was not noticed yet. */
static inline bool kv_ahead_left(const struct kv_ahead *a) {
    return a && (a->at < a->stop || a->seq < a->end);
}
/* Asks for the next `bytes`, which may end behind the cache. */
static inline __attribute__((always_inline)) void kv_ahead_ask(struct kv_ahead *a,
                                                               size_t bytes) {
    if (a->at >= a->stop && !kv_ahead_next(a))
        return;
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(a->at + i, 0, 2); /* into the second level */
    a->at += bytes;
}

/* An input of matmul. */
struct cpu_input {
    const float *x; /* [T, K], stride ldx = weight_pad_k(K), the padding is zero */
    size_t ldx;
    int T, K;
    const char *rows; /* [ceil(T/block)] blocks of quantised rows as the kernel set's quantize()
                         made them; NULL: kernels read x */
    size_t block_bytes;  /* from block to block */
    struct kv_ahead *kv; /* what a kernel for many tokens may ask for, or NULL */
};

/* A token's sums of activations over groups of 64, then of 32, then of 16 inputs. */
static inline size_t cpu_sums(int Kp) {
    return (size_t)Kp / 64 * 7;
}
/* Where those over groups of S begin. */
static inline size_t cpu_sum_at(int Kp, int S) {
    return (size_t)Kp / 64 * (size_t)(64 / S - 1);
}

/* A quantised row of the int16 kernel sets, one part behind the other. */
struct row16 {
    int16_t *q;   /* [Kp] x / scale; the set's order stays within 16 inputs */
    float *scale; /* [Kp/64] */
    float *sum;   /* [cpu_sums(Kp)] scale * the exact sum of q: what a weight's minimum is
                     multiplied by; written where sums are asked for */
};
size_t cpu_row16_bytes(int Kp); /* rounded up to 64 */
static inline struct row16 cpu_row16(const void *row, int Kp) {
    int16_t *q = (int16_t *)(uintptr_t)row;
    float *scale = (float *)(void *)(q + Kp);
    return (struct row16){q, scale, scale + Kp / 64};
}
/* Fills r.sum from the rest. */
void cpu_row16_sums(struct row16 r, int Kp);

/* Query rows of one KV head against one chunk of its keys. */
struct cpu_att {
    const struct kv_layer *kv;
    const struct att_op *op;
    const int32_t *blocks;   /* of the sequence */
    int head;                /* KV head */
    int R;                   /* rows, at most CPU_ATT_ROWS */
    const float *q;          /* [D, CPU_ATT_ROWS]: all rows behind one pointer */
    const int *from, *limit; /* [R] a row sees the keys from .. limit - 1; both ascend */
    const float *slope;      /* [R] of a row's head, where op has slopes */
    float *scores;           /* [CPU_ATT_ROWS, CPU_ATT_CHUNK] scratch */
    /* The keys next_key .. next_key + next_n - 1 that the call behind this one sees. A kernel
     * that is bound by memory asks for values while it reads keys, and for these while it reads
     * values. */
    const int32_t *next_blocks;
    int next_head, next_key, next_n;
};

struct cpu_kernels {
    const char *name;
    enum kv_type kv; /* the type of 16 bits that attention is fastest with */
    int block;       /* rows that are quantised together; at least 1 */
    /* Bytes of such a block, a multiple of 64 */
    size_t (*block_bytes)(int Kp);
    /* n <= block rows of x [n, K], stride ldx, zeros up to Kp, to a block at a 64-byte border;
     * sums: a weight that meets it has minimums. NULL: matmul reads f32 for every weight type.
     */
    void (*quantize)(const float *x, size_t ldx, int n, int K, bool sums, void *to);
    /* Tiles tile .. tile + n_tile - 1 of y (+)= x w^T; y points at the first tile's column 0.
     * Columns beyond N are not written. scratch: cpu_scratch_bytes(). */
    void (*matmul)(const struct cpu_input *in, const struct weight *w, int tile, int n_tile,
                   float *y, size_t ldy, bool add, void *scratch);
    /* one part of a row, as struct norm_op says; b may be NULL */
    void (*norm)(enum norm_kind kind, const float *x, const float *g, const float *b, float eps,
                 int K, float *y);
    /* one head's leading n columns, pairs (2i, 2i + 1); tables as in struct step */
    void (*rope)(float *x, const float *c, const float *s, int n);
    /* y = act(g) u, or act(g) without u; y may be g or u */
    void (*act)(enum act_kind kind, const float *g, const float *u, int n, float *y);
    void (*cap)(float cap, float *x, int n); /* x = cap tanh(x / cap) */
    void (*axpby)(float a, const float *x, float b, int n, float *y); /* y = a x + b y */
    /* one head of one token: k, v [D] to slot 0..15 of the head's part of a block */
    void (*kv_put)(const struct kv_layer *kv, const float *k, const float *v, int slot,
                   void *dst_k, void *dst_v);
    /* the first n columns of one head's keys in a block, pairs (2i, 2i + 1): c and s [n, 16],
     * with values as in struct step */
    void (*kv_turn)(const struct kv_layer *kv, void *k, const float *c, const float *s, int n);
    /* Keys key .. key + n - 1 (key a multiple of the chunk) for rows row .. end - 1, of which
     * each sees at least one: m [R] = max score, l [R] = sum exp(s - m), o [R, D] = sum exp(s -
     * m) v */
    void (*att_chunk)(const struct cpu_att *a, int row, int end, int key, int n, float *m,
                      float *l, float *o);
};

/* Where a head's 16 keys, or its 16 values, begin in the cache: elements, not bytes. type is
 * that of kv, which a kernel knows when it is compiled. */
static inline size_t kv_part(const struct kv_layer *kv, enum kv_type type, int block,
                             int head) {
    size_t bytes = (size_t)block * kv->stride + (size_t)head * kv_head_bytes(type, kv->D);
    return bytes / kv_elem_bytes(type);
}
/* The same of the keys that the next call sees beside its keys j .. j + 15; none: if there are
 * no such. */
static inline size_t kv_part_next(const struct cpu_att *a, enum kv_type type, int j,
                                  size_t none) {
    if (j >= a->next_n)
        return none;
    return kv_part(a->kv, type, a->next_blocks[(a->next_key + j) / 16], a->next_head);
}
/* The 16 scales of the part of an int8 cache that begins at `at`. */
static inline float *kv_scales(const struct kv_layer *kv, void *base, size_t at) {
    return (float *)(void *)((char *)base + at + 16 * (size_t)kv->D);
}

/* Of the n keys from key on a row sees those from att_skips() to att_sees() - 1. */
static inline int att_skips(const struct cpu_att *a, int row, int key) {
    int skip = a->from[row] - key;
    return skip > 0 ? skip : 0;
}
static inline int att_sees(const struct cpu_att *a, int row, int key, int n) {
    int see = a->limit[row] - key;
    return see < n ? see : n;
}
/* Adds what ALiBi says of the keys key + from .. key + n - 1 to a row's scores s [n]. */
void cpu_att_slope(const struct cpu_att *a, int row, int key, int from, int n, float *s);

extern const struct cpu_kernels cpu_scalar;
#if defined(__x86_64__)
extern const struct cpu_kernels cpu_avx2; /* without VNNI */
extern const struct cpu_kernels cpu_avx2_vnni;
extern const struct cpu_kernels cpu_avx512; /* without VNNI */
extern const struct cpu_kernels cpu_avx512_vnni;
extern const struct cpu_kernels cpu_avx512_vbmi; /* and VNNI */
extern const struct cpu_kernels cpu_avx512_bf16; /* and both */
/* for all of them */
void avx2_kv_turn(const struct kv_layer *kv, void *k, const float *c, const float *s, int n);
#endif
/* The kernel sets that this CPU and its operating system can run, best first, ending with
 * cpu_scalar; returns how many. Some have the same name. */
int cpu_kernel_sets(const struct cpu_kernels *out[8]);
/* The set that LLMCHAT_CPU asks for, or the best. */
enum status cpu_choose(const struct cpu_kernels **out, struct err *err);
/* A backend with a given kernel set; cpu_backend_open() chooses one. */
enum status cpu_backend_new(const struct cpu_kernels *k, int threads, struct backend **out,
                            struct err *err);

/* Scratch of a thread for inputs up to max_k columns. */
size_t cpu_scratch_bytes(int max_k);
/* Bytes of the pages that the system gives to who asks for huge ones; 0: none. */
size_t cpu_huge_page_bytes(void);
float cpu_f16_to_f32(uint16_t h);
/* Rounds to nearest even, saturates at +-65504; NaN stays NaN. */
uint16_t cpu_f32_to_f16(float f);

#endif
