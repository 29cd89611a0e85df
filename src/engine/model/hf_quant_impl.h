/*
 * hf_quant_impl.h - what the methods of hf_quant.h share: looking up the parts of a matrix with
 * messages, and matrices of integers with a scale and a zero point for each group.
 *
 * A method is a row of a table in hf_quant.c: it reads its configuration once, and then says of
 * a base name whether it is one of its matrices. What the parts of a matrix are is decided by
 * the file; the configuration is asked only where shapes leave a choice.
 */
#ifndef LLMCHAT_ENGINE_MODEL_HF_QUANT_IMPL_H
#define LLMCHAT_ENGINE_MODEL_HF_QUANT_IMPL_H

#include "engine/model/hf_json.h"
#include "engine/model/hf_quant.h"

enum { HQ_MAX_WIDTHS = 8 };

struct hq_method {
    const char *name;   /* as quant_method has it */
    const char *scales; /* the part that says what codes of 8 bits are worth */
    enum status (*open)(struct hf_quant *q, const struct hf_json *c, struct err *err);
    enum status (*find)(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                        struct source_tensor *out, struct err *err);
};

struct hf_quant {
    const struct hq_method *method;
    int bits[HQ_MAX_WIDTHS], n_bits; /* widths that the configuration names */
    int group;                       /* inputs that share a scale; 0: a whole row */
    bool zeros_less_one;             /* GPTQ: a stored zero point is one less than it */
    bool any_order;           /* GPTQ: columns belong to groups in any order (desc_act) */
    bool has_zeros;           /* compressed-tensors: no matrix is symmetric */
    uint64_t block[2];        /* 8-bit floats: [rows, columns] with one scale, or 0 */
    struct hq_memory *memory; /* of all matrices found */
};

/* Zeroed memory that lives as long as q. */
void *hq_alloc(struct hf_quant *q, size_t n, size_t size_bytes);

/* A source_tensor's word, which lives as long as q. */
const char *hq_word_for(struct hf_quant *q, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* One look-up: its parts so far, and where messages go. */
struct hq {
    struct hf_quant *q;
    struct shards *s;
    const char *base;
    struct err *err;
    uint64_t n_bytes; /* of the parts taken */
};

/* The tensor BASE.SUFFIX, or NULL; marks it used and counts its bytes. */
const struct ctensor *hq_part(struct hq *h, const char *suffix);
/* ST_FORMAT when it is not there; `beside` is what it belongs to, a suffix too. */
enum status hq_need(struct hq *h, const char *suffix, const char *beside,
                    const struct ctensor **out);
bool hq_has(const struct hq *h, const char *suffix);
/* ST_FORMAT: "file: tensor x.qzeros is I32 4 x 6, wanted …". */
enum status hq_wrong(struct hq *h, const struct ctensor *t, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool hq_is(const struct ctensor *t, enum dtype dtype, uint64_t rows, uint64_t columns);
/* N and K are 1 … 2^31 - 1. */
enum status hq_check_sizes(struct hq *h, const struct ctensor *t, uint64_t N, uint64_t K);
/* Scales are F32, F16, BF16 or F8_E8M0 (powers of two), all finite. *bits: the most significant
 * bits that one of them has. */
enum status hq_check_scales(struct hq *h, const struct ctensor *t, int *bits);
float hq_value(const struct ctensor *t, uint64_t i);
uint32_t hq_word(const unsigned char *p, uint64_t i); /* word i, little-endian */
/* The layout of floats that a matrix gets whose codes fit none of ours: that of its scales,
 * which is the type that its library computes with. */
enum weight_type hq_float_layout(enum dtype dtype);

/*
 * Integers: w[n, k] = (q[n, k] - z[n, g]) * s[n, g] with g the group of column k. q and z are
 * taken as unsigned (a signed code has half of its range added, and its zero point too).
 */
struct hq_ints {
    uint64_t N, K, G;
    int bits;
    const struct ctensor *code, *scale, *zeros; /* zeros NULL: all are `zero` */
    uint64_t scale_n, scale_g;                  /* steps of scale for a row and a group */
    void (*unpack)(const struct hq_ints *m, uint64_t n, uint8_t *q); /* q [K] of row n */
    int (*zero_of)(const struct hq_ints *m, uint64_t n, uint64_t g); /* of zeros */
    bool zeros_less_one;
    uint64_t group;       /* columns of a group; not used where there is g_idx */
    const int32_t *g_idx; /* [K] group of a column, or NULL: k / group */

    int zero;       /* the zero point of all groups … */
    bool one_zero;  /* … if there is only one */
    int32_t *perm;  /* [K] columns in order of their groups, or NULL: they are */
    int subtracted; /* I8: what codes() takes off a code */
};

/* m->g_idx and m->perm from the tensor BASE.SUFFIX; ST_FORMAT for a group that is none. All -1,
 * or every column in its own place: NULL. */
enum status hq_group_index(struct hq *h, struct hq_ints *m, const char *suffix);
/* The tensor of m, all of whose fields above the gap are set, and checked against the sizes of
 * the parts. */
enum status hq_ints_tensor(struct hq *h, struct hq_ints *m, const char *method,
                           const char *type, struct source_tensor *out);

/* The methods. */
enum status hq_bnb_open(struct hf_quant *q, const struct hf_json *c, struct err *err);
enum status hq_bnb_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                        struct source_tensor *out, struct err *err);
enum status hq_gptq_open(struct hf_quant *q, const struct hf_json *c, struct err *err);
enum status hq_gptq_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                         struct source_tensor *out, struct err *err);
enum status hq_awq_open(struct hf_quant *q, const struct hf_json *c, struct err *err);
enum status hq_awq_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                        struct source_tensor *out, struct err *err);
enum status hq_ct_open(struct hf_quant *q, const struct hf_json *c, struct err *err);
enum status hq_ct_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                       struct source_tensor *out, struct err *err);
enum status hq_fp8_open(struct hf_quant *q, const struct hf_json *c, struct err *err);
enum status hq_fp8_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                        struct source_tensor *out, struct err *err);
enum status hq_mxfp4_open(struct hf_quant *q, const struct hf_json *c, struct err *err);
enum status hq_mxfp4_find(struct hf_quant *q, struct shards *s, const char *base, bool *found,
                          struct source_tensor *out, struct err *err);
/* An F8_E4M3 matrix "weight" with its scales in BASE.SUFFIX. */
enum status hq_fp8_tensor(struct hq *h, const char *suffix, const char *word,
                          struct source_tensor *out);

#endif
