#!/usr/bin/env python3
"""Ratios beside peers, drawn from records of run_all.py: one bar a goal, the goal as a mark.

    bench/plot.py RECORD.json [RECORD.json …] -o ratios.svg

Several records give several bars, in the order of the arguments: machines, or days. A ratio above 1 means that llmchat is
faster. Needs nothing but Python.
"""
import argparse
import json
import sys

from svg import COLOURS, GRID, Svg


def load(path):
    try:
        with open(path) as f:
            record = json.load(f)
        rows = [g for g in record["goals"] if g.get("ratio")]
        return f"{record['machine']['date'][:10]} {record['machine']['cpu']}", {f"{g['what']} / {g['peer']}": g for g in rows}
    except (OSError, ValueError, KeyError, TypeError) as e:
        sys.exit(f"plot: {path}: no record of run_all.py: {type(e).__name__} {e}")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("record", nargs="+")
    p.add_argument("-o", "--output", default="ratios.svg")
    o = p.parse_args()
    records = [load(path) for path in o.record]
    names = list(dict.fromkeys(name for _, rows in records for name in rows))
    if not names:
        sys.exit("plot: no ratios in these records")
    bar, gap, left, width = 16, 14, 460, 980
    each = bar * len(records) + gap
    top = 50 + 18 * len(records)
    height = top + each * len(names) + 40
    svg = Svg(width, height, "llmchat beside its peers: ratio of speeds")
    most = 1.1 * max(max(g["ratio"], g["goal"]) for _, rows in records for g in rows.values())

    def at(v):
        return left + (width - left - 30) * v / most
    for i, (label, _) in enumerate(records):
        svg.rect(left, 36 + 18 * i, 12, 12, COLOURS[i % len(COLOURS)])
        svg.text(left + 18, 46 + 18 * i, label)
    step = max(1, round(most / 8))
    for v in range(0, int(most) + 1, step):
        svg.line(at(v), top - 6, at(v), height - 34, GRID)
        svg.text(at(v), height - 18, str(v), 11, "middle")
    svg.line(at(1), top - 6, at(1), height - 34, "#999", 1, "4 3")
    for k, name in enumerate(names):
        y = top + each * k
        svg.text(left - 8, y + bar * len(records) / 2 + 4, name, 12, "end")
        for i, (_, rows) in enumerate(records):
            if name not in rows:
                continue
            g = rows[name]
            svg.rect(left, y + bar * i, at(g["ratio"]) - left, bar - 3, COLOURS[i % len(COLOURS)])
            svg.text(at(g["ratio"]) + 5, y + bar * i + 10, f"{g['ratio']:.2f}", 11)
        goal = next(rows[name]["goal"] for _, rows in records if name in rows)
        svg.line(at(goal), y - 4, at(goal), y + bar * len(records), "#c00", 2)
    svg.save(o.output)
    print(f"{o.output}: {len(names)} ratios of {len(records)} records; red: the goal")


if __name__ == "__main__":
    main()
