#!/usr/bin/env python3
"""Tokenizers of Hugging Face folders: ids and decoded text by the `tokenizers` library, or by
`sentencepiece` for a folder with a tokenizer.model only.

    hf_tokenizer.py make DIR                 builds a folder for each kind below DIR (small corpora, trained here)
    hf_tokenizer.py compare DIR DRIVER [N]   N random texts through each, C against Python; says how many differ
    hf_tokenizer.py text DIR DRIVER          a megabyte of mixed text through each
    hf_tokenizer.py bench DIR DRIVER         megabytes a second of both on one core, alternately
    hf_tokenizer.py seeds                    writes tests/fuzz/seeds/hf_tokenizer: small folders, as fuzz_hf_tokenizer.c reads them
    hf_tokenizer.py golden DIR               writes tests/golden/tokenizer/hf: a few of the folders, with texts, ids and decoded texts

DRIVER is tests/oracle/tokenizer_driver.c, compiled. Needs: tokenizers, sentencepiece, transformers.
"""
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
import tokenizer as base

LLAMA3 = base.CL100K % r"\p{N}{1,3}"
QWEN2 = base.CL100K % r"\p{N}"
KIMI = (r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
             r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CJK = "[一-龥぀-ゟ゠-ヿ]+"


def corpus():
    rng = random.Random(5)
    src = os.path.join(HERE, "..", "..", "src")
    code = "".join(open(os.path.join(d, f), errors="replace").read() for d, _, fs in sorted(os.walk(src)) for f in sorted(fs)
                   if f.endswith((".c", ".h")))[:400000]
    lines = code.split("\n")
    lines += [x for x in base.PAGE]
    for _ in range(3000):
        lines.append(base.random_text(rng, ["x"]))
    words = "der die das und ist nicht les des une pour dans что это как не я он на 中文 文本 日本 テキスト 한국어 텍스트 नमस्ते สวัสดี".split()
    for _ in range(3000):
        lines.append(" ".join(rng.choice(words) for _ in range(12)))
    rng.shuffle(lines)
    return [x for x in lines if x]


def train(tok, trainer, lines):
    tok.train_from_iterator(lines, trainer)
    return tok


def byte_level_bpe(lines, pre, size=3000, ignore_merges=False, norm=None, unk=None):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges, unk_token=unk))
    t.pre_tokenizer = pre
    if norm:
        t.normalizer = norm
    t.decoder = decoders.ByteLevel()
    train(t, trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False), lines)
    t.add_special_tokens([AddedToken(x, normalized=False, special=True) for x in
                          ("<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<｜User｜>")])
    t.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("<tool_call>", normalized=False), AddedToken("    ", normalized=False)])
    return t


def seq(*parts):
    return pre_tokenizers.Sequence(list(parts))


def bl(use_regex=False, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


def sp(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior=behavior, invert=invert)


def template(t, bos, eos=None):
    single = f"{bos} $A" if bos else "$A"
    if eos:
        single += f" {eos}"
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single=single, special_tokens=[(x, t.token_to_id(x)) for x in (bos, eos) if x])])


def char_bpe(lines, size, norm, pre, dec, fallback=True, unk="<unk>", fuse=True):
    """Characters and merges as SentencePiece's BPE has them; bytes for the rest."""
    t = Tokenizer(models.BPE(unk_token=unk, fuse_unk=fuse, byte_fallback=fallback))
    t.normalizer = norm
    if pre:
        t.pre_tokenizer = pre
    t.decoder = dec
    t.add_special_tokens([])
    special = ["<unk>", "<s>", "</s>"]
    if fallback:
        special += [f"<0x{b:02X}>" for b in range(256)]
    # Trained with words, so that merges do not run over whole lines.
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, limit_alphabet=500, show_progress=False)
    t2 = Tokenizer(models.BPE(unk_token=unk, fuse_unk=fuse, byte_fallback=fallback))
    t2.normalizer = norm
    t2.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    train(t2, trainer, lines)
    j = json.loads(t.to_str())
    j["model"]["vocab"] = json.loads(t2.to_str())["model"]["vocab"]
    j["model"]["merges"] = json.loads(t2.to_str())["model"]["merges"]
    j["added_tokens"] = []
    return json.dumps(j)


LLAMA_DEC = lambda: decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
GEMMA_DEC = lambda: decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
LLAMA_NORM = lambda: normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def llama_like(lines, norm, pre, dec, normalized=False, **kw):
    t = Tokenizer.from_str(char_bpe(lines, 2500, norm, pre, dec, **kw))
    t.add_special_tokens([AddedToken(x, normalized=normalized, special=True) for x in ("<unk>", "<s>", "</s>")])
    t.add_special_tokens([AddedToken("<|user|>", normalized=False, special=True, rstrip=True),
                          AddedToken("<|end|>", normalized=False, special=True, lstrip=True, rstrip=True)])
    t.add_tokens([AddedToken("[TOOL]", normalized=True), AddedToken("word", normalized=False, single_word=True),
                  AddedToken("mask", normalized=True, single_word=True, lstrip=True)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))])
    return t


def unigram(lines, norm, pre, dec, size=3000, special=("<pad>", "</s>", "<unk>")):
    lines = [x for x in lines if all(ord(c) < 0x250 or 0x400 <= ord(c) < 0x450 or c in "中文本日テキスト" for c in x)]
    t = Tokenizer(models.Unigram())
    t.normalizer = norm
    t.pre_tokenizer = pre
    t.decoder = dec
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=list(special), unk_token="<unk>", show_progress=False)
    train(t, trainer, lines)
    t.add_tokens([AddedToken("<tool>", normalized=False)])
    t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", t.token_to_id("</s>"))])
    return t


def charsmap():
    """The compiled normalizer of a SentencePiece model (nmt_nfkc)."""
    from sentencepiece import sentencepiece_model_pb2 as pb
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(["a b c d", "e f g h"] * 20), model_writer=out, vocab_size=16,
                                             model_type="unigram", hard_vocab_limit=False, minloglevel=2)
    m = pb.ModelProto()
    m.ParseFromString(out.getvalue())
    return m.normalizer_spec.precompiled_charsmap


def kinds(lines):
    """name -> a function that gives the tokenizer"""
    D = pre_tokenizers.Digits
    k = {
        "gpt2": lambda: byte_level_bpe(lines, bl(True)),
        "gpt2-prefix": lambda: byte_level_bpe(lines, bl(True, True)),
        "llama3": lambda: byte_level_bpe(lines, seq(sp(LLAMA3), bl()), ignore_merges=True),
        "qwen2": lambda: byte_level_bpe(lines, seq(sp(QWEN2), bl()), norm=normalizers.NFC()),
        "gpt4o": lambda: byte_level_bpe(lines, seq(sp(base.o200k(base.SUFFIX, r"\p{N}{1,3}")), bl())),
        "kimi": lambda: byte_level_bpe(lines, seq(sp(KIMI), bl())),
        "deepseek3": lambda: byte_level_bpe(lines, seq(sp(r"\p{N}{1,3}"), sp(CJK), sp(DEEPSEEK3), bl())),
        "deepseek-llm": lambda: byte_level_bpe(lines, seq(sp(r"[\r\n]"), sp(r"\s?[A-Za-zµÀ-ÖØ-ö]+"), sp(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
                                                          sp(r"\s+$"), sp("[一-龥ࠀ-一가-퟿]+"), D(True), bl())),
        "starcoder": lambda: byte_level_bpe(lines, seq(D(True), bl(True))),
        "falcon": lambda: byte_level_bpe(lines, seq(pre_tokenizers.Punctuation("contiguous"), bl(True), D(False), sp("[0-9][0-9][0-9]"))),
        "bloom": lambda: byte_level_bpe(lines, seq(sp(r" ?[^(\s|[.,!?…。，、।۔،])]+"), bl())),
        "digits3": lambda: byte_level_bpe(lines, seq(sp(r"\d{1,3}(?=(?:\d{3})*\b)"), sp(LLAMA3), bl())),
        "nosplit-unk": lambda: byte_level_bpe(lines, seq(sp(r"\s+", "merged_with_previous"), bl()), unk="<unk>"),
        "removed": lambda: byte_level_bpe(lines, seq(pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), bl())),
        "whitespace": lambda: byte_level_bpe(lines, seq(pre_tokenizers.Whitespace(), bl(False, True))),
        "behaviors": lambda: byte_level_bpe(lines, seq(sp("[aeiou]", "merged_with_next"), sp("[0-9]+x*", "contiguous"),
                                                       sp("z*", "merged_with_previous"), pre_tokenizers.Split("--", "isolated"),
                                                       sp("[A-Z]+", "isolated", True), bl())),
        "onig": lambda: byte_level_bpe(lines, seq(sp(r"\h{4}|[[:punct:]]{2}+|\w+?\b|^#.*$|[\p{Greek}&&[^α]]+|[^\P{L}a-z]"), bl())),
        "llama2": lambda: llama_like(lines, LLAMA_NORM(), None, LLAMA_DEC()),
        "llama1": lambda: llama_like(lines, LLAMA_NORM(), None, LLAMA_DEC(), normalized=True),
        "llama2-meta": lambda: llama_like(lines, None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), LLAMA_DEC()),
        "gemma": lambda: llama_like(lines, normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), GEMMA_DEC()),
        "nobytes": lambda: llama_like(lines, LLAMA_NORM(), None, LLAMA_DEC(), fallback=False),
        "nobytes-nofuse": lambda: llama_like(lines, LLAMA_NORM(), None, LLAMA_DEC(), fallback=False, fuse=False),
        "norms": lambda: llama_like(lines, normalizers.Sequence([normalizers.Nmt(), normalizers.NFKD(), normalizers.StripAccents(),
                                                                 normalizers.Lowercase(), normalizers.Strip(),
                                                                 normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(" ", "▁")]),
                                    None, GEMMA_DEC()),
        "nfkc-char": lambda: llama_like(lines, normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" ", "▁")]), None, GEMMA_DEC()),
        "nfd-char": lambda: llama_like(lines, normalizers.Sequence([normalizers.NFD(), normalizers.Replace(" ", "▁")]), None, GEMMA_DEC()),
        "t5": lambda: unigram(lines, normalizers.Precompiled(charsmap()),
                              seq(pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")),
                              decoders.Metaspace(prepend_scheme="always")),
        "xlmr": lambda: unigram(lines, normalizers.Sequence([normalizers.Precompiled(charsmap()), normalizers.Replace(Regex(" {2,}"), " ")]),
                                pre_tokenizers.Metaspace(prepend_scheme="always"), decoders.Metaspace(prepend_scheme="always")),
        "unigram-plain": lambda: unigram(lines, normalizers.NFC(), pre_tokenizers.Metaspace(prepend_scheme="never", split=False),
                                         decoders.Metaspace(prepend_scheme="never")),
    }
    return k


def sentencepieces():
    """name -> training options"""
    return {
        "sp-bpe": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
                       user_defined_symbols=["<tool>", "[X]", "▁▁"]),
        "sp-bpe-nobytes": dict(model_type="bpe", normalization_rule_name="nmt_nfkc"),
        "sp-unigram": dict(model_type="unigram", byte_fallback=True, normalization_rule_name="nmt_nfkc",
                           user_defined_symbols=["<tool>", "ｆｕｌｌ"]),
        "sp-unigram-plain": dict(model_type="unigram", normalization_rule_name="identity", add_dummy_prefix=False,
                                 remove_extra_whitespaces=False),
        "sp-suffix": dict(model_type="unigram", treat_whitespace_as_suffix=True),
    }


def make(out):
    lines = corpus()
    only = os.environ.get("ONLY", "").split()
    for name, build in kinds(lines).items():
        if only and name not in only:
            continue
        d = os.path.join(out, name)
        shutil.rmtree(d, ignore_errors=True)
        os.makedirs(d)
        t = build()
        if name == "llama3":
            template(t, "<|begin|>")
        if name == "qwen2":
            template(t, "<|begin|>", "<|end|>")
        t.save(os.path.join(d, "tokenizer.json"))
        print(name, t.get_vocab_size())
    for name, options in sentencepieces().items():
        if only and name not in only:
            continue
        d = os.path.join(out, name)
        shutil.rmtree(d, ignore_errors=True)
        os.makedirs(d)
        options = dict(options, vocab_size=3000, character_coverage=0.995, minloglevel=2, max_sentence_length=100000)
        few = [x for x in lines if all(ord(c) < 0x250 or 0x400 <= ord(c) < 0x450 or c in "中文本日テキスト" for c in x)]
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(few), model_prefix=os.path.join(d, "tokenizer"), **options)
        os.remove(os.path.join(d, "tokenizer.vocab"))
        print(name)


class Hf:
    def __init__(self, d):
        self.t = Tokenizer.from_file(os.path.join(d, "tokenizer.json"))
        added = json.load(open(os.path.join(d, "tokenizer.json")))["added_tokens"]
        self.unigram = json.load(open(os.path.join(d, "tokenizer.json")))["model"]["type"] == "Unigram"
        self.control = [x["content"] for x in added]
        self.normalized_special = any(x["normalized"] and x["special"] for x in added)

    def encode(self, text, flags):
        self.t.encode_special_tokens = not flags & 1
        return self.t.encode(text, add_special_tokens=bool(flags & 2)).ids

    def decode(self, ids, special):
        return self.t.decode(ids, skip_special_tokens=not special)

    def size(self):
        return self.t.get_vocab_size()


class Sp:
    def __init__(self, d):
        self.t = sentencepiece.SentencePieceProcessor(model_file=os.path.join(d, "tokenizer.model"))
        self.control = ["<tool>", "[X]", "▁▁", "ｆｕｌｌ"]

    def encode(self, text, flags):
        return self.t.encode(text)

    def decode(self, ids, special):
        return self.t.decode(ids)

    def size(self):
        return self.t.get_piece_size()


def load(d):
    return Hf(d) if os.path.exists(os.path.join(d, "tokenizer.json")) else Sp(d)


def folders(out):
    only = os.environ.get("ONLY", "").split()
    return [os.path.join(out, n) for n in sorted(os.listdir(out)) if not only or n in only]


def run(driver, d, jobs, *more):
    data = b"".join(struct.pack("<II", flags, len(b)) + b for flags, b in jobs)
    return subprocess.run([driver, d, *more], input=data, stdout=subprocess.PIPE, check=True).stdout.decode()


def check(t, d, driver, texts, rng, show=3):
    """How many of the texts give other ids, how many of the id lists another text."""
    # Texts never become control tokens here; the library's Unigram lets them.
    plain = 1 if isinstance(t, Hf) and t.unigram else 0
    flags = [rng.choice([plain, 1, 1, 3]) if isinstance(t, Hf) else 0 for _ in texts]
    want = [t.encode(x, f) for x, f in zip(texts, flags)]
    got = [[int(y) for y in x.split()] for x in run(driver, d, [(f, x.encode()) for x, f in zip(texts, flags)]).split("\n")[:-1]]
    bad = 0
    for x, f, a, b in zip(texts, flags, want, got):
        if a != b:
            bad += 1
            if bad <= show:
                at = next((i for i, (p, q) in enumerate(zip(a, b)) if p != q), min(len(a), len(b)))
                print("   ids differ: flags", f, ascii(x)[:300], "at", at, a[max(0, at - 1):at + 6], b[max(0, at - 1):at + 6])
    # The library does not hide special tokens that are normalized; sentencepiece has a text for the unknown token.
    shown = 1 if isinstance(t, Hf) and t.normalized_special else 0
    lists = [(rng.randint(shown, 1), x) for x in want if isinstance(t, Hf) or t.t.unk_id() not in x]
    for _ in range(200 if isinstance(t, Hf) else 0):
        lists.append((rng.randint(shown, 1), [rng.randrange(t.size()) for _ in range(rng.randint(1, 30))]))
    lines = run(driver, d, [(4 | s, struct.pack("<%di" % len(x), *x)) for s, x in lists]).split("\n")[:-1]
    bad_text = 0
    for (s, ids), line in zip(lists, lines):
        a, b = t.decode(ids, s), bytes.fromhex(line).decode("utf-8", "replace")
        if a != b:
            bad_text += 1
            if bad_text <= show:
                at = next((i for i, (p, q) in enumerate(zip(a, b)) if p != q), min(len(a), len(b)))
                print("   texts differ: special", s, ids[:12], "at", at, ascii(a[max(0, at - 5):at + 20]), ascii(b[max(0, at - 5):at + 20]))
    return bad, bad_text


def compare(out, driver, n):
    seed = int(os.environ.get("SEED", time.time()))
    total = 0
    for d in folders(out):
        rng = random.Random(seed)
        t = load(d)
        texts = [base.random_text(rng, t.control) for _ in range(n)] + base.PAGE
        texts = [x for x in texts if isinstance(t, Hf) or "\0" not in x]
        bad = check(t, d, driver, texts, rng)
        total += sum(bad)
        print(f"{os.path.basename(d)}: {len(texts)} texts, {sum(len(x.encode()) for x in texts)} bytes, seed {seed}: "
              f"{bad[0]} ids, {bad[1]} decoded texts differ")
    return total


def mixed(rng, control, size=1 << 20):
    parts, n = [], 0
    code = corpus()
    while n < size:
        x = rng.choice(code) + "\n" if rng.random() < 0.6 else base.random_text(rng, control)
        parts.append(x)
        n += len(x.encode())
    return "".join(parts)


def text(out, driver):
    total = 0
    for d in folders(out):
        t = load(d)
        rng = random.Random(11)
        x = mixed(rng, t.control)
        if not isinstance(t, Hf):
            x = x.replace("\0", "")
        bad = check(t, d, driver, [x], rng)
        total += sum(bad)
        print(f"{os.path.basename(d)}: {len(x.encode())} bytes: {bad[0]} ids, {bad[1]} decoded texts differ")
    return total


def bench(out, driver):
    rng = random.Random(3)
    x = mixed(rng, ["x"]).replace("\0", "")
    size = len(x.encode())
    print(f"tokenizers {tokenizers.__version__}, sentencepiece {sentencepiece.__version__}; {size} bytes, best of 3 turns each")
    for d in folders(out):
        t = load(d)
        theirs, ours = 0, 0
        for _ in range(3):
            start = time.perf_counter()
            t.encode(x, 0)
            theirs = max(theirs, size / (time.perf_counter() - start) / 1e6)
            line = run(driver, d, [(0, x.encode())], "bench").split()
            ours = max(ours, float(line[-2]))
        print(f"{os.path.basename(d)}: theirs {theirs:.2f} MB/s, ours {ours:.2f} MB/s: {ours / theirs:.1f} times; opened in {line[1]} ms")


def sums(out):
    """A SentencePiece model of near equals: which of them wins in a long text is a matter of f32's last bit, and of where the
    library counts from zero again."""
    from sentencepiece import sentencepiece_model_pb2 as pb
    rng, m = random.Random(9), pb.ModelProto()
    m.trainer_spec.model_type = m.trainer_spec.UNIGRAM
    m.normalizer_spec.name, m.normalizer_spec.add_dummy_prefix, m.normalizer_spec.remove_extra_whitespaces = "identity", False, False
    letters = {x: -rng.uniform(25, 40) for x in "abcd\u2581"}
    pieces = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), ("[user]", 0, 4)] + [(x, s, 1) for x, s in letters.items()]
    for n in (2, 3):
        for _ in range(20):
            x = "".join(rng.choice("abcd") for _ in range(n))
            if all(x != y for y, _, _ in pieces):
                pieces.append((x, sum(letters[c] for c in x) + rng.uniform(-.004, .004), 1))
    for x, score, kind in pieces:
        m.pieces.add(piece=x, score=score, type=kind)
    t = sentencepiece.SentencePieceProcessor(model_proto=m.SerializeToString())
    text = "".join(rng.choice(["a", "b", "c", "d", "ab", "cd", " ", "[user]"]) for _ in range(10000))
    ids = t.encode(text)
    os.makedirs(out, exist_ok=True)
    open(os.path.join(out, "tokenizer.model"), "wb").write(m.SerializeToString())
    with open(os.path.join(out, "expected.json"), "w") as w:
        row = {"text": text, "special": False, "ids": ids, "decoded": t.decode(ids)}
        json.dump({"sentencepiece": sentencepiece.__version__, "rows": [row]}, w, separators=(",", ":"))


def rules():
    """(what, tokenizer, texts): small ones, each for a rule that the larger kinds meet rarely."""
    from sentencepiece import sentencepiece_model_pb2 as pb
    add = AddedToken

    def chars(vocab, *added, norm=None, pre=None, **kw):
        t = Tokenizer(models.BPE({c: i for i, c in enumerate(vocab)}, [], **kw))
        t.decoder = decoders.Fuse()
        if norm:
            t.normalizer = norm
        if pre:
            t.pre_tokenizer = pre
        for x in added:
            (t.add_special_tokens if x.special else t.add_tokens)([x])
        return t

    out = io.BytesIO()
    with open("rules.tsv", "w") as f:
        f.write("0D\t20\n0A\t20\n0D 0A 61\t62\n")
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(["a b c d", "e f g h"] * 20), model_writer=out, vocab_size=16,
                                             hard_vocab_limit=False, minloglevel=2, normalization_rule_tsv="rules.tsv")
    os.remove("rules.tsv")
    m = pb.ModelProto()
    m.ParseFromString(out.getvalue())
    return [
        ("joining gives no added token beyond the vocabulary", chars("a-", add("é", single_word=True, normalized=False)),
         ["aéa", "a-é-a", "éé"]),
        ("nor does a whole word", chars("a-1b", add("ab", single_word=True, normalized=False), pre=pre_tokenizers.Digits(), ignore_merges=True),
         ["ab1", "ab", "ab-", "1ab1"]),
        ("a hidden special token covers the shorter ones", chars("abc", add("abc", special=True, normalized=False), add("ab", normalized=False)),
         ["abc", "ab", "xabcab", "abab"]),
        ("what a token took as its blanks is no token", chars("ab", add("a", rstrip=True, normalized=False), add("\n", lstrip=True, normalized=False)),
         ["a\n", "b\n\n", "a b\n", "ba\n"]),
        ("CR LF is one grapheme", chars("ab ", norm=normalizers.Precompiled(m.normalizer_spec.precompiled_charsmap)),
         ["a\r\nb", "\r\n", "\r\r\n\n", "\n\ra", "\r\na"]),
        ("words are those of Unicode 16", chars("ab", add("a", single_word=True, normalized=False)),
         ["a\u0897", "\u1c89a", "a\U00016100b", "a\U00016130", "a\U0002ebf0", "a\U0001e6c0", "ba"]),
    ]


def config_cases():
    """(what, files): small folders whose files disagree about tokens, or leave something to the class."""
    from sentencepiece import sentencepiece_model_pb2 as pb
    chat = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    names = ["<s>", "</s>", "<end>", "<New>"]

    def json_file(*special, listed=3):
        t = Tokenizer(models.BPE({c: i for i, c in enumerate("abdnesw<>/N ")}, []))
        t.normalizer, t.decoder = normalizers.Lowercase(), decoders.Fuse()
        for x in names[:listed]:
            (t.add_special_tokens if x in special else t.add_tokens)([AddedToken(x, normalized=False, special=x in special)])
        return json.loads(t.to_str())

    def token(content, **more):
        return dict(content=content, lstrip=False, rstrip=False, normalized=False, single_word=False, **more)

    def level(*lines):
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        t = Tokenizer(models.BPE())
        t.pre_tokenizer = bl(True)
        train(t, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False,
                                         special_tokens=["<|endoftext|>", "<|im_end|>"]), lines)
        j = json.loads(t.to_str())["model"]
        return {"vocab.json": j["vocab"], "merges.txt": "#version: 0.2\n" + "".join((x if isinstance(x, str) else " ".join(x)) + "\n" for x in j["merges"])}

    m = pb.ModelProto()
    m.trainer_spec.model_type, m.trainer_spec.byte_fallback = m.trainer_spec.BPE, False
    m.normalizer_spec.name, m.normalizer_spec.remove_extra_whitespaces = "identity", False
    for i, (x, kind) in enumerate([("<unk>", 2), ("<s>", 3), ("</s>", 3), ("\u2581a", 1), ("ab", 1), ("\u2581", 1), ("a", 1), ("b", 1)]):
        m.pieces.add(piece=x, score=-i, type=kind)
    piece = {"tokenizer.model": m.SerializeToString().hex()}
    fast, ids = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": chat}, {"bos_token_id": 12, "eos_token_id": 13}
    llama = {"tokenizer_class": "LlamaTokenizer", "chat_template": chat, "bos_token": "<s>", "unk_token": "<unk>"}
    gpt2, qwen = {"tokenizer_class": "GPT2Tokenizer", "chat_template": chat}, {"tokenizer_class": "Qwen2Tokenizer", "chat_template": chat}
    decoder = {str(12 + i): token(x, special=True) for i, x in enumerate(names[:3])}
    j = json_file("<s>", "</s>")
    return [
        ("the map goes before the config", {"tokenizer.json": j, "tokenizer_config.json": {**fast, "bos_token": "<s>", "eos_token": "</s>"},
                                            "special_tokens_map.json": {"eos_token": token("<end>")}}),
        ("the map names what the config has as null", {"tokenizer.json": j, "tokenizer_config.json": {**fast, "bos_token": None, "eos_token": None},
                                                       "special_tokens_map.json": {"bos_token": "<s>"}}),
        ("beside a list of added tokens the map is nothing", {
            "tokenizer.json": j, "tokenizer_config.json": {**fast, "bos_token": "<s>", "eos_token": "</s>", "added_tokens_decoder": decoder},
            "special_tokens_map.json": {"bos_token": "</s>", "eos_token": token("<end>")}, "added_tokens.json": {"<New>": 15}}),
        ("null is no token, whatever the model's configuration has", {
            "tokenizer.json": j, "tokenizer_config.json": {**fast, "bos_token": None, "eos_token": None}, "config.json": ids}),
        ("a class without tokens of its own has those that are named", {
            "tokenizer.json": j, "tokenizer_config.json": {**fast, "eos_token": "<end>"}, "config.json": ids}),
        ("an added token that is named is not normalized", {
            "tokenizer.json": j, "added_tokens.json": {"<New>": 15}, "tokenizer_config.json": {**fast, "bos_token": "<s>", "eos_token": "<New>"}}),
        ("further special tokens in an object", {
            "tokenizer.json": j, "tokenizer_config.json": {**fast, "bos_token": "<s>", "eos_token": "</s>", "extra_special_tokens": {"x_token": "<end>"}}}),
        ("GPT-2's tokens are known to its class", {**level("ab ab abc"), "tokenizer_config.json": gpt2}),
        ("but may be others", {**level("ab ab abc"), "tokenizer_config.json": {**gpt2, "eos_token": "<|im_end|>", "add_prefix_space": True}}),
        ("Qwen2 cuts in its own way", {**level("ab1234 ab1234 12 12 12\n\n", "cafe\u0301 caf\u00e9"), "tokenizer_config.json": {**qwen, "eos_token": "<|im_end|>"}}),
        ("a config names other tokens than the pieces", {
            **piece, "added_tokens.json": {"<end>": 8}, "tokenizer_config.json": {**llama, "eos_token": "<end>", "legacy": False}}),
        ("no blank in front", {**piece, "tokenizer_config.json": {**llama, "eos_token": "</s>", "add_prefix_space": False, "legacy": False}}),
    ]


def configs():
    """golden/tokenizer/hf/configs.json: what transformers makes of config_cases()."""
    import tempfile
    import transformers
    cases, messages = [], [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "ba"}, {"role": "user", "content": "a"}]
    texts = ["ab<s>a</s>b", "a<end>b <NEW>", "a<end>b", "a<New>b", "ab<|endoftext|>a<|im_end|>", "ab1234  cafe\u0301\n\nab", "a ab"]
    for what, files in config_cases():
        with tempfile.TemporaryDirectory() as d:
            for name, x in files.items():
                data = bytes.fromhex(x) if name.endswith(".model") else (x if isinstance(x, str) else json.dumps(x)).encode()
                open(os.path.join(d, name), "wb").write(data)
            t = transformers.AutoTokenizer.from_pretrained(d)
        known = [x for x in texts if "tokenizer.model" not in files or set(x) <= set("ab </s>")]
        rows = [{"text": x, "ids": t.encode(x, add_special_tokens=False)} for x in known]
        prompt = t.apply_chat_template(messages, tokenize=True, return_dict=False)
        cases.append({"what": what, "files": files, "bos": t.bos_token_id, "eos": t.eos_token_id, "rows": rows, "prompt": prompt})
        print(what, t.bos_token_id, t.eos_token_id, prompt)
    with open(os.path.join(HERE, "..", "golden", "tokenizer", "hf", "configs.json"), "w") as w:
        json.dump({"transformers": transformers.__version__, "messages": messages, "cases": cases}, w, separators=(",", ":"))


GOLDEN = ["behaviors", "deepseek3", "llama2", "norms", "unigram-plain"]


def golden(out):
    """tests/test_hf_tokenizer.c reads these. special: added tokens in the text count, and begin and end tokens are added."""
    for kind in GOLDEN:
        t, rng = load(os.path.join(out, kind)), random.Random(7)
        to = os.path.join(HERE, "..", "golden", "tokenizer", "hf", kind)
        os.makedirs(to, exist_ok=True)
        for f in sorted(os.listdir(os.path.join(out, kind))):
            x = json.load(open(os.path.join(out, kind, f)))
            with open(os.path.join(to, f), "w") as w:
                json.dump(x, w, ensure_ascii=False, separators=(",", ":"))
        rows = []
        for i, x in enumerate([base.random_text(rng, t.control) for _ in range(40)] + base.PAGE[:10]):
            special = i % 2 == 1 or t.unigram  # which finds its special tokens in every text
            ids = t.encode(x, 3 if special else 0)
            rows.append({"text": x, "special": special, "ids": ids, "decoded": t.decode(ids, True)})
        with open(os.path.join(to, "expected.json"), "w") as w:
            json.dump({"tokenizers": tokenizers.__version__, "rows": rows}, w, ensure_ascii=True, separators=(",", ":"))
    with open(os.path.join(HERE, "..", "golden", "tokenizer", "hf", "rules.json"), "w") as w:
        cases = []
        for what, t, texts in rules():
            rows = []
            for x in texts:
                for special in (False, True):
                    t.encode_special_tokens = not special
                    ids = t.encode(x, add_special_tokens=special).ids
                    rows.append({"text": x, "special": special, "ids": ids, "decoded": t.decode(ids, skip_special_tokens=False)})
            cases.append({"what": what, "tokenizer": json.loads(t.to_str()), "rows": rows})
        json.dump({"tokenizers": tokenizers.__version__, "cases": cases}, w, separators=(",", ":"))
    configs()
    sums(os.path.join(HERE, "..", "golden", "tokenizer", "hf", "sp-sums"))


def seeds():
    """A byte for the kind of folder, tokenizer_config.json, NUL, the file; see tests/fuzz/fuzz_hf_tokenizer.c."""
    to = os.path.join(HERE, "..", "fuzz", "seeds", "hf_tokenizer")
    os.makedirs(to, exist_ok=True)
    config = json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>", "add_bos_token": True,
                         "chat_template": "{{ bos_token }}{{ messages[0].content }}"}).encode()

    def put(name, kind, *parts):
        with open(os.path.join(to, name), "wb") as f:
            f.write(kind + b"\0".join(parts))

    lines = ["the cat's 12345 cafés", "  IDEAS and\tideas", "aaaa aaaaaaaa 中文 ハ"] * 4
    level = list(pre_tokenizers.ByteLevel.alphabet())
    for name, pre in [("level", sp(QWEN2)), ("digits", seq(pre_tokenizers.Digits(True), pre_tokenizers.Punctuation())),
                      ("onig", sp(r"\h{4}|[[:punct:]]{2}+|\w+?\b|^#.*$|[\p{Greek}&&[^α]]+|(?i:'s|'t)|(?!\S)\s+", "merged_with_next"))]:
        t = Tokenizer(models.BPE())
        t.normalizer, t.pre_tokenizer, t.decoder = normalizers.NFC(), seq(pre, bl()), decoders.ByteLevel()
        train(t, trainers.BpeTrainer(vocab_size=len(level) + 20, initial_alphabet=level, show_progress=False,
                                     special_tokens=["<s>", "</s>", "<|end|>"]), lines)
        template(t, "<s>", "</s>")
        put(name, b"j", config, t.to_str().encode())
    t = Tokenizer.from_str(char_bpe(lines, 300, LLAMA_NORM(), None, LLAMA_DEC()))
    t.add_tokens([AddedToken("word", normalized=False, single_word=True), AddedToken("mask", normalized=True, lstrip=True, rstrip=True)])
    put("fallback", b"j", config, t.to_str().encode())
    steps = [normalizers.Nmt(), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip(),
             normalizers.Replace(Regex(" {2,}"), " "), normalizers.Prepend("▁"), normalizers.BertNormalizer(), normalizers.NFKC()]
    t = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -2.5), ("▁the", -3.0), ("a", -3.5), ("aa", -6.9), ("s", -4.1)], 0, False))
    t.normalizer, t.pre_tokenizer = normalizers.Sequence(steps), pre_tokenizers.Metaspace(prepend_scheme="first")
    t.decoder = decoders.Metaspace()
    t.add_special_tokens(["<s>", "</s>"])
    put("unigram", b"j", config, t.to_str().encode())
    for kind in ("bpe", "unigram"):
        out = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=out, vocab_size=40, model_type=kind,
                                                 hard_vocab_limit=False, user_defined_symbols=["[INST]"], minloglevel=2,
                                                 normalization_rule_name="identity")
        put("sp-" + kind, b"m", config, out.getvalue())
    vocab = {c: i for i, c in enumerate(level)} | {"th": len(level), "the": len(level) + 1}
    put("files", b"v", b"{}", json.dumps(vocab).encode(), b"#version: 0.2\nt h\nth e\n")


def main():
    what, args = sys.argv[1], sys.argv[2:]
    if what == "make":
        make(*args)
    elif what == "compare":
        sys.exit(1 if compare(args[0], args[1], int(args[2]) if len(args) > 2 else 500) else 0)
    elif what == "text":
        sys.exit(1 if text(*args) else 0)
    elif what == "bench":
        bench(*args)
    elif what == "seeds":
        seeds()
    elif what == "golden":
        golden(*args)


if __name__ == "__main__":
    main()
