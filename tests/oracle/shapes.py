#!/usr/bin/env python3
"""Random Llama models of many shapes: llmchat against PyTorch.

    shapes.py PATH/TO/llmchat [CASE...]

Makes checkpoints of random weights (fixed seeds), writes each as GGUF as llama.cpp's converter does (rows of q and k in
pairs), creates a model of ours for every quantisation, and compares with transformers' Llama in f32 on the same weights:
perplexity of random text by `eval`, and 80 greedy tokens by `run --raw --temperature 0 --json`, with each set of kernels.
NF4 layers are compared with bitsandbytes' NF4 in PyTorch. Greedy text must be equal for f32 and bf16; for int8 and nf4,
whose activations are rounded too, the first difference and PyTorch's gap of the two logits there are printed.

Run by hand. Written with torch 2.15, transformers 5.23, gguf 0.19, bitsandbytes 0.50, numpy 2.4.
"""
import json
import math
import os
import subprocess
import sys
import tempfile

import bitsandbytes.functional as bnb
import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(2)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)

# name: layers, hidden, ffn, heads, kv heads, head size, vocabulary, eps, theta, scaling, tied, std, GGUF type, version
CASES = {
    "mha": (2, 64, 176, 4, 4, 16, 300, 1e-5, 10000.0, None, True, 0.15, Q.F32, 3),
    "gqa3": (2, 288, 768, 6, 2, 48, 301, 1e-6, 10000.0, None, False, 0.08, Q.F16, 2),
    "gqa4": (3, 320, 864, 4, 1, 80, 517, 1e-5, 500000.0, None, True, 0.06, Q.BF16, 3),
    "gqa8": (2, 256, 512, 8, 1, 32, 777, 1e-6, 500000.0, None, False, 0.08, Q.Q8_0, 3),
    "wide_heads": (2, 256, 300, 4, 2, 128, 400, 1e-5, 10000.0, None, False, 0.06, Q.F32, 3),
    "odd": (2, 100, 250, 5, 5, 20, 263, 1e-5, 10000.0, None, False, 0.12, Q.F32, 2),
    "odd2": (2, 136, 331, 2, 1, 68, 259, 1e-6, 10000.0, None, True, 0.10, Q.F16, 3),
    "linear": (2, 128, 320, 4, 2, 32, 512, 1e-5, 10000.0,
               dict(rope_type="linear", factor=4.0), True, 0.10, Q.F32, 3),
    "llama3": (2, 256, 512, 4, 2, 64, 512, 1e-5, 500000.0, LLAMA3, False, 0.08, Q.BF16, 3),
    "one": (1, 64, 64, 1, 1, 64, 258, 1e-5, 10000.0, None, True, 0.2, Q.F32, 3),
    "deep": (12, 192, 512, 6, 2, 32, 1000, 1e-5, 10000.0, None, True, 0.02, Q.F32, 3),
    "q4_0": (2, 256, 512, 4, 2, 64, 512, 1e-5, 10000.0, None, True, 0.08, Q.Q4_0, 3),
    "q4_1": (2, 256, 512, 4, 2, 64, 512, 1e-5, 10000.0, None, True, 0.08, Q.Q4_1, 2),
    "q5_0": (2, 288, 512, 4, 2, 72, 512, 1e-5, 10000.0, None, True, 0.08, Q.Q5_0, 3),
    "q5_1": (2, 256, 512, 4, 2, 64, 512, 1e-5, 10000.0, None, False, 0.08, Q.Q5_1, 3),
    "q4_k": (2, 256, 512, 4, 2, 64, 512, 1e-5, 10000.0, None, False, 0.08, Q.Q4_K, 3),
    "q5_k": (2, 256, 768, 4, 2, 64, 512, 1e-5, 10000.0, None, False, 0.08, Q.Q5_K, 3),
    "q6_k": (2, 256, 512, 4, 2, 64, 512, 1e-5, 10000.0, None, True, 0.08, Q.Q6_K, 3),
}


def bytes_to_unicode():
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    out, n = {}, 0
    for b in range(256):
        if b in keep:
            out[b] = chr(b)
        else:
            out[b] = chr(256 + n)
            n += 1
    return out


def pairs(w, n_head):
    return w.reshape(n_head, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def halves(w, n_head):
    return w.reshape(n_head, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def random_blocks(rng, shape, qtype, std):
    """Blocks of a k-quant with random codes and scales that give values of about std."""
    n = shape[0] * shape[1] // 256
    f16 = lambda v: np.frombuffer(v.astype(np.float16).tobytes(), np.uint8).reshape(n, 2)
    raw = lambda k: rng.integers(0, 256, (n, k), dtype=np.uint8)
    if qtype == Q.Q6_K:
        d = f16(rng.uniform(0.5, 1.5, (n, 1)) * std / (18 * 64))
        blocks = np.concatenate([raw(128), raw(64), raw(16), d], 1)
    else:
        top = 15 if qtype == Q.Q4_K else 31
        d = rng.uniform(0.5, 1.5, (n, 1)) * std / (32 * top / 3.4)
        parts = [f16(d), f16(d * top / 2), raw(12)] + ([raw(32)] if qtype == Q.Q5_K else []) + [raw(128)]
        blocks = np.concatenate(parts, 1)
    return blocks.reshape(shape[0], -1)


def make(name, path):
    (L, E, F, H, Hkv, D, V, eps, theta, scaling, tied, std, qtype, version) = CASES[name]
    torch.manual_seed(sum(map(ord, name)))
    rng = np.random.default_rng(sum(map(ord, name)))
    rope = dict(scaling or {"rope_type": "default"}, rope_theta=theta)
    cfg = LlamaConfig(vocab_size=V, hidden_size=E, intermediate_size=F, num_hidden_layers=L, num_attention_heads=H,
                      num_key_value_heads=Hkv, head_dim=D, max_position_embeddings=512, rms_norm_eps=eps,
                      rope_parameters=rope, tie_word_embeddings=tied, initializer_range=std, bos_token_id=None,
                      eos_token_id=None)
    model = LlamaForCausalLM(cfg).float().eval()
    sd = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
    for k in sd:
        if "norm" in k:
            sd[k] = rng.uniform(0.5, 1.5, sd[k].shape).astype(np.float32)
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(L), w.add_context_length(512), w.add_embedding_length(E), w.add_feed_forward_length(F)
    w.add_head_count(H), w.add_head_count_kv(Hkv), w.add_layer_norm_rms_eps(eps), w.add_rope_freq_base(theta)
    w.add_rope_dimension_count(D), w.add_vocab_size(V)
    if D * H != E:
        w.add_key_length(D), w.add_value_length(D)
    if scaling and scaling["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR), w.add_rope_scaling_factor(scaling["factor"])
    b2u = bytes_to_unicode()
    tokens = [b2u[b] for b in range(256)] + ["w%04d" % i for i in range(256, V)]
    w.add_tokenizer_model("gpt2"), w.add_tokenizer_pre("gpt-2"), w.add_token_list(tokens)
    w.add_token_types([1] * V), w.add_token_merges([])
    w.add_add_bos_token(False)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    new = {}
    for k, v in sd.items():
        p = k.removeprefix("model.").removesuffix(".weight")
        if p == "lm_head" and tied:
            continue
        if p.startswith("layers."):
            _, i, rest = p.split(".", 2)
            gn = f"blk.{i}.{names[rest]}"
        else:
            rest, gn = p, {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}[p]
        n_head = H if rest.endswith("q_proj") else Hkv if rest.endswith("k_proj") else 0
        if v.ndim == 1:
            w.add_tensor(gn + ".weight", v)
            new[k] = v
            continue
        v = pairs(v, n_head) if n_head else v
        t = qtype
        if t in (Q.Q4_K, Q.Q5_K, Q.Q6_K):
            data = random_blocks(rng, v.shape, t, std)
        else:
            if v.shape[1] % gguf.GGML_QUANT_SIZES[t][0]:
                t = Q.F32
            data = gguf.quantize(v, t)
        w.add_tensor(gn + ".weight", data, raw_dtype=t)
        back = gguf.dequantize(data, t).astype(np.float32).reshape(v.shape)
        new[k] = halves(back, n_head) if n_head else back
    if scaling is LLAMA3:
        s, f = scaling, []
        for i in range(0, D, 2):
            wl = 2 * math.pi * theta ** (i / D)
            old = s["original_max_position_embeddings"]
            lo, hi = old / s["low_freq_factor"], old / s["high_freq_factor"]
            if wl < hi:
                f.append(1.0)
            elif wl > lo:
                f.append(s["factor"])
            else:
                smooth = (old / wl - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
                f.append(1 / ((1 - smooth) / s["factor"] + smooth))
        w.add_tensor("rope_freqs.weight", np.array(f, np.float32))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    if version == 2:
        with open(path, "r+b") as fh:
            fh.seek(4), fh.write(b"\2\0\0\0")
    if tied:
        new["lm_head.weight"] = new["model.embed_tokens.weight"]
    model.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in new.items()})
    return model


def int8(w):
    n, k = w.shape
    x = torch.nn.functional.pad(w, (0, -k % 64)).reshape(n, -1, 64)
    s = x.abs().amax(-1, keepdim=True) / 127
    q = torch.where(s > 0, (x / s).round(), x)
    return (q * s).reshape(n, -1)[:, :k].contiguous()


def nf4(w):
    n, k = w.shape
    x = torch.nn.functional.pad(w, (0, -k % 64)).contiguous()  # rows are padded to whole groups
    q, st = bnb.quantize_4bit(x, blocksize=64, compress_statistics=True, quant_type="nf4")
    return bnb.dequantize_4bit(q, st)[:, :k].contiguous()


def requant(model, quant):
    body, head = {"f32": (None, None), "bf16": (lambda w: w.bfloat16().float(),) * 2, "int8": (int8, int8),
                  "nf4": (nf4, int8)}[quant]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for k, v in state.items():
        f = None if v.ndim == 1 else head if ("embed" in k or "lm_head" in k) else body
        if f:
            state[k] = f(v)
    m = LlamaForCausalLM(model.config).float().eval()
    m.load_state_dict(state)
    return m


def perplexity(model, ids, ctx):
    nll, n = 0.0, 0
    with torch.no_grad():
        for i in range(len(ids) // ctx):
            win = ids[i * ctx:(i + 1) * ctx]
            logp = torch.log_softmax(model(torch.tensor([win])).logits[0].double(), -1)
            for at in range(ctx // 2, ctx - 1):
                nll -= logp[at, win[at + 1]].item()
                n += 1
    return math.exp(nll / n)


def run(cmd, env, data):
    p = subprocess.run(cmd, env=env, input=data, capture_output=True)
    if p.returncode:
        raise SystemExit(f"{' '.join(cmd)}: {p.returncode}: {p.stderr.decode()}")
    return p.stdout.decode()


def greedy_gap(model, ids, got):
    """(tokens equal, gap of the two best logits at the first difference)"""
    with torch.no_grad():
        logits = model(torch.tensor([ids + got])).logits[0]
    for i, g in enumerate(got):
        best = torch.topk(logits[len(ids) + i - 1], 2)
        if best.indices[0].item() != g:
            return i, float(best.values[0] - logits[len(ids) + i - 1, g])
    return len(got), 0.0


def main():
    exe, only = os.path.abspath(sys.argv[1]), sys.argv[2:] or list(CASES)
    bad = 0
    rng = np.random.default_rng(7)
    text = "".join(chr(c) for c in rng.integers(32, 127, 700))
    ids = list(text.encode())  # the vocabulary begins with the 256 bytes
    prompt = "The tide 42!"
    pid = list(prompt.encode())
    with tempfile.TemporaryDirectory() as home:
        env = dict(os.environ, LLMCHAT_HOME=home)
        for name in only:
            path = os.path.join(home, name + ".gguf")
            ref = make(name, path)
            for quant in ("f32", "bf16", "int8", "nf4"):
                run([exe, "create", "m", "--from", path, "--quant", quant, "--force"], env, b"")
                m = requant(ref, quant)
                want = perplexity(m, ids, 128)
                line = [f"{name:10} {quant:4} torch {want:12.4f}"]
                for cpu in ("scalar", "avx2", "avx512"):
                    env["LLMCHAT_CPU"] = cpu
                    out = json.loads(run([exe, "eval", "m", "--text", "-", "--ctx", "128", "--json"], env, text.encode()))
                    off = out["perplexity"] / want - 1
                    lines = run([exe, "run", "m", "--raw", "--temperature", "0", "--json", "--max-tokens", "80"], env,
                                prompt.encode()).splitlines()
                    got = [json.loads(l)["id"] for l in lines if json.loads(l)["type"] == "token"]
                    same, gap = greedy_gap(m, pid, got)
                    ok = abs(off) < {"f32": 1e-4, "bf16": 0.002, "int8": 0.01, "nf4": 0.02}[quant]
                    ok &= len(got) == 80 and (same == 80 or quant in ("int8", "nf4"))
                    bad += not ok
                    line.append(f"{cpu} {off * 100:+.3f}% {same}/80" + (f" gap {gap:.2g}" if same < 80 else "")
                                + ("" if ok else " BAD"))
                print(", ".join(line), flush=True)
    print("bad:", bad)
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
