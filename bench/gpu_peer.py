#!/usr/bin/env python3
"""What PyTorch and bitsandbytes do in the shapes of gpu.c, on the GPU that is there: `make bench-gpu` runs it behind bench_gpu.

    bench/gpu_peer.py [--device cuda|cpu] [--runs 9] [--small]

Lines are bench_gpu's, so that what reads one reads both:

  - the ceilings: a copy on the device (bytes read and written), a product of bf16 matrices of 8192 (cuBLAS)
  - bf16 products of a 7B model's largest shape
  - products of bitsandbytes.nn.Linear4bit (NF4, double quantisation, bf16 activations) in three shapes; bf16 where
    bitsandbytes is not installed, which is said
  - the products of a decode step of a 7B-shaped model, 32 layers with weights of their own, one after the other and without
    attention, norms and head: launched one by one, and as a CUDA graph

A weight is one of twelve copies in turn, so that the cache does not hold it. A time is the median of --runs, between CUDA
events around many calls, the gaps in which the device waits for the host included. Where PyTorch is missing, or reaches no
GPU, one line says so, and that is no failure. --device cpu and --small try the script, nothing else.
"""
import argparse
import statistics
import sys
import time

SETS = 12
SHAPES = ((4096, 4096), (14336, 4096), (4096, 14336))  # N, K
TOKENS = (1, 4, 32, 512)
BF16_TOKENS = (1, 2, 4, 5, 8, 16, 32, 64, 128, 256, 512, 2048)
LAYER = ((4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336))  # q k v o gate up down
LAYERS = 32
BATCHES = (1, 32)


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    p.add_argument("--runs", type=int, default=9, help="of which the median is printed")
    p.add_argument("--small", action="store_true", help="shapes of a few hundred, two layers")
    a = p.parse_args()
    if a.runs < 1:
        p.error("--runs: at least 1")
    return a


class Bench:
    def __init__(self, torch, bnb, a):
        self.torch, self.bnb, self.device, self.runs, self.small = torch, bnb, a.device, a.runs, a.small
        self.copy_rate = self.blas_rate = None

    def shape(self, n, k):
        return (n // 16, k // 16) if self.small else (n, k)

    def random(self, *size):
        return self.torch.randn(*size, device=self.device).to(self.torch.bfloat16)

    def seconds(self, calls, times):
        """Of one of `times` calls of calls[i](), in turn: the median of the runs, behind one that warms up."""
        took = []
        for _ in range(self.runs + 1):
            if self.device == "cuda":
                start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
            begin = time.perf_counter()
            for i in range(times):
                calls[i % len(calls)]()
            if self.device == "cuda":
                end.record()
                end.synchronize()
                took.append(start.elapsed_time(end) / 1e3 / times)
            else:
                took.append((time.perf_counter() - begin) / times)
        return statistics.median(took[1:])

    def ceilings(self):
        torch, n = self.torch, 256 if self.small else 8192
        a = torch.zeros(1 << (20 if self.small else 30), dtype=torch.uint8, device=self.device)
        b = torch.empty_like(a)
        self.copy_rate = 2 * a.nbytes / self.seconds([lambda: b.copy_(a)], 10)
        x, y = self.random(n, n), self.random(n, n)
        self.blas_rate = 2 * n**3 / self.seconds([lambda: torch.mm(x, y)], 5)
        print(f"copy {self.copy_rate / 1e9:.0f} GB/s (read and written), cuBLAS bf16 {self.blas_rate / 1e12:.0f} TFLOP/s", flush=True)

    def linear(self, n, k, nf4):
        """A layer [n, k] with random weights, and its bytes."""
        torch = self.torch
        if not nf4:
            w = self.random(n, k)
            return (lambda x: torch.nn.functional.linear(x, w)), w.nbytes
        layer = self.bnb.nn.Linear4bit(k, n, bias=False, compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4")
        layer.weight = self.bnb.nn.Params4bit(self.random(n, k).cpu(), requires_grad=False, compress_statistics=True, quant_type="nf4")
        layer = layer.to(self.device).eval()
        s = layer.weight.quant_state
        return layer, layer.weight.nbytes + s.absmax.nbytes + s.state2.absmax.nbytes

    def products(self, n, k, tokens, nf4):
        n, k = self.shape(n, k)
        made = [self.linear(n, k, nf4) for _ in range(SETS)]
        for t in tokens:
            x = self.random(t, k)
            calls = [lambda layer=layer: layer(x) for layer, _ in made]
            s, size, flop = self.seconds(calls, SETS if t > 256 or self.small else 4 * SETS), made[0][1], 2 * n * k * t
            print(f"  [{n:5d}, {k:5d}] {t:4d} tokens {s * 1e6:9.2f} us  {size / s / 1e9:5.0f} GB/s ({100 * size / s / self.copy_rate:3.0f} % of "
                  f"copy)  {flop / s / 1e12:6.1f} TFLOP/s ({100 * flop / s / self.blas_rate:3.0f} % of cuBLAS)", flush=True)

    def graph_of(self, call):
        """call() as a CUDA graph; None: it can't be recorded, or this is no GPU."""
        torch = self.torch
        if self.device != "cuda":
            return None
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what is set up at the first call is not for the recording
            call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                call()
        except RuntimeError as e:
            print(f"  as a CUDA graph: {str(e).splitlines()[0]}", flush=True)
            return None
        return graph.replay

    def decode(self, nf4):
        layers = [[self.linear(*self.shape(n, k), nf4) for n, k in LAYER] for _ in range(2 if self.small else LAYERS)]
        size = sum(b for layer in layers for _, b in layer)
        for batch in BATCHES:
            inputs = {k: self.random(batch, self.shape(0, k)[1]) for _, k in LAYER}

            def step():
                for layer in layers:
                    for (_, k), (product, _) in zip(LAYER, layer):
                        product(inputs[k])

            for how, call in (("launches", step), ("graph", self.graph_of(step))):
                if call is None:
                    continue
                s = self.seconds([call], 3)
                print(f"  decode products, batch {batch:2d}, {how:8s}: {s * 1e6:8.0f} us  {batch / s:7.0f} tok/s  {size / s / 1e9:5.0f} GB/s "
                      f"({100 * size / s / self.copy_rate:3.0f} % of copy)", flush=True)


def measure(b):
    kind = "NF4 of bitsandbytes" if b.bnb else "bf16 (bitsandbytes is not installed)"
    b.ceilings()
    print("products in bf16")
    b.products(14336, 4096, BF16_TOKENS[:6] if b.small else BF16_TOKENS, False)
    print(f"products in {kind}")
    for n, k in SHAPES:
        b.products(n, k, TOKENS, b.bnb is not None)
    print(f"model: {2 if b.small else LAYERS} layers, products in {kind}")
    b.decode(b.bnb is not None)


def main():
    a = options()
    try:
        import torch
    except ImportError:
        print(f"peer: PyTorch is not installed for {sys.executable}: nothing to compare with")
        return
    if a.device == "cuda" and not torch.cuda.is_available():
        print(f"peer: PyTorch {torch.__version__} reaches no GPU: nothing to compare with")
        return
    try:
        import bitsandbytes as bnb
    except ImportError:
        bnb = None
    name = torch.cuda.get_device_name() if a.device == "cuda" else "CPU"
    print(f"peer: {name}, PyTorch {torch.__version__}" + (f", bitsandbytes {bnb.__version__}" if bnb else ""), flush=True)
    with torch.inference_mode():
        try:
            measure(Bench(torch, bnb, a))
        except torch.OutOfMemoryError as e:
            print(f"  the device has no room for more: {str(e).splitlines()[0]}")


if __name__ == "__main__":
    main()
