"""What the scripts of this folder share: the machine, child processes, alternation, medians, tables, records."""
import datetime
import json
import os
import platform
import signal
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def cpu_name():
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown CPU"


def cpu_flags():
    """The instruction sets that decide about speed here."""
    wanted = ("avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_vbmi", "amx_int8", "asimd", "sve")
    try:
        with open("/proc/cpuinfo") as f:
            found = next(line.split(":", 1)[1].split() for line in f if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        found = []
    return [w for w in wanted if w in found]


def commit():
    r = subprocess.run(["git", "-C", HERE, "describe", "--always", "--dirty", "--abbrev=10"], capture_output=True, text=True)
    return r.stdout.strip() if r.returncode == 0 else None


def machine(llmchat=None):
    info = {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), "cpu": cpu_name(), "flags": cpu_flags(),
            "cores": len(os.sched_getaffinity(0)), "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
            "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}", "load_at_start": round(os.getloadavg()[0], 2), "commit": commit(),
            "command": " ".join(os.path.basename(a) or a for a in sys.argv)}
    if llmchat:
        info["llmchat"] = subprocess.run([llmchat, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    return info


def describe(m):
    text = f"{m['cpu']}, {m['cores']} cores, {m['memory_gb']} GB, {m['system']}, load {m['load_at_start']}"
    return text + (f"; {m['llmchat']}" if "llmchat" in m else "") + (f", commit {m['commit']}" if m["commit"] else "")


class Failed(Exception):
    """A child that did not do what it should; the text says which and why."""


def run(main):
    """A script: what failed is said in a line, and an interruption is no failure of its own."""
    try:
        main()
    except Failed as e:
        sys.exit(f"{os.path.splitext(os.path.basename(sys.argv[0]))[0]}: {e}")
    except KeyboardInterrupt:
        sys.exit(130)


def child(command, env=None, timeout=1800):
    """Runs a command that prints JSON, and returns that; the first of a list of one."""
    full = dict(os.environ, **(env or {}))
    try:
        r = subprocess.run(command, capture_output=True, text=True, env=full, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Failed(f"{command[0]}: {e}") from None
    if r.returncode != 0:
        last = [line for line in r.stderr.strip().split("\n") if line][-3:]
        raise Failed(f"{' '.join(map(str, command[:4]))} ... ended with {r.returncode}: {' | '.join(last)}")
    try:
        found = json.loads(r.stdout)
    except ValueError:
        try:  # lines before it are the library's own
            found = json.loads(r.stdout.strip().split("\n")[-1])
        except ValueError:
            raise Failed(f"{command[0]}: no JSON but {r.stdout[-200:]!r}") from None
    return found[0] if isinstance(found, list) and len(found) == 1 else found


class Server:
    """A child that takes long to start: it stays, sleeps, and answers each line of JSON with one."""

    def __init__(self, command, env=None):
        self.name = " ".join(command[:3])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                        env=dict(os.environ, **(env or {})))

    def ask(self, what):
        try:
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise Failed(f"{self.name} ended with {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{self.name}: {answer['error']}")
        return answer

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def alternate(sides, repeat, say=None):
    """sides: {name: function}. Calls them turn by turn, so that a change of the machine's clock hits all of them; in every
    other round the other way about. Returns {name: [result of each round]}."""
    results = {name: [] for name in sides}
    for i in range(repeat):
        order = list(sides)
        for name in order if i % 2 == 0 else reversed(order):
            results[name].append(sides[name]())
            if say:
                say(i, name, results[name][-1])
    return results


def median(results, key):
    return statistics.median(r[key] for r in results)


def spread(results, key):
    """Largest distance from the median, as a share of it."""
    m = median(results, key)
    return max(abs(r[key] - m) for r in results) / m if m else 0.0


def table(head, rows):
    """A Markdown table with columns that stand below one another."""
    cells = [[str(c) for c in row] for row in [head] + rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def number(x, digits=1):
    return "" if x is None else f"{x:,.{digits}f}"


def save_record(path, record):
    """Written beside its place and renamed."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path + ".tmp", "w") as f:
        json.dump(record, f, indent=1)
        f.write("\n")
    os.replace(path + ".tmp", path)


def make_q4_0(source, cache):
    """source as llama.cpp's Q4_0, by its own quantiser; made once and kept. A file that is Q4_0 already is taken."""
    if "Q4_0" in os.path.basename(source).upper() and os.path.exists(source):
        return source
    if not os.path.exists(source):
        raise Failed(f"{source}: not found")
    os.makedirs(cache, exist_ok=True)
    stem, st = os.path.splitext(os.path.basename(source))[0], os.stat(source)
    target = os.path.join(cache, f"{stem}.{st.st_size}.{int(st.st_mtime)}.Q4_0.gguf")
    if not os.path.exists(target):
        code = ("import ctypes, sys, llama_cpp as l\np = l.llama_model_quantize_default_params()\n"
                "p.ftype = l.LLAMA_FTYPE_MOSTLY_Q4_0\np.allow_requantize = True\n"
                "sys.exit(l.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(p)) != 0)")
        r = subprocess.run([sys.executable, "-c", code, source, target + ".tmp"], capture_output=True, text=True)
        if r.returncode != 0:
            raise Failed(f"{source}: llama.cpp could not make Q4_0 of it: {r.stderr[-300:]}")
        os.replace(target + ".tmp", target)
    return target


def default_cache():
    return os.path.expanduser(os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/llmchat/bench")
