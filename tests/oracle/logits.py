#!/usr/bin/env python3
"""Logits and greedy text of a GGUF model by PyTorch, in f32.

    logits.py MODEL.gguf > tests/golden/logits/expected.txt

Weights are dequantised to f32 by the gguf package and run by transformers' Llama in f32 on the CPU. The output is lines of
"name value..."; lines that start with # name the versions.

    prompt ID...            the prompt's tokens
    top POS ID:LOGIT...     the 32 greatest logits of a position, as hexadecimal floats
    level POS X             log of the sum of exp over all logits of the position
    greedy ID...            the 96 tokens that follow the prompt greedily
"""
import importlib.metadata
import sys

import numpy as np
import torch
from transformers import AutoTokenizer

from perplexity import load

import gguf
import os

TEXT = (
    "<|im_start|>user\nWrite a short story about a lighthouse keeper who finds a letter in a bottle."
    "<|im_end|>\n<|im_start|>assistant\n"
)
POSITIONS = [0, 1, 2, 7, 12, 20, -1]


def main():
    path = sys.argv[1]
    model = load(gguf.GGUFReader(path))
    tokenizer = AutoTokenizer.from_pretrained(
        os.path.dirname(os.path.abspath(path)), gguf_file=os.path.basename(path)
    )
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    print("#", " ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torch", "transformers", "gguf")))
    print("#", os.path.basename(path))
    print("prompt", *ids)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
        for pos in POSITIONS:
            pos %= len(ids)
            best = torch.topk(logits[pos], 32)
            print("top", pos, *(f"{i}:{float(v).hex()}" for v, i in zip(best.values, best.indices.tolist())))
            print("level", pos, float(torch.logsumexp(logits[pos].double(), 0)).hex())
        greedy = []
        for _ in range(96):
            last = model(torch.tensor([ids + greedy])).logits[0, -1]
            greedy.append(int(last.argmax()))
    print("greedy", *greedy)


if __name__ == "__main__":
    main()
