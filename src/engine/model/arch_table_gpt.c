/*
 * arch_table_gpt.c - the architectures whose checkpoints are laid out as GPT-2's and its
 * successors': fused or transposed matrices, plain feed-forwards, and every family with names
 * of its own. See arch_rows.h for the words, arch_table.c for those like Llama.
 */
#include "engine/model/arch_rows.h"

static const struct arch_tensor gpt2_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("ln_1")),
    QKV_FUSED("attn.c_attn", ROWS_TRANSPOSED),
    ATTN_OUT(PART("attn.c_proj", ROWS_TRANSPOSED)),
    NORM("ffn_norm", ffn_norm, 0, AT("ln_2")),
    UP(PART("mlp.c_fc", ROWS_TRANSPOSED)),
    DOWN(PART("mlp.c_proj", ROWS_TRANSPOSED)),
    END,
};
static const struct arch_tensor gpt2_model[] = {
    EMBD(AT("transformer.wte")),
    POSITIONS(AT("transformer.wpe")),
    OUT_NORM(0, AT("transformer.ln_f")),
    HEAD(AT("lm_head")),
    END,
};

static const struct arch_tensor opt_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("self_attn_layer_norm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.out_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("final_layer_norm")),
    UP(AT("fc1")),
    DOWN(AT("fc2")),
    END,
};
/* The smallest post-norm model has words narrower than the stream. */
static const struct arch_tensor opt_model[] = {
    ROW("token_embd", TENSOR_HEAD, DIM_VOCAB, DIM_WORD, MODEL(embd),
        .hf = {AT("model.decoder.embed_tokens")}),
    ROW("embd_in", TENSOR_LINEAR, DIM_EMBD, DIM_WORD_OWN, MODEL(embd_in),
        .hf = {AT("model.decoder.project_in")}),
    ROW("embd_out", TENSOR_LINEAR, DIM_WORD_OWN, DIM_EMBD, MODEL(embd_out),
        .hf = {AT("model.decoder.project_out")}),
    POSITIONS(PART("model.decoder.embed_positions", ROWS_FROM_2)),
    OUT_NORM(T_OPTIONAL, AT("model.decoder.final_layer_norm")),
    ROW("output", TENSOR_HEAD, DIM_VOCAB, DIM_WORD, MODEL(head), .flags = T_OPTIONAL,
        .hf = {AT("lm_head")}),
    END,
};

static const struct arch_tensor gptneox_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_GROUPS("attention.query_key_value"),
    ATTN_OUT(AT("attention.dense")),
    NORM("ffn_norm", ffn_norm, 0, AT("post_attention_layernorm")),
    UP(AT("mlp.dense_h_to_4h")),
    DOWN(AT("mlp.dense_4h_to_h")),
    END,
};
static const struct arch_tensor gptneox_model[] = {
    EMBD(AT("gpt_neox.embed_in")),
    OUT_NORM(0, AT("gpt_neox.final_layer_norm")),
    ROPE_FREQS,
    HEAD(AT("embed_out"), AT("lm_head")),
    END,
};

/* One norm or two, side by side or one after the other. In GGUF files the second of two norms
 * side by side is that of attention. */
static const struct arch_tensor falcon_layer[] = {
    ROW("attn_norm", TENSOR_NORM, DIM_ONE, DIM_EMBD, LAYER(attn_norm),
        .hf = {AT("ln_attn"), AT("input_layernorm")},
        .gguf = {AT("attn_norm_2"), AT("attn_norm")}),
    QKV_GROUPS("self_attention.query_key_value"),
    ATTN_OUT(AT("self_attention.dense")),
    ROW("ffn_norm", TENSOR_NORM, DIM_ONE, DIM_EMBD, LAYER(ffn_norm), .flags = T_OPTIONAL,
        .hf = {AT("ln_mlp"), AT("post_attention_layernorm")}, .gguf = {AT("attn_norm")}),
    UP(AT("mlp.dense_h_to_4h")),
    DOWN(AT("mlp.dense_4h_to_h")),
    END,
};
static const struct arch_tensor falcon_model[] = {
    EMBD(AT("transformer.word_embeddings")),
    OUT_NORM(0, AT("transformer.ln_f")),
    ROPE_FREQS,
    HEAD(AT("lm_head")),
    END,
};

/* GPT-J: one norm, RoPE on interleaved pairs. */
static const struct arch_tensor gptj_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("ln_1")),
    QKV(AT("attn.q_proj"), AT("attn.k_proj"), AT("attn.v_proj")),
    ATTN_OUT(AT("attn.out_proj")),
    UP(AT("mlp.fc_in")),
    DOWN(AT("mlp.fc_out")),
    END,
};
static const struct arch_tensor gptj_model[] = {
    EMBD(AT("transformer.wte")),
    OUT_NORM(0, AT("transformer.ln_f")),
    HEAD(AT("lm_head")),
    END,
};

static const struct arch_tensor gptneo_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("ln_1")),
    QKV(AT("attn.attention.q_proj"), AT("attn.attention.k_proj"), AT("attn.attention.v_proj")),
    ATTN_OUT(AT("attn.attention.out_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("ln_2")),
    UP(AT("mlp.c_fc")),
    DOWN(AT("mlp.c_proj")),
    END,
};

/* GPT-BigCode (StarCoder 1): GPT-2 with one head of keys, and plain matrices. */
static const struct arch_tensor bigcode_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("ln_1")),
    QKV_GROUPS("attn.c_attn"),
    ATTN_OUT(AT("attn.c_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("ln_2")),
    UP(AT("mlp.c_fc")),
    DOWN(AT("mlp.c_proj")),
    END,
};

static const struct arch_tensor bloom_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_GROUPS("self_attention.query_key_value"),
    ATTN_OUT(AT("self_attention.dense")),
    NORM("ffn_norm", ffn_norm, 0, AT("post_attention_layernorm")),
    UP(AT("mlp.dense_h_to_4h")),
    DOWN(AT("mlp.dense_4h_to_h")),
    END,
};
static const struct arch_tensor bloom_model[] = {
    EMBD(AT("transformer.word_embeddings")),
    ROW("token_embd_norm", TENSOR_NORM, DIM_ONE, DIM_EMBD, MODEL(embd_norm),
        .hf = {AT("transformer.word_embeddings_layernorm")}),
    OUT_NORM(0, AT("transformer.ln_f")),
    HEAD(AT("lm_head")),
    END,
};

static const struct arch_tensor mpt_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("norm_1")),
    QKV_FUSED("attn.Wqkv", 0),
    ATTN_OUT(AT("attn.out_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("norm_2")),
    UP(AT("ffn.up_proj")),
    DOWN(AT("ffn.down_proj")),
    END,
};
static const struct arch_tensor mpt_model[] = {
    EMBD(AT("transformer.wte")),
    OUT_NORM(0, AT("transformer.norm_f")),
    HEAD(AT("lm_head")),
    END,
};

static const struct arch_tensor persimmon_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_GROUPS("self_attn.query_key_value"),
    QK_LAYERNORM,
    ATTN_OUT(AT("self_attn.dense")),
    NORM("ffn_norm", ffn_norm, 0, AT("post_attention_layernorm")),
    UP(AT("mlp.dense_h_to_4h")),
    DOWN(AT("mlp.dense_4h_to_h")),
    END,
};
static const struct arch_tensor persimmon_model[] = {
    EMBD(AT("model.embed_tokens")),
    OUT_NORM(0, AT("model.final_layernorm")),
    HEAD(AT("lm_head")),
    END,
};

/* Llamas under other names. */
static const struct arch_tensor internlm2_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("attention_norm")),
    QKV_GROUPS("attention.wqkv"),
    ATTN_OUT(AT("attention.wo")),
    NORM("ffn_norm", ffn_norm, 0, AT("ffn_norm")),
    GATE(AT("feed_forward.w1")),
    UP(AT("feed_forward.w3")),
    DOWN(AT("feed_forward.w2")),
    END,
};
static const struct arch_tensor internlm2_model[] = {
    EMBD(AT("model.tok_embeddings")),
    OUT_NORM(0, AT("model.norm")),
    ROPE_FREQS,
    HEAD(AT("output")),
    END,
};

static const struct arch_tensor exaone_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("ln_1")),
    QKV(AT("attn.attention.q_proj"), AT("attn.attention.k_proj"), AT("attn.attention.v_proj")),
    ATTN_OUT(AT("attn.attention.out_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("ln_2")),
    GATE(AT("mlp.c_fc_0")),
    UP(AT("mlp.c_fc_1")),
    DOWN(AT("mlp.c_proj")),
    END,
};
static const struct arch_tensor exaone_model[] = {
    EMBD(AT("transformer.wte")),
    OUT_NORM(0, AT("transformer.ln_f")),
    ROPE_FREQS,
    HEAD(AT("lm_head")),
    END,
};

#define TRANSFORMER_H                                                                          \
    .hf_layer = "transformer.h.%d.", .hf_prefix = "transformer.|",                             \
    .hf_ignored = ".attn.bias .attn.masked_bias .attention.bias .attention.masked_bias "       \
                  ".rotary_emb. .rotary."

const struct arch arch_gpt_rows[] = {
    {.name = "gpt2",
     .hf_types = "gpt2",
     .layer = gpt2_layer,
     .model = gpt2_model,
     TRANSFORMER_H,
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_TANH, .pos = POS_LEARNED},
     .hf_defaults = "{\"n_positions\": 1024, "
                    "\"tie_word_embeddings\": true, "
                    "\"layer_norm_epsilon\": 1e-5, \"activation_function\": \"gelu_new\"}",
     .hf_refused = "scale_attn_by_inverse_layer_idx add_cross_attention",
     .hf_special = hf_gpt2},
    {.name = "opt",
     .hf_types = "opt",
     .layer = opt_layer,
     .model = opt_model,
     .hf_layer = "model.decoder.layers.%d.",
     .hf_prefix = "model.decoder.|decoder.",
     .traits = {.norm = NORM_LAYER, .act = ACT_RELU, .pos = POS_LEARNED},
     .hf_defaults = "{\"max_position_embeddings\": 2048, "
                    "\"tie_word_embeddings\": true, \"layer_norm_eps\": 1e-5}",
     .hf_keys = "activation_function",
     .hf_special = hf_opt},
    {.name = "gptneox",
     .hf_types = "gpt_neox",
     .layer = gptneox_layer,
     .model = gptneox_model,
     .hf_layer = "gpt_neox.layers.%d.",
     .hf_ignored = ".attention.bias .attention.masked_bias .rotary_emb.",
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_ERF, .residual = RESIDUAL_PARALLEL},
     .hf_defaults = "{\"max_position_embeddings\": 2048, "
                    "\"rotary_pct\": 0.25, \"layer_norm_eps\": 1e-5}",
     .hf_keys = "partial_rotary_factor rotary_emb_base",
     .gguf_special = gguf_gptneox,
     .hf_special = hf_gptneox},
    {.name = "falcon",
     .hf_types = "falcon",
     .layer = falcon_layer,
     .model = falcon_model,
     TRANSFORMER_H,
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_ERF, .residual = RESIDUAL_PARALLEL},
     .hf_defaults = "{\"tie_word_embeddings\": true, "
                    "\"max_position_embeddings\": 2048, \"layer_norm_epsilon\": 1e-5}",
     .hf_keys = "activation",
     .hf_special = hf_falcon},
    {.name = "gptj",
     .hf_types = "gptj",
     .layer = gptj_layer,
     .model = gptj_model,
     TRANSFORMER_H,
     .hf_interleaved = true,
     .gguf_interleaved = true,
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_TANH, .residual = RESIDUAL_PARALLEL},
     .hf_defaults = "{\"n_positions\": 2048, "
                    "\"rotary_dim\": 64, \"layer_norm_epsilon\": 1e-5}",
     .hf_keys = "activation_function"},
    {.name = "gptneo",
     .hf_types = "gpt_neo",
     .layer = gptneo_layer,
     .model = gpt2_model,
     TRANSFORMER_H,
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_TANH, .pos = POS_LEARNED},
     .hf_defaults = "{\"max_position_embeddings\": 2048, "
                    "\"tie_word_embeddings\": true, \"layer_norm_epsilon\": 1e-5}",
     .hf_keys = "activation_function",
     .hf_special = hf_gptneo},
    {.name = "starcoder",
     .hf_types = "gpt_bigcode",
     .layer = bigcode_layer,
     .model = gpt2_model,
     TRANSFORMER_H,
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_TANH, .pos = POS_LEARNED},
     .hf_defaults = "{\"n_positions\": 1024, "
                    "\"tie_word_embeddings\": true, \"layer_norm_epsilon\": 1e-5}",
     .hf_keys = "activation_function",
     .hf_refused = "add_cross_attention",
     .hf_special = hf_bigcode},
    {.name = "bloom",
     .hf_types = "bloom",
     .layer = bloom_layer,
     .model = bloom_model,
     TRANSFORMER_H,
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_TANH, .pos = POS_ALIBI},
     .hf_defaults = "{\"tie_word_embeddings\": true, \"seq_length\": 2048, "
                    "\"layer_norm_epsilon\": 1e-5}",
     .hf_refused = "apply_residual_connection_post_layernorm"},
    {.name = "mpt",
     .hf_types = "mpt",
     .layer = mpt_layer,
     .model = mpt_model,
     .hf_layer = "transformer.blocks.%d.",
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_ERF, .pos = POS_ALIBI},
     .hf_defaults = "{\"max_seq_len\": 2048, "
                    "\"tie_word_embeddings\": true, \"layer_norm_epsilon\": 1e-5}",
     .hf_special = hf_mpt},
    {.name = "persimmon",
     .hf_types = "persimmon",
     .layer = persimmon_layer,
     .model = persimmon_model,
     .hf_layer = "model.layers.%d.",
     .hf_ignored = ".rotary_emb.",
     .traits = {.norm = NORM_LAYER, .act = ACT_RELU2},
     .hf_defaults = "{\"max_position_embeddings\": 16384, "
                    "\"partial_rotary_factor\": 0.5, \"layer_norm_eps\": 1e-5}"},
    {.name = "internlm2",
     .hf_types = "internlm2",
     .layer = internlm2_layer,
     .model = internlm2_model,
     .hf_layer = "model.layers.%d.",
     .hf_ignored = ".rotary_emb.",
     .gguf_interleaved = true,
     .hf_keys = "rms_norm_eps"},
    {.name = "exaone",
     .hf_types = "exaone",
     .layer = exaone_layer,
     .model = exaone_model,
     TRANSFORMER_H,
     .hf_keys = "layer_norm_epsilon activation_function"},
    {.name = NULL},
};
