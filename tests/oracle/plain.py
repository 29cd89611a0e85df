"""Writes tests/golden/plain/plain.safetensors: numbers of every type that a checkpoint may have, and what
torch.Tensor.float() makes of them ("TYPE" and "TYPE.float").

Run by hand, from the repository's root.
"""
import os

import torch
from safetensors.torch import save_file

OUT = "tests/golden/plain/"


def of_bits(bits, size, dtype):
    raw = b"".join(b.to_bytes(size, "little") for b in bits)
    return torch.frombuffer(bytearray(raw), dtype=dtype)


def halves():
    """Bit patterns of 16 bits: the borders of all kinds of numbers, then every 131st."""
    edge = [0, 1, 2, 0x3FF, 0x400, 0x401, 0x7BFF, 0x7C00, 0x7F7F, 0x7F80, 0x3C00, 0x3F80]
    return [e | s for e in edge for s in (0, 0x8000)] + list(range(0, 65536, 131))


def doubles():
    """Ties, subnormals of f32, overflow, and random numbers."""
    torch.manual_seed(4)
    v = [0.0, -0.0, 1.0, 1 + 2**-24, 1 + 2**-23, 1 + 3 * 2**-24, 1 + 2**-24 + 2**-50, 2**-126, 2**-149, 2**-150,
         3 * 2**-150, 2**-151, 3.4028235677973366e38, 3.4028234663852886e38, 1e300, -1e300, float("inf"), 0.1, -1e-40]
    r = torch.randn(256, dtype=torch.float64) * 10.0 ** torch.randint(-20, 20, (256,))
    return torch.cat([torch.tensor(v, dtype=torch.float64), r])


def main():
    torch.set_num_threads(1)
    every = list(range(256))
    values = {
        "F64": doubles(),
        "F32": of_bits([0, 1, 0x80000000, 0x7F800000, 0x3F800001, 0x007FFFFF], 4, torch.float32),
        "F16": of_bits(halves(), 2, torch.float16),
        "BF16": of_bits(halves(), 2, torch.bfloat16),
        "F8_E4M3": of_bits(every, 1, torch.float8_e4m3fn),
        "F8_E5M2": of_bits(every, 1, torch.float8_e5m2),
        "I8": of_bits(every, 1, torch.int8),
        "U8": of_bits(every, 1, torch.uint8),
    }
    out = dict(values)
    for name, v in values.items():
        out[name + ".float"] = v.float().clone()
    os.makedirs(OUT, exist_ok=True)
    save_file(out, OUT + "plain.safetensors", metadata={"torch": torch.__version__})


if __name__ == "__main__":
    main()
