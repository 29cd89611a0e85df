#!/usr/bin/env python3
"""Token ids by Hugging Face's `tokenizers`, from the vocabulary that lies in a GGUF file.

    tokenizer.py golden NAME MODEL.gguf          writes tests/golden/tokenizer/NAME.json
    tokenizer.py fuzz MODEL.gguf DRIVER [N]      random texts, C against Python, says how many differ
    tokenizer.py rules MODEL.gguf DRIVER [N]     the same for each pre-tokenizer known here, on the model's vocabulary
    tokenizer.py bench MODEL.gguf DRIVER         megabytes a second of both on one core

DRIVER is tests/oracle/tokenizer_driver.c, compiled. Needs: tokenizers, gguf.
"""
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import gguf
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_level(use_regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LETTERS = r"[^\r\n\p{L}\p{N}]?"
UP, LOW = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}%s]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}%s]"
SUFFIX = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n%s]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def o200k(suffix, digits, han="", slash="/"):
    up, low = UP % han, LOW % han
    return f"{LETTERS}{up}*{low}+{suffix}|{LETTERS}{up}+{low}*{suffix}|{digits}" + REST % slash


def digits():
    return pre_tokenizers.Digits(individual_digits=True)


PRE = {  # as the models' tokenizer files state it
    "smollm": lambda: [digits(), byte_level()],
    "gpt-2": lambda: [byte_level()],
    "default": lambda: [split(r"[\p{P}\$\+<=>\^~\|]+"), split(GPT2), split(r"\p{N}+"), split("[0-9][0-9][0-9]"),
                        byte_level(False)],
    "falcon": lambda: [split(r"[\p{P}\$\+<=>\^~\|`]+"), split(GPT2), split("[0-9][0-9][0-9]"), byte_level(False)],
    "llama-bpe": lambda: [split(CL100K % r"\p{N}{1,3}"), byte_level(False)],
    "dbrx": lambda: [split(CL100K % r"\p{N}{1,3}"), byte_level(False)],
    "minicpm5": lambda: [split(r"\p{N}{1,3}"), split(CL100K % r"\p{N}+"), byte_level(False)],
    "qwen2": lambda: [split(CL100K % r"\p{N}"), byte_level(False)],
    "qwen35": lambda: [split(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
                             r"|\s*[\r\n]+|\s+(?!\S)|\s+"), byte_level(False)],
    "seed-coder": lambda: [split(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+"
                                 r"|\s*[\r\n]+|\s+(?!\S)|\s+"), byte_level(False)],
    "bailingmoe": lambda: [split(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
                                 r"|\s*[\r\n]|\s+(?!\S)|\s+"), byte_level(False)],
    "gpt-4o": lambda: [split(o200k(SUFFIX, r"\p{N}{1,3}")), byte_level(False)],
    "tekken": lambda: [split(o200k("", r"\p{N}")), byte_level(False)],
    "kimi-k2": lambda: [split(r"[\p{Han}]+|" + o200k(SUFFIX, r"\p{N}{1,3}", r"&&[^\p{Han}]", "")), byte_level(False)],
    "deepseek-coder": lambda: [split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"),
                               split("[一-龥ࠀ-一가-\ud7ff]+"), digits(), byte_level(False)],
    "deepseek-v3": lambda: [split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"),
                            split(r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
                                  r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""), byte_level(False)],
    "bloom": lambda: [split(" ?[^(\\s|[.,!?…。，、।۔،])]+"), byte_level(False)],
    "viking": lambda: [split(" ?[^(\\s|[.,!?…。，、।۔،])]+"), digits(), byte_level(False)],
}
WHOLE_WORDS = ("llama-bpe", "tekken", "minicpm5")


def load(path, as_pre=None):
    r = gguf.GGUFReader(path)
    get = lambda k: r.fields["tokenizer.ggml." + k].contents() if "tokenizer.ggml." + k in r.fields else None
    tokens, types, merges, pre = get("tokens"), get("token_type"), get("merges"), as_pre or get("pre") or "gpt-2"
    vocab = {}
    for i, (text, kind) in enumerate(zip(tokens, types)):
        vocab.setdefault(text, i)
    bpe = models.BPE(vocab=vocab, merges=[tuple(m.split(" ", 1)) for m in merges],
                     ignore_merges=pre in WHOLE_WORDS)
    t = Tokenizer(bpe)
    t.pre_tokenizer = pre_tokenizers.Sequence(PRE[pre]())
    t.decoder = decoders.ByteLevel()
    control = [x for x, k in zip(tokens, types) if k == 3]
    user = [x for x, k in zip(tokens, types) if k == 4]
    t.add_special_tokens([AddedToken(x, normalized=False, special=True) for x in control])
    t.add_tokens([AddedToken(x, normalized=False) for x in user])
    assert t.get_vocab_size() == len(tokens)
    return t, control, pre


def encode(t, text, special):
    t.encode_special_tokens = not special
    return t.encode(text, add_special_tokens=False).ids


PAGE = [
    "Hello, world!", "", " ", "  ", "   leading and trailing   ", "don't DON'T we'll I'd you've it's 'S",
    "1234567890 3.14159 1,000,000 ½ ² ٣٤٥ ४५६ Ⅷ", "日本語のテキスト、中文文本。한국어 텍스트 你好世界",
    "Ünïcödé naïve café Straße ΑΒΓ αβγ Привет мир שלום עולם مرحبا بالعالم नमस्ते", "e\u0301 n\u0303 a\u0308\u0323 Z̷̛͖a̸l̵g̶o̴",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇯🇵 ❤️ ☎️ 1️⃣", "int main(void) {\n\treturn x->y[0] != 0x1F ? a++ : --b; /* c */\n}\n",
    "def f(x):\n    return {k: v for k, v in x.items() if v}\n\n\n", "a\tb\t\tc\n\n\nd\r\ne\r\n\r\nf \n g  \n  h",
    "\u00a0nbsp\u00a0 \u3000ideographic\u2003em\u2009thin\u200bzero\u2028line\u2029para\u0085nel\u180emvs\ufeffbom",
    "\x00\x01\x02\x07\x08\x0b\x0c\x1b[31mred\x1b[0m\x7f", "https://example.com/a?b=c&d=%20#e user@example.org C:\\dir\\file.txt",
    "x=1;y=2;z=x+y*3-4/5%6^7&8|9~!@#$`\"'<>?.,:;()[]{}", "ſhort ſ's K Å ﬁ ﬀ ＡＢＣ１２３ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>", "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>",
    "<|im_start", "|im_start|>", "<<|im_end|>>", "<|im_end|><|im_end|>", "a<|im_end|>b <|im_end|> c",
    "...---...!!!???", "\U0010ffff\U000e0001\ufffd\ufffe", "ꙮ ᚠᛇᚻ 𒀀𒁀 𓀀𓂀 ༀ ཨོཾ กขค ไทย Việt Nam",
    "Mixed日本English中文123한글abc", "\n", "\n\n", " \n", "\n ", "\t", "\r", "\r\n", "a", "'", "''s", " 's", "' s",
]
LONG = [("a", 3000), (" ", 3000), ("0", 2000), ("ab ", 1000), ("é", 1500), ("漢", 1000), ("🙂", 700), ("\n", 2000),
        ("!", 2000), ("the", 1000), (" \n", 1000), ("xX", 1000), ("a1", 800)]


def golden(name, path):
    t, _, pre = load(path)
    cases = []
    for text in PAGE:
        for special in (False, True):
            cases.append({"text": text, "special": special, "ids": encode(t, text, special)})
    for text, n in LONG:
        cases.append({"text": text, "repeat": n, "special": False, "ids": encode(t, text * n, False)})
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "tokenizer", name + ".json")
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with open(out, "w") as f:
        f.write('{"made_with": "tokenizers %s, gguf package", "vocabulary": "%s", "pre": "%s",\n"cases": [\n' %
                (tokenizers.__version__, os.path.basename(path), pre))
        f.write(",\n".join(json.dumps(c) for c in cases) + "\n]}\n")
    print(out, len(cases), "cases", os.path.getsize(out), "bytes")


def random_text(rng, control):
    def cps(*ranges):
        return lambda: "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 6)))
    words = "the of Hello WORLD don't it's I'LL you'Re ſ's naïve http:// ... ## == != -> 3.14 2024-01-01 foo_bar camelCase".split()
    kinds = [
        lambda: rng.choice(words), lambda: " " + rng.choice(words), lambda: " " * rng.randint(1, 9),
        lambda: "".join(rng.choice(" \t\n\r\u00a0\u3000\u2028\u0085\u180e\u200b\x0b\x0c\ufeff") for _ in range(rng.randint(1, 5))),
        lambda: str(rng.randint(0, 10 ** rng.randint(1, 12))), cps((32, 126)), cps((0, 31), (127, 159)), cps((0xa0, 0x24f)),
        cps((0x370, 0x3ff), (0x400, 0x4ff)), cps((0x590, 0x5ff), (0x600, 0x6ff)), cps((0x900, 0x97f), (0xe00, 0xe7f)),
        cps((0x300, 0x36f)), cps((0x2000, 0x206f), (0x2100, 0x214f)), cps((0x3040, 0x30ff), (0x4e00, 0x9fff)), cps((0xac00, 0xd7a3)),
        cps((0x1f300, 0x1f64f), (0x1f3fb, 0x1f3ff), (0x200d, 0x200d), (0xfe0f, 0xfe0f)), cps((0xa000, 0xd7ff), (0xe000, 0xffff)),
        cps((0x10000, 0x10ffff)), cps((0x660, 0x669), (0x966, 0x96f), (0xb2, 0xb9), (0x2160, 0x217f), (0x1d7ce, 0x1d7ff)),
        lambda: rng.choice(control), lambda: rng.choice(control)[:rng.randint(1, 8)], lambda: rng.choice("'’") + rng.choice("sStTdDmM") + "",
        lambda: rng.choice("aA0 .\n") * rng.randint(1, 60),
    ]
    some = rng.sample(kinds, rng.randint(1, len(kinds)))
    return "".join(rng.choice(some)() for _ in range(rng.randint(0, 40)))


def run_driver(driver, path, jobs, *more):
    data = b"".join(struct.pack("<II", special, len(b)) + b for special, b in jobs)
    return subprocess.run([driver, path, *more], input=data, stdout=subprocess.PIPE, check=True).stdout.decode()


def fuzz(path, driver, n, as_pre=None):
    t, control, pre = load(path, as_pre)
    seed = int(time.time())
    rng = random.Random(seed)
    jobs = [(rng.randint(0, 1), random_text(rng, control)) for _ in range(n)]
    lines = run_driver(driver, path, [(s, x.encode()) for s, x in jobs]).split("\n")
    bad = 0
    for (special, text), line in zip(jobs, lines):
        want, got = encode(t, text, bool(special)), [int(x) for x in line.split()]
        if want != got:
            bad += 1
            if bad <= 5:
                at = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
                print("differs: special", special, ascii(text)[:300], "at", at, want[at:at + 6], got[at:at + 6])
    print(f"{pre}: {n} texts, {sum(len(x.encode()) for _, x in jobs)} bytes, seed {seed}: {bad} differ")
    return bad


def rules(path, driver, n):
    r = gguf.GGUFReader(path)
    bad = 0
    for pre in PRE:
        with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
            w = gguf.GGUFWriter(f.name, "llama")
            w.add_tokenizer_model("gpt2")
            w.add_tokenizer_pre(pre)
            for key, add in (("tokens", w.add_token_list), ("token_type", w.add_token_types), ("merges", w.add_token_merges)):
                add(r.fields["tokenizer.ggml." + key].contents())
            w.write_header_to_file()
            w.write_kv_data_to_file()
            w.close()
            bad += fuzz(f.name, driver, n)
    return bad


def bench(path, driver):
    t, control, pre = load(path)
    rng = random.Random(1)
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src")
    code = "".join(open(os.path.join(d, f), errors="replace").read() for d, _, fs in sorted(os.walk(here)) for f in sorted(fs))
    # A third English-like prose from the comments, a third code, a third everything else.
    prose = " ".join(re.findall(r"^ \* (.*)$", code, re.M))
    third = 350000
    text = (prose * (third // len(prose) + 1))[:third] + (code * (third // len(code) + 1))[:third]
    more = []
    while sum(map(len, more)) < third // 2:
        more.append(random_text(rng, ["x"]))
    text += "".join(more)
    size = len(text.encode())
    best = 1e9
    for _ in range(5):
        start = time.perf_counter()
        encode(t, text, False)
        best = min(best, time.perf_counter() - start)
    print(f"{pre}: {size} bytes; tokenizers {tokenizers.__version__}: {size / best / 1e6:.1f} MB/s")
    print("here:", run_driver(driver, path, [(0, text.encode())], "bench").strip().replace("\n", ", "))


def main():
    what, args = sys.argv[1], sys.argv[2:]
    if what == "golden":
        golden(*args)
    elif what == "fuzz":
        sys.exit(1 if fuzz(args[0], args[1], int(args[2]) if len(args) > 2 else 3000) else 0)
    elif what == "rules":
        sys.exit(1 if rules(args[0], args[1], int(args[2]) if len(args) > 2 else 1000) else 0)
    elif what == "bench":
        bench(*args)


if __name__ == "__main__":
    main()
