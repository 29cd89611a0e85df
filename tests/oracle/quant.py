"""Golden files of the quantisers: tests/golden/quant/{nf4,dequant}.bin. Run by hand, from the repository's root.

nf4.bin: a generated tensor quantised by bitsandbytes on the CPU, one thread; the tables it uses; means by torch.
dequant.bin: what bitsandbytes makes of that tensor's codes (rows 0..9 and 120..129), and an FP4 tensor with its values.

Each begins with a line of text that names the versions. Then little-endian records, each a u32 number of bytes and
those bytes; their meaning is in the order below, which tests/test_quant.c reads.

The generator, the same in test_quant.c: s' = s * 1664525 + 1013904223 mod 2^32, t = (s' >> 8) / 2^23 - 1, value t^3 as f32.
"""
import struct

import bitsandbytes
import bitsandbytes.functional as F
import numpy as np
import torch

OUT = "tests/golden/quant/"


def record(f, data):
    f.write(struct.pack("<I", len(data)) + data)


def generate(seed, n):
    out = np.empty(n, np.float32)
    s = seed
    for i in range(n):
        s = (s * 1664525 + 1013904223) & 0xFFFFFFFF
        t = (s >> 8) / 8388608.0 - 1.0
        out[i] = np.float32(t * t * t)
    return out


def versions():
    return f"bitsandbytes {bitsandbytes.__version__} (CPU), torch {torch.__version__}\n".encode()


def quantised_nf4():
    N, K = 130, 320  # 650 groups: two whole blocks of 256 and a rest; no multiple of 16 rows
    x = generate(1, N * K).reshape(N, K)
    x[3, 64:128] = 0  # a group of zeros
    x[5] *= np.float32(2.0 ** -20)
    x[7] *= np.float32(1000)
    return F.quantize_4bit(torch.tensor(x), compress_statistics=True, quant_type="nf4", blocksize=64)


def nf4():
    q, st = quantised_nf4()
    with open(OUT + "nf4.bin", "wb") as f:
        f.write(versions())
        record(f, st.code.numpy().astype("<f4").tobytes())
        record(f, F.create_dynamic_map().numpy().astype("<f4").tobytes())
        record(f, q.numpy().tobytes())  # high nibble first
        record(f, st.absmax.numpy().tobytes())
        record(f, st.state2.absmax.numpy().astype("<f4").tobytes())
        record(f, st.offset.numpy().astype("<f4").tobytes())
        sizes = [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 100, 511, 512, 513, 1000, 5184, 13824, 27648, 32768, 100003]
        data = np.abs(generate(2, max(sizes)))
        means = [torch.tensor(data[:n]).mean().item() for n in sizes]
        record(f, np.array(sizes, "<u4").tobytes())
        record(f, np.array(means, "<f4").tobytes())


def dequant():
    q, st = quantised_nf4()
    values = F.dequantize_4bit(q, st).numpy().astype("<f4")
    with open(OUT + "dequant.bin", "wb") as f:
        f.write(versions())
        record(f, np.concatenate([values[:10], values[120:]]).tobytes())
        x = generate(4, 20 * 128).reshape(20, 128)
        q, st = F.quantize_4bit(torch.tensor(x), quant_type="fp4", blocksize=64)
        record(f, st.code.numpy().astype("<f4").tobytes())
        record(f, q.numpy().tobytes())  # high nibble first
        record(f, st.absmax.numpy().astype("<f4").tobytes())
        record(f, F.dequantize_4bit(q, st).numpy().astype("<f4").tobytes())


torch.set_num_threads(1)
nf4()
dequant()
