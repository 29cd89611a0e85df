#!/usr/bin/env python3
"""A Llama model of any shape with random weights, as a GGUF file: for measuring speed where no such model is at hand.

    bench/mkshape.py --tokenizer-from SmolLM2-135M-Instruct.Q4_1.gguf --preset 1b -o big.gguf [--type F16] [--layers N …]

What it says is babble, but every byte is read and every product computed as in a trained model of that shape. Vocabulary
and template come from another GGUF file. Same arguments, same file. Norms are 1 and matrices normal with deviation
1/sqrt(inputs), so that activations stay in range through any number of layers. Rows are written as they are made, so
memory stays small. Needs: numpy, gguf.
"""
import argparse
import os
import sys

import gguf
import numpy as np

PRESETS = {  # embd, layers, heads, heads of KV, feed-forward
    "0.1b": (576, 30, 9, 3, 1536),     # SmolLM2-135M
    "0.5b": (896, 24, 14, 2, 4864),    # Qwen2-0.5B
    "1b": (2048, 20, 32, 8, 5632),
    "1.5b": (1536, 28, 12, 2, 8960),   # Qwen2-1.5B
}
CHUNK_ROWS = 1024


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--tokenizer-from", required=True, metavar="GGUF", help="the file that vocabulary and template come from")
    p.add_argument("-o", "--output", required=True)
    p.add_argument("--preset", choices=PRESETS, default="1b")
    p.add_argument("--type", choices=("F32", "F16", "Q8_0", "Q4_0"), default="F16",
                   help="of the matrices (default F16; llama.cpp's quantiser makes the others of that, too)")
    for name in ("embd", "layers", "heads", "kv", "ff"):
        p.add_argument("--" + name, type=int, help="in place of the preset's")
    p.add_argument("--ctx", type=int, default=8192)
    p.add_argument("--untied", action="store_true", help="an output head of its own")
    p.add_argument("--seed", type=int, default=1)
    o = p.parse_args()
    for i, name in enumerate(("embd", "layers", "heads", "kv", "ff")):
        if getattr(o, name) is None:
            setattr(o, name, PRESETS[o.preset][i])
        if getattr(o, name) < 1:
            p.error(f"--{name} {getattr(o, name)}: must be at least 1")
    if o.embd % o.heads or o.heads % o.kv or o.embd % 32 or o.ff % 32:
        p.error("heads must divide embd, kv must divide heads, and embd and ff must be multiples of 32")
    return o


def tensors(o, n_vocab):
    """(name, rows, columns) in the file's order; rows 0: a norm."""
    head = o.embd // o.heads
    yield "token_embd.weight", n_vocab, o.embd
    for i in range(o.layers):
        blk = f"blk.{i}."
        yield blk + "attn_norm.weight", 0, o.embd
        yield blk + "attn_q.weight", o.embd, o.embd
        yield blk + "attn_k.weight", o.kv * head, o.embd
        yield blk + "attn_v.weight", o.kv * head, o.embd
        yield blk + "attn_output.weight", o.embd, o.embd
        yield blk + "ffn_norm.weight", 0, o.embd
        yield blk + "ffn_gate.weight", o.ff, o.embd
        yield blk + "ffn_up.weight", o.ff, o.embd
        yield blk + "ffn_down.weight", o.embd, o.ff
    yield "output_norm.weight", 0, o.embd
    if o.untied:
        yield "output.weight", n_vocab, o.embd


def copy_tokenizer(writer, path):
    n_vocab = 0
    for field in gguf.GGUFReader(path).fields.values():
        if not field.name.startswith("tokenizer."):
            continue
        value, kind = field.contents(), field.types[0]
        if field.name == "tokenizer.ggml.tokens":
            n_vocab = len(value)
        writer.add_key_value(field.name, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    if not n_vocab:
        sys.exit(f"{path}: has no vocabulary")
    return n_vocab


def write(o, path):
    kind = gguf.GGMLQuantizationType[o.type]
    writer = gguf.GGUFWriter(path, "llama")
    n_vocab = copy_tokenizer(writer, o.tokenizer_from)
    writer.add_name(f"random-{o.layers}x{o.embd}")
    writer.add_context_length(o.ctx)
    writer.add_embedding_length(o.embd)
    writer.add_block_count(o.layers)
    writer.add_feed_forward_length(o.ff)
    writer.add_head_count(o.heads)
    writer.add_head_count_kv(o.kv)
    writer.add_rope_dimension_count(o.embd // o.heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(n_vocab)
    if o.type != "F32":
        writer.add_file_type(gguf.LlamaFileType["MOSTLY_" + o.type])
    n_params = 0
    for name, rows, cols in tensors(o, n_vocab):
        n_params += max(rows, 1) * cols
        if rows:
            shape = (rows, cols)
            if kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0):
                shape = gguf.quant_shape_to_byte_shape(shape, kind)
            bytes_each = rows * cols // gguf.GGML_QUANT_SIZES[kind][0] * gguf.GGML_QUANT_SIZES[kind][1]
            writer.add_tensor_info(name, shape, np.dtype(np.uint8 if "Q" in o.type else o.type.replace("F", "float")),
                                   bytes_each, raw_dtype=kind)
        else:
            writer.add_tensor_info(name, (cols,), np.dtype(np.float32), cols * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    out = writer.fout[0]
    rng = np.random.default_rng(o.seed)
    writer.write_padding(out, out.tell())
    for name, rows, cols in tensors(o, n_vocab):
        start = out.tell()
        if not rows:
            out.write(np.ones(cols, dtype=np.float32).tobytes())
        for first in range(0, rows, CHUNK_ROWS):
            block = rng.standard_normal((min(CHUNK_ROWS, rows - first), cols), dtype=np.float32) / np.float32(cols ** 0.5)
            out.write(gguf.quantize(block, kind).tobytes())
        writer.write_padding(out, out.tell() - start)
    writer.close()
    return n_params


def main():
    o = options()
    tmp = o.output + ".tmp"
    n_params = write(o, tmp)
    os.replace(tmp, o.output)
    print(f"{o.output}: {n_params / 1e6:.0f}M parameters, {o.type}, {os.path.getsize(o.output) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
