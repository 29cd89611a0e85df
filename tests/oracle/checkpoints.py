#!/usr/bin/env python3
"""Perplexity of quantised Hugging Face checkpoints: their libraries', and ours after `create --quant keep`.

    checkpoints.py MODEL.gguf --work DIR --gptqmodel DIR --autoawq DIR [--llmchat BIN] [--only bnb-nf4,...] [--ctx 512]

The model's weights are taken from the GGUF file, as perplexity.py does it, and written to DIR/KIND as folders that the
libraries' users have: bitsandbytes by transformers itself (save_pretrained of a model loaded with a BitsAndBytesConfig);
GPTQ, AWQ, compressed-tensors and 8-bit floats rounded to nearest, packed by the libraries' own functions (hf_quant.py).
Folders that are there already are used as they are.

The bitsandbytes ones are then loaded and run by transformers on the CPU. For the others transformers needs kernels that
only GPUs have: a plain model is run whose linear layers have the values that the library's dequantisation gives. So is
LLM.int8, since the library rounds activations to 8 bits there, which is no matter of the checkpoint; its own run is told, too.

Ours is `create --from DIR/KIND --quant keep` and `eval`. Windows are perplexity.py's. Fails when a pair is more than 0.5 % apart.
"""
import argparse
import gc
import json
import math
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bitsandbytes.functional as bnb
import gguf
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

import hf_quant
import perplexity

BNB = {
    "bnb-nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32),
    "bnb-nf4-single": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
    "bnb-fp4": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32),
    "bnb-int8": dict(load_in_8bit=True),
}


def ct_config(fmt, **weights):
    return {"quant_method": "compressed-tensors", "format": fmt, "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


def packers(gptq_root, awq_root):
    """Kind: (quantization_config, function of a weight that gives its parts and its values in f32)."""
    gptq = hf_quant.Gptq(gptq_root)
    awq_scope = hf_quant.awq_functions(awq_root)

    def by_gptq(bits, group, sym, v1, act=False):
        def pack(w):
            K = w.shape[1]
            g_idx = (torch.arange(K)[torch.randperm(K)] // group).int() if act else None
            case = hf_quant.Case("", {}, "")
            gptq.add(case, "m", gptq.pack(w, bits, group, sym, g_idx), v1)
            return {k[2:]: t for k, t in case.stored.items()}, case.golden["m"]
        config = {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": sym, "desc_act": act,
                  "checkpoint_format": "gptq" if v1 else "gptq_v2"}
        return config, pack

    int4 = dict(num_bits=4, type="int", strategy="group", group_size=64, symmetric=False)
    int8 = dict(num_bits=8, type="int", strategy="channel", symmetric=True)
    fp8 = dict(num_bits=8, type="float", strategy="channel", symmetric=True)
    return {
        "gptq-int4": by_gptq(4, 64, True, True),
        "gptq-int4-asym-act": by_gptq(4, 32, False, False, True),
        "gptq-int8": by_gptq(8, 64, False, True),
        "awq": ({"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"},
                lambda w: hf_quant.awq_pack(awq_scope, w, 64)),
        "ct-int4": (ct_config("pack-quantized", **int4),
                    lambda w: hf_quant.ct_pack("pack-quantized", w, torch.bfloat16, **int4)),
        "ct-int8": (ct_config("int-quantized", **int8),
                    lambda w: hf_quant.ct_pack("int-quantized", w, torch.bfloat16, **int8)),
        "ct-fp8": (ct_config("float-quantized", **fp8),
                   lambda w: hf_quant.ct_pack("float-quantized", w, torch.bfloat16, **fp8)),
    }


def make_base(model_path, work):
    base = os.path.join(work, "base")
    if not os.path.exists(base + "/model.safetensors"):
        folder, name = os.path.split(os.path.abspath(model_path))
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        tokenizer.save_pretrained(base)
        perplexity.load(gguf.GGUFReader(model_path)).to(torch.bfloat16).save_pretrained(base)
    return base


def make_bnb(kind, base, out):
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=BitsAndBytesConfig(**BNB[kind]),
                                                 dtype=torch.bfloat16, device_map="cpu")
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(base).save_pretrained(out)


def make_packed(config, pack, base, out):
    """Writes the checkpoint, and beside it the plain model of the same values."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    state = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    stored = {}
    for name, w in state.items():
        if "_proj.weight" not in name:
            stored[name] = w.to(torch.bfloat16)
            continue
        parts, values = pack(w)
        for suffix, t in parts.items():
            stored[name[:-len("weight")] + suffix] = t.contiguous()
        model.get_submodule(name[:-len(".weight")]).weight.data = values
    AutoTokenizer.from_pretrained(base).save_pretrained(out)
    save_file(stored, out + "/model.safetensors", {"format": "pt"})
    with open(base + "/config.json") as f:
        whole = json.load(f)
    with open(out + "/config.json", "w") as f:
        json.dump({**whole, "quantization_config": config}, f, indent=1)
    model.save_pretrained(out + "-plain")


def theirs(kind, work, ids, ctx):
    plain = kind not in BNB and kind != "base"
    model = AutoModelForCausalLM.from_pretrained(os.path.join(work, kind + ("-plain" if plain else "")), dtype=torch.float32,
                                                 device_map="cpu")
    result = perplexity.score(model.eval(), ids, ctx, None)
    if kind == "bnb-int8":
        print(f"{kind}: {result[0]:.4f} with activations of 8 bits")
        model = AutoModelForCausalLM.from_pretrained(os.path.join(work, "base"), dtype=torch.float32)
        stored = load_file(os.path.join(work, kind, "model.safetensors"))
        for name in [k[:-len(".SCB")] for k in stored if k.endswith(".SCB")]:
            values = bnb.int8_vectorwise_dequant(stored[name + ".weight"], stored[name + ".SCB"])
            model.get_submodule(name).weight.data = values
        result = perplexity.score(model.eval(), ids, ctx, None)
    del model
    gc.collect()
    return result


def ours(kind, work, text, ctx, program):
    env = {**os.environ, "LLMCHAT_HOME": os.path.abspath(os.path.join(work, "home"))}
    subprocess.run([program, "create", kind, "--from", os.path.join(work, kind), "--quant", "keep", "--force"], env=env,
                   check=True, stdout=sys.stderr)
    told = subprocess.run([program, "eval", kind, "--text", text, "--ctx", str(ctx), "--threads", "1", "--json"], env=env,
                          check=True, stdout=subprocess.PIPE)
    subprocess.run([program, "rm", kind], env=env, check=False, stdout=subprocess.DEVNULL)
    told = json.loads(told.stdout)
    return told["perplexity"], told["tokens"]


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("--work", required=True)
    ap.add_argument("--gptqmodel", required=True)
    ap.add_argument("--autoawq", required=True)
    ap.add_argument("--llmchat")
    ap.add_argument("--text", default=os.path.join(here, "../golden/perplexity/page.txt"))
    ap.add_argument("--ctx", type=int, default=512)
    ap.add_argument("--only", default="")
    a = ap.parse_args()
    torch.set_num_threads(1)
    os.makedirs(a.work, exist_ok=True)
    base = make_base(a.model, a.work)
    packed = packers(a.gptqmodel, a.autoawq)
    with open(a.text) as f:
        ids = AutoTokenizer.from_pretrained(base)(f.read(), add_special_tokens=False)["input_ids"]
    bad = 0
    for kind in a.only.split(",") if a.only else ["base", *BNB, *packed]:
        out = os.path.join(a.work, kind)
        if not os.path.exists(out + "/config.json"):
            if kind in BNB:
                make_bnb(kind, base, out)
            else:
                make_packed(*packed[kind], base, out)
        line, n = f"{kind:20}", None
        if not os.path.exists(out + ".theirs"):
            with open(out + ".theirs", "w") as f:
                json.dump(theirs(kind, a.work, ids, a.ctx), f)
        with open(out + ".theirs") as f:
            ppl, n = json.load(f)
        line += f" {n} scored, theirs {ppl:.4f}"
        if a.llmchat:
            own, m = ours(kind, a.work, a.text, a.ctx, a.llmchat)
            off = own / ppl - 1
            fine = m == n and abs(off) < 0.005
            bad += not fine
            line += f", ours {own:.4f}, {100 * off:+.3f} %{'' if fine else f' BAD ({m} scored)'}"
        print(line, flush=True)
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
