#!/usr/bin/env python3
"""What llama.cpp computes for small random GGUF files of several architectures.

    archs_gguf.py OUT [PATTERN]     writes OUT/gguf-CASE.json

As archs.py, with metadata and tensors as llama.cpp's converter names them; weights are the same
function of a tensor's name. llama.cpp takes gelu from a table of f16 values and computes the exact
gelu by its tanh approximation, so that files of such models have a wider bound and fewer tokens.

Written with llama-cpp-python 0.3.36 (CPU, KV cache in f32, no flash attention) and gguf 0.19.
"""
import json
import os
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np

from archs import N_GREEDY, N_PROMPT, VOCAB, number, prompt_of, weight

CASES = {}
# The table has 11 bits, each value off by 2^-12 at most; of a logit's many sums they are a part.
GELU = (1e-3, "gelu from a table of f16")


def byte_token(i):
    table, extra = {}, 256
    for b in range(256):
        if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174:
            table[b] = b
        else:
            table[b] = extra
            extra += 1
    return chr(table[i])


TOKENS = [byte_token(i) if i < 256 else "<extra_%d>" % (i - 256) for i in range(VOCAB)]


def case(name, arch, keys, tensors, wide=None):
    base = {"general.architecture": arch}
    base.update({"%s.%s" % (arch, k): v for k, v in keys.items()})
    CASES[name] = dict(keys=base, tensors=dict(tensors), wide=wide)


def keys(E, H, Hkv, ff, L, eps="rms", **more):
    norm = {"rms": "attention.layer_norm_rms_epsilon", "layer": "attention.layer_norm_epsilon"}
    d = {"context_length": 256, "embedding_length": E, "block_count": L, norm[eps]: 1e-5,
         "feed_forward_length": ff, "attention.head_count": H, "attention.head_count_kv": Hkv}
    d.update({k.replace("__", "."): v for k, v in more.items()})
    return d


def norm(name, n, bias):
    yield name + ".weight", (n,)
    if bias:
        yield name + ".bias", (n,)


def linear(name, n, k, bias=False):
    yield name + ".weight", (n, k)
    if bias:
        yield name + ".bias", (n,)


def gpt_oss(E, H, Hkv, ff, L, D, n):
    yield "token_embd.weight", (VOCAB, E)
    yield "output_norm.weight", (E,)
    yield "output.weight", (VOCAB, E)
    for i in range(L):
        p = "blk.%d." % i
        for name in ("attn_norm", "post_attention_norm"):
            yield p + name + ".weight", (E,)
        for name, rows in (("attn_q", H * D), ("attn_k", Hkv * D), ("attn_v", Hkv * D)):
            yield from linear(p + name, rows, E, True)
        yield from linear(p + "attn_output", E, H * D, True)
        yield p + "attn_sinks.weight", (H,)
        yield from linear(p + "ffn_gate_inp", n, E, True)
        for name, rows, k in (("gate", ff, E), ("up", ff, E), ("down", E, ff)):
            yield p + "ffn_%s_exps.weight" % name, (n, rows, k)
            yield p + "ffn_%s_exps.bias" % name, (n, rows)


def model(E, H, Hkv, ff, L, D=None, qkv="apart", bias=(), norms=("attn_norm", "ffn_norm"),
          norm_bias=False, gate=True, head=True, out_bias=False, qk=None, experts=None,
          shared=0, fused_up=False, pos=0, extra=(), plain_norms=False):
    """Tensors of a model; bias: which matrices have one."""
    D = D or E // H
    Q, KV = H * D, Hkv * D
    yield "token_embd.weight", (VOCAB, E)
    if pos:
        yield "position_embd.weight", (pos, E)
    if not plain_norms:
        yield from norm("output_norm", E, norm_bias)
    if head:
        yield from linear("output", VOCAB, E, out_bias)
    yield from extra
    for i in range(L):
        p = "blk.%d." % i
        for n in () if plain_norms else norms:
            yield from norm(p + n, E, norm_bias)
        if qkv == "apart":
            for n, rows in (("attn_q", Q), ("attn_k", KV), ("attn_v", KV)):
                yield from linear(p + n, rows, E, "qkv" in bias)
        else:
            yield from linear(p + "attn_qkv", Q + 2 * KV, E, "qkv" in bias)
        if qk:
            yield p + "attn_q_norm.weight", (D if qk == "head" else Q,)
            yield p + "attn_k_norm.weight", (D if qk == "head" else KV,)
        yield from linear(p + "attn_output", E, Q, "out" in bias)
        if experts:
            n, f = experts
            yield p + "ffn_gate_inp.weight", (n, E)
            yield p + "ffn_gate_exps.weight", (n, f, E)
            yield p + "ffn_up_exps.weight", (n, f, E)
            yield p + "ffn_down_exps.weight", (n, E, f)
            if shared:
                yield p + "ffn_gate_inp_shexp.weight", (E,)
                yield from linear(p + "ffn_gate_shexp", shared, E)
                yield from linear(p + "ffn_up_shexp", shared, E)
                yield from linear(p + "ffn_down_shexp", E, shared)
            continue
        if gate and not fused_up:
            yield from linear(p + "ffn_gate", ff, E)
        yield from linear(p + "ffn_up", 2 * ff if fused_up else ff, E, "ffn" in bias)
        yield from linear(p + "ffn_down", E, ff, "ffn" in bias)


S = (72, 6, 2, 136, 2)
GEMMA2 = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
ALL = ("qkv", "out", "ffn")

case("llama", "llama", keys(*S, rope__dimension_count=12), model(*S))
case("llama-head-dim", "llama", keys(*S, attention__key_length=20, attention__value_length=20,
                                     rope__dimension_count=20, rope__freq_base=5e5),
     model(*S, D=20, head=False, extra=[("rope_freqs.weight", (10,))]))
case("llama-linear", "llama", keys(*S, rope__dimension_count=12, rope__scaling__type="linear",
                                   rope__scaling__factor=4.0), model(*S))
case("llama-yarn", "llama", keys(72, 3, 1, 136, 2, rope__dimension_count=24,
                                 rope__scaling__type="yarn", rope__scaling__factor=4.0,
                                 rope__scaling__original_context_length=32),
     model(72, 3, 1, 136, 2))
case("llama-moe", "llama", keys(*S, rope__dimension_count=12, expert_count=5,
                                expert_used_count=2), model(*S, experts=(5, 136)))
case("qwen2", "qwen2", keys(*S, rope__freq_base=1e6), model(*S, bias=("qkv",)))
case("qwen2moe", "qwen2moe", keys(*S, expert_count=6, expert_used_count=3,
                                  expert_feed_forward_length=40,
                                  expert_shared_feed_forward_length=56),
     model(*S, bias=("qkv",), experts=(6, 40), shared=56))
case("qwen3", "qwen3", keys(*S, attention__key_length=20, attention__value_length=20),
     model(*S, D=20, qk="head"))
case("qwen3moe", "qwen3moe", keys(*S, attention__key_length=20, attention__value_length=20,
                                  expert_count=7, expert_used_count=3,
                                  expert_feed_forward_length=40),
     model(*S, D=20, qk="head", experts=(7, 40)))
case("gemma", "gemma", keys(72, 4, 1, 136, 2, attention__key_length=24,
                            attention__value_length=24),
     model(72, 4, 1, 136, 2, D=24, head=False), GELU)
case("gemma2", "gemma2", keys(72, 6, 2, 136, 3, attention__key_length=20,
                              attention__value_length=20, attention__sliding_window=9,
                              attn_logit_softcapping=50.0, final_logit_softcapping=30.0),
     model(72, 6, 2, 136, 3, D=20, head=False, norms=GEMMA2), GELU)
case("gemma3", "gemma3", keys(60, 4, 1, 136, 7, attention__key_length=20,
                              attention__value_length=20, attention__sliding_window=9,
                              rope__freq_base=1e6, rope__scaling__type="linear",
                              rope__scaling__factor=8.0),
     model(60, 4, 1, 136, 7, D=20, head=False, norms=GEMMA2, qk="head"), GELU)
case("phi2", "phi2", keys(80, 4, 4, 136, 2, "layer", rope__dimension_count=8),
     model(80, 4, 4, 136, 2, qkv="fused", bias=ALL, norms=("attn_norm",), norm_bias=True,
           gate=False, out_bias=True), GELU)
case("phi3", "phi3", keys(*S, rope__dimension_count=12, attention__sliding_window=0,
                          rope__scaling__original_context_length=256),
     model(*S, qkv="fused", fused_up=True))
LONG = [("rope_factors_long.weight", (6,)), ("rope_factors_short.weight", (6,))]
for orig in (256, 32):
    case("phi3-longrope-%d" % orig, "phi3",
         keys(*S, rope__dimension_count=12, attention__sliding_window=0,
              rope__scaling__original_context_length=orig,
              rope__scaling__attn_factor=1.19),
         model(*S, qkv="fused", fused_up=True, extra=LONG))
case("smollm3", "smollm3", keys(72, 6, 2, 136, 5, rope__dimension_count=12,
                                rope__freq_base=2e6), model(72, 6, 2, 136, 5, head=False))
case("stablelm", "stablelm", keys(96, 6, 6, 136, 2, "layer", rope__dimension_count=4,
                                  use_parallel_residual=True),
     model(96, 6, 6, 136, 2, bias=("qkv",), norm_bias=True))
case("stablelm-parallel", "stablelm", keys(96, 6, 6, 136, 2, "layer", rope__dimension_count=4,
                                           use_parallel_residual=True),
     model(96, 6, 6, 136, 2, norm_bias=True, norms=("attn_norm",)))
for parallel in (True, False):
    case("gptneox" if parallel else "gptneox-sequential", "gptneox",
         keys(72, 3, 3, 136, 2, "layer", rope__dimension_count=6,
              use_parallel_residual=parallel),
         model(72, 3, 3, 136, 2, qkv="fused", bias=ALL, norm_bias=True, gate=False), GELU)
case("falcon-7b", "falcon", keys(72, 6, 1, 288, 2, "layer"),
     model(72, 6, 1, 288, 2, qkv="fused", norms=("attn_norm",), norm_bias=True, gate=False),
     GELU)
case("falcon-40b", "falcon", keys(72, 6, 2, 288, 2, "layer"),
     model(72, 6, 2, 288, 2, qkv="fused", norms=("attn_norm", "attn_norm_2"), norm_bias=True,
           gate=False), GELU)
case("granite", "granite", keys(*S, rope__dimension_count=12, embedding_scale=6.0,
                                residual_scale=0.3, attention__scale=0.11, logit_scale=3.0),
     model(*S))
case("command-r", "command-r", keys(*S, "layer", logit_scale=0.25),
     model(*S, norms=("attn_norm",), head=False))
case("olmo", "olmo", keys(*S, "layer"), model(*S, plain_norms=True))
case("olmo2", "olmo2", keys(*S), model(*S, norms=("post_attention_norm", "post_ffw_norm"),
                                       qk="rows"))
case("starcoder2", "starcoder2", keys(*S, "layer"),
     model(*S, bias=ALL, norm_bias=True, gate=False, head=False), GELU)
case("gpt2", "gpt2", keys(72, 6, 6, 136, 2, "layer"),
     model(72, 6, 6, 136, 2, qkv="fused", bias=ALL, norm_bias=True, gate=False, head=False,
           pos=256), GELU)

case("arcee", "arcee", keys(*S, rope__dimension_count=12), model(*S, gate=False))
case("cohere2", "cohere2", keys(72, 6, 2, 136, 5, "layer", logit_scale=0.25,
                                attention__sliding_window=9, rope__dimension_count=12),
     model(72, 6, 2, 136, 5, norms=("attn_norm",), head=False))
case("ernie4_5", "ernie4_5", keys(*S), model(*S, head=False))
case("exaone4", "exaone4", keys(*S), model(*S, norms=("post_attention_norm", "post_ffw_norm"),
                                           qk="head"))
case("chatglm", "chatglm", keys(72, 6, 2, 136, 2, rope__dimension_count=6),
     model(*S, qkv="fused", bias=("qkv",), fused_up=True))
case("glm4", "glm4", keys(*S, rope__dimension_count=6),
     model(*S, norms=("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"),
           bias=("qkv",), fused_up=True))
case("granitemoe", "granitemoe", keys(*S, rope__dimension_count=12, expert_count=5,
                                      expert_used_count=2, embedding_scale=6.0,
                                      residual_scale=0.3, attention__scale=0.2,
                                      logit_scale=3.0), model(*S, experts=(5, 136)))
case("internlm2", "internlm2", keys(*S, rope__dimension_count=12), model(*S))
case("exaone", "exaone", keys(*S, rope__dimension_count=12), model(*S))
case("olmo3", "olmo2", keys(72, 3, 3, 136, 5, attention__sliding_window=9,
                            rope__scaling__type="yarn", rope__scaling__factor=4.0,
                            rope__scaling__original_context_length=32,
                            attention__sliding_window_pattern=[True, True, True, False, True]),
     model(72, 3, 3, 136, 5, norms=("post_attention_norm", "post_ffw_norm"), qk="rows"))
case("olmoe", "olmoe", keys(72, 6, 6, 136, 2, expert_count=6, expert_used_count=3),
     model(72, 6, 6, 136, 2, qk="rows", experts=(6, 136)))
case("seed_oss", "seed_oss", keys(*S), model(*S, norms=("attn_norm", "post_attention_norm"),
                                             bias=("qkv",)))
case("starcoder", "starcoder", keys(72, 6, 1, 136, 2, "layer"),
     model(72, 6, 1, 136, 2, qkv="fused", bias=ALL, norm_bias=True, gate=False, pos=256), GELU)
case("bloom", "bloom", keys(72, 6, 6, 136, 2, "layer"),
     model(72, 6, 6, 136, 2, qkv="fused", bias=ALL, norm_bias=True, gate=False,
           extra=[("token_embd_norm.weight", (72,)), ("token_embd_norm.bias", (72,))]), GELU)
case("mpt", "mpt", keys(72, 6, 6, 136, 2, "layer", attention__max_alibi_bias=8.0),
     model(72, 6, 6, 136, 2, qkv="fused", gate=False), GELU)

case("gpt-oss", "gpt-oss", keys(72, 6, 2, 40, 3, attention__key_length=20,
                                attention__value_length=20, rope__dimension_count=20,
                                rope__freq_base=1.5e5, rope__scaling__type="yarn",
                                rope__scaling__factor=8.0,
                                rope__scaling__original_context_length=32,
                                attention__sliding_window=9, expert_count=5,
                                expert_used_count=2, expert_feed_forward_length=40),
     gpt_oss(72, 6, 2, 40, 3, 20, 5))


def write_file(path, spec):
    w = gguf.GGUFWriter(path, spec["keys"]["general.architecture"])
    for k, v in spec["keys"].items():
        if k == "general.architecture":
            continue
        add = {bool: w.add_bool, int: w.add_uint32, float: w.add_float32, str: w.add_string}
        add.get(type(v), w.add_array)(k, v)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(TOKENS)
    w.add_token_types([1 if i < 256 else 3 for i in range(VOCAB)])
    w.add_token_merges(["a b"])
    for name, shape in spec["tensors"].items():
        w.add_tensor(name, weight(name, shape))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def run(llm, prompt, n_greedy):
    llm.reset()
    llm.eval(prompt)
    greedy, gap = [], np.inf
    first = row = np.array(llm.scores[llm.n_tokens - 1])
    for _ in range(n_greedy):
        top = np.sort(row)[-2:]
        gap = min(gap, float(top[1] - top[0]))
        greedy.append(int(row.argmax()))
        llm.eval([greedy[-1]])
        row = np.array(llm.scores[llm.n_tokens - 1])
    return np.stack([first, row]), greedy, gap


def write_case(out, name, spec):
    bound, why = spec["wide"] or (None, None)
    need = 3e-4 if bound is None else 2 * bound
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "model.gguf")
        write_file(path, spec)
        llm = llama_cpp.Llama(path, n_ctx=128, n_batch=128, n_ubatch=128, logits_all=True,
                              n_threads=1, verbose=False, flash_attn=False,
                              type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32)
        for attempt in range(60):
            prompt = prompt_of("gguf" + name, attempt)[:N_PROMPT]
            logits, greedy, gap = run(llm, prompt, 12 if bound else N_GREEDY)
            scale = float(np.abs(logits).max())
            if gap > need * scale:
                break
        llm.close()
    assert np.isfinite(logits).all() and gap > need * scale, name
    data = {"versions": "llama-cpp-python %s, gguf 0.19" % llama_cpp.__version__,
            "gguf": spec["keys"],
            "tensors": ["%s %s" % (n, "x".join(map(str, s))) for n, s in spec["tensors"].items()],
            "prompt": prompt, "greedy": greedy,
            "logits": [number(v) for v in logits.reshape(-1)]}
    if bound:
        data.update(bound=bound, why=why)
    with open(os.path.join(out, "gguf-%s.json" % name), "w") as f:
        f.write("{\n" + ",\n".join('"%s": %s' % (k, json.dumps(v, separators=(",", ":")))
                                   for k, v in data.items()) + "\n}\n")
    print("%-24s %7.3f %9.2g  %d different tokens" % (name, scale, gap, len(set(greedy))))


def main():
    out, pattern = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    os.makedirs(out, exist_ok=True)
    for name, spec in CASES.items():
        if pattern in name:
            write_case(out, name, spec)


if __name__ == "__main__":
    main()
