#!/usr/bin/env python3
"""Hostile model files against the program: hostile.py LLMCHAT MKMODEL [SECONDS] [SEED]. Run by hand, with a build of
--enable-asan --enable-ubsan.

Takes a tiny random model apart and puts it together wrongly: keys, types, counts, strings, shapes, offsets and values of
the GGUF file, and header, metadata and bytes of a model file of ours. After each, create, show, tokenize and run must end
with exit code 0 or 1 within twenty seconds, with a message for 1 and without a word of a sanitizer. Prints every case that
does not, and the counts; MESSAGES=1 lists what create said. Written with Python 3.11 alone.
"""
import collections
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
FMT = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B", U64: "<Q", I64: "<q", F64: "<d"}
SIZES = {U8: 8, I8: 8, U16: 16, I16: 16, U32: 32, I32: 32, U64: 64, I64: 64}


def s(b):
    return struct.pack("<Q", len(b)) + b


class Gguf:
    """kv: [(key, type, value)], arrays are (elem, list); tensors: [[name, shape, type, offset, bytes]]"""

    def __init__(self, path):
        self.p, self.at = open(path, "rb").read(), 8
        self.version = struct.unpack_from("<I", self.p, 4)[0]
        n_t, n_kv = self.take("<Q"), self.take("<Q")
        self.kv, self.tensors, self.counts = [], [], None
        for _ in range(n_kv):
            k = self.string()
            t = self.take("<I")
            self.kv.append([k, t, self.value(t)])
        for _ in range(n_t):
            name = self.string()
            shape = [self.take("<Q") for _ in range(self.take("<I"))]
            self.tensors.append([name, shape, self.take("<I"), self.take("<Q"), b""])
        start = (self.at + 31) // 32 * 32
        ends = sorted(t[3] for t in self.tensors) + [len(self.p) - start]
        for t in self.tensors:
            end = ends[ends.index(t[3]) + 1]
            t[4] = self.p[start + t[3]:start + end]
        for t in self.tensors:
            t[3] = None  # where it belongs

    def take(self, f):
        v = struct.unpack_from(f, self.p, self.at)[0]
        self.at += struct.calcsize(f)
        return v

    def string(self):
        n = self.take("<Q")
        self.at += n
        return self.p[self.at - n:self.at]

    def value(self, t):
        if t == STR:
            return self.string()
        if t == ARR:
            e = self.take("<I")
            return e, [self.value(e) for _ in range(self.take("<Q"))]
        return self.take(FMT[t])

    def put(self, t, v):
        if t == STR:
            return s(v)
        if t == ARR:
            return struct.pack("<IQ", v[0], len(v[1])) + b"".join(self.put(v[0], x) for x in v[1])
        if t in SIZES:
            return (int(v) & (1 << SIZES[t]) - 1).to_bytes(SIZES[t] // 8, "little")
        if t == BOOL:
            return bytes([int(v) & 255])
        return struct.pack(FMT[t], float(v))

    def key(self, k):
        return next(x for x in self.kv if x[0] == k)

    def out(self):
        head = b"".join(s(k) + struct.pack("<I", t) + self.put(t, v) for k, t, v in self.kv)
        data, info = b"", b""
        for name, shape, t, off, raw in self.tensors:
            place = len(data) if off is None else off
            info += s(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", x & (1 << 64) - 1) for x in shape)
            info += struct.pack("<IQ", t, place)
            data += raw + bytes(-len(raw) % 32)
        n_t, n_kv = self.counts or (len(self.tensors), len(self.kv))
        p = b"GGUF" + struct.pack("<IQQ", self.version, n_t, n_kv) + head + info
        return p + bytes(-len(p) % 32) + data


WILD = [0, 1, 2, 3, 7, 64, 255, 256, 257, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"), 1e-30, 3.4e38]


def text(r):
    return r.choice([b"", b" ", b"\0", b"\xff\xfe", b"a" * r.choice([1, 100, 70000]), "é\u0120\u010a".encode(), b"<0x41>",
                     b"\x1b]0;title\x07", b"<|im_end|>", bytes(r.randrange(256) for _ in range(r.randrange(1, 9))),
                     b"{%" * 500, b"{{ [" + b"[" * 9000, b"{% for x in range(99999999) %}{{ 'a' * 99999999 }}{% endfor %}"])


def mutate_gguf(g, r):
    for _ in range(r.choice([1, 1, 1, 2, 4])):
        kv, t = r.choice(g.kv), r.choice(g.tensors)
        big = [k for k in g.kv if k[1] == ARR]
        what = r.randrange(19)
        if what == 0:
            g.kv.remove(kv)
        elif what == 1:
            g.kv.append(list(kv))
        elif what == 2 and kv[1] in SIZES:
            kv[2] = r.choice(WILD)
        elif what == 3 and kv[1] in (F32, F64):
            kv[2] = r.choice(FLOATS)
        elif what == 4:
            kv[1], kv[2] = r.choice([(U8, 1), (I32, -1), (F32, 1.5), (STR, text(r)), (ARR, (U32, [1, 2])), (ARR, (STR, [b"x"])),
                                     (BOOL, 2), (F64, 1e300), (I64, -2**63)])
        elif what == 5 and kv[1] == STR:
            kv[2] = text(r)
        elif what == 6:
            a = r.choice(big)
            e, l = a[2]
            if e == STR and l:
                for _ in range(r.choice([1, 3, 50])):
                    l[r.randrange(len(l))] = r.choice([text(r), r.choice(l), b"a b", b"a", b" ", b"a  b", b"ab ab", b"\xc4\xa0 a"])
        elif what == 7:
            a = r.choice(big)
            e, l = a[2]
            if e != STR and l:
                for _ in range(r.choice([1, 50])):
                    l[r.randrange(len(l))] = r.choice(WILD if e in SIZES else FLOATS)
        elif what == 8:
            a = r.choice(big)
            e, l = a[2]
            a[2] = (e, r.choice([l[:len(l) // 2], l + l, [], l[::-1], l[:-1], l + l[:1]]))
        elif what == 9:
            t[1] = r.choice([t[1][::-1], [], [0] + t[1][1:], [x * 2 for x in t[1]], t[1] + [1], [2**32, 2**32], [2**63, 2],
                             [r.choice(WILD) for _ in range(r.choice([1, 2, 4, 5, 9]))]])
        elif what == 10:
            t[2] = r.randrange(45) if r.random() < .9 else r.choice(WILD) & 0xffffffff
        elif what == 11:
            t[0] = r.choice([b"", text(r)[:200], r.choice(g.tensors)[0], b"blk.9.attn_q.weight", b"output.weight",
                             b"rope_freqs.weight", b"x" * 65])
        elif what == 12:
            g.tensors.remove(t)
        elif what == 13:
            raw = bytearray(t[4])
            for _ in range(r.choice([1, 8])):
                if len(raw) >= 4:
                    struct.pack_into("<f", raw, r.randrange(len(raw) // 4) * 4, r.choice(FLOATS))
            t[4] = bytes(raw)
        elif what == 14:
            g.counts = (r.choice([len(g.tensors)] + WILD), r.choice([len(g.kv)] + WILD))
        elif what == 15:
            g.version = r.choice([0, 1, 2, 3, 4, 0x03000000, 2**32 - 1])
        elif what == 16:
            g.kv.append([r.choice([b"general.alignment", b"llama.attention.key_length", b"llama.rope.scaling.type",
                                   b"llama.rope.scaling.factor", b"split.count", b"llama.rope.dimension_count",
                                   b"llama.attention.value_length", b"tokenizer.ggml.eot_token_id",
                                   b"tokenizer.ggml.bos_token_id", b"tokenizer.ggml.add_bos_token", b"tokenizer.ggml.pre"]),
                         *r.choice([(U32, r.choice(WILD)), (STR, text(r)), (STR, b"linear"), (F32, r.choice(FLOATS)), (BOOL, 1)])])
        elif what == 17:
            t[3] = r.choice(WILD)
        elif what == 18:
            m = next((k for k in g.kv if k[0] == b"tokenizer.ggml.model"), None)
            if m:
                m[2] = r.choice([b"llama", b"gpt2", b"bert", b"t5", b"", b"rwkv", b"no_vocab"])


def mutate_file(raw, r):
    n = struct.unpack_from("<Q", raw)[0]
    head, data = json.loads(raw[8:8 + n], object_pairs_hook=collections.OrderedDict), bytearray(raw[8 + n:])
    for _ in range(r.choice([1, 1, 2, 4])):
        what, meta = r.randrange(8), head.get("__metadata__", {})
        names = [k for k in head if k != "__metadata__"]
        name = r.choice(names)
        e = head[name]
        if what == 0:
            meta[r.choice(list(meta))] = r.choice(["", "-1", "0", "1", "2", "3", "64", "1073741824", "99999999999999999999", "nan",
                                                  "1e400", "NF4", "f32", "int8", "x" * 5000, "\0", "[]", "\x1b[31m"])
        elif what == 1 and meta:
            del meta[r.choice(list(meta))]
        elif what == 2:
            e["shape"] = r.choice([[], [0], [2**62, 2], [2**63 - 1], [-1], e["shape"][::-1], e["shape"] + [1], "x", None])
        elif what == 3:
            e["data_offsets"] = r.choice([[0, 0], [0, 2**63 - 1], [-1, 4], e["data_offsets"][::-1], [1, 2, 3], None])
        elif what == 4:
            e["dtype"] = r.choice(["F32", "U8", "I8", "BF16", "I64", "", "X", None, 3])
        elif what == 5:
            del head[name]
        elif what in (6, 7):
            b, end = r.choice([h["data_offsets"] for k, h in head.items() if k != "__metadata__"
                               and (what == 6 or "vocab" in k or "token" in k or "merge" in k) and h.get("data_offsets")
                               and len(h["data_offsets"]) == 2] or [[0, len(data)]])
            b, end = max(0, min(b, len(data))), max(0, min(end, len(data)))
            for _ in range(r.choice([1, 4, 64])):
                if end > b:
                    at = r.randrange(b, end)
                    v = r.choice([b"\0", b"\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f", r.randbytes(1),
                                  b"\0\0\0\x80", b"\1\0\0\0"])
                    data[at:at + len(v)] = v
            del data[len(raw) - 8 - n:]
    text = json.dumps(head, separators=(",", ":"))
    text += " " * (-(len(text.encode()) + 8) % 64)
    out = struct.pack("<Q", len(text.encode())) + text.encode() + bytes(data)
    if r.random() < .05:
        out = out[:r.randrange(len(out))]
    return out


def check(cmd, env, what, keep, data=b"hello 12 the"):
    try:
        p = subprocess.run(cmd, env=env, input=data, capture_output=True, timeout=20)
        rc, err = p.returncode, p.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired:
        rc, err = "timeout", ""
    if rc in (0, 1) and "Sanitizer" not in err and "runtime error" not in err and (rc == 0 or "llmchat: " in err):
        return rc, err
    model = next((c for c in cmd[1:] if os.path.exists(c)), None)
    if model:
        shutil.copy(model, os.path.join(keep, f"bad-{what}"))
    print("BAD", what, rc, " ".join(cmd), "\n", err[:3000], flush=True)
    return rc, err


def main():
    exe, mk = map(os.path.abspath, sys.argv[1:3])
    seconds, seed = float((sys.argv[3:] + ["60"])[0]), int((sys.argv[4:] + ["1"])[0])
    keep = os.getcwd()
    tally, messages = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as home:
        env = dict(os.environ, LLMCHAT_HOME=home, ASAN_OPTIONS="detect_leaks=1:allocator_may_return_null=1")
        tiny, bad, own = (os.path.join(home, f) for f in ("tiny.gguf", "bad.gguf", "bad.safetensors"))
        subprocess.run([mk, tiny, "layers=1"], check=True)
        bases = []
        for q in ("nf4", "int8", "f32"):
            subprocess.run([exe, "create", q, "--from", tiny, "--quant", q], env=env, check=True, capture_output=True)
            bases.append(open(os.path.join(home, "data/models", q + ".safetensors"), "rb").read())
        end, n = time.time() + seconds, 0
        while time.time() < end:
            r = random.Random(seed * 1000003 + n)
            what = f"{seed}-{n}"
            n += 1
            if n % 2:
                g = Gguf(tiny)
                try:
                    mutate_gguf(g, r)
                    raw = g.out()
                except (struct.error, ValueError, IndexError, OverflowError, TypeError):
                    continue
                if r.random() < .05:
                    raw = raw[:r.randrange(len(raw))]
                open(bad, "wb").write(raw)
                rc, err = check([exe, "create", "bad", "--force", "--from", bad], env, what, keep)
                tally["create", rc] += 1
                messages[" ".join(err.split("bad.gguf: ")[-1].split()[:3])] += 1
                tally["tokenize", check([exe, "tokenize", bad], env, what, keep)[0]] += 1
                tally["show", check([exe, "show", bad], env, what, keep)[0]] += 1
                if rc == 0:
                    tally["run", check([exe, "run", "--max-tokens", "3", "--json", "bad"], env, what, keep)[0]] += 1
            else:
                open(own, "wb").write(mutate_file(r.choice(bases), r))
                tally["own show", check([exe, "show", own], env, what, keep)[0]] += 1
                tally["own run", check([exe, "run", "--max-tokens", "3", own], env, what, keep)[0]] += 1
                tally["own tokenize", check([exe, "tokenize", own], env, what, keep)[0]] += 1
    for k in sorted(tally, key=str):
        print(*k, tally[k])
    if os.environ.get("MESSAGES"):
        for m, c in messages.most_common(80):
            print(c, m)


if __name__ == "__main__":
    main()
