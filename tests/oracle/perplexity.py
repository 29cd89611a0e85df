#!/usr/bin/env python3
"""Perplexity of a page of text by PyTorch, as llama.cpp's perplexity tool defines it.

    perplexity.py MODEL.gguf [--text page.txt] [--ctx 512] > tests/golden/perplexity/expected.txt

The weights are dequantised to f32 by the gguf package and run by transformers' Llama in f32 on the CPU. Windows of ctx
tokens don't overlap, the rest is dropped, each window starts from nothing; the positions ctx/2 .. ctx-2 of a window are
scored on the token that follows. Where the model adds a begin token, it stands in front of the text and replaces the
first token of every window.

Then the same with all linear layers (not the embedding and the head) taken through bitsandbytes' NF4: nf4_perplexity.

The output is lines of "name value..."; lines that start with # name the versions. `ids` are the page's tokens, so that the
evaluation can be held against it without a tokenizer, too.
"""
import argparse
import hashlib
import importlib.metadata
import math
import os
import sys

import bitsandbytes.functional as bnb
import gguf
import numpy as np
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM


def field(reader, key):
    f = reader.get_field(key)
    return None if f is None else f.contents()


def halves(w, n_head):
    """Rows of a q or k matrix from pairs (2i, 2i+1), as GGUF stores Llama, to (i, i + D/2), as transformers wants."""
    return w.reshape(n_head, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def load(reader):
    def get(key):
        return field(reader, "llama." + key)

    tensors = {t.name: np.array(gguf.dequantize(t.data, t.tensor_type), dtype=np.float32)
               for t in reader.tensors}
    n_head, n_kv = get("attention.head_count"), get("attention.head_count_kv")
    config = LlamaConfig(
        vocab_size=tensors["token_embd.weight"].shape[0], hidden_size=get("embedding_length"),
        intermediate_size=get("feed_forward_length"), num_hidden_layers=get("block_count"),
        num_attention_heads=n_head, num_key_value_heads=n_kv,
        max_position_embeddings=get("context_length"),
        rms_norm_eps=get("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": get("rope.freq_base") or 10000.0},
        tie_word_embeddings="output.weight" not in tensors)
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
             "ffn_norm": "post_attention_layernorm"}
    state = {"model.embed_tokens.weight": tensors["token_embd.weight"],
             "model.norm.weight": tensors["output_norm.weight"],
             "lm_head.weight": tensors.get("output.weight", tensors["token_embd.weight"])}
    for i in range(config.num_hidden_layers):
        for short, long in names.items():
            w = tensors[f"blk.{i}.{short}.weight"]
            if short in ("attn_q", "attn_k"):
                w = halves(w, n_head if short == "attn_q" else n_kv)
            state[f"model.layers.{i}.{long}.weight"] = w
    model = LlamaForCausalLM(config).float()
    model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()}, strict=True)
    return model.eval()


def through_nf4(w):
    """NF4 in groups of 64 with double quantisation, and back."""
    q, state = bnb.quantize_4bit(w, blocksize=64, compress_statistics=True, quant_type="nf4")
    return bnb.dequantize_4bit(q, state)


def score(model, ids, ctx, bos):
    nll, n = 0.0, 0
    with torch.no_grad():
        for w in range(len(ids) // ctx):
            window = ids[w * ctx:(w + 1) * ctx]
            feed = window if bos is None else [bos] + window[1:]
            logp = torch.log_softmax(model(torch.tensor([feed])).logits[0].double(), dim=-1)
            for at in range(ctx // 2, ctx - 1):
                nll -= logp[at, window[at + 1]].item()
                n += 1
            print(f"window {w}: {math.exp(nll / n):.4f}", file=sys.stderr)
    return math.exp(nll / n), n


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("--text", default=os.path.join(here, "../golden/perplexity/page.txt"))
    ap.add_argument("--ctx", type=int, default=512)
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)

    folder, name = os.path.split(os.path.abspath(a.model))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    reader = gguf.GGUFReader(a.model)
    model = load(reader)
    bos = field(reader, "tokenizer.ggml.bos_token_id")
    add_bos = bool(field(reader, "tokenizer.ggml.add_bos_token"))

    raw = open(a.text, "rb").read()
    ids = tokenizer(raw.decode(), add_special_tokens=False)["input_ids"]
    if add_bos:
        ids = [bos] + ids
    exact, n = score(model, ids, a.ctx, bos if add_bos else None)
    for name, p in model.named_parameters():
        if "_proj" in name:
            p.data = through_nf4(p.data)
    nf4, n = score(model, ids, a.ctx, bos if add_bos else None)

    versions = [f"{m} {importlib.metadata.version(m)}" for m in ("torch", "transformers", "gguf", "bitsandbytes")]
    print("# " + ", ".join(versions))
    print(f"# {os.path.basename(a.model)}, sha256 {hashlib.sha256(open(a.model, 'rb').read()).hexdigest()}")
    print(f"# {os.path.basename(a.text)}, sha256 {hashlib.sha256(raw).hexdigest()}")
    print(f"ctx {a.ctx}")
    print(f"scored {n}")
    print(f"perplexity {exact:.6f}")
    print(f"nf4_perplexity {nf4:.6f}")
    print(f"count {len(ids)}")
    print("ids " + " ".join(map(str, ids)))


if __name__ == "__main__":
    main()
