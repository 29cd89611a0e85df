#!/usr/bin/env python3
"""Inverse frequencies of PyTorch transformers for every kind of RoPE scaling.

Writes tests/golden/rope/rope.txt, one case a line (names of struct hparams, numbers as C's %a):
    name=value ... ; n_seq ; attention factor ; inv_freq ...
For dynamic and long each case is computed as the model's forward does for a sequence of n_seq tokens.

Usage: rope.py tests/golden/rope/rope.txt
"""
import sys

import torch
import transformers
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

CTX = 4096
TYPES = {"default": 0, "linear": 1, "dynamic": 2, "llama3": 3, "yarn": 4, "longrope": 5}


def factors(dim, first, step):
    return [first + step * i for i in range(dim // 2)]


def cases():
    for dim, base in ((64, 10000.0), (128, 500000.0), (80, 1000000.0), (20, 10000.0)):
        yield dim, base, {"rope_type": "default"}, 1
        yield dim, base, {"rope_type": "linear", "factor": 3.0}, 1
        for n in (100, CTX, CTX + 1, 10000):
            yield dim, base, {"rope_type": "dynamic", "factor": 2.5}, n
        yield dim, base, {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, 1
        yield dim, base, {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.5,
                          "high_freq_factor": 3.25, "original_max_position_embeddings": 2048}, 1
        yield dim, base, {"rope_type": "yarn", "factor": 4.0,
                          "original_max_position_embeddings": 2048}, 1
        yield dim, base, {"rope_type": "yarn", "factor": 40.0, "beta_fast": 32.0, "beta_slow": 1.0,
                          "mscale": 0.707, "mscale_all_dim": 1.0,
                          "original_max_position_embeddings": 4096}, 1
        yield dim, base, {"rope_type": "yarn", "factor": 32.0, "beta_fast": 24.0, "beta_slow": 2.0,
                          "truncate": False, "attention_factor": 1.25,
                          "original_max_position_embeddings": 4096}, 1
        for n in (1, 2048, 2049, 9000):
            yield dim, base, {"rope_type": "longrope", "factor": 16.0,
                              "short_factor": factors(dim, 1.0, 0.0625),
                              "long_factor": factors(dim, 1.5, 2.25),
                              "original_max_position_embeddings": 2048}, n


def fields(dim, base, p):
    f = {"rope_dim": dim, "rope_base": base, "ctx_train": CTX, "rope_type": TYPES[p["rope_type"]],
         "rope_scale": p.get("factor", 1.0)}
    for ours, theirs in (("rope_orig_ctx", "original_max_position_embeddings"),
                         ("rope_low_freq", "low_freq_factor"), ("rope_high_freq", "high_freq_factor"),
                         ("rope_beta_fast", "beta_fast"), ("rope_beta_slow", "beta_slow"),
                         ("rope_mscale", "mscale"), ("rope_mscale_all_dim", "mscale_all_dim"),
                         ("rope_attn_factor", "attention_factor"), ("rope_truncate", "truncate")):
        if theirs in p:
            f[ours] = int(p[theirs]) if isinstance(p[theirs], (bool, int)) else p[theirs]
    return " ".join(f"{k}={v}" for k, v in f.items())


def main():
    torch.set_num_threads(1)
    lines = [f"# transformers {transformers.__version__}, torch {torch.__version__}: tests/oracle/rope.py"]
    for dim, base, p, n_seq in cases():
        config = LlamaConfig(hidden_size=4 * dim, num_attention_heads=4, head_dim=dim,
                             max_position_embeddings=CTX, rope_parameters={"rope_theta": base, **p})
        rope = LlamaRotaryEmbedding(config)
        rope(torch.zeros(1), torch.arange(n_seq)[None])
        inv = " ".join(float(x).hex() for x in rope.inv_freq)
        lines.append(f"{fields(dim, base, p)} ; {n_seq} ; {float(rope.attention_scaling).hex()} ; {inv}")
    with open(sys.argv[1], "w") as f:
        f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
