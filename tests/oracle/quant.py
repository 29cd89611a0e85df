"""Golden files of the quantisers: tests/golden/quant/{ggml_types,nf4}.bin. Run by hand, from the repository's root.

ggml_types.bin: random blocks of each GGUF type and their values by the gguf package.
nf4.bin: a generated tensor quantised by bitsandbytes on the CPU, one thread; the tables it uses; means by torch.

Both begin with a line of text that names the versions. Then little-endian records, each a u32 number of bytes and
those bytes; their meaning is in the order below, which tests/test_quant.c reads.

The generator, the same in test_quant.c: s' = s * 1664525 + 1013904223 mod 2^32, t = (s' >> 8) / 2^23 - 1, value t^3 as f32.
"""
import struct
from importlib.metadata import version

import bitsandbytes
import bitsandbytes.functional as F
import gguf
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


def half(rng, n):
    """Finite f16 numbers of all sizes, subnormal ones too, as bytes."""
    bits = rng.integers(0, 0x7C00, n, dtype=np.uint16) | (rng.integers(0, 2, n, dtype=np.uint16) << 15)
    return bits.astype("<u2").view(np.uint8).reshape(n, 2)


def ggml_types():
    names = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K".split()
    halves = {"F16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2],
              "Q5_K": [0, 2], "Q6_K": [208]}
    rng = np.random.default_rng(7)
    with open(OUT + "ggml_types.bin", "wb") as f:
        f.write(f"gguf {version('gguf')}, numpy {np.__version__}\n".encode())
        for name in names:
            t = gguf.GGMLQuantizationType[name]
            elems, size = gguf.GGML_QUANT_SIZES[t]
            n = 6 if elems > 1 else 64
            raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
            for at in halves.get(name, []):
                raw[:, at:at + 2] = half(rng, n)
            if name == "F32":
                raw = rng.normal(size=n).astype("<f4").view(np.uint8).reshape(n, 4)
            if name == "BF16":
                raw[:, 1] &= 0xBF  # exponents below the infinities
            shaped = raw.reshape(-1) if name != "F32" else raw.reshape(-1).view("<f4")
            if name == "F16":
                shaped = raw.reshape(-1).view("<f2")
            values = gguf.dequantize(shaped.reshape(1, -1), t).astype("<f4").reshape(-1)
            assert values.size == n * elems and np.isfinite(values).all()
            record(f, struct.pack("<I", int(t)))
            record(f, raw.tobytes())
            record(f, values.tobytes())


def nf4():
    torch.set_num_threads(1)
    N, K = 130, 320  # 650 groups: two whole blocks of 256 and a rest; no multiple of 16 rows
    x = generate(1, N * K).reshape(N, K)
    x[3, 64:128] = 0  # a group of zeros
    x[5] *= np.float32(2.0 ** -20)
    x[7] *= np.float32(1000)
    q, st = F.quantize_4bit(torch.tensor(x), compress_statistics=True, quant_type="nf4", blocksize=64)
    with open(OUT + "nf4.bin", "wb") as f:
        f.write(f"bitsandbytes {bitsandbytes.__version__} (CPU), torch {torch.__version__}\n".encode())
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


ggml_types()
nf4()
