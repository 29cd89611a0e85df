/*
 * arch_table.c - the architectures whose checkpoints are laid out as Llama's: a list of tensors
 * for each, then the rows. See arch_rows.h for the words, arch_table_gpt.c for the others.
 *
 * Names of Hugging Face checkpoints are those that transformers writes.
 */
#include "engine/model/arch_rows.h"

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
    GATED_FUSED,
    END,
};

/* Without a second norm the residual is parallel. */
static const struct arch_tensor stablelm_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    QK_NORM_OF_HEADS("self_attn.q_layernorm.norms.%d", "self_attn.k_layernorm.norms.%d"),
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, T_OPTIONAL, AT("post_attention_layernorm")),
    GATED,
    END,
};

static const struct arch_tensor cohere_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    QK_NORM_OF_HEADS("self_attn.q_norm", "self_attn.k_norm"),
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

static const struct arch_tensor olmoe_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    QK_NORM(DIM_Q, DIM_KV, 0),
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("post_attention_layernorm")),
    EXPERTS,
    END,
};

static const struct arch_tensor phi_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    QK_LAYERNORM,
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

static const struct arch_tensor arcee_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("post_attention_layernorm")),
    UP(AT("mlp.up_proj")),
    DOWN(AT("mlp.down_proj")),
    END,
};

static const struct arch_tensor exaone4_layer[] = {
    QKV_APART,
    QK_NORM(DIM_HEAD, DIM_HEAD, 0),
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("post_attention_norm", post_attn_norm, 0, AT("post_attention_layernorm")),
    GATED,
    NORM("post_ffw_norm", post_ffn_norm, 0, AT("post_feedforward_layernorm")),
    END,
};

static const struct arch_tensor glm_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("post_attention_layernorm")),
    GATED_FUSED,
    END,
};
static const struct arch_tensor glm4_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("post_attention_norm", post_attn_norm, 0, AT("post_self_attn_layernorm")),
    NORM("ffn_norm", ffn_norm, 0, AT("post_attention_layernorm")),
    GATED_FUSED,
    NORM("post_ffw_norm", post_ffn_norm, 0, AT("post_mlp_layernorm")),
    END,
};

/* As Llama, but what GGUF files call the norm of the feed-forward. */
static const struct arch_tensor seed_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.o_proj")),
    ROW("ffn_norm", TENSOR_NORM, DIM_ONE, DIM_EMBD, LAYER(ffn_norm),
        .hf = {AT("post_attention_layernorm")}, .gguf = {AT("post_attention_norm")}),
    GATED,
    END,
};

static const struct arch_tensor vaultgemma_layer[] = {
    NORM("attn_norm", attn_norm, T_PLUS_ONE, AT("input_layernorm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, T_PLUS_ONE, AT("pre_feedforward_layernorm")),
    GATED,
    END,
};

/* Granite's experts lie in one tensor a layer. */
static const struct arch_tensor granitemoe_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    ATTN_OUT(AT("self_attn.o_proj")),
    NORM("ffn_norm", ffn_norm, 0, AT("post_attention_layernorm")),
    ROW("ffn_gate_inp", TENSOR_EXACT, DIM_EXPERTS, DIM_EMBD, LAYER(router), .flags = T_SPARSE,
        .hf = {AT("block_sparse_moe.router.layer"), AT("block_sparse_moe.router")}),
    ROW("ffn_gate", TENSOR_EXPERTS, DIM_FF_EXPERT, DIM_EMBD, LAYER(gate_exp), .flags = T_SPARSE,
        .hf = {PART("block_sparse_moe.input_linear", ROWS_FIRST_HALF)},
        .gguf = {AT("ffn_gate_exps")}),
    ROW("ffn_up", TENSOR_EXPERTS, DIM_FF_EXPERT, DIM_EMBD, LAYER(up_exp), .flags = T_SPARSE,
        .hf = {PART("block_sparse_moe.input_linear", ROWS_SECOND_HALF)},
        .gguf = {AT("ffn_up_exps")}),
    ROW("ffn_down", TENSOR_EXPERTS, DIM_EMBD, DIM_FF_EXPERT, LAYER(down_exp), .flags = T_SPARSE,
        .hf = {AT("block_sparse_moe.output_linear")}, .gguf = {AT("ffn_down_exps")}),
    END,
};

/* gpt-oss: sinks in the softmax and biases everywhere. Gate and up are alternate columns of one
 * stack that is stored turned, or, as it is published, rows of MXFP4 blocks. */
#define GPT_OSS_UP(which)                                                                      \
    {.name = "mlp.experts.gate_up_proj!",                                                      \
     .rows = which | ROWS_TRANSPOSED,                                                          \
     .bias = "mlp.experts.gate_up_proj_bias!"},                                                \
    {                                                                                          \
        .name = "mlp.experts.gate_up_proj", .rows = which,                                     \
        .bias = "mlp.experts.gate_up_proj_bias!"                                               \
    }
static const struct arch_tensor gptoss_layer[] = {
    NORM("attn_norm", attn_norm, 0, AT("input_layernorm")),
    QKV_APART,
    ROW("attn_sinks", TENSOR_VECTOR, DIM_ONE, DIM_N_HEAD, LAYER(sinks),
        .hf = {AT("self_attn.sinks!")}),
    ATTN_OUT(AT("self_attn.o_proj")),
    ROW("ffn_norm", TENSOR_NORM, DIM_ONE, DIM_EMBD, LAYER(ffn_norm),
        .hf = {AT("post_attention_layernorm")}, .gguf = {AT("post_attention_norm")}),
    ROW("ffn_gate_inp", TENSOR_EXACT, DIM_EXPERTS, DIM_EMBD, LAYER(router),
        .flags = T_SPARSE | T_BIASED, .hf = {AT("mlp.router")}),
    ROW("ffn_gate", TENSOR_EXPERTS, DIM_FF_EXPERT, DIM_EMBD, LAYER(gate_exp),
        .flags = T_SPARSE | T_BIASED, .hf = {GPT_OSS_UP(ROWS_EVEN)},
        .gguf = {AT("ffn_gate_exps")}),
    ROW("ffn_up", TENSOR_EXPERTS, DIM_FF_EXPERT, DIM_EMBD, LAYER(up_exp),
        .flags = T_SPARSE | T_BIASED, .hf = {GPT_OSS_UP(ROWS_ODD)},
        .gguf = {AT("ffn_up_exps")}),
    ROW("ffn_down", TENSOR_EXPERTS, DIM_EMBD, DIM_FF_EXPERT, LAYER(down_exp),
        .flags = T_SPARSE | T_BIASED,
        .hf = {{.name = "mlp.experts.down_proj!",
                .rows = ROWS_TRANSPOSED,
                .bias = "mlp.experts.down_proj_bias!"},
               {.name = "mlp.experts.down_proj", .bias = "mlp.experts.down_proj_bias!"}},
        .gguf = {AT("ffn_down_exps")}),
    END,
};

#define MODEL_LAYERS .hf_layer = "model.layers.%d.", .hf_ignored = ".rotary_emb."
#define VISION                                                                                 \
    .hf_layer = "model.layers.%d.",                                                            \
    .hf_prefix = "model.|language_model.model.|model.language_model.",                         \
    .hf_ignored = ".rotary_emb. vision_tower. multi_modal_projector."

const struct arch arch_llama_rows[] = {
    {.name = "llama",
     .hf_types = "llama",
     .layer = llama_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .gguf_interleaved = true,
     .traits = {.expert_norm = true},
     .hf_defaults = "{\"max_position_embeddings\": 2048, "
                    "\"rms_norm_eps\": 1e-6}"},
    {.name = "llama",
     .hf_types = "mistral mistral3",
     .layer = llama_layer,
     .model = llama_model,
     VISION,
     .gguf_interleaved = true,
     .traits = {.expert_norm = true},
     .hf_defaults = "{\"max_position_embeddings\": 131072, "
                    "\"num_key_value_heads\": 8, \"sliding_window\": 4096, "
                    "\"rms_norm_eps\": 1e-6}"},
    {.name = "llama",
     .hf_types = "ministral",
     .layer = llama_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .gguf_interleaved = true,
     .traits = {.expert_norm = true},
     .hf_defaults = "{\"max_position_embeddings\": 131072, "
                    "\"num_key_value_heads\": 8, \"sliding_window\": 4096, "
                    "\"rms_norm_eps\": 1e-6}",
     .hf_keys = "layer_types"},
    {.name = "llama",
     .hf_types = "mixtral",
     .layer = llama_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .gguf_interleaved = true,
     .traits = {.expert_norm = true},
     .hf_defaults = "{\"max_position_embeddings\": 131072, "
                    "\"num_key_value_heads\": 8, \"num_local_experts\": 8, "
                    "\"num_experts_per_tok\": 2, \"rope_theta\": 1000000, "
                    "\"rms_norm_eps\": 1e-5}",
     .hf_keys = "sliding_window"},
    {.name = "qwen2",
     .hf_types = "qwen2",
     .layer = llama_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_defaults = "{\"max_position_embeddings\": 32768, "
                    "\"use_sliding_window\": false, \"sliding_window\": 4096, "
                    "\"rms_norm_eps\": 1e-6}",
     .hf_keys = "layer_types",
     .hf_special = hf_qwen},
    {.name = "qwen2moe",
     .hf_types = "qwen2_moe",
     .layer = qwen2moe_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_defaults = "{\"max_position_embeddings\": 32768, "
                    "\"use_sliding_window\": false, \"sliding_window\": 4096, "
                    "\"moe_intermediate_size\": 1408, \"num_experts\": 60, "
                    "\"num_experts_per_tok\": 4, \"rms_norm_eps\": 1e-6, "
                    "\"shared_expert_intermediate_size\": 5632}",
     .hf_keys = "layer_types norm_topk_prob mlp_only_layers decoder_sparse_step",
     .gguf_special = gguf_qwen2moe,
     .hf_special = hf_qwen2moe},
    {.name = "qwen3",
     .hf_types = "qwen3",
     .layer = qwen3_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_defaults = "{\"max_position_embeddings\": 32768, "
                    "\"head_dim\": 128, \"use_sliding_window\": false, "
                    "\"sliding_window\": 4096, \"rms_norm_eps\": 1e-6}",
     .hf_keys = "layer_types",
     .hf_special = hf_qwen},
    {.name = "qwen3moe",
     .hf_types = "qwen3_moe",
     .layer = qwen3_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .traits = {.expert_norm = true},
     .hf_defaults = "{\"max_position_embeddings\": 32768, "
                    "\"use_sliding_window\": false, \"sliding_window\": 4096, "
                    "\"moe_intermediate_size\": 768, \"num_experts\": 128, "
                    "\"num_experts_per_tok\": 8, \"norm_topk_prob\": false, "
                    "\"rms_norm_eps\": 1e-6}",
     .hf_keys = "num_local_experts mlp_only_layers decoder_sparse_step"},
    {.name = "gemma",
     .hf_types = "gemma",
     .layer = gemma_layer,
     .model = gemma_model,
     MODEL_LAYERS,
     .traits = {.act = ACT_GELU_TANH},
     .hf_defaults = "{\"max_position_embeddings\": 8192, "
                    "\"tie_word_embeddings\": true, "
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
     .hf_defaults = "{\"hidden_activation\": \"gelu_pytorch_tanh\", "
                    "\"max_position_embeddings\": 8192, "
                    "\"tie_word_embeddings\": true, "
                    "\"head_dim\": 256, \"query_pre_attn_scalar\": 256, "
                    "\"sliding_window\": 4096, \"sliding_window_pattern\": 2, "
                    "\"attn_logit_softcapping\": 50, \"final_logit_softcapping\": 30, "
                    "\"rms_norm_eps\": 1e-6}",
     .hf_keys = "layer_types",
     .hf_refused = "use_bidirectional_attention",
     .gguf_special = gguf_gemma2,
     .hf_special = hf_gemma},
    {.name = "gemma3",
     .hf_types = "gemma3 gemma3_text",
     .layer = gemma3_layer,
     .model = gemma_model,
     VISION,
     .traits = {.act = ACT_GELU_TANH},
     .hf_defaults = "{\"hidden_activation\": \"gelu_pytorch_tanh\", "
                    "\"tie_word_embeddings\": true, "
                    "\"vocab_size\": 262208, \"hidden_size\": 2304, "
                    "\"intermediate_size\": 9216, \"num_hidden_layers\": 26, "
                    "\"num_attention_heads\": 8, \"num_key_value_heads\": 4, "
                    "\"max_position_embeddings\": 131072, \"head_dim\": 256, "
                    "\"query_pre_attn_scalar\": 256, \"sliding_window\": 4096, "
                    "\"sliding_window_pattern\": 6, \"rope_theta\": 1000000, "
                    "\"rope_local_base_freq\": 10000, \"rms_norm_eps\": 1e-6}",
     .hf_keys = "layer_types final_logit_softcapping",
     .hf_refused = "use_bidirectional_attention",
     .gguf_special = gguf_gemma3,
     .hf_special = hf_gemma},
    {.name = "phi2",
     .hf_types = "phi",
     .layer = phi_layer,
     .model = phi_model,
     MODEL_LAYERS,
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_TANH, .residual = RESIDUAL_PARALLEL},
     .hf_defaults = "{\"max_position_embeddings\": 2048, "
                    "\"partial_rotary_factor\": 0.5, \"layer_norm_eps\": 1e-5}"},
    {.name = "phi3",
     .hf_types = "phi3",
     .layer = phi3_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_defaults = "{\"max_position_embeddings\": 4096, "
                    "\"rms_norm_eps\": 1e-5}",
     .hf_keys = "sliding_window partial_rotary_factor",
     .gguf_special = gguf_phi3,
     .hf_special = hf_phi3},
    {.name = "smollm3",
     .hf_types = "smollm3",
     .layer = llama_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .gguf_interleaved = true,
     .hf_defaults = "{\"max_position_embeddings\": 32768, "
                    "\"tie_word_embeddings\": true, "
                    "\"num_key_value_heads\": 4, \"rope_theta\": 2000000, "
                    "\"use_sliding_window\": false, \"rms_norm_eps\": 1e-6}",
     .hf_keys = "sliding_window layer_types",
     .gguf_special = gguf_smollm3,
     .hf_special = hf_smollm3},
    {.name = "stablelm",
     .hf_types = "stablelm",
     .layer = stablelm_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .traits = {.norm = NORM_LAYER},
     .hf_defaults = "{\"max_position_embeddings\": 4096, "
                    "\"partial_rotary_factor\": 0.25, \"layer_norm_eps\": 1e-5}",
     .gguf_special = gguf_stablelm,
     .hf_special = hf_stablelm},
    {.name = "granite",
     .hf_types = "granite",
     .layer = llama_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .gguf_interleaved = true,
     .hf_defaults = "{\"max_position_embeddings\": 2048, "
                    "\"attention_multiplier\": 1, \"rms_norm_eps\": 1e-6}",
     .hf_keys = "embedding_multiplier residual_multiplier logits_scaling",
     .gguf_special = gguf_granite},
    {.name = "command-r",
     .hf_types = "cohere",
     .layer = cohere_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_interleaved = true,
     .gguf_interleaved = true,
     .traits = {.norm = NORM_LAYER, .residual = RESIDUAL_PARALLEL},
     .hf_defaults = "{\"max_position_embeddings\": 8192, "
                    "\"tie_word_embeddings\": true, "
                    "\"logit_scale\": 0.0625, \"rope_theta\": 500000, "
                    "\"layer_norm_eps\": 1e-5}",
     .hf_special = hf_cohere},
    {.name = "olmo",
     .hf_types = "olmo",
     .layer = olmo_layer,
     .model = olmo_model,
     MODEL_LAYERS,
     .gguf_interleaved = true,
     .traits = {.norm = NORM_LAYER},
     .hf_defaults = "{\"max_position_embeddings\": 2048, "
                    "\"layer_norm_eps\": 1e-5}",
     .hf_refused = "clip_qkv"},
    {.name = "olmo2",
     .hf_types = "olmo2",
     .layer = olmo2_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .traits = {.norm_rows = true},
     .hf_defaults = "{\"max_position_embeddings\": 2048, "
                    "\"rms_norm_eps\": 1e-5}",
     .gguf_special = gguf_olmo2},
    {.name = "olmo2",
     .hf_types = "olmo3",
     .layer = olmo2_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .traits = {.norm_rows = true},
     .hf_defaults = "{\"max_position_embeddings\": 2048, "
                    "\"sliding_window\": 4096, \"sliding_window_pattern\": 4, "
                    "\"rope_theta\": 500000, \"rms_norm_eps\": 1e-5}",
     .hf_keys = "layer_types rope_local_base_freq",
     .hf_special = hf_olmo3},
    {.name = "starcoder2",
     .hf_types = "starcoder2",
     .layer = starcoder2_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .traits = {.norm = NORM_LAYER, .act = ACT_GELU_TANH},
     .hf_defaults = "{\"max_position_embeddings\": 4096, "
                    "\"tie_word_embeddings\": true, "
                    "\"num_key_value_heads\": 2, \"norm_epsilon\": 1e-5}",
     .hf_keys = "sliding_window"},
    {.name = "arcee",
     .hf_types = "arcee",
     .layer = arcee_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .gguf_interleaved = true,
     .traits = {.act = ACT_RELU2},
     .hf_defaults = "{\"max_position_embeddings\": 4096, "
                    "\"rms_norm_eps\": 1e-5}"},
    {.name = "cohere2",
     .hf_types = "cohere2",
     .layer = cohere_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_interleaved = true,
     .gguf_interleaved = true,
     .traits = {.norm = NORM_LAYER, .residual = RESIDUAL_PARALLEL},
     .hf_defaults = "{\"max_position_embeddings\": 8192, "
                    "\"tie_word_embeddings\": true, "
                    "\"logit_scale\": 0.0625, \"sliding_window\": 4096, "
                    "\"sliding_window_pattern\": 4, \"layer_norm_eps\": 1e-5}",
     .hf_keys = "layer_types",
     .gguf_special = gguf_cohere2,
     .hf_special = hf_cohere2},
    {.name = "ernie4_5",
     .hf_types = "ernie4_5",
     .layer = llama_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_interleaved = true,
     .gguf_interleaved = true,
     .hf_defaults = "{\"max_position_embeddings\": 131072, "
                    "\"tie_word_embeddings\": true, "
                    "\"head_dim\": 128, \"num_key_value_heads\": 2, "
                    "\"rope_theta\": 500000, \"rms_norm_eps\": 1e-5}"},
    {.name = "exaone4",
     .hf_types = "exaone4",
     .layer = exaone4_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_defaults = "{\"max_position_embeddings\": 2048, "
                    "\"sliding_window\": 4096, \"sliding_window_pattern\": 4, "
                    "\"rms_norm_eps\": 1e-5}",
     .hf_keys = "layer_types",
     .gguf_special = gguf_exaone4,
     .hf_special = hf_exaone4},
    {.name = "chatglm",
     .hf_types = "glm",
     .layer = glm_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_interleaved = true,
     .gguf_interleaved = true,
     .hf_defaults = "{\"max_position_embeddings\": 131072, "
                    "\"head_dim\": 128, \"num_key_value_heads\": 2, "
                    "\"partial_rotary_factor\": 0.5, \"rms_norm_eps\": 1.5625e-7}"},
    {.name = "glm4",
     .hf_types = "glm4",
     .layer = glm4_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_interleaved = true,
     .gguf_interleaved = true,
     .hf_defaults = "{\"max_position_embeddings\": 131072, "
                    "\"head_dim\": 128, \"num_key_value_heads\": 2, "
                    "\"partial_rotary_factor\": 0.5, \"rms_norm_eps\": 1.5625e-7}"},
    {.name = "granitemoe",
     .hf_types = "granitemoe",
     .layer = granitemoe_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .gguf_interleaved = true,
     .traits = {.expert_norm = true},
     .hf_defaults = "{\"max_position_embeddings\": 2048, "
                    "\"attention_multiplier\": 1, \"num_local_experts\": 8, "
                    "\"num_experts_per_tok\": 2, \"rms_norm_eps\": 1e-6}",
     .hf_keys = "embedding_multiplier residual_multiplier logits_scaling",
     .gguf_special = gguf_granite},
    {.name = "helium",
     .hf_types = "helium",
     .layer = llama_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_interleaved = true,
     .gguf_interleaved = true,
     .hf_defaults = "{\"max_position_embeddings\": 4096, "
                    "\"head_dim\": 128, \"rope_theta\": 100000, \"rms_norm_eps\": 1e-8}"},
    {.name = "jais2",
     .hf_types = "jais2",
     .layer = arcee_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .traits = {.norm = NORM_LAYER, .act = ACT_RELU2},
     .hf_defaults = "{\"max_position_embeddings\": 8192, "
                    "\"layer_norm_eps\": 1e-5}"},
    {.name = "seed_oss",
     .hf_types = "seed_oss",
     .layer = seed_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .hf_defaults = "{\"max_position_embeddings\": 524288, "
                    "\"head_dim\": 128, \"num_key_value_heads\": 8, "
                    "\"rms_norm_eps\": 1e-6}"},
    {.name = "vaultgemma",
     .hf_types = "vaultgemma",
     .layer = vaultgemma_layer,
     .model = gemma_model,
     MODEL_LAYERS,
     .traits = {.act = ACT_GELU_TANH},
     .hf_defaults = "{\"hidden_activation\": \"gelu_pytorch_tanh\", "
                    "\"max_position_embeddings\": 8192, "
                    "\"tie_word_embeddings\": true, "
                    "\"head_dim\": 256, \"query_pre_attn_scalar\": 256, "
                    "\"sliding_window\": 4096, \"sliding_window_pattern\": 2, "
                    "\"attn_logit_softcapping\": 50, \"final_logit_softcapping\": 30, "
                    "\"rms_norm_eps\": 1e-6}",
     .hf_keys = "layer_types",
     .gguf_special = gguf_gemma2,
     .hf_special = hf_gemma},
    {.name = "olmoe",
     .hf_types = "olmoe",
     .layer = olmoe_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .traits = {.norm_rows = true},
     .hf_defaults = "{\"max_position_embeddings\": 4096, "
                    "\"num_experts\": 64, \"num_experts_per_tok\": 8, "
                    "\"norm_topk_prob\": false, \"rms_norm_eps\": 1e-5}",
     .hf_refused = "clip_qkv"},
    {.name = "gpt-oss",
     .hf_types = "gpt_oss",
     .layer = gptoss_layer,
     .model = llama_model,
     MODEL_LAYERS,
     .traits = {.act = ACT_GPT_OSS, .expert_norm = true},
     .hf_defaults = "{\"max_position_embeddings\": 131072, "
                    "\"head_dim\": 64, \"num_key_value_heads\": 8, "
                    "\"num_local_experts\": 128, \"num_experts_per_tok\": 4, "
                    "\"sliding_window\": 128, \"sliding_window_pattern\": 2, "
                    "\"rope_theta\": 150000, \"rms_norm_eps\": 1e-5, "
                    "\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 32, "
                    "\"beta_fast\": 32, \"beta_slow\": 1, \"truncate\": false, "
                    "\"original_max_position_embeddings\": 4096}}",
     .hf_keys = "layer_types",
     .gguf_special = gguf_gptoss,
     .hf_special = hf_gptoss},
    {.name = NULL},
};
