"""Holds a whole model file against the field's tools: model_file.py SOURCE.gguf MODEL.safetensors. Run by hand.

The file is opened with the safetensors package, the source with gguf. Every linear layer of an NF4 model must equal
bitsandbytes (codes, scale codes, second scales, offset), every f32 or bf16 matrix the source's values, bit by bit;
vectors too. Prints the number of tensors compared, or the first that differs.
"""
import sys

import bitsandbytes.functional as F
import gguf
import numpy as np
import torch
from safetensors import safe_open

torch.set_num_threads(1)  # the mean of many scales depends on the threads


def tiles(a, n, k):
    """[T, Kp / c, 16, c] to [N, K]."""
    return a.reshape(a.shape[0], a.shape[1], 16, -1).transpose(0, 2, 1, 3).reshape(a.shape[0] * 16, -1)[:n, :k]


def nf4_differs(f, base, x):
    n, k = x.shape
    q, st = F.quantize_4bit(torch.tensor(x), compress_statistics=True, quant_type="nf4", blocksize=64)
    q = q.numpy().reshape(-1)
    codes = np.stack([q >> 4, q & 15], 1).reshape(n, k)
    data = f.get_tensor(base + ".weight").numpy()  # [T, Kp / 8, 16, 4]
    nested = f.get_tensor(base + ".nested").numpy()
    absmax2 = st.state2.absmax.numpy()
    return not (
        (tiles(np.concatenate([data & 15, data >> 4], 3), n, k) == codes).all()
        and (tiles(f.get_tensor(base + ".code").numpy(), n, k // 64).reshape(-1) == st.absmax.numpy()).all()
        and nested[0, 0] == st.offset.numpy()
        and (nested[1:].reshape(-1)[: absmax2.size] == absmax2).all()
    )


def differs(f, name, x, quant):
    got = f.get_tensor(name)
    if x.ndim == 1:
        return not (got.numpy() == x).all()
    n, k = x.shape
    if quant == "nf4":
        assert k % 64 == 0, "bitsandbytes has groups across rows here"
        return nf4_differs(f, name.removesuffix(".weight"), x)
    if quant == "bf16":
        return not (tiles(got.float().numpy(), n, k) == torch.tensor(x).bfloat16().float().numpy()).all()
    if quant == "f32":
        return not (tiles(got.numpy(), n, k) == x).all()
    groups = np.pad(x, ((0, 0), (0, -k % 64))).reshape(n, -1, 64)
    scale = np.abs(groups).max(-1) / np.float32(127)
    mine = tiles(f.get_tensor(name.removesuffix(".weight") + ".scale").numpy(), n, scale.shape[1])
    back = tiles(got.numpy(), n, k) * np.repeat(mine, 64, 1)[:, :k]
    # x / scale is computed as x * (1 / scale): three roundings of 2^-24 of at most 127, so 0.5 + 2.3e-5 steps
    half = np.repeat(scale, 64, 1)[:, :k] * np.float32(0.500025)
    return not ((mine == scale).all() and (np.abs(back - x) <= half).all())


reader = gguf.GGUFReader(sys.argv[1])
with safe_open(sys.argv[2], "pt") as f:
    meta = f.metadata()
    for t in reader.tensors:
        head = t.name in ("token_embd.weight", "output.weight")
        x = gguf.dequantize(t.data, t.tensor_type).astype(np.float32)
        if differs(f, t.name, x, meta["head_quant" if head else "quant"]):
            sys.exit(f"{t.name} differs")
    print(f"{len(reader.tensors)} tensors equal ({meta['quant']}, head {meta['head_quant']})")
