#!/usr/bin/env python3
"""Speed of llmchat beside llama.cpp, on this machine, with the same weights and threads.

    bench/compare_llamacpp.py MODEL.gguf --llmchat ./llmchat [--name NAME] [--threads 2] [--shapes 512:128:1,64:64:32] [-r 5]
        [--llama-bin DIR] [--avx2 --llama-lib DIR] [--second-turn] [--record FILE.json]

llama.cpp runs the model as Q4_0 (made from MODEL.gguf by its own quantiser where it is something else); llmchat runs
NAME, or MODEL.gguf itself. A shape is PROMPT:OUTPUT:SEQUENCES, as in llama.cpp's batched-bench: all sequences prefill,
each its own prompt, then all decode together. Both sides run in processes of their own, turn by turn, so that a change of
the machine's clock hits both; the median of the runs counts.

The peer is llama-cpp-python, called at its lowest level: whole batches by llama_decode(), logits made, but nothing
sampled, as in batched-bench (llmchat samples greedily in its measured time). With --llama-bin it is the program
llama-batched-bench of that folder. --avx2 measures both without AVX-512: llmchat by LLMCHAT_CPU=avx2, llama.cpp by a
build without it, as library (--llama-lib: a folder with libllama.so) or as program (--llama-bin).

--second-turn: the first token of a message of 16 tokens after a conversation of --turn-depth tokens that is in the KV
cache, beside computing all of it, and beside a decode step.

Printed: machine, versions, commands, every run, and Markdown tables of medians with their ratio (above 1: llmchat is
faster). Needs: numpy, llama-cpp-python (also with --llama-bin, for its quantiser).
"""
import argparse
import ctypes
import json
import os
import shlex
import sys
import time

from common import Failed, alternate, child, default_cache, describe, machine, make_q4_0, median, number, run, save_record, spread, table


def load_llama():
    """llama_cpp, with all of its libraries from LLAMA_CPP_LIB_PATH: its own ggml would be taken for libllama's otherwise."""
    folder = os.environ.get("LLAMA_CPP_LIB_PATH")
    if folder:
        for name in ("ggml-base", "ggml-cpu", "ggml"):
            ctypes.CDLL(os.path.join(folder, f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL)
    import llama_cpp
    return llama_cpp


class Llama:
    """One model and one context for n_seq sequences of n_ctx tokens each."""

    def __init__(self, path, threads, n_ctx, n_seq):
        self.lib = load_llama()
        quiet = self.lib.llama_log_callback(lambda level, text, user: None)
        self.keep = quiet
        self.lib.llama_log_set(quiet, None)
        self.lib.llama_backend_init()
        model = self.lib.llama_model_load_from_file(path.encode(), self.lib.llama_model_default_params())
        if not model:
            raise Failed(f"{path}: llama.cpp can't load it")
        p = self.lib.llama_context_default_params()
        p.n_ctx, p.n_seq_max = n_ctx * n_seq, n_seq
        p.n_batch, p.n_ubatch = 2048, 512
        p.n_threads = p.n_threads_batch = threads
        self.ctx = self.lib.llama_init_from_model(model, p)
        if not self.ctx:
            raise Failed(f"{path}: llama.cpp made no context of {n_seq} x {n_ctx} tokens")
        self.n_vocab = self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(model))
        self.batch = self.lib.llama_batch_init(p.n_batch, 0, 1)
        self.n_batch = p.n_batch

    def clear(self):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.ctx), True)

    def decode(self, rows):
        """rows: (token, position, sequence, whether logits are wanted)"""
        b = self.batch
        for first in range(0, len(rows), self.n_batch):
            part = rows[first:first + self.n_batch]
            b.n_tokens = len(part)
            for i, (token, pos, seq, logits) in enumerate(part):
                b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, pos, 1, logits
                b.seq_id[i][0] = seq
            if self.lib.llama_decode(self.ctx, b) != 0:
                raise Failed("llama_decode failed")
            self.lib.llama_synchronize(self.ctx)

    def token(self, i):
        return (i * 7919 + 13) % (self.n_vocab - 100) + 50

    def prefill(self, first, n, n_seq):
        """n tokens of each sequence behind first."""
        self.decode([(self.token(1000 * s + i), i, s, i == first + n - 1) for s in range(n_seq) for i in range(first, first + n)])

    def steps(self, first, n, n_seq):
        for i in range(first, first + n):
            self.decode([(self.token(77 * s + i), i, s, True) for s in range(n_seq)])


def llama_run(o):
    """One shape; a first, unmeasured pass maps the file and wakes the threads."""
    n_prompt, n_decode, n_seq = o.shape
    llm = Llama(o.model, o.threads, o.depth + n_prompt + n_decode + 1, n_seq)
    llm.prefill(0, min(64, n_prompt), n_seq)
    llm.steps(min(64, n_prompt), 1, n_seq)
    llm.clear()
    if o.depth:
        llm.prefill(0, o.depth, n_seq)
    start = time.perf_counter()
    llm.prefill(o.depth, n_prompt, n_seq)
    middle = time.perf_counter()
    llm.steps(o.depth + n_prompt, n_decode, n_seq)
    end = time.perf_counter()
    features = llm.lib.llama_print_system_info().decode()
    return {"prefill_tok_s": n_prompt * n_seq / (middle - start), "decode_tok_s": n_decode * n_seq / (end - middle),
            "ttft_us": (middle - start) * 1e6, "version": llm.lib.__version__, "system_info": features}


def batched_bench(program, model, threads, shape):
    n_prompt, n_decode, n_seq = shape
    need = n_seq * (n_prompt + n_decode + 1)
    r = child([program, "-m", model, "-c", str(need + 256 * n_seq), "-b", "2048", "-ub", "512", "-npp", str(n_prompt), "-ntg", str(n_decode),
               "-npl", str(n_seq), "-t", str(threads), "-tb", str(threads), "--output-format", "jsonl"])
    return {"prefill_tok_s": r["speed_pp"], "decode_tok_s": r["speed_tg"], "ttft_us": r["t_pp"] * 1e6, "version": "llama-batched-bench"}


def parse_shape(text):
    try:
        prompt, output, batch = (int(x) for x in text.split(":"))
        if prompt < 1 or output < 2 or not 1 <= batch <= 256:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: a shape is PROMPT:OUTPUT:SEQUENCES, as 512:128:1") from None
    return prompt, output, batch


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model", help="GGUF file: Q4_0, or anything llama.cpp can make Q4_0 from")
    p.add_argument("--llmchat", default="./llmchat", help="the program")
    p.add_argument("--name", help="what llmchat runs: a name or a path (default: the GGUF file)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--shapes", default="512:128:1", type=lambda s: [parse_shape(x) for x in s.split(",")], help="PROMPT:OUTPUT:SEQUENCES,...")
    p.add_argument("-r", type=int, default=5, help="runs of each")
    p.add_argument("--llama-bin", metavar="DIR", help="measure llama-batched-bench of this folder")
    p.add_argument("--llama-lib", metavar="DIR", help="llama-cpp-python with the libraries of this folder")
    p.add_argument("--avx2", action="store_true", help="both without AVX-512; needs one of the two above, built so")
    p.add_argument("--second-turn", action="store_true", help="the first token of a second turn, too")
    p.add_argument("--turn-depth", type=int, default=4000)
    p.add_argument("--record", metavar="FILE", help="write everything as JSON")
    p.add_argument("--cache", default=default_cache(), help="folder for the Q4_0 file")
    p.add_argument("--llama-run", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--shape", type=parse_shape, help=argparse.SUPPRESS)
    p.add_argument("--depth", type=int, default=0, help=argparse.SUPPRESS)
    o = p.parse_args()
    if o.avx2 and not (o.llama_bin or o.llama_lib):
        p.error("--avx2 needs --llama-lib or --llama-bin: a llama.cpp that was built without AVX-512")
    return o


def sides(o, q4, shape, depth=0):
    """{name: function that measures once}, and the commands as text."""
    prompt, output, batch = (str(x) for x in shape)
    env = {"LLMCHAT_CPU": "avx2"} if o.avx2 else {}
    ours = [o.llmchat, "bench", o.name or o.model, "--threads", str(o.threads), "-d", str(depth), "-p", prompt, "-n", output, "-b", batch,
            "-r", "1", "--json"]
    theirs = [sys.executable, os.path.abspath(__file__), q4, "--threads", str(o.threads), "--shape", ":".join((prompt, output, batch)),
              "--depth", str(depth), "--llama-run"]
    their_env = {"LLAMA_CPP_LIB_PATH": os.path.abspath(o.llama_lib)} if o.llama_lib else {}
    result = {"llmchat": lambda: child(ours, env), "llama.cpp": lambda: child(theirs, their_env)}
    if o.llama_bin and not depth:
        program = os.path.join(o.llama_bin, "llama-batched-bench")
        result["llama.cpp"] = lambda: batched_bench(program, q4, o.threads, shape)
    return result, shlex.join(ours), shlex.join(theirs)


def check_peer(o, result):
    info = result.get("system_info", "")
    if o.avx2 and "AVX512 = 1" in info:
        raise Failed(f"{o.llama_lib}: this llama.cpp uses AVX-512: {info}")


def say(i, name, r):
    print(f"  run {i + 1} {name:9}: prefill {r['prefill_tok_s']:9.1f} tok/s, decode {r['decode_tok_s']:8.1f} tok/s", flush=True)


def compare(o, q4, shape, log=True):
    """One shape; a row of the record."""
    both, _, _ = sides(o, q4, shape)
    if log:
        print(f"prompt {shape[0]}, output {shape[1]}, {shape[2]} together:", flush=True)
    runs = alternate(both, o.r, say if log else None)
    check_peer(o, runs["llama.cpp"][0])
    row = {"prompt": shape[0], "output": shape[1], "batch": shape[2], "avx2": o.avx2, "runs": runs}
    for key in ("prefill_tok_s", "decode_tok_s"):
        ours, theirs = median(runs["llmchat"], key), median(runs["llama.cpp"], key)
        row[key] = {"llmchat": ours, "llama.cpp": theirs, "ratio": ours / theirs, "spread": spread(runs["llmchat"], key)}
    row["bandwidth_share"] = median(runs["llmchat"], "bandwidth_share")
    return row


def second_turn(o, q4):
    """First token of 16 new tokens behind --turn-depth: what is in the cache, against all of it computed."""
    both, _, _ = sides(o, q4, (16, 16, 1), o.turn_depth)
    full, _, _ = sides(o, q4, (o.turn_depth + 16, 2, 1))
    one, _, _ = sides(o, q4, (1, 16, 1), o.turn_depth)
    runs = alternate({"second turn": both["llmchat"], "one token": one["llmchat"], "all of it": full["llmchat"], "llama.cpp": both["llama.cpp"]},
                     o.r)
    row = {name: median(r, "ttft_us") / 1000 for name, r in runs.items()}
    row["decode step"] = median(runs["second turn"], "itl_p50_us") / 1000
    row["depth"] = o.turn_depth
    row["runs"] = runs
    return row


def print_rows(rows):
    out = []
    for r in rows:
        for key, what in (("prefill_tok_s", f"prefill {r['prompt']}"), ("decode_tok_s", f"decode {r['output']} after {r['prompt']}")):
            m = r[key]
            out.append([what, r["batch"], number(m["llmchat"]), number(m["llama.cpp"]), f"{m['ratio']:.2f}", f"{m['spread']:.0%}"])
    print(table(["tok/s", "sequences", "llmchat", "llama.cpp", "ratio", "spread of llmchat"], out))


def print_second_turn(t):
    print(table([f"first token, ms, {t['depth']} tokens before", "ms"],
                [["16 new tokens, the rest cached", number(t["second turn"])], ["1 new token, the rest cached", number(t["one token"])],
                 ["a decode step there", number(t["decode step"])], ["all of it computed", number(t["all of it"])],
                 ["llama.cpp: 16 new tokens, the rest cached", number(t["llama.cpp"])]]))


def main():
    o = options()
    if o.llama_run:
        print(json.dumps(llama_run(o)))
        return
    q4 = make_q4_0(o.model, o.cache)
    m = machine(o.llmchat)
    print("machine:", describe(m))
    _, ours, theirs = sides(o, q4, o.shapes[0])
    print(f"llmchat:   {'LLMCHAT_CPU=avx2 ' if o.avx2 else ''}{ours}\nllama.cpp: {o.llama_bin + '/llama-batched-bench' if o.llama_bin else theirs}")
    record = {"machine": m, "model": os.path.basename(o.model), "threads": o.threads, "rows": []}
    for shape in o.shapes:
        record["rows"].append(compare(o, q4, shape))
    first = record["rows"][0]["runs"]
    print(f"versions: {m['llmchat']} ran {first['llmchat'][0]['quant']} on {first['llmchat'][0]['device']} "
          f"({first['llmchat'][0]['kernels']}); llama.cpp {first['llama.cpp'][0]['version']} ran Q4_0\n")
    print_rows(record["rows"])
    if o.second_turn:
        record["second_turn"] = second_turn(o, q4)
        print()
        print_second_turn(record["second_turn"])
    if o.record:
        save_record(o.record, record)
        print(f"\nrecord: {o.record}")


if __name__ == "__main__":
    run(main)
