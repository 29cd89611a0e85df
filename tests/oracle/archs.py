#!/usr/bin/env python3
"""What PyTorch transformers computes for small random checkpoints of every architecture.

    archs.py OUT [PATTERN]     writes OUT/CASE.json for the cases whose name contains PATTERN

tests/golden/archs was written by this script; tests/test_archs.c makes the same checkpoints and
compares. No weights are stored: an element of a tensor is a function of the tensor's name and
the element's number (weight() below, and in the test). A case has config.json as the checkpoint
holds it, the names and shapes of its tensors, a prompt, the 64 tokens that follow when the
likeliest is taken each time, and the logits after the prompt and after the last of those.

The prompt is longer than sliding windows and than the context before RoPE scaling, sizes are
odd on purpose. Cases marked v4 have config.json in the words of transformers 4, rewritten by
to_v4(); transformers itself reads it again, so that the rewriting is checked too.

Written with transformers 5.23, torch 2.15 (CPU), in f32.
"""
import json
import os
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)
transformers.utils.logging.disable_progress_bar()

VOCAB, N_PROMPT, N_GREEDY = 277, 45, 64

# One number for each element: FNV-1a of the name, then the finaliser of splitmix64.


def weight(name, shape):
    """f32 array: norms are near 1, biases small, matrices have rows of length about 1."""
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = (h ^ b) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        n = int(np.prod(shape))
        x = np.uint64(h) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    u = (x >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    if name.endswith(".weight") and (len(shape) == 1 or "norm" in name):
        u = np.float32(1) + np.float32(0.25) * u
    elif len(shape) == 1:
        u = np.float32(0.25) * u
    else:
        u = u * np.float32(2 / np.sqrt(np.float64(shape[-1])))
    return u.reshape(shape)


# -- cases: name, model_type, settings ----------------------------------------------------------

CASES = {}


def case(name, model_type, v4=False, rename=None, drop=(), fused=False, **config):
    CASES[name] = dict(model_type=model_type, v4=v4, rename=rename, drop=drop, fused=fused,
                       config=config)


def rope(kind="default", theta=10000.0, **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


def sizes(hidden=72, heads=6, kv=2, ff=136, layers=2, ctx=256, **more):
    return dict(hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv,
                intermediate_size=ff, num_hidden_layers=layers, max_position_embeddings=ctx, **more)


LLAMA3 = rope("llama3", 5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=24)
YARN = rope("yarn", 1e4, factor=4.0, original_max_position_embeddings=32)


def factors(n, first, step):
    return [first + step * i for i in range(n)]


case("llama", "llama", **sizes())
case("llama-biases", "llama", head_dim=20, attention_bias=True, mlp_bias=True,
     tie_word_embeddings=True, **sizes(heads=4, kv=1, layers=3))
case("llama-v4", "llama", v4=True, rope_parameters=rope(theta=5e5), **sizes(kv=6))
case("llama-linear", "llama", rope_parameters=rope("linear", factor=4.0), **sizes())
case("llama-linear-v4", "llama", v4=True, rope_parameters=rope("linear", factor=2.5), **sizes())
case("llama-dynamic", "llama", rope_parameters=rope("dynamic", factor=3.0), **sizes(ctx=32))
case("llama-dynamic-v4", "llama", v4=True, rope_parameters=rope("dynamic", factor=2.0),
     **sizes(ctx=64))
case("llama-llama3", "llama", rope_parameters=LLAMA3, head_dim=24, **sizes())
case("llama-llama3-v4", "llama", v4=True, rope_parameters=LLAMA3, **sizes())
case("llama-yarn", "llama", rope_parameters=YARN, **sizes())
case("llama-yarn-v4", "llama", v4=True, rope_parameters=YARN, head_dim=32, **sizes(ctx=128))
case("llama-yarn-mscale", "llama", head_dim=40,
     rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=0.7, truncate=False, beta_fast=16.0,
                          beta_slow=2.0), **sizes())
case("llama-yarn-factor", "llama",
     rope_parameters=dict(YARN, attention_factor=0.9), head_dim=32, **sizes())
case("llama-longrope", "llama", rope_parameters=rope(
    "longrope", short_factor=factors(6, 1.0, 0.1), long_factor=factors(6, 1.5, 0.5), factor=4.0,
    original_max_position_embeddings=64), **sizes())
case("mistral", "mistral", sliding_window=None, head_dim=16, **sizes())
case("mistral-window", "mistral", v4=True, sliding_window=9, **sizes(layers=3))
case("mixtral", "mixtral", sliding_window=None, num_local_experts=5, num_experts_per_tok=2,
     **sizes(ff=88))
case("mixtral-window", "mixtral", v4=True, sliding_window=21, num_local_experts=3,
     num_experts_per_tok=1, **sizes(ff=72, kv=3))
case("mixtral-fused", "mixtral", fused=True, sliding_window=None, num_local_experts=4,
     num_experts_per_tok=3, **sizes(ff=56))
case("qwen2", "qwen2", rope_parameters=rope(theta=1e6), **sizes(heads=9, kv=3))
case("qwen2-window", "qwen2", v4=True, use_sliding_window=True, sliding_window=7,
     max_window_layers=1, tie_word_embeddings=True, drop=("layer_types",), **sizes(layers=3))
case("qwen2-layer-types", "qwen2", use_sliding_window=True, sliding_window=13,
     layer_types=["sliding_attention", "full_attention", "sliding_attention"], **sizes(layers=3))
case("qwen2-yarn", "qwen2", rope_parameters=YARN, **sizes(heads=3, kv=1))
case("qwen2_moe", "qwen2_moe", num_experts=6, num_experts_per_tok=3, moe_intermediate_size=40,
     shared_expert_intermediate_size=56, norm_topk_prob=False, **sizes())
case("qwen2_moe-sparse", "qwen2_moe", v4=True, num_experts=4, num_experts_per_tok=2,
     moe_intermediate_size=48, shared_expert_intermediate_size=24, norm_topk_prob=True,
     decoder_sparse_step=2, mlp_only_layers=[3], use_sliding_window=True, sliding_window=10,
     max_window_layers=3, drop=("layer_types",), **sizes(layers=4, hidden=48))
case("qwen3", "qwen3", head_dim=20, rope_parameters=rope(theta=1e6), **sizes())
case("qwen3-window", "qwen3", v4=True, head_dim=32, use_sliding_window=True, sliding_window=11,
     max_window_layers=1, attention_bias=True, tie_word_embeddings=True, drop=("layer_types",),
     **sizes(layers=3))
case("qwen3_moe", "qwen3_moe", head_dim=24, num_experts=7, num_experts_per_tok=3,
     moe_intermediate_size=40, norm_topk_prob=True, **sizes())
case("qwen3_moe-sparse", "qwen3_moe", v4=True, head_dim=16, num_experts=4,
     num_experts_per_tok=2, moe_intermediate_size=24, norm_topk_prob=False,
     mlp_only_layers=[0], use_sliding_window=True, sliding_window=12,
     **sizes(layers=3, hidden=56, heads=7, kv=7))
case("gemma", "gemma", head_dim=24, **sizes(heads=4, kv=1))
case("gemma-v4", "gemma", v4=True, head_dim=10, hidden_act="gelu", **sizes(heads=6, kv=6))
case("gemma2", "gemma2", head_dim=20, sliding_window=9, query_pre_attn_scalar=13,
     attn_logit_softcapping=3.0, final_logit_softcapping=2.0, **sizes(layers=3))
case("gemma2-v4", "gemma2", v4=True, head_dim=18, sliding_window=16, query_pre_attn_scalar=24,
     attn_logit_softcapping=None, final_logit_softcapping=None, drop=("layer_types",),
     **sizes(layers=3))
GEMMA3_ROPE = {"full_attention": rope(theta=1e6), "sliding_attention": rope(theta=1e4)}
case("gemma3", "gemma3_text", head_dim=20, sliding_window=9, query_pre_attn_scalar=17,
     rope_parameters=GEMMA3_ROPE, layer_types=["sliding_attention", "sliding_attention",
                                               "full_attention", "sliding_attention"],
     **sizes(layers=4, heads=4, kv=1, hidden=60))
case("gemma3-linear", "gemma3_text", head_dim=24, sliding_window=12, query_pre_attn_scalar=24,
     final_logit_softcapping=4.0,
     rope_parameters={"full_attention": rope("linear", theta=1e6, factor=8.0),
                      "sliding_attention": rope(theta=1e4)},
     layer_types=["sliding_attention", "full_attention"], **sizes())
case("gemma3-v4", "gemma3_text", v4=True, head_dim=16, sliding_window=8,
     query_pre_attn_scalar=16, sliding_window_pattern=3,
     rope_parameters={"full_attention": rope("linear", theta=1e5, factor=2.0),
                      "sliding_attention": rope(theta=1e3)},
     drop=("layer_types",), **sizes(layers=4))
VISION = dict(vision_config=dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                 num_attention_heads=2, image_size=28, patch_size=14,
                                 model_type="siglip_vision_model"),
              mm_tokens_per_image=1, image_token_index=276, boi_token_index=274,
              eoi_token_index=275)
GEMMA3_TEXT = dict(sizes(layers=3), model_type="gemma3_text", vocab_size=VOCAB, head_dim=16,
                   sliding_window=10, query_pre_attn_scalar=16)
case("gemma3-vision", "gemma3", text_config=GEMMA3_TEXT, **VISION)
case("gemma3-vision-inner", "gemma3", text_config=GEMMA3_TEXT,
     rename=("language_model.model.", "model.language_model."), **VISION)
case("phi", "phi", rope_parameters=rope(partial_rotary_factor=0.5), **sizes(heads=4, kv=4, hidden=80))
case("phi-tied", "phi", tie_word_embeddings=True, **sizes(heads=4, kv=4, hidden=80))
case("phi-v4", "phi", v4=True, rope_parameters=rope(partial_rotary_factor=0.4),
     **sizes(heads=4, kv=2, hidden=80))
case("phi3", "phi3", sliding_window=17, **sizes())
case("phi3-partial", "phi3", v4=True, tie_word_embeddings=True, sliding_window=None,
     rope_parameters=rope(partial_rotary_factor=0.75), **sizes(hidden=64, heads=4, kv=2))
PHI3_LONG = rope("longrope", short_factor=factors(6, 1.0, 0.05), long_factor=factors(6, 1.1, 1.5))
case("phi3-longrope-short", "phi3", rope_parameters=PHI3_LONG,
     original_max_position_embeddings=128, sliding_window=None, **sizes(ctx=512))
case("phi3-longrope-long", "phi3", rope_parameters=PHI3_LONG,
     original_max_position_embeddings=32, sliding_window=None, **sizes(ctx=512))
case("phi3-longrope-v4", "phi3", v4=True, rope_parameters=PHI3_LONG,
     original_max_position_embeddings=32, sliding_window=None, **sizes(ctx=256))
case("smollm3", "smollm3", no_rope_layers=[1, 0, 1], **sizes(layers=3))
case("smollm3-window", "smollm3", v4=True, use_sliding_window=True, sliding_window=9,
     no_rope_layer_interval=2, drop=("layer_types", "no_rope_layers"), attention_bias=True,
     tie_word_embeddings=False, **sizes(layers=4))
case("stablelm", "stablelm", rope_parameters=rope(partial_rotary_factor=0.5),
     use_qkv_bias=True, **sizes(hidden=96))
case("stablelm-parallel", "stablelm", v4=True, use_parallel_residual=True,
     rope_parameters=rope(partial_rotary_factor=0.25), **sizes(hidden=96, heads=6, kv=6))
case("stablelm-qk-norm", "stablelm", qk_layernorm=True, use_parallel_residual=True,
     rope_parameters=rope(partial_rotary_factor=0.5), **sizes(hidden=96))
NEOX = dict(hidden_size=72, num_attention_heads=3, intermediate_size=136, num_hidden_layers=2,
            max_position_embeddings=256)
case("gpt_neox", "gpt_neox", rope_parameters=rope(partial_rotary_factor=0.25), **NEOX)
case("gpt_neox-sequential", "gpt_neox", v4=True, use_parallel_residual=False,
     attention_bias=False, hidden_act="gelu_new",
     rope_parameters=rope(theta=2e4, partial_rotary_factor=1.0), **NEOX)
FALCON = dict(hidden_size=72, num_attention_heads=6, num_hidden_layers=2,
              max_position_embeddings=256)
case("falcon-7b", "falcon", multi_query=True, parallel_attn=True, bias=False, **FALCON)
case("falcon-40b", "falcon", v4=True, new_decoder_architecture=True, num_kv_heads=2, bias=True,
     tie_word_embeddings=False, **FALCON)
case("falcon-11b", "falcon", new_decoder_architecture=True, num_kv_heads=3,
     num_ln_in_parallel_attn=1, ffn_hidden_size=104, **FALCON)
case("falcon-rw", "falcon", alibi=True, multi_query=False, parallel_attn=False, bias=True,
     **FALCON)
case("falcon-alibi", "falcon", alibi=True, multi_query=True, parallel_attn=True, **FALCON)
case("granite", "granite", embedding_multiplier=6.0, logits_scaling=3.0,
     residual_multiplier=0.3, attention_multiplier=0.11, attention_bias=True, mlp_bias=True,
     **sizes())
case("granite-v4", "granite", v4=True, logits_scaling=1.7, residual_multiplier=0.8,
     attention_multiplier=0.3, tie_word_embeddings=True, **sizes())
case("cohere", "cohere", logit_scale=0.25, **sizes())
case("cohere-v4", "cohere", v4=True, logit_scale=2.0, attention_bias=True,
     tie_word_embeddings=False, **sizes(layers=3, kv=6))
case("cohere-qk-norm", "cohere", logit_scale=0.5, use_qk_norm=True, **sizes(heads=6, kv=2))
case("olmo", "olmo", **sizes())
case("olmo-v4", "olmo", v4=True, attention_bias=True, tie_word_embeddings=True, **sizes(kv=6))
case("olmo2", "olmo2", **sizes())
case("olmo2-v4", "olmo2", v4=True, attention_bias=True, rope_parameters=rope(theta=5e5),
     **sizes(layers=3, kv=6))
case("starcoder2", "starcoder2", sliding_window=None, **sizes())
case("starcoder2-window", "starcoder2", v4=True, sliding_window=14, use_bias=False,
     tie_word_embeddings=False, **sizes())
GPT2 = dict(n_embd=72, n_head=6, n_layer=2, n_positions=128)
case("gpt2", "gpt2", **GPT2)
case("gpt2-hub", "gpt2", n_inner=104, scale_attn_weights=False, activation_function="gelu",
     rename=("transformer.", ""), **GPT2)
OPT = dict(hidden_size=72, num_attention_heads=6, ffn_dim=104, num_hidden_layers=2,
           max_position_embeddings=128, word_embed_proj_dim=72)
case("opt", "opt", **OPT)
case("opt-post-norm", "opt", do_layer_norm_before=False, **OPT)
case("opt-plain", "opt", enable_bias=False, _remove_final_layer_norm=True,
     activation_function="gelu", tie_word_embeddings=False, **OPT)
case("opt-narrow-words", "opt", do_layer_norm_before=False, **dict(OPT, word_embed_proj_dim=40))
case("opt-wide-words", "opt", tie_word_embeddings=False, **dict(OPT, word_embed_proj_dim=104))

case("phi-qk-norm", "phi", qk_layernorm=True, rope_parameters=rope(partial_rotary_factor=0.5),
     **sizes(heads=4, kv=2, hidden=80))
case("arcee", "arcee", mlp_bias=True, rope_parameters=YARN, **sizes(heads=3, kv=1))
case("cohere2", "cohere2", logit_scale=0.4, sliding_window=9,
     layer_types=["sliding_attention", "full_attention", "sliding_attention"], **sizes(layers=3))
case("cohere2-v4", "cohere2", v4=True, sliding_window=14, sliding_window_pattern=2,
     attention_bias=True, drop=("layer_types",), **sizes(layers=3))
case("ernie4_5", "ernie4_5", head_dim=20, use_bias=True, **sizes())
case("exaone4", "exaone4", head_dim=20, sliding_window=9, sliding_window_pattern="LLG",
     layer_types=["sliding_attention", "sliding_attention", "full_attention"], **sizes(layers=3))
case("exaone4-full", "exaone4", v4=True, sliding_window=None, sliding_window_pattern=None,
     rope_parameters=LLAMA3, tie_word_embeddings=True, layer_types=["full_attention"] * 2,
     **sizes())
case("glm", "glm", head_dim=20, rope_parameters=rope(partial_rotary_factor=0.5), **sizes())
case("glm4", "glm4", v4=True, head_dim=16, rope_parameters=rope(partial_rotary_factor=0.5),
     **sizes(kv=3))
case("granitemoe", "granitemoe", num_local_experts=5, num_experts_per_tok=2,
     embedding_multiplier=5.0, logits_scaling=2.0, residual_multiplier=0.4,
     attention_multiplier=0.2, **sizes(ff=56))
case("helium", "helium", head_dim=12, attention_bias=True, **sizes(kv=6))
case("jais2", "jais2", **sizes())
case("ministral", "ministral", head_dim=20, sliding_window=10,
     layer_types=["full_attention", "sliding_attention"], **sizes())
case("olmo3", "olmo3", sliding_window=9, rope_parameters={
    "full_attention": dict(YARN, rope_theta=5e5), "sliding_attention": rope(theta=5e5)},
     layer_types=["sliding_attention", "full_attention", "sliding_attention"],
     **sizes(layers=3, heads=3, kv=3))
case("olmo3-v4", "olmo3", v4=True, sliding_window=12, drop=("layer_types", "rope_local_base_freq"),
     rope_parameters={"full_attention": dict(YARN, rope_theta=5e5),
                      "sliding_attention": rope(theta=5e5)}, **sizes(layers=5, kv=6))
case("olmoe", "olmoe", num_experts=6, num_experts_per_tok=3, norm_topk_prob=False,
     **sizes(ff=40))
case("olmoe-v4", "olmoe", v4=True, num_experts=5, num_experts_per_tok=2, norm_topk_prob=True,
     **sizes(ff=48, layers=3, kv=6))
case("gpt_oss", "gpt_oss", head_dim=20, num_local_experts=5, num_experts_per_tok=2, sliding_window=9,
     rope_parameters=dict(YARN, rope_theta=1.5e5, factor=8.0, truncate=False), **sizes(layers=3, ff=56))
case("gpt_oss-v4", "gpt_oss", v4=True, head_dim=16, num_local_experts=4, num_experts_per_tok=3,
     sliding_window=14, drop=("layer_types", "rope_scaling"), **sizes(layers=2, ff=48, heads=4, kv=1))
case("seed_oss", "seed_oss", head_dim=24, attention_out_bias=True, mlp_bias=True, **sizes())
case("vaultgemma", "vaultgemma", head_dim=20, sliding_window=9, query_pre_attn_scalar=20,
     **sizes(layers=3))
case("gptj", "gptj", rotary_dim=8, tie_word_embeddings=False, **GPT2)
case("gpt_neo", "gpt_neo", hidden_size=72, num_heads=6, num_layers=3, window_size=9,
     intermediate_size=104, max_position_embeddings=128,
     attention_types=[[["global", "local"], 1], [["local"], 1]])
case("gpt_bigcode", "gpt_bigcode", multi_query=True, **GPT2)
case("gpt_bigcode-heads", "gpt_bigcode", multi_query=False, n_inner=104,
     scale_attn_weights=False, **GPT2)
case("bloom", "bloom", hidden_size=72, n_head=6, n_layer=2)
case("bloom-hub", "bloom", hidden_size=64, n_head=8, n_layer=3, rename=("transformer.", ""))
case("mpt", "mpt", d_model=72, n_heads=6, n_layers=2, max_seq_len=128,
     attn_config=dict(softmax_scale=0.2))
case("persimmon", "persimmon", rope_parameters=rope(partial_rotary_factor=0.5), **NEOX)
case("persimmon-plain", "persimmon", v4=True, qk_layernorm=False,
     rope_parameters=rope(theta=25000.0, partial_rotary_factor=0.5), **NEOX)


# Architectures whose code is not part of transformers, though a Llama with the same numbers
# computes the same: how each tensor of ours makes tensors of a Llama.

def split_groups(w, c):
    """[Hkv][H / Hkv + 2][D] rows to q, k, v."""
    H, Hkv = c["num_attention_heads"], c["num_key_value_heads"]
    g = H // Hkv
    w = w.reshape(Hkv, g + 2, c["hidden_size"] // H, -1)
    return [w[:, a:b].reshape(-1, w.shape[-1]) for a, b in ((0, g), (g, g + 1), (g + 1, g + 2))]


QKV = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
LAYER = "model.layers.%d."
INTERNLM2 = {
    "layer": LAYER, "norm": "model.norm", "embed": "model.tok_embeddings", "head": "output",
    "names": {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
              "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj",
              "feed_forward.w3": "mlp.up_proj", "feed_forward.w2": "mlp.down_proj",
              "attention.wqkv": split_groups}}
EXAONE = {
    "layer": "transformer.h.%d.", "norm": "transformer.ln_f", "embed": "transformer.wte",
    "head": "lm_head",
    "names": {"ln_1": "input_layernorm", "ln_2": "post_attention_layernorm",
              "attn.attention.q_proj": QKV[0], "attn.attention.k_proj": QKV[1],
              "attn.attention.v_proj": QKV[2], "attn.attention.out_proj": "self_attn.o_proj",
              "mlp.c_fc_0": "mlp.gate_proj", "mlp.c_fc_1": "mlp.up_proj",
              "mlp.c_proj": "mlp.down_proj"}}
FOREIGN = {}


def foreign(name, layout, config, **llama):
    FOREIGN[name] = dict(layout=layout, config=config, llama=dict(sizes(), **llama))


foreign("internlm2", INTERNLM2, dict(sizes(), model_type="internlm2", bias=False,
                                     rms_norm_eps=1e-5, rope_theta=1e6, rope_scaling=None),
        rms_norm_eps=1e-5, rope_theta=1e6)
foreign("exaone", EXAONE, dict(sizes(), model_type="exaone", activation_function="silu",
                               layer_norm_epsilon=1e-5, num_layers=2, rope_theta=1e6),
        rms_norm_eps=1e-5, rope_theta=1e6)


def make_foreign(spec):
    """(config, tensors, model): the model is a Llama with the numbers of our tensors."""
    layout, kw = spec["layout"], dict(spec["llama"], vocab_size=VOCAB)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", bos_token_id=None, eos_token_id=None, **kw),
        attn_implementation="eager").eval()
    state, tensors, made = model.state_dict(), [], {}

    def add(ours, theirs):
        targets = [theirs] if isinstance(theirs, str) else theirs
        shape = [sum(state[t].shape[0] for t in targets), *state[targets[0]].shape[1:]]
        tensors.append("%s %s" % (ours, "x".join(map(str, shape))))
        return weight(ours, tuple(shape)), targets

    def put(ours, theirs, cut=lambda w, c: [w]):
        w, targets = add(ours + ".weight", theirs)
        made.update(zip(targets, cut(w, kw)))

    put(layout["embed"], "model.embed_tokens.weight")
    put(layout["norm"], "model.norm.weight")
    put(layout["head"], "lm_head.weight")
    for i in range(kw["num_hidden_layers"]):
        for ours, theirs in layout["names"].items():
            cut = theirs if callable(theirs) else lambda w, c: [w]
            targets = [LAYER % i + n + ".weight" for n in (QKV if callable(theirs) else [theirs])]
            put(layout["layer"] % i + ours, targets, cut)
    model.load_state_dict({k: torch.tensor(np.ascontiguousarray(v)) for k, v in made.items()})
    return dict(spec["config"], vocab_size=VOCAB, tie_word_embeddings=False), tensors, model


# -- checkpoints ---------------------------------------------------------------------------------

def rope_to_v4(c):
    """rope_parameters as transformers 4 wrote them: rope_theta and the like beside rope_scaling."""
    p = c.pop("rope_parameters", None)
    if not p:
        return
    if "full_attention" in p:
        c["rope_local_base_freq"] = p["sliding_attention"]["rope_theta"]
        p = p["full_attention"]
    p = dict(p)
    neox = c["model_type"] == "gpt_neox"
    c["rotary_emb_base" if neox else "rope_theta"] = p.pop("rope_theta")
    if "partial_rotary_factor" in p:
        c["rotary_pct" if neox else "partial_rotary_factor"] = p.pop("partial_rotary_factor")
    kind = p.pop("rope_type")
    old = kind in ("linear", "dynamic", "longrope") and c["model_type"] != "gemma3_text"
    p["type" if old else "rope_type"] = kind
    c["rope_scaling"] = None if kind == "default" else p


def to_v4(c, tied_by_default):
    rope_to_v4(c)
    c.pop("dtype", None)
    c["torch_dtype"] = "float32"
    c["transformers_version"] = "4.44.0"
    if c.get("tie_word_embeddings") and tied_by_default:
        c.pop("tie_word_embeddings")


def make(path, name, spec):
    """The checkpoint as a folder; returns (config, ["name 3x4", …])."""
    kw = dict(spec["config"])
    if spec["model_type"] != "gemma3":
        kw["vocab_size"] = VOCAB
    kw.update(bos_token_id=None, eos_token_id=None, pad_token_id=None)
    config = AutoConfig.for_model(spec["model_type"], **kw)
    model = make_model(config)
    model.save_pretrained(path, save_original_format=not spec["fused"])
    config_file, tensors = os.path.join(path, "config.json"), {}
    weights_file = os.path.join(path, "model.safetensors")
    with safe_open(weights_file, "np") as f:
        for n in f.keys():
            shape = f.get_slice(n).get_shape()
            if spec["rename"] and n.startswith(spec["rename"][0]):
                n = spec["rename"][1] + n[len(spec["rename"][0]):]
            tensors[n] = shape
    save_file({n: weight(n, s) for n, s in tensors.items()}, weights_file, {"format": "pt"})
    with open(config_file) as f:
        c = json.load(f)
    if spec["v4"]:
        to_v4(c, type(config)().tie_word_embeddings)
    for key in spec["drop"]:
        c.pop(key, None)
    with open(config_file, "w") as f:
        json.dump(c, f)
    return c, ["%s %s" % (n, "x".join(map(str, s))) for n, s in sorted(tensors.items())]


def make_model(config):
    if config.model_type == "gemma3":
        return transformers.Gemma3ForConditionalGeneration(config)
    return AutoModelForCausalLM.from_config(config)


def open_model(path):
    c = AutoConfig.from_pretrained(path)
    cls = transformers.Gemma3ForConditionalGeneration if c.model_type == "gemma3" \
        else AutoModelForCausalLM
    # Falcon's eager attention adds ALiBi twice in this version, its usual one once
    how = "sdpa" if c.model_type == "falcon" else "eager"
    model, info = cls.from_pretrained(path, dtype=torch.float32, attn_implementation=how,
                                      output_loading_info=True)
    tied = set(getattr(model, "_tied_weights_keys", None) or [])
    missing = [k for k in info["missing_keys"] if k not in tied]
    assert not missing and not info["unexpected_keys"], (missing, info["unexpected_keys"])
    return model.eval()


def prompt_of(name, attempt):
    seed = sum(name.encode()) % 1000 + 1000 * attempt
    return [int(t) for t in np.random.default_rng(seed).integers(0, 256, N_PROMPT)]


def next_logits(model, tokens, cache):
    with torch.no_grad():
        out = model(input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True)
    return out.logits[0].float().numpy(), out.past_key_values


def run(model, prompt):
    """Logits after the prompt and at the end, the tokens that follow the prompt, and the
    smallest difference between the likeliest token and the next."""
    logits, cache = next_logits(model, prompt, None)
    greedy, gap = [], np.inf
    first = row = logits[-1]
    for _ in range(N_GREEDY):
        top = np.sort(row)[-2:]
        gap = min(gap, float(top[1] - top[0]))
        greedy.append(int(row.argmax()))
        logits, cache = next_logits(model, [greedy[-1]], cache)
        row = logits[-1]
    return np.stack([first, row]), greedy, gap


def number(v):
    return float("%.8g" % v)


def write_case(out, name, spec):
    with tempfile.TemporaryDirectory() as path:
        if "layout" in spec:
            config, tensors, model = make_foreign(spec)
        else:
            config, tensors = make(path, name, spec)
            model = open_model(path)
        for attempt in range(9):
            prompt = prompt_of(name, attempt)
            logits, greedy, gap = run(model, prompt)
            scale = float(np.abs(logits).max())
            if gap > 3e-4 * scale:  # else greedy text would be a matter of rounding
                break
    assert np.isfinite(logits).all() and gap > 3e-4 * scale
    data = {"versions": "transformers %s, torch %s" % (transformers.__version__,
                                                       torch.__version__),
            "config": config, "tensors": tensors, "prompt": prompt, "greedy": greedy,
            "logits": [number(v) for v in logits.reshape(-1)]}
    with open(os.path.join(out, name + ".json"), "w") as f:
        f.write("{\n" + ",\n".join('"%s": %s' % (k, json.dumps(v, separators=(",", ":")))
                                   for k, v in data.items()) + "\n}\n")
    print("%-24s %7.3f %9.2g  %d different tokens" % (name, scale, gap, len(set(greedy))))


def main():
    out, pattern = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    os.makedirs(out, exist_ok=True)
    for name, spec in {**CASES, **FOREIGN}.items():
        if pattern in name:
            write_case(out, name, spec)


if __name__ == "__main__":
    main()
