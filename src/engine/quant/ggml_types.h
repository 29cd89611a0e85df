/*
 * ggml_types.h - the tensor types of GGUF files: their sizes, and their values as f32.
 *
 * A type stores block_elems values in block_bytes bytes; rows are whole blocks. Types that we
 * know by name but cannot read have no dequant function, so that such a file opens (its
 * tokenizer is of use) and the message can name the type.
 */
#ifndef LLMCHAT_ENGINE_QUANT_GGML_TYPES_H
#define LLMCHAT_ENGINE_QUANT_GGML_TYPES_H

#include <stddef.h>
#include <stdint.h>

struct ggml_type_row {
    uint32_t type;    /* number in the file */
    const char *name; /* "Q4_K" */
    uint32_t block_elems, block_bytes;
    /* dst [n] = values of src [n / block_elems blocks]; n is a multiple of block_elems; any
     * alignment of src. NULL: not supported. Bit-equal to the gguf Python package. */
    void (*dequant)(const unsigned char *src, float *dst, size_t n);
};

/* NULL: a number that we do not know. */
const struct ggml_type_row *ggml_type_row(uint32_t type);
/* "F32, F16, …": the names of those with a dequant function, for messages. Static. */
const char *ggml_types_supported(void);

float f16_to_f32(uint16_t h);

#endif
