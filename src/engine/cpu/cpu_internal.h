/*
 * cpu_internal.h - what the files of the CPU backend share: its state, loops over rows, and the
 * operations that cpu.c puts into its table.
 */
#ifndef LLMCHAT_ENGINE_CPU_CPU_INTERNAL_H
#define LLMCHAT_ENGINE_CPU_CPU_INTERNAL_H

#include "engine/cpu/cpu.h"
#include "engine/cpu/pool.h"

enum {
    FEW_ROWS = 4,    /* rows of an element-wise operation that the caller does alone */
    MAX_ROWS = 12,   /* rows of an item of such an operation */
    MAX_TILES = 4,   /* row tiles of a matmul item */
    ATT_PARTS = 256, /* room for partial results of attention, in full items */
};

/* Query rows row .. row + R - 1 of a sequence, counted over token * gq + head inside the KV
 * head's group. */
struct att_tile {
    const struct step_seq *seq;
    int row, R;
};

struct thread_scratch {
    _Alignas(64) struct kv_ahead ahead;
    void *mm;      /* cpu_scratch_bytes */
    float *gate;   /* [max_tok, MAX_TILES * 16] */
    float *scores; /* [CPU_ATT_ROWS, CPU_ATT_CHUNK] */
    float *q;      /* [D, CPU_ATT_ROWS] */
    float *part;   /* [CPU_ATT_ROWS, D + 2]: o, then m, then l */
    float *acc;    /* the same */
};

/* Weights on their way into huge pages; see settle.c. */
struct settle {
    size_t bound; /* bytes of all weights */
    bool begun, off;
    bool seen;   /* that the system gives huge pages */
    bool always; /* for tests: small weights too, whatever pages there are */
    size_t page; /* bytes of one */
    int nodes;   /* of memory */
    struct settle_arena {
        char *p;
        size_t bytes;
    } * arenas; /* [n_arena] */
    int n_arena;
    char *at, *end; /* room that is left for weights to come */
    char *to;       /* where the weight goes that is being copied, or NULL */
    size_t done;    /* of it */
    size_t moved;   /* of all */
};

struct cpu {
    struct backend be;
    const struct cpu_kernels *k;
    struct pool *pool;
    struct backend_limits lim;
    const struct step *step;
    struct thread_scratch *scratch; /* [threads] */
    char *rows;                     /* blocks of quantised rows of one input */
    int32_t *block, *slot;          /* [max_tok] where a token's KV goes */
    struct att_tile *tiles;         /* of the step */
    int n_tile;
    float *parts; /* ATT_PARTS times [CPU_ATT_ROWS, D + 2] */
    struct arena {
        void **p;
        int n;
    } arena;
    struct settle settle;
};

static inline struct cpu *cpu_of(struct backend *be) {
    return (struct cpu *)be;
}

/* Heads that share a KV head. */
static inline int cpu_group_heads(const struct cpu *c) {
    return c->lim.n_head / c->lim.n_head_kv;
}

/* Calls rows() for all rows 0 .. T - 1 in ranges [t, end), on the pool when there are many.
 * Ranges begin at multiples of grain; as small as leaves a thread a few of them, so that all
 * end together. */
void cpu_for_rows(struct cpu *c, int T, int grain,
                  void (*rows)(struct cpu *c, const void *arg, int t, int end),
                  const void *arg);

/* settle.c */
bool cpu_settle(struct backend *be, struct weight *w, size_t *bytes);
void cpu_settle_release(struct settle *s);

/* rows.c */
void cpu_embed(struct backend *be, const struct weight *w, const int32_t *rows, int T,
               float *x);
void cpu_norm(struct backend *be, const struct norm_op *n, const float *x, int T, float *y);
void cpu_permute(struct backend *be, const float *x, const int32_t *perm, int T, int K,
                 float *y);
void cpu_act(struct backend *be, enum act_kind kind, const float *g, const float *u, int T,
             int K, float *y);
void cpu_add(struct backend *be, float a, const float *x, int T, int K, float *y);
void cpu_scale(struct backend *be, float a, float cap, float *x, size_t ld, int T, int K);
void cpu_select(struct backend *be, const float *x, const int32_t *rows, int n, int K,
                float *y);
void cpu_scatter(struct backend *be, const float *x, const int32_t *rows, const float *a, int n,
                 int K, float *y);
void cpu_rope(struct backend *be, int table, float *x, int n_head, int D);
void cpu_kv_write(struct backend *be, const struct kv_layer *kv, const float *k,
                  const float *v);
void cpu_rope_kv(struct backend *be, int table, const struct kv_layer *kv, int H, float *q,
                 float *k, const float *v);
void cpu_kv_turn(struct backend *be, const struct kv_layer *kv, const int32_t *blocks, int n,
                 const float *cos, const float *sin, int rope_dim);

/* The first key that is seen by a row whose keys end before `limit`; window 0: all are. */
static inline int cpu_window_from(int window, int limit) {
    return window > 0 && limit > window ? limit - window : 0;
}

/* kv_ahead.c */
void cpu_expect(struct backend *be, const struct kv_layer *kv, int window);
void cpu_expect_nothing(struct cpu *c);

/* attention.c */
int cpu_att_tile_rows(const struct cpu *c); /* rows of a tile: whole tokens where they fit */
void cpu_att_tiles(struct cpu *c, const struct step *s); /* fills c->tiles */
void cpu_attention(struct backend *be, const struct kv_layer *kv, const struct att_op *a, int H,
                   const float *q, float *out);

#endif
