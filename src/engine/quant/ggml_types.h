/*
 * ggml_types.h - the tensor types of GGUF files: their sizes, what their blocks hold, and their
 * values as f32.
 *
 * A type stores block_elems values in block_bytes bytes; rows are whole blocks. A plain type is
 * an array of numbers. A block type is a code for each value, and for each `group` values a
 * scale and perhaps a minimum: value = number * scale + min, with number = table[code], or the
 * code as an int8 where there is no table; product and sum are rounded one after the other.
 * That is also what weight.h stores, so such a tensor can be kept as it is, bit for bit.
 *
 * Types that we know by name but cannot read have neither function, so that such a file opens
 * (its tokenizer is of use) and the message can name the type.
 */
#ifndef LLMCHAT_ENGINE_QUANT_GGML_TYPES_H
#define LLMCHAT_ENGINE_QUANT_GGML_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GGML_MAX_BLOCK = 256, GGML_MAX_GROUPS = 16 }; /* of the types that can be read */

struct ggml_type_row {
    uint32_t type;    /* number in the file */
    const char *name; /* "Q4_K" */
    uint32_t block_elems, block_bytes;
    /* Plain types: dst [n] = values of src, at any alignment. */
    void (*plain)(const unsigned char *src, float *dst, size_t n);
    /* Block types: code [block_elems], scale and min [block_elems / group] of one block; min is
     * written only where has_min is set. */
    void (*unpack)(const unsigned char *src, uint8_t *code, float *scale, float *min);
    uint32_t group;     /* values that share a scale: 16 or 32 */
    bool has_min;       /* there are minima */
    const float *table; /* [16] the numbers of 4-bit codes; NULL: codes are int8 */
};

/* NULL: a number that we do not know. */
const struct ggml_type_row *ggml_type_row(uint32_t type);
/* Whether the values of this type can be read. */
bool ggml_type_readable(const struct ggml_type_row *row);
/* "F32, F16, …": the names of those that can be read, for messages. Static. */
const char *ggml_types_supported(void);

/* dst [n] = values of src [n / block_elems blocks]; n is a multiple of block_elems; any
 * alignment of src; the row is readable. Bit-equal to the gguf Python package. */
void ggml_dequant(const struct ggml_type_row *row, const unsigned char *src, float *dst,
                  size_t n);

float f16_to_f32(uint16_t h);

#endif
