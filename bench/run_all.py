#!/usr/bin/env python3
"""Every figure in one go: makes the models, measures beside the peers in alternation, prints the table of goals.

    bench/run_all.py SMALL.gguf [LARGER.gguf …] --llmchat ./llmchat [--threads 2] [-r 5]
        [--llama-bin DIR] [--avx2-bin DIR | --avx2-lib DIR] [--record bench/records/DATE-NAME.json] [--quick] [--only WORDS]

The first model should be small (it also goes through transformers and bitsandbytes), the others 0.4 GB and up at 4 bits;
bench/mkshape.py makes one of random weights. llmchat runs nf4 made by this very program, in a folder of its own.
--llama-bin: llama.cpp's own programs instead of llama-cpp-python. --avx2-bin or --avx2-lib: a build of it without AVX-512.
A plot of each model under the roof goes beside the record. What can't be measured (a package is missing, a build wasn't given) is named in the table, and the rest goes on; Ctrl-C ends
with the table of what there is. --only picks parts: llama, batch, bnb, turns, avx2, roofline. --quick is a rehearsal: one run
of small shapes, whose figures mean nothing.

Run it on a machine that does nothing else: the load that is printed first should be near 0. It sets the exit code to 1 when a
goal was missed or could not be measured.
"""
import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import compare_bnb
import compare_llamacpp
import roofline
import turns
from common import Failed, default_cache, describe, machine, make_q4_0, number, save_record, table

PARTS = ("llama", "batch", "bnb", "turns", "avx2", "roofline")


class Run:
    def __init__(self, o):
        self.o = o
        self.goals = []
        self.record = {"machine": machine(o.llmchat), "threads": o.threads, "runs": o.r, "quick": o.quick, "models": {}, "goals": self.goals}

    def goal(self, what, peer, ours, theirs, goal, unit="tok/s"):
        self.goals.append({"what": what, "peer": peer, "ours": ours, "theirs": theirs, "unit": unit, "ratio": ours / theirs, "goal": goal,
                           "met": ours / theirs >= goal})

    def bound(self, what, peer, ours, bound, unit, at_least):
        """A goal that is a number of our own."""
        self.goals.append({"what": what, "peer": peer, "ours": ours, "bound": bound, "unit": unit,
                           "met": ours >= bound if at_least else ours <= bound})

    def part(self, name, what, function):
        """Runs it; what fails is a row that says why."""
        if name not in self.o.only:
            return
        print(f"\n## {what}", flush=True)
        start = time.monotonic()
        try:
            function()
        except Failed as e:
            print(f"not measured: {e}")
            self.goals.append({"what": what, "missing": str(e), "met": False})
        self.record.setdefault("seconds", {})[what] = round(time.monotonic() - start)
        if self.o.record:
            save_record(self.o.record, self.record)


def label(path):
    """A name that llmchat takes, of the file's, without its quantisation."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", os.path.splitext(os.path.basename(path))[0])
    stem = re.sub(r"[.-](I?Q[0-9]\w*|F16|F32|BF16)$", "", stem, flags=re.IGNORECASE)
    return stem.lstrip(".-") or "model"


def llama_options(o, path, name, **more):
    return SimpleNamespace(**dict(dict(llmchat=o.llmchat, name=name, model=path, threads=o.threads, r=o.r, llama_bin=o.llama_bin, llama_lib=None,
                                       avx2=False, turn_depth=o.depth), **more))


def beside_llama(run, path, name):
    o, q4 = run.o, make_q4_0(path, run.o.cache)
    row = compare_llamacpp.compare(llama_options(o, path, name), q4, o.shape)
    run.record["models"][name]["llama"] = row
    compare_llamacpp.print_rows([row])
    print(f"decode reads {row['bandwidth_share']:.0%} of the measured bandwidth")
    large = os.path.getsize(q4) >= 0.4e9
    decode, prefill = row["decode_tok_s"], row["prefill_tok_s"]
    run.goal(f"decode, {name}", "llama.cpp Q4_0", decode["llmchat"], decode["llama.cpp"], 1.1 if large else 1.5)
    if large:
        run.bound(f"decode's share of bandwidth, {name}", "measured", row["bandwidth_share"], 0.9, "", True)
    run.goal(f"prefill {o.shape[0]}, {name}", "llama.cpp Q4_0", prefill["llmchat"], prefill["llama.cpp"], 2.0)


def batch(run, path, name):
    o, q4 = run.o, make_q4_0(path, run.o.cache)
    row = compare_llamacpp.compare(llama_options(o, path, name), q4, o.batch_shape)
    run.record["models"][name]["batch"] = row
    compare_llamacpp.print_rows([row])
    m = row["decode_tok_s"]
    run.goal(f"{o.batch_shape[2]} sequences, decode, {name}", "llama.cpp Q4_0", m["llmchat"], m["llama.cpp"], 3.0)


def bnb(run, path, name):
    o = run.o
    row = compare_bnb.compare(SimpleNamespace(model=path, llmchat=o.llmchat, name=name, threads=o.threads, p=o.shape[0], n=o.shape[1], r=o.r, dtype="both"))
    run.record["models"][name]["bitsandbytes"] = row
    compare_bnb.print_row(row)
    for key, what, goal in (("decode_tok_s", "decode", 12.0), ("prefill_tok_s", f"prefill {o.shape[0]}", 2.0)):
        run.goal(f"{what}, {name}", "bitsandbytes NF4", row[key]["llmchat"], row[key]["bitsandbytes"], goal)


def second_turns(run, path, name):
    o, q4 = run.o, make_q4_0(path, run.o.cache)
    t = compare_llamacpp.second_turn(llama_options(o, path, name), q4)
    run.record["models"][name]["second_turn"] = t
    compare_llamacpp.print_second_turn(t)
    run.bound(f"second turn of {o.depth} tokens, first token, {name}", f"all of it: {t['all of it']:.0f} ms", t["one token"], t["decode step"] + 5,
              "ms", False)
    t = turns.measure(SimpleNamespace(llmchat=o.llmchat, name=name, threads=o.threads, tokens=o.depth, r=o.r))
    run.record["models"][name]["restart"] = t
    turns.print_turns(t)
    run.bound(f"the same after a restart, {name}", f"all of it: {t['first_ttft_ms']:.0f} ms", t["ttft_ms"], t["step_ms"] + 5 + t["read_ms"], "ms", False)


def avx2(run, path, name):
    o, q4 = run.o, make_q4_0(path, run.o.cache)
    if not (o.avx2_bin or o.avx2_lib):
        raise Failed("no --avx2-bin or --avx2-lib was given")
    row = compare_llamacpp.compare(llama_options(o, path, name, avx2=True, llama_bin=o.avx2_bin, llama_lib=o.avx2_lib), q4, o.shape)
    run.record["models"][name]["avx2"] = row
    compare_llamacpp.print_rows([row])
    for key, what in (("decode_tok_s", "decode"), ("prefill_tok_s", f"prefill {o.shape[0]}")):
        run.goal(f"AVX2: {what}, {name}", "llama.cpp for AVX2", row[key]["llmchat"], row[key]["llama.cpp"], 1.2)


def roof(run, name):
    o = run.o
    r = roofline.measure(SimpleNamespace(llmchat=o.llmchat, name=name, threads=o.threads, p=o.shape[0], n=32, r=min(o.r, 3),
                                         batches="1,4" if o.quick else "1,2,4,8,16,32,64"))
    run.record["models"][name]["roofline"] = r
    roofline.print_points(r)
    if o.record:
        os.makedirs(os.path.dirname(os.path.abspath(o.record)), exist_ok=True)
        roofline.draw(f"{os.path.splitext(o.record)[0]}-{name}.svg", r)


def print_goals(goals):
    rows = []
    for g in goals:
        if "missing" in g:
            rows.append([g["what"], "", "", "", "not measured", "", g["missing"][:60]])
        elif "ratio" in g:
            rows.append([g["what"], g["peer"], number(g["ours"]), number(g["theirs"]), f"{g['ratio']:.2f}", f"{g['goal']:g}", "yes" if g["met"] else "NO"])
        else:
            digits = 2 if not g["unit"] else 1
            rows.append([g["what"], g["peer"], number(g["ours"], digits), "", "", f"{number(g['bound'], digits)} {g['unit']}".strip(),
                         "yes" if g["met"] else "NO"])
    print("\n" + table(["goal", "peer", "llmchat", "peer's", "ratio", "wanted", "met"], rows))


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model", nargs="+", help="GGUF files; the first small, the others of 0.4 GB and up at 4 bits")
    p.add_argument("--llmchat", default="./llmchat", help="the program")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("-r", type=int, default=5, help="runs of each")
    p.add_argument("--llama-bin", metavar="DIR", help="llama.cpp's own programs")
    p.add_argument("--avx2-bin", metavar="DIR", help="the same, built for AVX2")
    p.add_argument("--avx2-lib", metavar="DIR", help="libraries of llama.cpp built for AVX2, for llama-cpp-python")
    p.add_argument("--record", metavar="FILE", help="JSON of everything (default: bench/records/DATE-ARCH.json, none with --quick)")
    p.add_argument("--cache", default=default_cache(), help="folder for llama.cpp's Q4_0 files")
    p.add_argument("--only", default=",".join(PARTS), type=lambda s: s.split(","), help="parts: " + ",".join(PARTS))
    p.add_argument("--quick", action="store_true", help="a rehearsal")
    o = p.parse_args()
    for path in o.model + [o.llmchat]:
        if not os.path.exists(path):
            p.error(f"{path}: not found")
    for word in o.only:
        if word not in PARTS:
            p.error(f"--only {word}: the parts are {','.join(PARTS)}")
    o.llmchat = os.path.abspath(o.llmchat)
    o.shape, o.batch_shape, o.depth = (512, 128, 1), (64, 64, 32), 4000
    if o.quick:
        o.r, o.shape, o.batch_shape, o.depth = 1, (64, 16, 1), (16, 8, 4), 256
    elif not o.record:
        day = time.strftime("%Y-%m-%d")
        o.record = os.path.join(os.path.dirname(os.path.abspath(__file__)), "records", f"{day}-{platform.machine()}.json")
    return o


def measure_all(run):
    for i, path in enumerate(run.o.model):
        name = label(path)
        if name in run.record["models"]:
            name += f"-{i + 1}"
        r = subprocess.run([run.o.llmchat, "create", name, "--from", path, "--quant", "nf4"], capture_output=True, text=True)
        if r.returncode != 0:
            raise Failed(f"create {name}: {r.stderr.strip()[-300:]}")
        run.record["models"][name] = {"file": os.path.basename(path)}
        run.part("llama", f"{name} beside llama.cpp", lambda: beside_llama(run, path, name))
        run.part("batch", f"{name}: many sequences", lambda: batch(run, path, name))
        if i == 0:
            run.part("bnb", f"{name} beside bitsandbytes", lambda: bnb(run, path, name))
        run.part("turns", f"{name}: second turns", lambda: second_turns(run, path, name))
        run.part("avx2", f"{name} without AVX-512", lambda: avx2(run, path, name))
        run.part("roofline", f"{name} under the roof", lambda: roof(run, name))


def main():
    o = options()
    run = Run(o)
    print("machine:", describe(run.record["machine"]))
    code = 0
    with tempfile.TemporaryDirectory(prefix="llmchat-bench-") as home:
        os.environ["LLMCHAT_HOME"] = home
        try:
            measure_all(run)
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            code = 130
        except Failed as e:
            print(f"run_all: {e}", file=sys.stderr)
            code = 1
    print_goals(run.goals)
    if o.record:
        save_record(o.record, run.record)
        print(f"\nrecord: {o.record}; bench/plot.py draws it")
    sys.exit(code or (0 if run.goals and all(g["met"] for g in run.goals) else 1))


if __name__ == "__main__":
    main()
