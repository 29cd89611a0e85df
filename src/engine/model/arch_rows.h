/*
 * arch_rows.h - words for the rows of the architecture table: groups of tensors that
 * architectures share, as macros with the places in Hugging Face checkpoints for arguments.
 *
 * Names of GGUF files are ours but where a row says otherwise: every architecture's queries,
 * keys and values may be fused there. For the files of the table only.
 */
#ifndef LLMCHAT_ENGINE_MODEL_ARCH_ROWS_H
#define LLMCHAT_ENGINE_MODEL_ARCH_ROWS_H

#include "engine/model/arch_table.h"

#define LAYER(f) offsetof(struct layer, f)
#define MODEL(f) offsetof(struct model, f)

#define AT(name_)                                                                              \
    { .name = name_ }
#define PART(name_, rows_)                                                                     \
    { .name = name_, .rows = rows_ }
#define ROW(name_, kind_, n_, k_, field_, ...)                                                 \
    { .name = name_, .kind = kind_, .n = n_, .k = k_, .field = field_, __VA_ARGS__ }
#define END                                                                                    \
    { .name = NULL }

#define NORM(name_, field_, flags_, ...)                                                       \
    ROW(name_, TENSOR_NORM, DIM_ONE, DIM_EMBD, LAYER(field_), .flags = flags_,                 \
        .hf = {__VA_ARGS__})

/* Queries, keys, values: three places, or one with all of them. */
#define QKV(q, k, v)                                                                           \
    ROW("attn_q", TENSOR_LINEAR, DIM_Q, DIM_EMBD, LAYER(wq), .flags = T_ROTATED, .hf = {q},    \
        .gguf = {AT("attn_q"), PART("attn_qkv", ROWS_Q)}),                                     \
        ROW("attn_k", TENSOR_LINEAR, DIM_KV, DIM_EMBD, LAYER(wk), .flags = T_ROTATED,          \
            .hf = {k}, .gguf = {AT("attn_k"), PART("attn_qkv", ROWS_K)}),                      \
        ROW("attn_v", TENSOR_LINEAR, DIM_KV, DIM_EMBD, LAYER(wv), .hf = {v},                   \
            .gguf = {AT("attn_v"), PART("attn_qkv", ROWS_V)})
#define QKV_APART QKV(AT("self_attn.q_proj"), AT("self_attn.k_proj"), AT("self_attn.v_proj"))
#define QKV_FUSED(name, turn)                                                                  \
    QKV(PART(name, ROWS_Q | turn), PART(name, ROWS_K | turn), PART(name, ROWS_V | turn))
#define QKV_GROUPS(name)                                                                       \
    QKV(PART(name, ROWS_GROUP_Q), PART(name, ROWS_GROUP_K), PART(name, ROWS_GROUP_V))
#define ATTN_OUT(...)                                                                          \
    ROW("attn_output", TENSOR_LINEAR, DIM_EMBD, DIM_Q, LAYER(wo), .hf = {__VA_ARGS__})

/* Norms of queries and keys, over each head or over whole rows. */
#define QK_NORM(nq, nk, flags_)                                                                \
    ROW("attn_q_norm", TENSOR_NORM, DIM_ONE, nq, LAYER(q_norm), .flags = T_ROTATED | flags_,   \
        .hf = {AT("self_attn.q_norm")}),                                                       \
        ROW("attn_k_norm", TENSOR_NORM, DIM_ONE, nk, LAYER(k_norm),                            \
            .flags = T_ROTATED | flags_, .hf = {AT("self_attn.k_norm")})

/* The same with a gain for each head, where a config says so. */
#define QK_NORM_OF_HEADS(q, k)                                                                 \
    ROW("attn_q_norm", TENSOR_NORM, DIM_ONE, DIM_Q_EACH, LAYER(q_norm), .flags = T_ROTATED,    \
        .hf = {PART(q, ROWS_HEADS)}),                                                          \
        ROW("attn_k_norm", TENSOR_NORM, DIM_ONE, DIM_KV_EACH, LAYER(k_norm),                   \
            .flags = T_ROTATED, .hf = {PART(k, ROWS_HEADS)})

#define QK_LAYERNORM                                                                           \
    ROW("attn_q_norm", TENSOR_NORM, DIM_ONE, DIM_HEAD, LAYER(q_norm),                          \
        .flags = T_ROTATED | T_OPTIONAL, .hf = {AT("self_attn.q_layernorm")}),                 \
        ROW("attn_k_norm", TENSOR_NORM, DIM_ONE, DIM_HEAD, LAYER(k_norm),                      \
            .flags = T_ROTATED | T_OPTIONAL, .hf = {AT("self_attn.k_layernorm")})

#define UP(...)                                                                                \
    ROW("ffn_up", TENSOR_LINEAR, DIM_FF, DIM_EMBD, LAYER(up), .flags = T_DENSE,                \
        .hf = {__VA_ARGS__})
#define DOWN(...)                                                                              \
    ROW("ffn_down", TENSOR_LINEAR, DIM_EMBD, DIM_FF, LAYER(down), .flags = T_DENSE,            \
        .hf = {__VA_ARGS__})
#define GATE(...)                                                                              \
    ROW("ffn_gate", TENSOR_LINEAR, DIM_FF, DIM_EMBD, LAYER(gate), .flags = T_DENSE,            \
        .hf = {__VA_ARGS__})
/* Both halves of a gated feed-forward in one matrix. */
#define GATED_FUSED                                                                            \
    ROW("ffn_gate", TENSOR_LINEAR, DIM_FF, DIM_EMBD, LAYER(gate),                              \
        .hf = {PART("mlp.gate_up_proj", ROWS_FIRST_HALF)},                                     \
        .gguf = {PART("ffn_up", ROWS_FIRST_HALF)}),                                            \
        ROW("ffn_up", TENSOR_LINEAR, DIM_FF, DIM_EMBD, LAYER(up),                              \
            .hf = {PART("mlp.gate_up_proj", ROWS_SECOND_HALF)},                                \
            .gguf = {PART("ffn_up", ROWS_SECOND_HALF)}),                                       \
        DOWN(AT("mlp.down_proj"))
#define GATED GATE(AT("mlp.gate_proj")), UP(AT("mlp.up_proj")), DOWN(AT("mlp.down_proj"))

/* Experts: one by one as Mixtral or as Qwen names them, or all in one tensor. */
#define EXPERTS                                                                                \
    ROW("ffn_gate_inp", TENSOR_EXACT, DIM_EXPERTS, DIM_EMBD, LAYER(router), .flags = T_SPARSE, \
        .hf = {AT("mlp.gate"), AT("block_sparse_moe.gate")}),                                  \
        ROW("ffn_gate", TENSOR_EXPERTS, DIM_FF_EXPERT, DIM_EMBD, LAYER(gate_exp),              \
            .flags = T_SPARSE,                                                                 \
            .hf = {AT("mlp.experts.%d.gate_proj"), AT("block_sparse_moe.experts.%d.w1"),       \
                   PART("mlp.experts.gate_up_proj!", ROWS_FIRST_HALF)},                        \
            .gguf = {AT("ffn_gate_exps"), AT("ffn_gate.%d")}),                                 \
        ROW("ffn_up", TENSOR_EXPERTS, DIM_FF_EXPERT, DIM_EMBD, LAYER(up_exp),                  \
            .flags = T_SPARSE,                                                                 \
            .hf = {AT("mlp.experts.%d.up_proj"), AT("block_sparse_moe.experts.%d.w3"),         \
                   PART("mlp.experts.gate_up_proj!", ROWS_SECOND_HALF)},                       \
            .gguf = {AT("ffn_up_exps"), AT("ffn_up.%d")}),                                     \
        ROW("ffn_down", TENSOR_EXPERTS, DIM_EMBD, DIM_FF_EXPERT, LAYER(down_exp),              \
            .flags = T_SPARSE,                                                                 \
            .hf = {AT("mlp.experts.%d.down_proj"), AT("block_sparse_moe.experts.%d.w2"),       \
                   AT("mlp.experts.down_proj!")},                                              \
            .gguf = {AT("ffn_down_exps"), AT("ffn_down.%d")})
#define SHARED_EXPERT                                                                          \
    ROW("ffn_gate_inp_shexp", TENSOR_EXACT, DIM_ONE, DIM_EMBD, LAYER(shared_router),           \
        .flags = T_SPARSE, .hf = {AT("mlp.shared_expert_gate")}),                              \
        ROW("ffn_gate_shexp", TENSOR_LINEAR, DIM_FF_SHARED, DIM_EMBD, LAYER(gate_shared),      \
            .flags = T_SPARSE, .hf = {AT("mlp.shared_expert.gate_proj")}),                     \
        ROW("ffn_up_shexp", TENSOR_LINEAR, DIM_FF_SHARED, DIM_EMBD, LAYER(up_shared),          \
            .flags = T_SPARSE, .hf = {AT("mlp.shared_expert.up_proj")}),                       \
        ROW("ffn_down_shexp", TENSOR_LINEAR, DIM_EMBD, DIM_FF_SHARED, LAYER(down_shared),      \
            .flags = T_SPARSE, .hf = {AT("mlp.shared_expert.down_proj")})

#define EMBD(...)                                                                              \
    ROW("token_embd", TENSOR_HEAD, DIM_VOCAB, DIM_EMBD, MODEL(embd), .hf = {__VA_ARGS__})
#define POSITIONS(...)                                                                         \
    ROW("position_embd", TENSOR_EXACT, DIM_POS, DIM_EMBD, MODEL(pos), .hf = {__VA_ARGS__})
#define OUT_NORM(flags_, ...)                                                                  \
    ROW("output_norm", TENSOR_NORM, DIM_ONE, DIM_EMBD, MODEL(out_norm), .flags = flags_,       \
        .hf = {__VA_ARGS__})
#define ROPE_FREQS                                                                             \
    ROW("rope_freqs", TENSOR_VECTOR, DIM_ONE, DIM_ROPE_HALF, MODEL(rope_freqs),                \
        .flags = T_OPTIONAL)
#define ROPE_FACTORS                                                                           \
    ROW("rope_factors_short", TENSOR_VECTOR, DIM_ONE, DIM_ROPE_HALF, MODEL(rope_freqs),        \
        .flags = T_OPTIONAL, .hf = {AT("config.json:short_factor!")}),                         \
        ROW("rope_factors_long", TENSOR_VECTOR, DIM_ONE, DIM_ROPE_HALF, MODEL(rope_long),      \
            .flags = T_OPTIONAL, .hf = {AT("config.json:long_factor!")})
#define HEAD(...)                                                                              \
    ROW("output", TENSOR_HEAD, DIM_VOCAB, DIM_EMBD, MODEL(head), .flags = T_OPTIONAL,          \
        .hf = {__VA_ARGS__})

#endif
