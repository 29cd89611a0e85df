/*
 * arch_table.c - the architectures: which tensors each has and where checkpoints keep them.
 *
 * The tensors come first, as groups of rows that architectures share (attention with separate
 * or fused matrices, kinds of feed-forward); then a list for each, then the table. Names of
 * GGUF files are ours but where a row says otherwise: every architecture's queries, keys and
 * values may be fused there. Names of Hugging Face checkpoints are those that transformers
 * writes.
 */
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

#define UP(...)                                                                                \
    ROW("ffn_up", TENSOR_LINEAR, DIM_FF, DIM_EMBD, LAYER(up), .flags = T_DENSE,                \
        .hf = {__VA_ARGS__})
#define DOWN(...)                                                                              \
    ROW("ffn_down", TENSOR_LINEAR, DIM_EMBD, DIM_FF, LAYER(down), .flags = T_DENSE,            \
        .hf = {__VA_ARGS__})
#define GATE(...)                                                                              \
    ROW("ffn_gate", TENSOR_LINEAR, DIM_FF, DIM_EMBD, LAYER(gate), .flags = T_DENSE,            \
        .hf = {__VA_ARGS__})
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

/* Llama and its many children. */
static const struct arch_tensor llama_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("post_attention_layernorm")),
    GATED,
    EXPERTS,
    END,
};
static const struct arch_tensor llama_model[] = {
    EMBD(AT("model.embed_tokens")),
    OUT_NORM(0, AT("model.norm")),
    ROPE_FREQS,
    ROPE_FACTORS,
    HEAD(AT("lm_head"), AT("language_model.lm_head")),
    END,
};

static const struct arch_tensor qwen2moe_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("post_attention_layernorm")),
    GATED,
    EXPERTS,
    SHARED_EXPERT,
    END,
};

static const struct arch_tensor qwen3_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    QK_NORM(DIM_HEAD, DIM_HEAD, 0),
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("post_attention_layernorm")),
    GATED,
    EXPERTS,
    END,
};

static const struct arch_tensor gemma_layer[] = {
    NORM("attn_norm", attn_norm, T_PLUS_ONE, AT("input_layernorm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, T_PLUS_ONE, AT("post_attention_layernorm")),
    GATED,
    END,
};
static const struct arch_tensor gemma_model[] = {
    EMBD(AT("model.embed_tokens")),
    OUT_NORM(T_PLUS_ONE, AT("model.norm")),
    HEAD(AT("lm_head"), AT("language_model.lm_head")),
    END,
};

#define GEMMA2_NORMS                                                                           \
    NORM("attn_norm", attn_norm, T_PLUS_ONE, AT("input_layernorm")),                           \
        NORM("post_attention_norm", post_attn_norm, T_PLUS_ONE,                                \
             AT("post_attention_layernorm")),                                                  \
        NORM("ffn_norm", ffn_norm, T_PLUS_ONE, AT("pre_feedforward_layernorm")),               \
        NORM("post_ffw_norm", post_ffn_norm, T_PLUS_ONE, AT("post_feedforward_layernorm"))
static const struct arch_tensor gemma2_layer[] = {
    GEMMA2_NORMS, QKV_APART, ATTN_OUT(AT("self_attn.o_proj")), GATED, END,
};
static const struct arch_tensor gemma3_layer[] = {
    GEMMA2_NORMS,
    QKV_APART,
    QK_NORM(DIM_HEAD, DIM_HEAD, T_PLUS_ONE),
    ATTN_OUT(AT("self_attn.o_proj")),
    GATED,
    END,
};

static const struct arch_tensor phi3_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_FUSED("self_attn.qkv_proj", 0),
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("post_attention_layernorm")),
    ROW("ffn_gate", TENSOR_LINEAR, DIM_FF, DIM_EMBD, LAYER(gate),
        .hf = {PART("mlp.gate_up_proj", ROWS_FIRST_HALF)},
        .gguf = {PART("ffn_up", ROWS_FIRST_HALF)}),
    ROW("ffn_up", TENSOR_LINEAR, DIM_FF, DIM_EMBD, LAYER(up),
        .hf = {PART("mlp.gate_up_proj", ROWS_SECOND_HALF)},
        .gguf = {PART("ffn_up", ROWS_SECOND_HALF)}),
    DOWN(AT("mlp.down_proj")),
    END,
};

/* Without a second norm the residual is parallel. */
static const struct arch_tensor stablelm_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, T_OPTIONAL, AT("post_attention_layernorm")),
    GATED,
    END,
};

static const struct arch_tensor cohere_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.o_proj")),
    GATED,
    END,
};

static const struct arch_tensor olmo_layer[] = {
    NORM("attn_norm", attn_norm, T_ONES), QKV_APART, ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, T_ONES),   GATED,     END,
};
static const struct arch_tensor olmo_model[] = {
    EMBD(AT("model.embed_tokens")), OUT_NORM(T_ONES), ROPE_FREQS, HEAD(AT("lm_head")), END,
};

static const struct arch_tensor olmo2_layer[] = {
    QKV_APART,
    QK_NORM(DIM_Q, DIM_KV, 0),
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("post_attention_norm", post_attn_norm, 0, AT("post_attention_layernorm")),
    GATED,
    NORM("post_ffw_norm", post_ffn_norm, 0, AT("post_feedforward_layernorm")),
    END,
};

static const struct arch_tensor phi_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.dense")),
    UP(AT("mlp.fc1")),
    DOWN(AT("mlp.fc2")),
    END,
};
static const struct arch_tensor phi_model[] = {
    EMBD(AT("model.embed_tokens")),
    OUT_NORM(0, AT("model.final_layernorm")),
    ROPE_FREQS,
    HEAD(AT("lm_head")),
    END,
};

static const struct arch_tensor starcoder2_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("post_attention_layernorm")),
    UP(AT("mlp.c_fc")),
    DOWN(AT("mlp.c_proj")),
    END,
};

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
static const struct arch_tensor opt_model[] = {
    EMBD(AT("model.decoder.embed_tokens")),
    POSITIONS(PART("model.decoder.embed_positions", ROWS_FROM_2)),
    OUT_NORM(T_OPTIONAL, AT("model.decoder.final_layer_norm")),
    HEAD(AT("lm_head")),
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

#define MODEL_LAYERS .hf_layer = "model.layers.%d.", .hf_ignored = ".rotary_emb."
#define VISION                                                                                 \
    .hf_layer = "model.layers.%d.",                                                            \
    .hf_prefix = "model.|language_model.model.|model.language_model.",                         \
    .hf_ignored = ".rotary_emb. vision_tower. multi_modal_projector."

const struct arch arch_rows[] = {
    {.name = "llama",
     .hf_types = "llama",
     .layer = llama_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .gguf_interleaved = true,
     .traits = {.expert_norm = true},
     .hf_defaults = "{\"rms_norm_eps\": 1e-6}"},
    {.name = "llama",
     .hf_types = "mistral mistral3",
     .layer = llama_layer,
     .model = llama_model,
     VISION,
     .gguf_interleaved = true,
     .traits = {.expert_norm = true},
     .hf_defaults = "{\"num_key_value_heads\": 8, \"sliding_window\": 4096, "
                    "\"rms_norm_eps\": 1e-6}"},
    {.name = "llama",
     .hf_types = "mixtral",
     .layer = llama_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .gguf_interleaved = true,
     .traits = {.expert_norm = true},
     .hf_defaults = "{\"num_key_value_heads\": 8, \"num_local_experts\": 8, "
                    "\"num_experts_per_tok\": 2, \"rope_theta\": 1000000, "
                    "\"rms_norm_eps\": 1e-5}"},
    {.name = "qwen2",
     .hf_types = "qwen2",
     .layer = llama_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_defaults = "{\"use_sliding_window\": false, \"sliding_window\": 4096, "
                    "\"rms_norm_eps\": 1e-6}",
     .hf_special = hf_qwen},
    {.name = "qwen2moe",
     .hf_types = "qwen2_moe",
     .layer = qwen2moe_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_defaults = "{\"use_sliding_window\": false, \"sliding_window\": 4096, "
                    "\"moe_intermediate_size\": 1408, \"num_experts\": 60, "
                    "\"num_experts_per_tok\": 4, \"rms_norm_eps\": 1e-6, "
                    "\"shared_expert_intermediate_size\": 5632}",
     .gguf_special = gguf_qwen2moe,
     .hf_special = hf_qwen2moe},
    {.name = "qwen3",
     .hf_types = "qwen3",
     .layer = qwen3_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_defaults = "{\"head_dim\": 128, \"use_sliding_window\": false, "
                    "\"sliding_window\": 4096, \"rms_norm_eps\": 1e-6}",
     .hf_special = hf_qwen},
    {.name = "qwen3moe",
     .hf_types = "qwen3_moe",
     .layer = qwen3_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .traits = {.expert_norm = true},
     .hf_defaults = "{\"use_sliding_window\": false, \"sliding_window\": 4096, "
                    "\"moe_intermediate_size\": 768, \"num_experts\": 128, "
                    "\"num_experts_per_tok\": 8, \"norm_topk_prob\": false, "
                    "\"rms_norm_eps\": 1e-6}"},
    {.name = "gemma",
     .hf_types = "gemma",
     .layer = gemma_layer,
     .model = gemma_model,
     MODEL_LAYERS,
     .traits = {.act = ACT_GELU_TANH},
     .hf_defaults = "{\"tie_word_embeddings\": true, "
                    "\"head_dim\": 256, \"rms_norm_eps\": 1e-6}",
     .hf_refused = "use_bidirectional_attention",
     .gguf_special = gguf_gemma,
     .hf_special = hf_gemma},
    {.name = "gemma2",
     .hf_types = "gemma2",
     .layer = gemma2_layer,
     .model = gemma_model,
     MODEL_LAYERS,
     .traits = {.act = ACT_GELU_TANH},
     .hf_defaults = "{\"tie_word_embeddings\": true, "
                    "\"head_dim\": 256, \"query_pre_attn_scalar\": 256, "
                    "\"sliding_window\": 4096, \"sliding_window_pattern\": 2, "
                    "\"attn_logit_softcapping\": 50, \"final_logit_softcapping\": 30, "
                    "\"rms_norm_eps\": 1e-6}",
     .hf_refused = "use_bidirectional_attention",
     .gguf_special = gguf_gemma2,
     .hf_special = hf_gemma},
    {.name = "gemma3",
     .hf_types = "gemma3 gemma3_text",
     .layer = gemma3_layer,
     .model = gemma_model,
     VISION,
     .traits = {.act = ACT_GELU_TANH},
     .hf_defaults = "{\"tie_word_embeddings\": true, "
                    "\"vocab_size\": 262208, \"hidden_size\": 2304, "
                    "\"intermediate_size\": 9216, \"num_hidden_layers\": 26, "
                    "\"num_attention_heads\": 8, \"num_key_value_heads\": 4, "
                    "\"max_position_embeddings\": 131072, \"head_dim\": 256, "
                    "\"query_pre_attn_scalar\": 256, \"sliding_window\": 4096, "
                    "\"sliding_window_pattern\": 6, \"rope_theta\": 1000000, "
                    "\"rope_local_base_freq\": 10000, \"rms_norm_eps\": 1e-6}",
     .hf_refused = "use_bidirectional_attention",
     .gguf_special = gguf_gemma3,
     .hf_special = hf_gemma},
    {.name = "phi2",
     .hf_types = "phi",
     .layer = phi_layer,
     .model = phi_model,
     MODEL_LAYERS,
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_TANH, .residual = RESIDUAL_PARALLEL},
     .hf_defaults = "{\"partial_rotary_factor\": 0.5, \"layer_norm_eps\": 1e-5}",
     .hf_refused = "qk_layernorm"},
    {.name = "phi3",
     .hf_types = "phi3",
     .layer = phi3_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_defaults = "{\"rms_norm_eps\": 1e-5}",
     .gguf_special = gguf_phi3,
     .hf_special = hf_phi3},
    {.name = "smollm3",
     .hf_types = "smollm3",
     .layer = llama_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .gguf_interleaved = true,
     .hf_defaults = "{\"tie_word_embeddings\": true, "
                    "\"num_key_value_heads\": 4, \"rope_theta\": 2000000, "
                    "\"use_sliding_window\": false, \"rms_norm_eps\": 1e-6}",
     .gguf_special = gguf_smollm3,
     .hf_special = hf_smollm3},
    {.name = "stablelm",
     .hf_types = "stablelm",
     .layer = stablelm_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .traits = {.norm = NORM_LAYER},
     .hf_defaults = "{\"partial_rotary_factor\": 0.25, \"layer_norm_eps\": 1e-5}",
     .hf_refused = "qk_layernorm",
     .gguf_special = gguf_stablelm,
     .hf_special = hf_stablelm},
    {.name = "granite",
     .hf_types = "granite",
     .layer = llama_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .gguf_interleaved = true,
     .hf_defaults = "{\"attention_multiplier\": 1, \"rms_norm_eps\": 1e-6}",
     .gguf_special = gguf_granite},
    {.name = "command-r",
     .hf_types = "cohere",
     .layer = cohere_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_interleaved = true,
     .gguf_interleaved = true,
     .traits = {.norm = NORM_LAYER, .residual = RESIDUAL_PARALLEL},
     .hf_defaults = "{\"tie_word_embeddings\": true, "
                    "\"logit_scale\": 0.0625, \"rope_theta\": 500000, "
                    "\"layer_norm_eps\": 1e-5}",
     .hf_refused = "use_qk_norm"},
    {.name = "olmo",
     .hf_types = "olmo",
     .layer = olmo_layer,
     .model = olmo_model,
     MODEL_LAYERS,
     .gguf_interleaved = true,
     .traits = {.norm = NORM_LAYER},
     .hf_defaults = "{\"layer_norm_eps\": 1e-5}",
     .hf_refused = "clip_qkv"},
    {.name = "olmo2",
     .hf_types = "olmo2",
     .layer = olmo2_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .traits = {.norm_rows = true},
     .hf_defaults = "{\"rms_norm_eps\": 1e-5}"},
    {.name = "starcoder2",
     .hf_types = "starcoder2",
     .layer = starcoder2_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_TANH},
     .hf_defaults = "{\"tie_word_embeddings\": true, "
                    "\"num_key_value_heads\": 2, \"norm_epsilon\": 1e-5}"},
    {.name = "gpt2",
     .hf_types = "gpt2",
     .layer = gpt2_layer,
     .model = gpt2_model,
     .hf_layer = "transformer.h.%d.",
     .hf_prefix = "transformer.|",
     .hf_ignored = ".attn.bias .attn.masked_bias",
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_TANH, .pos = POS_LEARNED},
     .hf_defaults = "{\"tie_word_embeddings\": true, "
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
     .hf_defaults = "{\"tie_word_embeddings\": true, \"layer_norm_eps\": 1e-5}",
     .hf_special = hf_opt},
    {.name = "gptneox",
     .hf_types = "gpt_neox",
     .layer = gptneox_layer,
     .model = gptneox_model,
     .hf_layer = "gpt_neox.layers.%d.",
     .hf_ignored = ".attention.bias .attention.masked_bias .rotary_emb.",
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_ERF, .residual = RESIDUAL_PARALLEL},
     .hf_defaults = "{\"rotary_pct\": 0.25, \"layer_norm_eps\": 1e-5}",
     .gguf_special = gguf_gptneox,
     .hf_special = hf_gptneox},
    {.name = "falcon",
     .hf_types = "falcon",
     .layer = falcon_layer,
     .model = falcon_model,
     .hf_layer = "transformer.h.%d.",
     .hf_ignored = ".rotary_emb. .rotary.",
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_ERF, .residual = RESIDUAL_PARALLEL},
     .hf_defaults = "{\"tie_word_embeddings\": true, "
                    "\"max_position_embeddings\": 2048, \"layer_norm_epsilon\": 1e-5}",
     .hf_special = hf_falcon},
};

const size_t arch_n_rows = sizeof arch_rows / sizeof *arch_rows;
