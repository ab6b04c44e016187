#!/usr/bin/env python3
"""table.py BENCH.jsonl PEER.jsonl: `rfuav bench --json` next to peer.py, images a second, as a Markdown table. `ratio`
is our bf16 over the fastest of PyTorch's modes, `ratio fp32` our fp32 over PyTorch's fp32 (both with TF32). Memory
without the context's and libraries' share: ours as planned, PyTorch's the least peak among its bf16 modes."""

import json
import os
import sys

MODES = ("fp32", "bf16", "compile", "graph")


def rows(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.startswith("{")]


def number(value):
    return f"{value:,.0f}".replace(",", " ") if value else "–"


def ratio(a, b):
    return f"{a / b:.2f}" if a and b else "–"


ours, peers = {}, {}
for r in rows(sys.argv[1]):
    ours.setdefault((r["mode"], r["model"], r["batch"]), {})[r["precision"]] = r
for r in rows(sys.argv[2]):
    if "ms" in r:
        peers.setdefault((r["mode"], r["model"], r["batch"]), {})[r["how"]] = r
print("| | batch | " + " | ".join("PyTorch " + m for m in MODES) +
      " | ours fp32 | ours bf16 | ratio fp32 | ratio | ms bf16 | first step s | memory MiB | PyTorch's |")
print("|---|---|" + "---|" * (len(MODES) + 8))
for key in sorted(ours, key=lambda k: (k[0] != "train", k[1], k[2])):
    mine, theirs = ours[key], peers.get(key, {})
    speed = {m: theirs[m]["images_per_s"] if m in theirs else 0 for m in MODES}
    fp32, bf16 = (mine.get(p, {}).get("images_per_s", 0) for p in ("fp32", "bf16"))
    some = mine.get("bf16") or mine.get("fp32")
    peak = min((r["peak"] for m, r in theirs.items() if m != "fp32"), default=0)
    print(f"| {key[1]} {key[0]} | {key[2]} | " + " | ".join(number(speed[m]) for m in MODES) +
          f" | {number(fp32)} | {number(bf16)} | {ratio(fp32, speed['fp32'])} | {ratio(bf16, max(speed.values()))} | "
          f"{mine['bf16']['ms'] if 'bf16' in mine else 0:.3f} | {some['first_step_s']:.2f} | "
          f"{(some['memory'] - some.get('libraries', 0)) / 2**20:.0f} | {peak / 2**20:.0f} |")
