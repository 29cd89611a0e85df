#!/usr/bin/env python3
"""The first token of a second turn after the program was started anew.

    bench/turns.py NAME --llmchat ./llmchat [--tokens 4000] [--threads 2] [-r 5] [--record FILE.json]

Each round, in a folder of its own: `llmchat run` answers a message of about --tokens tokens and stores the conversation;
then a new process continues it with a short question. What is printed: the time to the first token of both as the engine
counts it (the first computes all of it), from the start of the process to the first token on standard output, how many
tokens of the second prompt did not have to be computed, a decode step, and how long one thread takes to read the file with
the saved state, which is in the system's cache, into new memory. The second turn within the same process is
`llmchat bench -d` (see compare_llamacpp.py --second-turn). Needs nothing but Python.
"""
import argparse
import json
import mmap
import os
import subprocess
import tempfile
import time

from common import Failed, child, describe, machine, median, number, run, save_record, table


def long_text(llmchat, model, n_tok):
    """About n_tok tokens of prose that does not repeat itself word for word."""
    def lines(n):
        return "".join(f"Line {i}: the tide of day {i} came in {i % 7} hours after the moon had passed, and {i * 37 % 101} boats lay dry.\n" for i in range(n))
    r = subprocess.run([llmchat, "tokenize", model], input=lines(50), capture_output=True, text=True)
    if r.returncode != 0:
        raise Failed(f"tokenize: {r.stderr.strip()}")
    return lines(max(1, n_tok * 50 // max(1, len(r.stdout.split()))))


def turn(command, env, text):
    """Runs one turn: the last object, and the time from start to the first token in ms."""
    start = time.perf_counter()
    p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    p.stdin.write(text.encode())
    p.stdin.close()
    first, last = None, b""
    for line in p.stdout:
        if first is None:
            first = (time.perf_counter() - start) * 1000
        last = line
    errors = p.stderr.read().decode()
    if p.wait() != 0 or not last:
        raise Failed(f"llmchat run: {errors.strip()[-300:]}")
    return json.loads(last), first


def read_ms(llmchat, env):
    """Reads the one saved state into memory that nobody touched before."""
    state = child([llmchat, "kv", "list", "--json"], env)
    if isinstance(state, list):
        raise Failed(f"{len(state)} saved states, expected one")
    with open(state["path"], "rb", buffering=0) as f, mmap.mmap(-1, state["bytes"]) as to:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            to.madvise(mmap.MADV_HUGEPAGE)
        start = time.perf_counter()
        n = f.readinto(to)
        took = (time.perf_counter() - start) * 1000
    if n != state["bytes"]:
        raise Failed(f"{state['path']}: {n} of {state['bytes']} bytes read")
    return took, n


def once(o, model, text):
    with tempfile.TemporaryDirectory(prefix="llmchat-turns-") as home:
        env = dict(os.environ, LLMCHAT_HOME=home)
        common = ["--json", "--temperature", "0", "--max-tokens", "16", "--threads", str(o.threads), "--speculation", "off"]
        a, a_wall = turn([o.llmchat, "run", model, "--save", *common], env, text)
        read, n_read = read_ms(o.llmchat, env)
        b, b_wall = turn([o.llmchat, "run", model, "--chat", "1", *common], env, "And why is that so?")
        step = b["decode_us"] / max(1, b["completion_tokens"] - 1) / 1000
        return {"first_ttft_ms": a["ttft_us"] / 1000, "first_wall_ms": a_wall, "first_prompt": a["prompt_tokens"], "ttft_ms": b["ttft_us"] / 1000,
                "wall_ms": b_wall, "prompt": b["prompt_tokens"], "cached": b["cached_tokens"], "step_ms": step, "read_ms": read, "read_bytes": n_read}


def measure(o):
    model = child([o.llmchat, "show", o.name, "--json"])["path"]
    text = long_text(o.llmchat, model, o.tokens)
    runs = [once(o, model, text) for _ in range(o.r)]
    return dict({key: median(runs, key) for key in runs[0]}, runs=runs)


def print_turns(t):
    print(table([f"a conversation of {t['first_prompt']:.0f} tokens, ms", "first turn", "second turn, new process"],
                [["first token, from the request", number(t["first_ttft_ms"]), number(t["ttft_ms"])],
                 ["first token, from the start of the process", number(t["first_wall_ms"]), number(t["wall_ms"])],
                 ["tokens not computed again", "0", f"{t['cached']:.0f} of {t['prompt']:.0f}"], ["a decode step", "", number(t["step_ms"])],
                 [f"reading the saved state, {t['read_bytes'] / 1e6:.0f} MB", "", number(t["read_ms"])]]))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("name", help="a model that llmchat has")
    p.add_argument("--llmchat", default="./llmchat", help="the program")
    p.add_argument("--tokens", type=int, default=4000)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("-r", type=int, default=5, help="rounds")
    p.add_argument("--record", metavar="FILE", help="write everything as JSON")
    o = p.parse_args()
    m = machine(o.llmchat)
    print("machine:", describe(m))
    t = measure(o)
    print_turns(t)
    if o.record:
        save_record(o.record, {"machine": m, "turns": t})


if __name__ == "__main__":
    run(main)
