#!/usr/bin/env python3
"""Speed of llmchat's NF4 beside bitsandbytes' NF4 in transformers, on this machine's processor.

    bench/compare_bnb.py MODEL.gguf --llmchat ./llmchat --name NAME [--threads 2] [-p 512] [-n 128] [-r 5] [--dtype bfloat16|float32|both]

transformers loads the same GGUF file (its weights dequantised), every linear layer but the head becomes a
bitsandbytes.nn.Linear4bit with NF4 and double quantisation, and the model runs with its own KV cache: the prompt in one
forward pass, then one token a pass. NAME is the same file made with `create --quant nf4`. The peer's process starts once
(it takes long) and sleeps while llmchat is measured; turn by turn, the median counts. --dtype both (default) measures
bitsandbytes with both types of activations in a first round and keeps the faster of each. Needs: torch, transformers,
bitsandbytes, accelerate, gguf.
"""
import argparse
import json
import os
import sys
import time

from common import Server, alternate, child, describe, machine, median, number, run, save_record, spread, table


def load(path, threads, dtype):
    import bitsandbytes as bnb
    import torch
    import transformers
    torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(os.path.dirname(os.path.abspath(path)), gguf_file=os.path.basename(path),
                                                              dtype=torch.float32).eval()
    kind = getattr(torch, dtype)
    for name, module in list(model.named_modules()):
        if not isinstance(module, torch.nn.Linear) or name.endswith("lm_head"):
            continue
        four = bnb.nn.Linear4bit(module.in_features, module.out_features, bias=module.bias is not None, compute_dtype=kind,
                                 compress_statistics=True, quant_type="nf4")
        four.weight = bnb.nn.Params4bit(module.weight.data.to(kind), requires_grad=False, compress_statistics=True, quant_type="nf4")
        if module.bias is not None:
            four.bias = torch.nn.Parameter(module.bias.data.to(kind), requires_grad=False)
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], four.to("cpu"))
    model.to(kind)
    versions = f"bitsandbytes {bnb.__version__}, transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    return model, versions


def measure(model, n_prompt, n_decode):
    import torch
    n_vocab = model.config.vocab_size
    ids = torch.tensor([[(i * 7919 + 13) % (n_vocab - 100) + 50 for i in range(n_prompt)]])
    with torch.inference_mode():
        start = time.perf_counter()
        out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1:].argmax(-1)
        middle = time.perf_counter()
        for _ in range(n_decode):
            out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
        end = time.perf_counter()
    return {"prefill_tok_s": n_prompt / (middle - start), "decode_tok_s": n_decode / (end - middle)}


def serve(o):
    """Answers lines {"prompt", "output"} on standard input; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        model, versions = load(o.model, o.threads, o.dtype)
        measure(model, 32, 2)
        for line in sys.stdin:
            ask = json.loads(line)
            r = measure(model, ask["prompt"], ask["output"]) if ask["prompt"] else {}
            print(json.dumps(dict(r, versions=versions, dtype=o.dtype)), file=answers, flush=True)
    except Exception as e:  # told to who asked
        print(json.dumps({"error": f"{type(e).__name__}: {e}"}), file=answers, flush=True)


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model", help="GGUF file")
    p.add_argument("--llmchat", default="./llmchat", help="the program")
    p.add_argument("--name", help="the same model made with --quant nf4")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("-p", type=int, default=512, help="prompt tokens")
    p.add_argument("-n", type=int, default=128, help="decoded tokens")
    p.add_argument("-r", type=int, default=5, help="runs of each")
    p.add_argument("--dtype", choices=("bfloat16", "float32", "both"), default="both", help="bitsandbytes' activations")
    p.add_argument("--record", metavar="FILE", help="write everything as JSON")
    p.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    o = p.parse_args()
    if not o.serve and not o.name:
        p.error("--name: which model of llmchat's is this file as nf4?")
    return o


def start(o, dtype):
    quiet = {"OMP_NUM_THREADS": str(o.threads), "OMP_WAIT_POLICY": "passive", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1",
             "TOKENIZERS_PARALLELISM": "false"}
    server = Server([sys.executable, os.path.abspath(__file__), os.path.abspath(o.model), "--threads", str(o.threads), "--dtype", dtype, "--serve"],
                    quiet)
    server.ask({"prompt": 0, "output": 0})  # until it is loaded
    return server


def compare(o, log=True):
    """The rows of the record: bitsandbytes' best of the types for each of prefill and decode."""
    kinds = ["bfloat16", "float32"] if o.dtype == "both" else [o.dtype]
    servers = {}
    try:
        for kind in kinds:
            servers[kind] = start(o, kind)
        ask = {"prompt": o.p, "output": o.n}
        ours = [o.llmchat, "bench", o.name, "--threads", str(o.threads), "-p", str(o.p), "-n", str(o.n), "-r", "1", "--json"]
        best = {}
        if len(kinds) > 1:
            first = {k: s.ask(dict(ask, output=min(o.n, 16))) for k, s in servers.items()}
            for key in ("prefill_tok_s", "decode_tok_s"):
                best[key] = max(kinds, key=lambda k: first[k][key])
        else:
            best = dict.fromkeys(("prefill_tok_s", "decode_tok_s"), kinds[0])
        both = {"llmchat": lambda: child(ours)}
        for k in sorted(set(best.values())):
            both[k] = lambda k=k: servers[k].ask(ask)

        def say(i, name, r):
            print(f"  run {i + 1} {name:9}: prefill {r['prefill_tok_s']:8.1f} tok/s, decode {r['decode_tok_s']:7.1f} tok/s", flush=True)
        runs = alternate(both, o.r, say if log else None)
    finally:
        for s in servers.values():
            s.close()
    row = {"prompt": o.p, "output": o.n, "versions": runs[best["prefill_tok_s"]][0]["versions"], "runs": runs}
    for key in best:
        a, b = median(runs["llmchat"], key), median(runs[best[key]], key)
        row[key] = {"llmchat": a, "bitsandbytes": b, "ratio": a / b, "dtype": best[key], "spread": spread(runs["llmchat"], key)}
    return row


def print_row(r):
    print(table(["tok/s", "llmchat", "bitsandbytes", "ratio", "its type"],
                [[what, number(m["llmchat"]), number(m["bitsandbytes"]), f"{m['ratio']:.2f}", m["dtype"]]
                 for what, m in ((f"prefill {r['prompt']}", r["prefill_tok_s"]), (f"decode {r['output']}", r["decode_tok_s"]))]))


def main():
    o = options()
    if o.serve:
        serve(o)
        return
    m = machine(o.llmchat)
    print("machine:", describe(m))
    row = compare(o)
    print("versions:", row["versions"], "\n")
    print_row(row)
    if o.record:
        save_record(o.record, {"machine": m, "model": os.path.basename(o.model), "threads": o.threads, "bitsandbytes": row})
        print(f"\nrecord: {o.record}")


if __name__ == "__main__":
    run(main)
