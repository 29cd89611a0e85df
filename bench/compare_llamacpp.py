#!/usr/bin/env python3
"""Speed of llmchat beside llama-cpp-python, on this machine, with the same weights and threads.

    bench/compare_llamacpp.py MODEL.gguf --llmchat ./llmchat [--name NAME] [--threads 2] [-p 512] [-n 128] [-r 5]

llama.cpp runs the model as Q4_0 (made from MODEL.gguf by llama.cpp's own quantiser where it is something else);
llmchat runs NAME, or MODEL.gguf itself. Both run in processes of their own, turn by turn, so that a change of the
machine's clock hits both; the median of the runs counts. Prefill is the prompt in one go, decode the tokens after it,
one by one, greedy. Printed: machine, versions, commands, every run, medians and their ratio (above 1: llmchat is
faster). Needs: llama-cpp-python, numpy.
"""
import argparse
import ctypes
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time


def llama_quantise(source, target):
    """MODEL as Q4_0; made once, written beside and renamed."""
    import llama_cpp
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    params.allow_requantize = True
    tmp = target + ".tmp"
    if llama_cpp.llama_model_quantize(source.encode(), tmp.encode(), ctypes.byref(params)) != 0:
        sys.exit(f"{source}: llama.cpp could not make Q4_0 of it")
    os.replace(tmp, target)


def llama_run(path, threads, n_prompt, n_decode):
    """One prefill and one decode; a first, unmeasured pass maps the file and wakes the threads."""
    import llama_cpp
    import numpy as np
    llm = llama_cpp.Llama(model_path=path, n_ctx=n_prompt + n_decode + 16, n_batch=n_prompt, n_ubatch=n_prompt,
                          n_threads=threads, n_threads_batch=threads, verbose=False)
    ctx, n_vocab = llm.ctx, llm.n_vocab()

    def decode(tokens):
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        if llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one(array, len(tokens))) != 0:
            sys.exit("llama_decode failed")
        logits = llama_cpp.llama_get_logits_ith(ctx, -1)
        return int(np.ctypeslib.as_array(logits, shape=(n_vocab,)).argmax())

    def clear():
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(ctx), True)

    prompt = [(i * 7919 + 13) % (n_vocab - 100) + 50 for i in range(n_prompt)]
    decode(prompt[:64])
    clear()
    start = time.perf_counter()
    token = decode(prompt)
    middle = time.perf_counter()
    for _ in range(n_decode):
        token = decode([token])
    end = time.perf_counter()
    return {"prefill_tok_s": n_prompt / (middle - start), "decode_tok_s": n_decode / (end - middle),
            "version": llama_cpp.__version__}


def child(command):
    out = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    found = json.loads(out)
    return found[0] if isinstance(found, list) else found


def cpu_name():
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown CPU"


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model", help="GGUF file: Q4_0, or anything llama.cpp can make Q4_0 from")
    p.add_argument("--llmchat", default="./llmchat", help="the program")
    p.add_argument("--name", help="what llmchat runs: a name or a path (default: the GGUF file)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("-p", type=int, default=512, help="prompt tokens")
    p.add_argument("-n", type=int, default=128, help="decoded tokens")
    p.add_argument("-r", type=int, default=5, help="runs of each")
    p.add_argument("--cache", default=os.path.expanduser("~/.cache/llmchat/bench"), help="folder for the Q4_0 file")
    p.add_argument("--llama-run", action="store_true", help=argparse.SUPPRESS)
    return p.parse_args()


def main():
    o = options()
    if o.llama_run:
        print(json.dumps(llama_run(o.model, o.threads, o.p, o.n)))
        return
    q4 = o.model
    if "Q4_0" not in os.path.basename(o.model).upper():
        os.makedirs(o.cache, exist_ok=True)
        stem = os.path.splitext(os.path.basename(o.model))[0]
        q4 = os.path.join(o.cache, f"{stem}.{os.stat(o.model).st_size}.Q4_0.gguf")
        if not os.path.exists(q4):
            subprocess.run([sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import compare_llamacpp as c; "
                            "c.llama_quantise(sys.argv[2], sys.argv[3])", os.path.dirname(os.path.abspath(__file__)), o.model, q4],
                           check=True, stderr=subprocess.DEVNULL)
    shape = ["--threads", str(o.threads), "-p", str(o.p), "-n", str(o.n)]
    ours = [o.llmchat, "bench", o.name or o.model, *shape, "-b", "1", "-r", "1", "--json"]
    theirs = [sys.executable, os.path.abspath(__file__), q4, *shape, "--llama-run"]
    print(f"machine: {cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.system()} {platform.release()}")
    print("llmchat:  ", shlex.join(ours))
    print("llama.cpp:", shlex.join(theirs))
    runs = {"llmchat": [], "llama.cpp": []}
    for i in range(o.r):
        for name, command in (("llmchat", ours), ("llama.cpp", theirs)):
            r = child(command)
            runs[name].append(r)
            print(f"run {i + 1} {name:9}: prefill {r['prefill_tok_s']:8.1f} tok/s, decode {r['decode_tok_s']:7.1f} tok/s", flush=True)
    version = subprocess.run([o.llmchat, "--version"], stdout=subprocess.PIPE, text=True).stdout.split("\n")[0]
    print(f"versions: {version}; llama-cpp-python {runs['llama.cpp'][0]['version']}; "
          f"llmchat ran {runs['llmchat'][0].get('quant', '?')} on {runs['llmchat'][0].get('device', '?')}, llama.cpp Q4_0")
    for key, what in (("prefill_tok_s", f"prefill {o.p}"), ("decode_tok_s", f"decode {o.n}")):
        a, b = (statistics.median(r[key] for r in runs[x]) for x in ("llmchat", "llama.cpp"))
        print(f"{what:12}: llmchat {a:8.1f} tok/s, llama.cpp {b:8.1f} tok/s, ratio {a / b:.2f}")


if __name__ == "__main__":
    main()
