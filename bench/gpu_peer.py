#!/usr/bin/env python3
"""What PyTorch and bitsandbytes do with what gpu.c measures, on the GPU that is there: `make bench-gpu` runs it behind bench_gpu.

    bench/gpu_peer.py [--ours FILE] [--seconds 300] [--device cuda|cpu] [--small]

Lines are bench_gpu's, first for bitsandbytes.nn.Linear4bit (NF4 in blocks of 64, double quantisation, bf16 activations: what
a file of ours has), then for bf16; where bitsandbytes can't be imported that is said, and bf16 is all. With --ours, which is
bench_gpu's output, each line ends in how many times as fast llmchat's NF4 is.

The model is the one of gpu.c: random weights, norms, RoPE, attention over a KV cache of its own in every layer
(scaled_dot_product_attention, keys and values in bf16, as transformers keeps them; ours may be 8-bit), head. A time is the
median of several, on the host's clock between two synchronisations; of a step, tokens and logits are copied as there.

Decode and products run as a CUDA graph: so do ours in decode, and products would measure Python otherwise. What a decode step
takes when Python launches it, as transformers does unless told otherwise, stands behind it. Prefill is launched. torch.compile
is not used: it would fuse what lies between products, and takes minutes to get there.

Where PyTorch (2.5 or newer) is missing, or reaches no GPU, one line says so, and that is no failure. What has no room on the
device, or no time left, is said in its place; anything else that goes wrong too, and then the status is 1. --device cpu and
--small (bench_gpu's) try the script, nothing else.
"""
import argparse
import importlib
import os
import re
import statistics
import sys
import time
from collections import namedtuple

from common import Failed, cpu_name, run

Size = namedtuple("Size", "layers vocab embd ff heads kv_heads head_dim max_tok")
FULL, SMALL = Size(32, 32000, 4096, 14336, 32, 8, 128, 2048), Size(2, 512, 128, 256, 4, 2, 32, 64)
SETS = 12  # copies of a weight, so that the cache does not hold it
TOKENS = (1, 2, 4, 5, 8, 16, 32, 64, 128, 256, 512, 2048)
BATCHES, CONTEXTS = (1, 8, 32), (128, 4096, 32768)


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("--ours", metavar="FILE", help="what bench_gpu printed")
    p.add_argument("--seconds", type=float, default=300, help="no line is begun after so many")
    p.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    p.add_argument("--small", action="store_true", help="the sizes of bench_gpu --small")
    return p.parse_args()


def read_ours(path):
    """{what a line begins with: microseconds}. Products in NF4 come first; those in int8 begin the same."""
    found = {}
    try:
        with open(path) as f:
            for m in re.finditer(r"^  (.*?\S) +([\d.]+) us ", f.read(), re.M):
                found.setdefault(m[1], float(m[2]))
    except OSError as e:
        raise Failed(f"{path}: {e.strerror}") from None
    if not found:
        raise Failed(f"{path}: no line of bench_gpu's is in it")
    return found


def load(name):
    """The module, or None and why."""
    try:
        return importlib.import_module(name), None
    except Exception as e:  # also a library that it wants and does not find
        return None, str(e).split("\n", maxsplit=1)[0]


class Bench:
    def __init__(self, torch, bnb, o):
        self.torch, self.bnb, self.device = torch, bnb, o.device
        self.size = SMALL if o.small else FULL
        self.ours = read_ours(o.ours) if o.ours else {}
        self.until = time.monotonic() + o.seconds
        self.copy_rate = self.blas_rate = None
        self.failed = False

    def random(self, *shape):
        return self.torch.empty(*shape, dtype=self.torch.bfloat16, device=self.device).normal_(0, shape[-1] ** -0.5)

    def sync(self):
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def seconds(self, call, runs):
        """Of call(): the median of the runs, behind three that warm up."""
        took = []
        self.sync()
        for _ in range(3 + runs):
            begin = time.perf_counter()
            call()
            self.sync()
            took.append(time.perf_counter() - begin)
        return statistics.median(took[3:])

    def recorded(self, call):
        """call() as a CUDA graph; itself on a CPU, and, which is said, where it can't be recorded."""
        torch = self.torch
        if self.device != "cuda":
            return call
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what is set up at the first call is not for the recording
            call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                call()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as e:
            self.fail("no CUDA graph, launched instead", e)
            return call
        return graph.replay

    def fail(self, what, e):
        print(f"  {what}: {str(e).splitlines()[0]}", flush=True)
        self.failed |= not isinstance(e, self.torch.OutOfMemoryError)

    def attempt(self, what, call, *args):
        """call(*args), which prints; what stopped it is printed in its place."""
        if time.monotonic() > self.until:
            print(f"  {what}: no time left", flush=True)
            return
        if self.device == "cuda":
            self.torch.cuda.empty_cache()
        try:
            call(*args)
        except RuntimeError as e:
            self.fail(what, e)

    def show(self, what, s, digits, text):
        us = s * 1e6
        ratio = f"; llmchat {us / self.ours[what]:.2f} x as fast" if what in self.ours else ""
        print(f"  {what} {us:9.{digits}f} us  {text}{ratio}", flush=True)

    def bandwidth(self, size, s):
        return f"{size / s / 1e9:5.0f} GB/s ({100 * size / s / self.copy_rate:3.0f} % of copy)"

    def arithmetic(self, flop, s):
        return f"{flop / s / 1e12:6.1f} TFLOP/s ({100 * flop / s / self.blas_rate:3.0f} % of cuBLAS)"

    def ceilings(self):
        torch, n = self.torch, 128 if self.size is SMALL else 8192
        a = torch.zeros(1 << (20 if self.size is SMALL else 30), dtype=torch.uint8, device=self.device)
        b = torch.empty_like(a)
        x, y = self.random(n, n), self.random(n, n)

        def copies():
            for _ in range(10):
                b.copy_(a)

        def products():
            for _ in range(5):
                torch.mm(x, y)

        self.copy_rate = 10 * 2 * a.nbytes / self.seconds(copies, 9)
        self.blas_rate = 5 * 2 * n**3 / self.seconds(products, 9)
        print(f"copy {self.copy_rate / 1e9:.0f} GB/s (read and written), cuBLAS bf16 {self.blas_rate / 1e12:.0f} TFLOP/s", flush=True)

    def bf16(self, n, k):
        """A product with random weights [n, k], and their bytes."""
        w = self.random(n, k)
        return (lambda x: self.torch.nn.functional.linear(x, w)), w.nbytes

    def nf4(self, n, k):
        # on "meta", as nn.Linear would draw random numbers on the host for each weight
        layer = self.bnb.nn.Linear4bit(k, n, bias=False, compute_dtype=self.torch.bfloat16, compress_statistics=True, quant_type="nf4",
                                       device="meta")
        layer.weight = self.bnb.nn.Params4bit(self.random(n, k), requires_grad=False, compress_statistics=True, quant_type="nf4").to(self.device)
        q = layer.weight.quant_state
        return layer.eval(), layer.weight.nbytes + q.absmax.nbytes + q.state2.absmax.nbytes

    def products(self, linear, n, k):
        made = [linear(n, k) for _ in range(SETS)]
        for t in (t for t in TOKENS if t <= self.size.max_tok):
            what = f"[{n:5d}, {k:5d}] {t:4d} tokens"
            self.attempt(what, self.product, what, made, n, k, t)

    def product(self, what, made, n, k, t):
        x, times = self.random(t, k), SETS if t > 256 else 4 * SETS

        def all_in_turn():
            for i in range(times):
                made[i % SETS][0](x)

        s = self.seconds(self.recorded(all_in_turn), 9) / times
        self.show(what, s, 2, f"{self.bandwidth(made[0][1], s)}  {self.arithmetic(2 * n * k * t, s)}")

    def steps(self, linear):
        z = self.size
        print(f"model: {z.layers} layers, {z.embd} wide, {z.ff} feed-forward, {z.heads} heads ({z.kv_heads} for keys) of {z.head_dim}", flush=True)
        model = Model(self, linear)
        for context in CONTEXTS[:1] if z is SMALL else CONTEXTS:
            for batch in BATCHES:
                what = f"decode, batch {batch:2d}, context {context:5d}:"
                self.attempt(what, self.decode, what, model, batch, context)
        for n, past in ((z.max_tok // 4, 0), (z.max_tok, 0), (z.max_tok, 2 * z.max_tok)):
            what = f"prefill, {n:4d} tokens behind {past:5d}:"
            self.attempt(what, self.prefill, what, model, n, past)

    def step(self, model, batch, n_tok, past):
        """(call of the model alone, how to make a whole step of that)"""
        torch, pinned = self.torch, self.device == "cuda"
        host = torch.tensor([[(i * 7919 + 13) % self.size.vocab for i in range(n_tok)]] * batch)
        answer = torch.empty(batch, self.size.vocab)
        if pinned:
            host, answer = host.pin_memory(), answer.pin_memory()
        tokens, logits, cache = host.to(self.device), answer.to(self.device), model.cache(batch, past + n_tok)

        def forward():
            logits.copy_(model.logits(tokens, cache, past))

        def whole(call):
            def copied():
                tokens.copy_(host, non_blocking=True)
                call()
                answer.copy_(logits, non_blocking=True)
            return copied
        return forward, whole

    def decode(self, what, model, batch, context):
        z = self.size
        forward, whole = self.step(model, batch, 1, context)
        launched = f"; launched {self.seconds(whole(forward), 32) * 1e6:.0f} us" if self.device == "cuda" else ""
        s = self.seconds(whole(self.recorded(forward)), 32)
        size = model.bytes + 2 * 2 * z.layers * z.kv_heads * z.head_dim * context * batch
        self.show(what, s, 0, f"{batch / s:7.0f} tok/s  {self.bandwidth(size, s)}{launched}")

    def prefill(self, what, model, n, past):
        z = self.size
        forward, whole = self.step(model, 1, n, past)
        s = self.seconds(whole(forward), 5)
        flop = 2 * model.params * n + 4 * z.layers * z.heads * z.head_dim * n * (past + n / 2)
        self.show(what, s, 0, f"{n / s:7.0f} tok/s  {self.arithmetic(flop, s)}")


class Model:
    """Mistral's shape. bytes: of all weights that a token reads; params: of the layers."""

    def __init__(self, b, linear):
        self.b, z = b, b.size
        q, kv = z.heads * z.head_dim, z.kv_heads * z.head_dim
        shapes = ((q, z.embd), (kv, z.embd), (kv, z.embd), (z.embd, q), (z.ff, z.embd), (z.ff, z.embd), (z.embd, z.ff))
        made = [[linear(*shape) for shape in shapes] for _ in range(z.layers)]
        self.layers = [[call for call, _ in layer] for layer in made]
        self.head, head_bytes = linear(z.vocab, z.embd)
        self.embedding = b.random(z.vocab, z.embd)
        self.ones = b.torch.ones(z.embd, dtype=b.torch.bfloat16, device=b.device)
        self.bytes = head_bytes + sum(size for layer in made for _, size in layer)
        self.params = z.layers * sum(n * k for n, k in shapes)

    def cache(self, batch, n_tok):
        """[layers][keys, values] of [batch, kv_heads, n_tok, head_dim]"""
        z, torch = self.b.size, self.b.torch
        return [[torch.zeros(batch, z.kv_heads, n_tok, z.head_dim, dtype=torch.bfloat16, device=self.b.device) for _ in range(2)]
                for _ in range(z.layers)]

    def rope(self, past, n_tok):
        """cos and sin [n_tok, head_dim] of what turns a head at its place"""
        torch, half = self.b.torch, self.b.size.head_dim // 2
        rate = 1e6 ** -(torch.arange(half, device=self.b.device) / half)
        angle = torch.outer(torch.arange(past, past + n_tok, device=self.b.device), rate).repeat(1, 2)
        return angle.cos().bfloat16(), angle.sin().bfloat16()

    def logits(self, tokens, cache, past):
        """[batch, vocab] behind the last of tokens [batch, n_tok], whose keys and values join the cache"""
        torch, z = self.b.torch, self.b.size
        fn, (batch, n_tok), end = torch.nn.functional, tokens.shape, past + tokens.shape[1]
        cos, sin = self.rope(past, n_tok)
        # one token sees all; several behind others see all but what is behind them
        mask = torch.nn.attention.bias.causal_lower_right(n_tok, end) if n_tok > 1 and past else None

        def norm(x):
            return fn.rms_norm(x, (z.embd,), self.ones, 1e-5)

        def heads(x, n):
            return x.view(batch, n_tok, n, z.head_dim).transpose(1, 2)

        def turned(x):
            a, b = x.chunk(2, -1)
            return x * cos + torch.cat((-b, a), -1) * sin

        x = fn.embedding(tokens, self.embedding)
        for (q, k, v, o, gate, up, down), (keys, values) in zip(self.layers, cache):
            h = norm(x)
            keys[:, :, past:end] = turned(heads(k(h), z.kv_heads))
            values[:, :, past:end] = heads(v(h), z.kv_heads)
            seen = fn.scaled_dot_product_attention(turned(heads(q(h), z.heads)), keys, values, attn_mask=mask,
                                                   is_causal=n_tok > 1 and not past, enable_gqa=True)
            x = x + o(seen.transpose(1, 2).reshape(batch, n_tok, -1))
            h = norm(x)
            x = x + down(fn.silu(gate(h)) * up(h))
        return self.head(norm(x[:, -1]))


def main():
    o = options()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # bitsandbytes would look there for kernels of a CPU
    torch, why = load("torch")
    if not torch:
        print(f"peer: no PyTorch for {sys.executable} ({why}): nothing to compare with")
        return
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 5):
        print(f"peer: PyTorch {torch.__version__} is older than 2.5: nothing to compare with")
        return
    if o.device == "cuda" and not torch.cuda.is_available():
        print(f"peer: PyTorch {torch.__version__} reaches no GPU: nothing to compare with")
        return
    importlib.import_module("torch.nn.attention.bias")
    bnb, why = load("bitsandbytes")
    b = Bench(torch, bnb, o)
    name = torch.cuda.get_device_name() if o.device == "cuda" else cpu_name()
    print(f"peer: {name}, PyTorch {torch.__version__}, " + (f"bitsandbytes {bnb.__version__}" if bnb else f"no bitsandbytes ({why}): bf16 alone"),
          flush=True)
    z = b.size
    with torch.inference_mode():
        b.ceilings()
        for kind, linear in (("NF4 of bitsandbytes", b.nf4), ("bf16", b.bf16))[0 if bnb else 1:]:
            print(f"{kind}:", flush=True)
            for n, k in ((z.embd, z.embd), (z.ff, z.embd), (z.embd, z.ff)):
                b.attempt(f"products [{n}, {k}]", b.products, linear, n, k)
            b.attempt("the model", b.steps, linear)
    if b.failed:
        raise Failed("not everything could be measured")


if __name__ == "__main__":
    run(main)
