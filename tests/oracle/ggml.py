#!/usr/bin/env python3
"""Golden file of GGUF's tensor types: tests/golden/ggml/types.bin. Run by hand, from the repository's root.

    ggml.py                 makes the file with the gguf package
    ggml.py --llama         holds the gguf package against llama.cpp's own conversion (llama-cpp-python) instead

The file begins with a line of text that names the versions. Then little-endian records, each a u32 number of bytes and
those bytes: for each type its number (u32), random blocks, their values as f32. The first blocks have ordinary scales;
the next have scales of all finite f16 sizes, zero, -0, subnormal and 65504 among them; the last two have infinite and
NaN scales, whose values are compared as "not a number" and not by their bits. MXFP4 has every exponent byte.
F64, which the package does not convert, is converted by numpy.
"""
import argparse
import ctypes
import os
import struct
from importlib.metadata import version

import gguf
import numpy as np

OUT = "tests/golden/ggml/types.bin"
# Offsets of the f16 scales in a block.
HALVES = {"F32": [], "F16": [0], "BF16": [], "F64": [], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
          "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
          "MXFP4": []}
ODD = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF]  # zeros, subnormals, the largest
WILD = [0x7C00, 0x7E00]  # infinity, NaN


def halves(rng, n):
    """f16 numbers: a third ordinary, the rest of any finite size, then ODD and WILD."""
    bits = rng.integers(0, 0x7C00, n, dtype=np.uint16) | (rng.integers(0, 2, n, dtype=np.uint16) << 15)
    bits[: n // 3] = rng.normal(scale=0.02, size=n // 3).astype(np.float16).view(np.uint16)
    for i, v in enumerate(ODD + WILD):
        bits[n - 10 + i] = v
    return bits.astype("<u2").view(np.uint8).reshape(n, 2)


def blocks(rng, name):
    """Random blocks of a type, [n, bytes]."""
    elems, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    n = 18 if elems == 256 else 66
    if name == "MXFP4":
        n = 256
    raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in HALVES[name]:
        h = halves(rng, n)
        if at != HALVES[name][0]:  # a minimum's scale: other pairs of odd ones, one wild one a block
            h[-2:] = halves(rng, n)[:2]
            h[-10:-2] = h[-10:-2][rng.permutation(8)]
        raw[:, at:at + 2] = h
    if name == "MXFP4":
        raw[:, 0] = np.arange(256)
    if name == "F64":
        raw = np.concatenate([rng.normal(size=n - 4), [1e-42, 1e39, -0.0, 1 + 2.0 ** -24]]).astype("<f8")
        raw = raw.view(np.uint8).reshape(n, 8)
    return raw


def convert(name, raw):
    """The values of blocks [n, bytes] by the gguf package."""
    flat = raw.reshape(1, -1)
    if name == "F64":
        with np.errstate(over="ignore"):
            return flat.view("<f8").astype("<f4").reshape(-1)
    with np.errstate(all="ignore"):
        return gguf.dequantize(flat, gguf.GGMLQuantizationType[name]).astype("<f4").reshape(-1)


def record(f, data):
    f.write(struct.pack("<I", len(data)) + data)


def make():
    rng = np.random.default_rng(11)
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "wb") as f:
        f.write(f"gguf {version('gguf')}, numpy {np.__version__}\n".encode())
        for name in HALVES:
            raw = blocks(rng, name)
            record(f, struct.pack("<I", int(gguf.GGMLQuantizationType[name])))
            record(f, raw.tobytes())
            record(f, convert(name, raw).tobytes())


class Traits(ctypes.Structure):
    """struct ggml_type_traits of ggml.h."""
    _fields_ = [("type_name", ctypes.c_char_p), ("blck_size", ctypes.c_int64), ("blck_size_interleave", ctypes.c_int64),
                ("type_size", ctypes.c_size_t), ("is_quantized", ctypes.c_bool),
                ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
                ("from_float_ref", ctypes.c_void_p)]


def compare_llama():
    import llama_cpp
    lib = ctypes.CDLL(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.so"))
    lib.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
    rng = np.random.default_rng(12)
    for name in HALVES:
        t = gguf.GGMLQuantizationType[name]
        elems, size = gguf.GGML_QUANT_SIZES[t]
        traits = lib.ggml_get_type_traits(int(t)).contents
        assert (traits.blck_size, traits.type_size) == (elems, size), name
        if not traits.to_float:
            print(f"{name}: llama.cpp has no conversion")
            continue
        raw = blocks(rng, name)
        want = convert(name, raw)
        got = np.empty_like(want)
        traits.to_float(raw.ctypes.data, got.ctypes.data, got.size)
        finite = np.isfinite(want)
        same = got.view("<u4") == want.view("<u4")
        relative = np.abs(got[finite].astype("f8") - want[finite]) / np.maximum(np.abs(want[finite]), 1e-30)
        print(f"{name}: {np.count_nonzero(same & finite)} of {np.count_nonzero(finite)} finite values bit-equal, "
              f"largest relative difference {relative.max():.1e}; "
              f"{np.count_nonzero(np.isfinite(got) != finite)} differ in being finite")
    print(f"llama-cpp-python {version('llama-cpp-python')}, gguf {version('gguf')}")


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--llama", action="store_true")
    compare_llama() if ap.parse_args().llama else make()
