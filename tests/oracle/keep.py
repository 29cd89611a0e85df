#!/usr/bin/env python3
"""Perplexity of GGUF files of every type: llama.cpp's, and ours after `create --quant keep`.

    keep.py MODEL.gguf --work DIR [--llmchat BIN] [--text page.txt] [--ctx 512] [--threads 1] [--exact]
            [--only Q4_K_M,...]

llama.cpp's quantiser makes DIR/KIND.gguf from MODEL (which may be quantised itself) for each kind below that is not there
yet; the kind "source" is MODEL itself. Each is measured by llama-cpp-python and, where --llmchat names the program, created
with --quant keep and measured by `eval`. Windows of ctx tokens don't overlap; the positions ctx/2 .. ctx-2 are scored on the
token that follows; a begin token replaces a window's first where the model adds one. Fails when a pair is more than 0.5 %
apart, when the numbers of scored tokens differ, or when a kind has none of the tensor types that it is there for.

llama.cpp multiplies with 8-bit activations in these types, so the two are close, not equal: SmolLM2 up to 0.4 % apart,
gemma-3-270m 0.65 %, a model that 2 bits have ruined 2 %. --exact lets llama.cpp measure the same weights stored as f32
instead, so that its activations are not rounded; then these are within 0.03 %.
"""
import argparse
import collections
import ctypes
import importlib.metadata
import json
import math
import os
import subprocess
import sys

import gguf
import llama_cpp
import numpy as np

T = gguf.GGMLQuantizationType
LINEAR = r"blk\..*(attn_q|attn_k|attn_v|attn_output|ffn_gate|ffn_up|ffn_down)\.weight"
DOWN = r"blk\..*ffn_down\.weight"  # the rows of a small model that are a multiple of 256
MIDDLE = r"blk\.1.\.ffn_down\.weight"  # ten of them: all in 2 bits leave a model of 135M with a perplexity of 117

# name: the quantiser's file type, (layers, type that they are forced to) or None, the type that must be there.
# Rows that are no multiple of 256 fall back to types of 32 in the K kinds; that is part of what is tested.
KINDS = {
    "F16": (llama_cpp.LLAMA_FTYPE_MOSTLY_F16, None, T.F16),
    "BF16": (llama_cpp.LLAMA_FTYPE_MOSTLY_BF16, None, T.BF16),
    "Q8_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, None, T.Q8_0),
    "Q6_K": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K, None, T.Q6_K),
    "Q5_K_M": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_K_M, None, T.Q5_K),
    "Q5_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_0, None, T.Q5_0),
    "Q5_1": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_1, None, T.Q5_1),
    "Q4_K_M": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, None, T.Q4_K),
    "Q4_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, None, T.Q4_0),
    "Q4_1": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1, None, T.Q4_1),
    "IQ4_NL": (llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_NL, None, T.IQ4_NL),
    "IQ4_XS": (llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_XS, None, T.IQ4_XS),
    "Q3_K_M": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q3_K_M, (DOWN, T.Q3_K), T.Q3_K),
    "Q2_K": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, (MIDDLE, T.Q2_K), T.Q2_K),
    "MXFP4": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, (LINEAR, T.MXFP4), T.MXFP4),
}


def quantise(model, ftype, forced, out, threads):
    p = llama_cpp.llama_model_quantize_default_params()
    p.ftype, p.allow_requantize, p.nthread = ftype, True, threads
    if forced is not None:
        rules = (llama_cpp.llama_model_tensor_override * 2)()
        rules[0].pattern, rules[0].type = forced[0].encode(), int(forced[1])
        p.tt_overrides = rules
    part = out + ".part"
    if llama_cpp.llama_model_quantize(model.encode(), part.encode(), ctypes.byref(p)) != 0:
        sys.exit(f"{out}: llama.cpp can't make it")
    os.rename(part, out)


def types_of(path):
    n = collections.Counter(t.tensor_type for t in gguf.GGUFReader(path).tensors)
    return n, " ".join(f"{t.name}:{c}" for t, c in n.most_common())


def llama_perplexity(path, raw, ctx, threads):
    m = llama_cpp.Llama(path, n_ctx=ctx, n_batch=ctx, n_threads=threads, n_threads_batch=threads, logits_all=True,
                        verbose=False)
    vocab = llama_cpp.llama_model_get_vocab(m.model)
    bos = m.token_bos() if llama_cpp.llama_vocab_get_add_bos(vocab) else None
    ids = m.tokenize(raw, add_bos=bos is not None, special=False)
    nll, n = 0.0, 0
    for w in range(len(ids) // ctx):
        window = ids[w * ctx:(w + 1) * ctx]
        m.reset()
        m.eval(window if bos is None else [bos] + window[1:])
        logits = np.array(m.scores[ctx // 2:ctx - 1], dtype=np.float64)
        top = logits.max(axis=1, keepdims=True)
        level = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
        nll += float((level - logits[np.arange(len(logits)), window[ctx // 2 + 1:]]).sum())
        n += len(logits)
    m.close()
    return math.exp(nll / n), n


def our_perplexity(binary, path, kind, work, text, ctx, threads):
    env = dict(os.environ, LLMCHAT_HOME=os.path.join(work, "home"))
    name = "keep-" + kind.lower()
    subprocess.run([binary, "create", name, "--from", path, "--quant", "keep", "--force"], env=env, check=True,
                   capture_output=True)
    out = subprocess.run([binary, "eval", name, "--text", text, "--ctx", str(ctx), "--threads", str(threads), "--json"],
                         env=env, check=True, capture_output=True, text=True).stdout
    subprocess.run([binary, "rm", name], env=env, check=False, stdout=subprocess.DEVNULL)
    r = json.loads(out)
    return r["perplexity"], r["tokens"]


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("--work", required=True)
    ap.add_argument("--llmchat")
    ap.add_argument("--text", default=os.path.join(here, "../golden/perplexity/page.txt"))
    ap.add_argument("--ctx", type=int, default=512)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--exact", action="store_true")
    ap.add_argument("--only", default="source," + ",".join(KINDS))
    a = ap.parse_args()
    versions = [f"{m} {importlib.metadata.version(m)}" for m in ("llama-cpp-python", "gguf")]
    print(f"# {', '.join(versions)}; {os.path.basename(a.model)}, {os.path.basename(a.text)}, ctx {a.ctx}")
    silent = llama_cpp.llama_log_callback(lambda level, text, user: None)
    llama_cpp.llama_log_set(silent, None)
    raw = open(a.text, "rb").read()
    failed = []
    for kind in a.only.split(","):
        path = a.model if kind == "source" else os.path.join(a.work, kind + ".gguf")
        if not os.path.exists(path):
            quantise(a.model, *KINDS[kind][:2], path, a.threads)
        count, types = types_of(path)
        if kind != "source" and not count[KINDS[kind][2]]:
            failed.append(kind)
            print(f"{kind}: no tensor of {KINDS[kind][2].name} in it")
        measured = path
        if a.exact:
            measured = os.path.join(a.work, kind + "-f32.gguf")
            quantise(path, llama_cpp.LLAMA_FTYPE_ALL_F32, None, measured, a.threads)
        theirs, n = llama_perplexity(measured, raw, a.ctx, a.threads)
        if a.exact:
            os.unlink(measured)
        line = f"{kind}: llama.cpp {theirs:.4f} ({n} tokens)"
        if a.llmchat:
            ours, our_n = our_perplexity(a.llmchat, path, kind, a.work, a.text, a.ctx, a.threads)
            apart = ours / theirs - 1
            line += f", ours {ours:.4f}, {apart * 100:+.3f} %"
            if abs(apart) > 0.005 or our_n != n:
                failed.append(kind)
                line += f" FAILED ({our_n} tokens)"
        print(f"{line}  [{types}]", flush=True)
    if failed:
        sys.exit("failed: " + " ".join(failed))


if __name__ == "__main__":
    main()
