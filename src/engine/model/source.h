/*
 * source.h - a checkpoint that a model is made from: a GGUF file or a Hugging Face folder.
 *
 * Both give the same things: an architecture and its hyperparameters, tensors by name, a
 * vocabulary, and words for the person. A tensor is a matrix [N, K] (a vector: N = 1; a stack
 * of experts: E matrices) whose rows can be read as f32, and, when it is quantised in a way
 * that our layouts hold, as codes and scales, bit for bit. What is packed how is the business
 * of struct tensor_format; a new quantisation is one of these.
 *
 * Everything was checked when the tensor was found: sizes, the presence and shapes of its
 * parts, values of indices. Reading rows cannot fail.
 */
#ifndef LLMCHAT_ENGINE_MODEL_SOURCE_H
#define LLMCHAT_ENGINE_MODEL_SOURCE_H

#include "engine/model/arch.h"
#include "engine/text/vocab.h"

struct source_tensor;

enum { SOURCE_ROWS = 16 /* most rows that are asked for at once */ };

struct tensor_format {
    /* out [n, K] = the values of rows row[0 .. n-1], 1 <= n <= SOURCE_ROWS; row numbers are
     * below E * N. Bit-equal to the library that the format comes from, in f32. */
    void (*rows)(const struct source_tensor *t, const uint64_t *row, int n, float *out);
    /* What `keep` stores: code [n, K] (a byte each: 0..15 for Q4, int8 for I8), scale and,
     * when t->keep_min, min [n, K / group rounded up]. NULL: t->keep is F32, F16 or BF16 and
     * rows() says it all. */
    void (*codes)(const struct source_tensor *t, const uint64_t *row, int n, uint8_t *code,
                  float *scale, float *min);
};

struct source_tensor {
    const char *name; /* the source's, for messages */
    const char *type; /* how it is stored: "F16", "Q4_K", "nf4", "gptq 4-bit"; static */
    const char *word; /* what a model of such tensors is called, "gptq-int4-g128"; NULL: type */
    const struct tensor_format *format;
    uint64_t E, N, K; /* E = 1 but for a stack of experts; columns as x has them */
    uint64_t n_bytes; /* of all parts */

    enum weight_type keep; /* the layout that holds the values exactly */
    int group;             /* keep I8, Q4: 16, 32 or 64 inputs share a scale */
    bool keep_min;         /* keep I8, Q4: there is a minimum for each group */
    const float *table;    /* keep Q4: [16]; static */
    const int32_t *perm;   /* [K] or NULL: codes() gives column perm[k] of W at place k (rows()
                              gives the order of x) */
    bool quantised;        /* false: a plain float type */
    const char *inexact;   /* NULL, or why `keep` is not exact for it, in words; static */

    /* The stored bytes, as the format wants them. */
    const unsigned char *data; /* plain, GGUF blocks, packed codes */
    uint32_t dtype;            /* enum dtype, or the GGUF type's number */
    const void *part[6];       /* scales, zero points, nested scales … */
    uint64_t num[6];           /* block sizes, widths … */
    float f[2];
};

struct source {
    const char *file; /* base name, for messages */
    const struct arch *arch;
    struct hparams hp;
    bool interleaved; /* pairs of RoPE are (2i, 2i + 1) in this source */
    bool is_gguf;
    uint64_t file_bytes; /* of all files with weights */
    const struct source_ops *ops;
    void *priv;
};

/* path: a GGUF file (the first part of a split one) or a folder with config.json. */
enum status source_open(const char *path, struct source **out, struct err *err);
void source_close(struct source *s); /* NULL is allowed */

/* The tensor of this name (".weight" included), or *out NULL when there is none; lives as long
 * as the source. Marks it used. ST_UNSUPPORTED for a type that cannot be read, ST_FORMAT for
 * parts that are missing or have wrong sizes. */
enum status source_find(struct source *s, const char *name, const struct source_tensor **out,
                        struct err *err);
/* ST_UNSUPPORTED naming a tensor that nobody asked for and that the architecture does not
 * ignore: a model that runs without it would answer wrongly. */
enum status source_all_used(struct source *s, struct err *err);

/* Title, licence and so on: "title", "license", or NULL. Borrowed; valid UTF-8. */
const char *source_text(const struct source *s, const char *what);
/* Vocabulary, template, and default sampling settings; released by the caller before
 * source_close(). */
enum status source_vocab(struct source *s, struct vocab_data *out, struct err *err);
/* SHA-256 of the weights: the file's, or of the files one after the other in order of their
 * names. *stop is looked at now and then. Thread-safe beside all else here. */
void source_hash(const struct source *s, char hex[65], const _Atomic bool *stop);

/* ST_IO when a file was cut while it was read, whose values read as zeros since; at the end
 * also when one was written to. */
enum status source_intact(const struct source *s, bool at_end, struct err *err);

/* The two kinds, in source_gguf.c and source_hf.c; source.c chooses. */
struct source_ops {
    void (*close)(struct source *s);
    enum status (*find)(struct source *s, const char *name, const struct source_tensor **out,
                        struct err *err);
    enum status (*all_used)(struct source *s, struct err *err);
    const char *(*text)(const struct source *s, const char *what);
    enum status (*vocab)(struct source *s, struct vocab_data *out, struct err *err);
    void (*hash)(const struct source *s, char hex[65], const _Atomic bool *stop);
    enum status (*intact)(const struct source *s, bool at_end, struct err *err);
};
enum status source_open_gguf(const char *path, struct source *s, struct err *err);
enum status source_open_hf(const char *dir, struct source *s, struct err *err);

/* Plain float and integer types as they lie in memory, and GGUF's block types: sets format,
 * keep, group, table and so on from t->dtype. False: the type cannot be read. */
bool tensor_format_plain(struct source_tensor *t); /* dtype is an enum dtype */
bool tensor_format_ggml(struct source_tensor *t);  /* dtype is a GGUF type */

#endif
