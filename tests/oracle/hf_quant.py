#!/usr/bin/env python3
"""Golden files of quantised checkpoints: tests/golden/hf_quant/. Run by hand, from the repository's root:

    hf_quant.py --gptqmodel DIR --autoawq DIR

with the unpacked source distributions of GPTQModel and AutoAWQ (neither need be installed: their functions for packing and
dequantisation are taken out of the sources and run by themselves). bitsandbytes, compressed-tensors and transformers are
imported.

Each CASE/ is a folder as a checkpoint is one: config.json and model.safetensors, whose tensors were packed by the libraries.
CASE.safetensors beside it holds, for each base name, what the library makes of it in f32: its own dequantisation with
scales widened to f32. The libraries themselves compute in the scales' type (F16 or BF16), or in f32 and round to the
model's. That this is the same as rounding the golden values is asserted here for every matrix: `same_in`.
"""
import argparse
import ast
import json
import math
import os
import shutil
import types
import __future__

import bitsandbytes
import bitsandbytes.functional as bnb
import compressed_tensors
import numpy as np
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save, save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
import transformers

OUT = "tests/golden/hf_quant/"
DEQUANTISE = getattr(_dequantize_4bit_compute, "__wrapped__", _dequantize_4bit_compute)
torch.set_num_threads(1)
torch.manual_seed(7)


def weights(N, K):
    """Of a size that models have, with a few large ones and a row of zeros."""
    w = torch.randn(N, K) * 0.02
    w[torch.rand(N, K) < 0.01] *= 6
    w[N // 2] = 0
    return w


def same_in(dtype, own, golden, what):
    assert own.dtype == dtype, (what, own.dtype)
    assert torch.equal(own, golden.to(dtype)), what


class Case:
    def __init__(self, name, config, versions):
        self.name, self.config, self.versions = name, config, versions
        self.stored, self.golden = {}, {}

    def add(self, base, parts, golden):
        assert golden.dtype == torch.float32 and golden.dim() == 2
        for suffix, t in parts.items():
            self.stored[f"{base}.{suffix}"] = t.contiguous().clone()
        self.golden[base] = golden.contiguous()

    def write(self):
        d = OUT + self.name
        shutil.rmtree(d, ignore_errors=True)
        os.makedirs(d)
        with open(d + "/config.json", "w") as f:
            json.dump({"model_type": "none", **self.config}, f, indent=1)
            f.write("\n")
        save_file(self.stored, d + "/model.safetensors", {"made_by": self.versions})
        save_file(self.golden, d + ".safetensors", {"made_by": self.versions})
        for path in (d + "/model.safetensors", d + ".safetensors"):
            os.chmod(path, 0o644)


# -- bitsandbytes ---------------------------------------------------------------------------

def bnb_4bit():
    c = Case("bnb4", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False,
                                              "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}},
             f"bitsandbytes {bitsandbytes.__version__} (CPU), torch {torch.__version__}")

    def add(base, N, K, kind, block, double, dtype=torch.bfloat16, storage=torch.uint8):
        w = weights(N, K).to(dtype)
        q, state = bnb.quantize_4bit(w, compress_statistics=double, quant_type=kind, blocksize=block, quant_storage=storage)
        own = bnb.dequantize_4bit(q, state)
        parts = {"weight": q}
        fits = K % block == 0 or block % K == 0
        for k, v in state.as_dict(packed=True).items():
            parts["weight." + k] = v
        # The library has two ways on a CPU. The compiled one with AVX-512 takes a wrong scale where blocks end inside of
        # rows (0.50.2: values are then further off the originals than blocks are wide); the one in PyTorch, which it falls
        # back to, and the one on GPUs don't. So that is the truth, and the other is held to it where it works.
        absmax = state.absmax
        if double:
            absmax = bnb.dequantize_blockwise(absmax, state.state2) + state.offset
        golden = DEQUANTISE(q.view(torch.uint8).reshape(-1), absmax, state.code, block, (N, K), torch.float32).reshape(N, K)
        assert (golden - w.float()).abs().max() <= absmax.max() * 0.17, base
        state.dtype = torch.float32
        same = torch.equal(bnb.dequantize_4bit(q, state), golden) and torch.equal(own, golden.to(dtype))
        assert same or not fits, base
        if not same:
            print(f"{base}: the library's compiled code differs")
        c.add(base, parts, golden)

    add("nf4", 48, 128, "nf4", 64, True)
    add("nf4_single", 32, 128, "nf4", 64, False, torch.float16)
    add("nf4_nested", 96, 128, "nf4", 32, True, torch.float16)  # 384 blocks: two second scales
    add("nf4_b4096", 36, 128, "nf4", 4096, True)  # the last block is cut off
    add("nf4_b128", 16, 192, "nf4", 128, False)  # a block ends in the middle of a row
    add("nf4_k96", 16, 96, "nf4", 64, True)
    add("nf4_k80", 16, 80, "nf4", 256, True, torch.float16)
    add("nf4_k72", 9, 72, "nf4", 64, True, torch.float16)  # no group fits
    add("nf4_k75", 5, 75, "nf4", 64, True, torch.float32)  # an odd number of values
    add("nf4_bf16", 16, 128, "nf4", 64, True, torch.bfloat16, torch.bfloat16)
    add("nf4_f32", 16, 128, "nf4", 64, False, torch.float32, torch.float32)
    add("fp4", 32, 128, "fp4", 64, True)
    add("fp4_single", 16, 128, "fp4", 128, False, torch.float32)
    c.stored["plain.weight"] = weights(4, 64).to(torch.bfloat16)
    c.write()


def bnb_8bit():
    c = Case("bnb8", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}},
             f"bitsandbytes {bitsandbytes.__version__} (CPU), torch {torch.__version__}")
    for base, N, K in (("a", 48, 128), ("b", 17, 100)):
        q, scb, _ = bnb.int8_vectorwise_quant(weights(N, K).half())
        c.add(base, {"weight": q, "SCB": scb, "weight_format": torch.tensor(0, dtype=torch.uint8)},
              bnb.int8_vectorwise_dequant(q, scb))
    c.write()


# -- GPTQ -----------------------------------------------------------------------------------

def take(path, names, scope):
    """Functions and classes of these names from a source file, run by themselves; classes lose their bases."""
    with open(path) as f:
        tree = ast.parse(f.read())
    body = []
    for node in tree.body:
        if getattr(node, "name", None) in names:
            if isinstance(node, ast.ClassDef):
                node.bases, node.decorator_list = [ast.Name("Module", ast.Load())], []
            body.append(node)
    assert {n.name for n in body} == set(names), set(names) - {n.name for n in body}
    code = compile(ast.fix_missing_locations(ast.Module(body, [])), path, "exec",
                   flags=__future__.annotations.compiler_flag)
    exec(code, scope)
    return scope


class Gptq:
    def __init__(self, root):
        os.environ["GPTQMODEL_DISABLE_PACK_EXT"] = "1"
        quiet = types.SimpleNamespace(info=types.SimpleNamespace(once=lambda *a: None), debug=lambda *a: None)
        scope = {"t": torch, "torch": torch, "nn": torch.nn, "np": np, "math": math, "os": os, "log": quiet,
                 "Module": torch.nn.Module, "transformers": transformers, "_ConvNd": torch.nn.modules.conv._ConvNd,
                 "BaseQuantLinear": torch.nn.Module, "PLANAR_BITS": (5, 6, 7),
                 "env_flag": lambda name: os.environ.get(name) == "1"}
        take(root + "/gptqmodel/nn_modules/qlinear/__init__.py",
             ["_torch_shift_factor", "_torch_right_shift", "_torch_left_shift", "PackableQuantLinear"], scope)
        take(root + "/gptqmodel/utils/model_dequant.py",
             ["_require_int32_words_for_3bit", "_unpack_cols_3bit", "_pack_cols_3bit", "unpack_cols", "pack_cols",
              "_shift_gptq_qzeros", "_correct_gptq_v1_qzeros", "_revert_gptq_v1_qzeros_correction"], scope)
        take(root + "/gptqmodel/utils/model.py",
             ["convert_gptq_v1_to_v2_format_module", "convert_gptq_v2_to_v1_format_module"], scope)
        with open(root + "/gptqmodel/version.py") as f:
            self.version = f.read().split('"')[1]

        class Linear(scope["PackableQuantLinear"]):
            def qzero_format(self, format=None):
                pass

        self.linear, self.scope = Linear, scope

    def pack(self, w, bits, group, sym, g_idx=None, dtype=torch.float16, zero=None):
        """Rounds to nearest and packs; the module holds what a "gptq_v2" file does."""
        N, K = w.shape
        group = K if group < 0 else group
        G = -(-K // group)
        if g_idx is None:
            g_idx = torch.arange(K, dtype=torch.int32) // group
        most = 2 ** bits - 1
        scales, zeros = torch.zeros(N, G), torch.zeros(N, G)
        for g in range(G):
            part = w[:, g_idx == g]
            if sym:
                scales[:, g] = part.abs().amax(1).clamp(min=1e-5) * 2 / most
                zeros[:, g] = (most + 1) / 2
            else:
                low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
                scales[:, g] = ((high - low) / most).clamp(min=1e-5)
                zeros[:, g] = (-low / scales[:, g]).round()
        if zero is not None:
            zeros[zero] = 0
        m = self.linear()
        m.bits, m.pack_dtype, m.pack_dtype_bits, m.planar = bits, torch.int32, 32, False
        m.pack_np_dtype, m.pack_np_math_dtype = np.int32, np.uint32
        m.maxq, m.pack_factor, m.in_features = most, 32 // bits, K
        m.dequant_dtype = torch.int16 if bits == 8 else torch.int8
        m.enable_wf_unsqueeze = True
        linear = torch.nn.Linear(K, N, bias=False)
        linear.weight.data = w
        m.pack_block(linear, scales.to(dtype).float(), zeros, g_idx)
        m.scales = scales.T.contiguous().to(dtype)
        return m

    def golden(self, m, what):
        own = m.dequantize_weight()
        dtype, scales = m.scales.dtype, m.scales
        m.scales = scales.float()
        golden = m.dequantize_weight()
        m.scales = scales
        same_in(dtype, own, golden, what)
        return golden.T.contiguous()

    def add(self, c, base, m, v1, idx=True):
        golden = self.golden(m, base)
        if v1:
            before = m.qzeros.clone()
            self.scope["convert_gptq_v2_to_v1_format_module"](m, m)
            stored = m.qzeros.clone()
            self.scope["convert_gptq_v1_to_v2_format_module"](m, m.bits, m.pack_dtype)
            assert torch.equal(m.qzeros, before)
            m.qzeros = stored
        parts = {"qweight": m.qweight, "qzeros": m.qzeros, "scales": m.scales}
        if idx:
            parts["g_idx"] = m.g_idx
        c.add(base, parts, golden)

    def write(self, name, bits, v1, fill):
        c = Case(name, {"quantization_config": {"quant_method": "gptq", "bits": bits, "group_size": 32, "desc_act": False,
                                                "checkpoint_format": "gptq" if v1 else "gptq_v2", "pack_dtype": "int32"}},
                 f"GPTQModel {self.version}, torch {torch.__version__}")
        fill(lambda base, m, idx=True: self.add(c, base, m, v1, idx))
        c.stored["plain.weight"] = weights(4, 64).half()
        c.write()

    def write_all(self):
        act = torch.arange(128, dtype=torch.int32)[torch.randperm(128)] // 32
        uneven = torch.sort((torch.arange(128) * 37 % 128 // 30).int()).values.clamp(max=3)
        some = torch.zeros(64, 4, dtype=torch.bool)
        some[3, 1] = some[11, 2] = some[63, 0] = True  # zero points of 0

        def four(add):
            add("sym", self.pack(weights(64, 128), 4, 32, True))
            add("asym", self.pack(weights(64, 128), 4, 32, False, zero=some))
            add("act", self.pack(weights(64, 128), 4, 32, False, act))

        def more(add):
            four(add)
            add("uneven", self.pack(weights(32, 128), 4, 32, False, uneven))
            add("g128", self.pack(weights(32, 256), 4, 128, True), False)
            add("g64", self.pack(weights(32, 192), 4, 64, False))
            add("g48", self.pack(weights(32, 96), 4, 48, False))
            add("channel", self.pack(weights(32, 96), 4, -1, False), False)
            add("noidx", self.pack(weights(32, 96), 4, 32, False), False)
            add("bf16", self.pack(weights(32, 96), 4, 32, False, dtype=torch.bfloat16))
            add("f32", self.pack(weights(32, 96), 4, 32, True, dtype=torch.float32))
            add("f32_asym", self.pack(weights(32, 96), 4, 32, False, dtype=torch.float32))

        def others(add):
            add("sym8", self.pack(weights(32, 128), 8, 32, True))
            add("asym8", self.pack(weights(32, 128), 8, 32, False))
            add("act8", self.pack(weights(32, 128), 8, 32, False, act))
            add("asym3", self.pack(weights(32, 128), 3, 32, False))
            add("sym3", self.pack(weights(32, 64), 3, 32, True))
            add("asym2", self.pack(weights(32, 128), 2, 32, False))

        self.write("gptq_v1", 4, True, more)
        self.write("gptq_v2", 4, False, four)
        self.write("gptq_widths_v1", 8, True, others)
        self.write("gptq_widths_v2", 8, False, others)


# -- AWQ ------------------------------------------------------------------------------------

def awq_functions(root):
    scope = {"torch": torch, "nn": torch.nn, "Module": torch.nn.Module, "get_best_device": lambda: "cpu"}
    take(root + "/awq/utils/packing_utils.py", ["unpack_awq", "reverse_awq_order", "dequantize_gemm"], scope)
    scope.update(AWQ_REVERSE_ORDER=[0, 4, 1, 5, 2, 6, 3, 7])
    return take(root + "/awq/modules/linear/gemm.py", ["WQLinear_GEMM"], scope)


def awq_pack(scope, w, group):
    """Rounds w to nearest: its parts, and its values in f32."""
    N, K = w.shape
    size = K if group < 0 else group
    parts = w.float().reshape(N, K // size, size)
    low, high = parts.amin(2).clamp(max=0), parts.amax(2).clamp(min=0)
    scales = ((high - low) / 15).clamp(min=1e-5).half()
    zeros = (-(low / scales.float()).round()).clamp(0, 15)
    linear = torch.nn.Linear(K, N, bias=False)
    # values that the codes hold, since from_linear() doesn't clamp
    q = (parts / scales.float()[:, :, None] + zeros[:, :, None]).round().clamp(0, 15)
    exact = ((q - zeros[:, :, None]) * scales.float()[:, :, None]).reshape(N, K)
    linear.weight.data = exact
    m = scope["WQLinear_GEMM"].from_linear(linear, 4, size, False, scales.T.contiguous(), zeros.T.contiguous())
    golden = scope["dequantize_gemm"](m.qweight, m.qzeros, m.scales.float(), 4, size).T
    same_in(torch.float16, scope["dequantize_gemm"](m.qweight, m.qzeros, m.scales, 4, size).T, golden, (N, K, group))
    assert torch.equal(golden, exact)
    return {"qweight": m.qweight, "qzeros": m.qzeros, "scales": m.scales}, golden


def awq(root):
    scope = awq_functions(root)
    with open(root + "/setup.py") as f:
        version = f.read().split('AUTOAWQ_VERSION = "')[1].split('"')[0]
    c = Case("awq", {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True,
                                             "version": "gemm", "modules_to_not_convert": None}},
             f"AutoAWQ {version}, torch {torch.__version__}")
    for base, N, K, group in (("g64", 96, 192, 64), ("g128", 32, 256, 128), ("channel", 32, 96, -1), ("g32", 64, 64, 32)):
        c.add(base, *awq_pack(scope, weights(N, K).half(), group))
    c.write()


# -- compressed-tensors ---------------------------------------------------------------------

def ct_pack(fmt, w, dtype, **kw):
    """Rounds w to nearest: its parts, and its values in f32. kw: the library's QuantizationArgs."""
    args = QuantizationArgs(**kw)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    N, K = w.shape
    fp, sym = kw.get("type") == "float", kw.get("symmetric", True)
    strategy = kw["strategy"]
    if strategy == "block":
        h, b = kw["block_structure"]
        pad = torch.nn.functional.pad(w, (0, -K % b, 0, -N % h))
        parts = pad.reshape(pad.shape[0] // h, h, pad.shape[1] // b, b).transpose(1, 2).flatten(2)
    else:
        parts = {"group": lambda: w.reshape(N, -1, kw["group_size"]), "channel": lambda: w.reshape(N, 1, K),
                 "tensor": lambda: w.reshape(1, 1, N * K)}[strategy]()
    most = 448 if fp else 2 ** (kw["num_bits"] - 1)
    low, high = parts.amin(2).clamp(max=0), parts.amax(2).clamp(min=0)
    if sym:
        scale = (torch.maximum(-low, high) / (most if fp else most - 0.5)).clamp(min=1e-5)
    else:
        scale = ((high - low) / (2 * most - 1)).clamp(min=1e-5)
    zero = None if sym else (-most - low / scale).round().clamp(-most, most - 1).to(torch.int8)
    if strategy == "tensor":
        scale, zero = scale.reshape(1), None if zero is None else zero.reshape(1)
    state = {"weight": w.to(dtype), "weight_scale": scale.to(dtype)}
    if zero is not None:
        state["weight_zero_point"] = zero
    tool = BaseCompressor.get_value_from_registry(fmt)
    small = tool.compress(state, scheme)
    own = tool.decompress(dict(small), scheme)["weight"]
    wide = tool.decompress({**small, "weight_scale": small["weight_scale"].float()}, scheme)["weight"]
    same_in(dtype, own, wide, (fmt, kw))
    return small, wide


def compressed():
    versions = f"compressed-tensors {compressed_tensors.__version__}, torch {torch.__version__}"

    def config(fmt, *weights_):
        groups = {f"group_{i}": {"targets": ["Linear"], "weights": w, "input_activations": None} for i, w in enumerate(weights_)}
        return {"quantization_config": {"quant_method": "compressed-tensors", "format": fmt, "config_groups": groups,
                                        "ignore": ["lm_head"], "quantization_status": "compressed", "kv_cache_scheme": None,
                                        "sparsity_config": {}, "transform_config": {}}}

    def arg(bits, strategy, **kw):
        return {"num_bits": bits, "type": "int", "strategy": strategy, "symmetric": True, **kw}

    pack = Case("ct_packed", config("pack-quantized", arg(4, "group", group_size=64), arg(8, "channel"), arg(3, "channel"),
                                    arg(6, "group", group_size=32)), versions)
    bf, hf = torch.bfloat16, torch.float16
    for base, N, K, dtype, kw in (
            ("g64", 48, 128, bf, arg(4, "group", group_size=64)),
            ("g32_asym", 40, 96, bf, arg(4, "group", group_size=32, symmetric=False)),
            ("g128_asym", 33, 128, hf, arg(4, "group", group_size=128, symmetric=False)),
            ("channel", 32, 100, bf, arg(4, "channel")),
            ("channel_asym", 30, 96, bf, arg(4, "channel", symmetric=False)),
            ("tensor", 16, 96, bf, arg(4, "tensor")),
            ("g40", 16, 120, hf, arg(4, "group", group_size=40)),
            ("int8", 32, 96, bf, arg(8, "channel")),
            ("int8_asym", 32, 96, bf, arg(8, "group", group_size=32, symmetric=False)),
            ("int3", 32, 100, bf, arg(3, "channel", symmetric=False)),
            ("int6", 32, 96, bf, arg(6, "group", group_size=32)),
            ("f32", 32, 96, torch.float32, arg(4, "group", group_size=32))):
        pack.add(base, *ct_pack("pack-quantized", weights(N, K), dtype, **kw))
    # actorder "group", which versions before 0.16 or so stored: columns sorted by group, dequantised, put back
    small, wide = ct_pack("pack-quantized", weights(32, 128), bf, **arg(4, "group", group_size=32, symmetric=False))
    order = torch.randperm(128)  # place k of the sorted matrix is column order[k]
    back = torch.argsort(order)
    q = compressed_tensors.compressors.pack_quantized.helpers
    codes = q.unpack_from_int32(small["weight_packed"], 4, torch.Size((32, 128)))
    small["weight_packed"] = q.pack_to_int32(codes[:, back].contiguous(), 4)
    small["weight_g_idx"] = (back // 32).int()
    pack.add("actorder", small, wide[:, back])
    pack.stored["plain.weight"] = weights(4, 64).to(bf)
    pack.write()

    ints = Case("ct_int", config("int-quantized", arg(8, "channel")), versions)
    for base, N, K, dtype, kw in (("channel", 32, 100, bf, arg(8, "channel")), ("tensor", 16, 96, bf, arg(8, "tensor")),
                                  ("asym", 32, 96, hf, arg(8, "channel", symmetric=False)),
                                  ("tensor_asym", 16, 96, bf, arg(8, "tensor", symmetric=False))):
        ints.add(base, *ct_pack("int-quantized", weights(N, K), dtype, **kw))
        ints.stored[base + ".input_scale"] = torch.ones(1)
    ints.write()

    fp = Case("ct_float", config("float-quantized", {**arg(8, "block", block_structure=[32, 32]), "type": "float"}), versions)
    for base, N, K, dtype, kw in (("tensor", 16, 96, bf, arg(8, "tensor")), ("channel", 32, 100, bf, arg(8, "channel")),
                                  ("block", 80, 72, bf, arg(8, "block", block_structure=[32, 32])),
                                  ("f32", 32, 96, torch.float32, arg(8, "channel"))):
        fp.add(base, *ct_pack("float-quantized", weights(N, K), dtype, **{**kw, "type": "float"}))
    fp.write()


# -- 8-bit floats in blocks -----------------------------------------------------------------

def fp8():
    c = Case("fp8", {"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                             "weight_block_size": [32, 32]}},
             f"transformers {transformers.__version__}, torch {torch.__version__}")
    tool = Fp8Dequantize(None)
    for base, N, K, dtype in (("even", 64, 96, torch.float32), ("bf16", 32, 64, torch.bfloat16), ("cut", 80, 72, torch.float32)):
        w = torch.nn.functional.pad(weights(N, K), (0, -K % 32, 0, -N % 32))
        rows, cols = w.shape
        blocks = w.reshape(rows // 32, 32, cols // 32, 32)
        scale = (blocks.abs().amax((1, 3)) / 448).clamp(min=1e-8).to(dtype)
        q = (blocks / scale.float()[:, None, :, None]).reshape(rows, cols).to(torch.float8_e4m3fn)
        # transformers refuses a matrix whose last blocks are cut off; DeepSeek's own code takes it like this
        golden = tool._dequantize_one(q, scale, torch.float32)[:N, :K]
        same_in(torch.bfloat16, tool._dequantize_one(q, scale, torch.bfloat16)[:N, :K], golden, base)
        c.add(base, {"weight": q[:N, :K], "weight_scale_inv": scale}, golden)
    c.write()


# -- MXFP4 ----------------------------------------------------------------------------------

def mxfp4():
    """Stacks of experts: golden has their rows, one expert after the other."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors
    c = Case("mxfp4", {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}},
             f"transformers {transformers.__version__}, torch {torch.__version__}")
    for base, E, N, G, low, high in (("experts", 3, 20, 2, 110, 140), ("wide", 2, 17, 1, 0, 226)):
        blocks = torch.randint(0, 256, (E, N, G, 16), dtype=torch.uint8)
        scales = torch.randint(low, high + 1, (E, N, G), dtype=torch.uint8)
        # powers of two in f32: bf16, their default, would do too
        golden = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2)
        c.golden[base] = golden.reshape(E * N, G * 32).contiguous()
        c.stored[base + "_blocks"] = blocks if base == "experts" else blocks.reshape(E, N, G * 16)
        c.stored[base + "_scales"] = scales
    c.write()


# -- seeds for the fuzz entry ---------------------------------------------------------------

def seeds():
    """One small matrix by each method: config.json on the first line, then the safetensors bytes."""
    out = "tests/fuzz/seeds/hf_quant/"
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)

    def ints(*shape):
        return torch.randint(-2 ** 31, 2 ** 31, shape, dtype=torch.int64).to(torch.int32)

    def write(name, config, parts):
        with open(out + name, "wb") as f:
            f.write(json.dumps({"quantization_config": config}).encode() + b"\n" + save({"m." + k: v for k, v in parts.items()}))

    def four(kind, double, storage):
        q, state = bnb.quantize_4bit(weights(4, 32), compress_statistics=double, quant_type=kind, blocksize=32, quant_storage=storage)
        return {"weight": q, **{"weight." + k: v for k, v in state.as_dict(packed=True).items()}}

    bits4 = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    write("nf4", bits4, four("nf4", True, torch.uint8))
    write("fp4", bits4, four("fp4", False, torch.bfloat16))
    write("int8", {"quant_method": "bitsandbytes", "load_in_8bit": True},
          {"weight": ints(2, 4).view(torch.int8), "SCB": torch.ones(2), "weight_format": torch.tensor(0, dtype=torch.uint8)})
    for bits in (3, 4, 8):
        write(f"gptq{bits}", {"quant_method": "gptq", "bits": bits, "group_size": 16},
              {"qweight": ints(bits, 8), "qzeros": ints(2, -(-8 * bits // 32)), "scales": torch.ones(2, 8).half(),
               "g_idx": torch.arange(32, dtype=torch.int32) % 2})
    write("awq", {"quant_method": "awq", "bits": 4},
          {"qweight": ints(32, 1), "qzeros": ints(2, 1), "scales": torch.ones(2, 8).half()})
    ct = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"a": {"weights": {"num_bits": 4}}}}
    write("packed", ct, {"weight_packed": ints(8, 4), "weight_shape": torch.tensor([8, 32]), "weight_scale": torch.ones(8, 2),
                         "weight_zero_point": ints(1, 2), "weight_g_idx": torch.arange(32, dtype=torch.int32) % 2})
    write("bytes", {**ct, "format": "int-quantized"}, {"weight": ints(4, 4).view(torch.int8), "weight_scale": torch.ones(4, 1)})
    write("fp8", {"quant_method": "fp8", "weight_block_size": [2, 8]},
          {"weight": torch.ones(5, 12).to(torch.float8_e4m3fn), "weight_scale_inv": torch.ones(3, 2)})
    with open(out + "mxfp4", "wb") as f:
        f.write(json.dumps({"quantization_config": {"quant_method": "mxfp4"}}).encode() + b"\n" +
                save({"m_blocks": torch.arange(96, dtype=torch.uint8).reshape(2, 3, 1, 16),
                      "m_scales": torch.full((2, 3, 1), 127, dtype=torch.uint8)}))


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--gptqmodel", required=True)
    p.add_argument("--autoawq", required=True)
    a = p.parse_args()
    bnb_4bit()
    bnb_8bit()
    Gptq(a.gptqmodel).write_all()
    awq(a.autoawq)
    compressed()
    fp8()
    mxfp4()
    seeds()
