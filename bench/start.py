#!/usr/bin/env python3
"""How soon the first token is there, in a new process with the model's file in the page cache.

    bench/start.py MODEL.gguf --llmchat ./llmchat --name NAME [--cli llama-completion] [--threads 2] [-r 9]

llmchat: from starting `llmchat run NAME PROMPT` to its first byte on standard output; that includes loading the
program, its libraries, reading the configuration and its database in memory.
llama.cpp: with --cli, from starting that program to its first byte on standard output; without, llama-cpp-python in a
new process, from the call that loads MODEL.gguf to the first piece of the streamed answer: starting Python and importing
the library (about a second) is left out, in llama.cpp's favour.
Both get the same message of a user through the model's chat template, the same threads, and answer greedily. Turn by
turn; printed are machine, versions, commands, every run, medians and their ratio (above 1: llmchat is sooner). Each has a
first run that does not count. Needs llama-cpp-python where there is no --cli.
"""
import argparse
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time

from compare_llamacpp import cpu_name

PROMPT = "Name three colours."


def llama_child(path, threads):
    """Runs in a process of its own; prints milliseconds and the version."""
    import llama_cpp
    start = time.perf_counter()
    llm = llama_cpp.Llama(model_path=path, n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)
    for piece in llm.create_chat_completion([{"role": "user", "content": PROMPT}], max_tokens=4, temperature=0, stream=True):
        if piece["choices"][0]["delta"].get("content"):
            break
    print((time.perf_counter() - start) * 1000, llama_cpp.__version__)


def first_byte_ms(command):
    start = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as p:
        got = p.stdout.read(1)
        ms = (time.perf_counter() - start) * 1000
        p.stdout.read()
    if not got or p.returncode != 0:
        sys.exit(f"no answer from {shlex.join(command)} (exit code {p.returncode})")
    return ms


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model", help="GGUF file for llama.cpp")
    p.add_argument("--llmchat", default="./llmchat", help="the program")
    p.add_argument("--name", help="what llmchat runs: a name or a path (default: the GGUF file)")
    p.add_argument("--cli", help="llama.cpp's llama-completion")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("-r", type=int, default=9, help="runs of each")
    p.add_argument("--llama-child", action="store_true", help=argparse.SUPPRESS)
    return p.parse_args()


def main():
    o = options()
    if o.llama_child:
        llama_child(o.model, o.threads)
        return
    ours = [o.llmchat, "run", o.name or o.model, PROMPT, "--threads", str(o.threads), "--max-tokens", "4", "--temperature", "0"]
    if o.cli:
        theirs = [o.cli, "-m", o.model, "-p", PROMPT, "-t", str(o.threads), "-n", "4", "--temp", "0", "-c", "2048", "-st",
                  "--no-display-prompt"]
        version = os.path.basename(o.cli)
    else:
        theirs = [sys.executable, os.path.abspath(__file__), o.model, "--threads", str(o.threads), "--llama-child"]
        version = ""

    def llama_ms():
        nonlocal version
        if o.cli:
            return first_byte_ms(theirs)
        out = subprocess.run(theirs, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True).stdout.split()
        version = "llama-cpp-python " + out[1]
        return float(out[0])

    print(f"machine: {cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.system()} {platform.release()}")
    print("llmchat:  ", shlex.join(ours))
    print("llama.cpp:", shlex.join(theirs))
    first_byte_ms(ours)
    llama_ms()
    runs = []
    for i in range(o.r):
        runs.append((first_byte_ms(ours), llama_ms()))
        print(f"run {i + 1}: llmchat {runs[-1][0]:7.1f} ms, llama.cpp {runs[-1][1]:7.1f} ms", flush=True)
    a, b = (statistics.median(r[k] for r in runs) for k in (0, 1))
    low_a, low_b = (min(r[k] for r in runs) for k in (0, 1))
    ours_version = subprocess.run([o.llmchat, "--version"], stdout=subprocess.PIPE, text=True).stdout.split("\n")[0]
    print(f"versions: {ours_version}; {version}")
    print(f"first token: llmchat {a:.1f} ms, llama.cpp {b:.1f} ms, ratio {b / a:.2f} (medians); "
          f"least {low_a:.1f} and {low_b:.1f}, ratio {low_b / low_a:.2f}")


if __name__ == "__main__":
    main()
