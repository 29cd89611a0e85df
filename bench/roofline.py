#!/usr/bin/env python3
"""Where llmchat stands under this machine's roof: arithmetic and memory bandwidth, both measured here.

    bench/roofline.py NAME --llmchat ./llmchat [--threads 2] [-p 512] [-n 32] [--batches 1,2,4,8,16,32,64] [-r 3]
        [--svg roofline.svg] [--record FILE.json]

NAME is a dense model that llmchat has. The roof is min(peak, bandwidth x intensity): peak from bench/peak.c, which is
compiled now (cc), the best of its kernels for int8, int16 and f32; bandwidth from `llmchat bench`, which reads 512 MB with as
many threads.

Points, in operations (a multiply and an add are two):
  a token in the layers   2 x layers x (2 x embd x heads x head_dim + 2 x embd x kv_heads x head_dim + 3 x embd x ff)
  attention to c tokens   4 x layers x heads x head_dim x c
  the head                2 x vocab x embd, for tokens that are sampled
  decode of b sequences   intensity: operations of a token over (weights / b + KV of the context), as `bench` counts bytes
  prefill of p tokens     intensity: operations of all p over (weights once + KV of p written); an upper bound, because what
                          goes through the caches again and again is not counted

llmchat multiplies 4-bit and int8 weights with int16 activations, so the int16 roof is its own; int8's is drawn for comparison.
"""
import argparse
import math
import os
import subprocess
import tempfile

from common import Failed, HERE, child, describe, machine, number, run, save_record, table
from svg import COLOURS, GRID, PALE, Svg


def peaks(threads):
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "peak")
        r = subprocess.run([os.environ.get("CC", "cc"), "-O2", "-pthread", "-o", program, os.path.join(HERE, "peak.c")], capture_output=True, text=True)
        if r.returncode != 0:
            raise Failed(f"peak.c: {r.stderr[-300:]}")
        return child([program, str(threads)])


def best(found, kind):
    rows = {k: v for k, v in found.items() if k.startswith(kind + "_")}
    return max(rows.values()) if rows else 0.0


class Model:
    def __init__(self, llmchat, name):
        m = child([llmchat, "show", name, "--json"])
        if m["experts"]:
            raise Failed(f"{name}: has experts; the formulas are for dense models")
        heads, kv = m["heads"] * m["head_dim"], m["kv_heads"] * m["head_dim"]
        self.layer_ops = 2 * m["layers"] * (2 * m["embedding"] * heads + 2 * m["embedding"] * kv + 3 * m["embedding"] * m["feed_forward"])
        self.head_ops = 2 * m["vocab"] * m["embedding"]
        self.context_ops = 4 * m["layers"] * heads

    def decode_ops(self, context):
        return self.layer_ops + self.head_ops + self.context_ops * context

    def prefill_ops(self, n):
        """Of all n tokens; token i looks at i."""
        return n * self.layer_ops + self.head_ops + self.context_ops * n * (n + 1) / 2


def points(o, model, rows):
    out = []
    for r in rows:
        if r["batch"] == 1:
            ops = model.prefill_ops(o.p)
            moved = r["weight_bytes_per_step"] + o.p * r["kv_bytes_per_context_token"]
            out.append({"what": f"prefill {o.p}", "intensity": ops / moved, "ops_s": ops / o.p * r["prefill_tok_s"], "tok_s": r["prefill_tok_s"]})
    for r in rows:
        ops = model.decode_ops(o.p + o.n / 2)
        out.append({"what": f"decode x{r['batch']}", "intensity": ops / r["bytes_per_token"], "ops_s": ops * r["decode_tok_s"],
                    "tok_s": r["decode_tok_s"], "bandwidth_share": r["bandwidth_share"]})
    return out


def draw(path, r):
    pts, roofs, bandwidth = r["points"], r["roofs"], r["bandwidth_bytes_s"]
    svg = Svg(760, 470, f"{r['model']}, {r['threads']} threads")
    left, right, top, bottom = 80, 730, 40, 410
    low_x, high_x = 0.5, 2 ** math.ceil(math.log2(max(4096, 2 * max(p["intensity"] for p in pts))))
    high_y = 10 ** math.ceil(math.log10(max(list(roofs.values()) + [p["ops_s"] for p in pts])) + 0.1)
    low_y = 10 ** math.floor(math.log10(min(p["ops_s"] for p in pts) / 2))

    def at_x(v):
        return left + (right - left) * math.log(v / low_x) / math.log(high_x / low_x)

    def at_y(v):
        return bottom - (bottom - top) * math.log(v / low_y) / math.log(high_y / low_y)
    tick = 1.0
    while tick <= high_x:
        svg.line(at_x(tick), top, at_x(tick), bottom, GRID)
        svg.text(at_x(tick), bottom + 16, f"{tick:g}", 11, "middle")
        tick *= 4
    tick = low_y
    while tick <= high_y * 1.001:
        svg.line(left, at_y(tick), right, at_y(tick), GRID)
        svg.text(left - 6, at_y(tick) + 4, f"{tick / 1e9:g}", 11, "end")
        tick *= 10
    svg.text((left + right) / 2, bottom + 36, "operations for a byte from memory", 12, "middle")
    svg.text(22, (top + bottom) / 2, "10^9 operations a second", 12, "middle", turn=-90)
    highest = max(roofs.values())
    svg.line(at_x(max(low_x, low_y / bandwidth)), at_y(max(low_y, low_x * bandwidth)), at_x(highest / bandwidth), at_y(highest), COLOURS[0], 2)
    beside = max(1.0, 2 * low_y / bandwidth)
    svg.text(at_x(beside) + 10, at_y(beside * bandwidth) + 8, f"memory {bandwidth / 1e9:.1f} GB/s", 11, colour=COLOURS[0])
    for i, (name, peak) in enumerate(roofs.items()):
        svg.line(at_x(peak / bandwidth), at_y(peak), right, at_y(peak), COLOURS[i + 1], 2)
        svg.text(right - 4, at_y(peak) - 5, f"{name} {peak / 1e9:.0f}", 11, "end", COLOURS[i + 1])
    for p in pts:
        x, y = at_x(p["intensity"]), at_y(p["ops_s"])
        svg.circle(x, y, 4, COLOURS[4] if p["what"].startswith("prefill") else COLOURS[5])
        svg.text(x + 7, y + 4, f"{p['what']}: {p['tok_s']:.0f} tok/s", 10, colour=PALE)
    svg.save(path)


def measure(o):
    """The record: peaks, bandwidth and points."""
    model = Model(o.llmchat, o.name)
    rows = child([o.llmchat, "bench", o.name, "--threads", str(o.threads), "-p", str(o.p), "-n", str(o.n), "-b", o.batches, "-r", str(o.r), "--json"])
    rows = rows if isinstance(rows, list) else [rows]
    found = peaks(o.threads)
    bandwidth = max(r["bandwidth_bytes_s"] for r in rows)
    pts = points(o, model, rows)
    roofs = {kind: best(found, kind) for kind in ("int8", "int16", "f32") if best(found, kind)}
    for p in pts:
        p["roof_int16"] = min(roofs.get("int16", 0), bandwidth * p["intensity"])
        p["of_int8_peak"] = p["ops_s"] / roofs["int8"] if "int8" in roofs else None
    return {"model": o.name, "threads": o.threads, "peaks": found, "roofs": roofs, "bandwidth_bytes_s": bandwidth, "points": pts}


def print_points(r):
    print(f"memory {r['bandwidth_bytes_s'] / 1e9:.1f} GB/s; peaks in 10^9 operations a second: "
          + ", ".join(f"{k} {v / 1e9:.0f}" for k, v in r["peaks"].items()) + "\n")
    print(table(["", "tok/s", "operations a byte", "10^9 operations/s", "of the int16 roof", "of int8's peak"],
                [[p["what"], number(p["tok_s"]), number(p["intensity"]), number(p["ops_s"] / 1e9),
                  f"{p['ops_s'] / p['roof_int16']:.0%}" if p["roof_int16"] else "", f"{p['of_int8_peak']:.0%}" if p["of_int8_peak"] else ""]
                 for p in r["points"]]))


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("name", help="a dense model that llmchat has")
    p.add_argument("--llmchat", default="./llmchat", help="the program")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("-p", type=int, default=512, help="prompt tokens")
    p.add_argument("-n", type=int, default=32, help="tokens to decode")
    p.add_argument("-r", type=int, default=3, help="runs of each")
    p.add_argument("--batches", default="1,2,4,8,16,32,64", help="sequences that decode together")
    p.add_argument("--svg", metavar="FILE", help="draw it")
    p.add_argument("--record", metavar="FILE", help="write everything as JSON")
    return p.parse_args()


def main():
    o = options()
    m = machine(o.llmchat)
    print("machine:", describe(m))
    r = measure(o)
    print_points(r)
    if o.svg:
        draw(o.svg, r)
    if o.record:
        save_record(o.record, {"machine": m, "roofline": r})


if __name__ == "__main__":
    run(main)
