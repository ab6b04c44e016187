#!/usr/bin/env python3
"""table.py FILE.jsonl...: lines of `rfuav bench --json` and of peer.py, from any number of runs, as a Markdown table of
images a second. `ratio` is our bf16 over the fastest of PyTorch's modes, `ratio fp32` our fp32 over PyTorch's fp32 (both
with TF32). Memory is without the context's and libraries' share: ours as planned; PyTorch's the least among its bf16 modes of
what it takes from the device («reserved») and of what its tensors hold of that at the peak («allocated»); ours over each;
and in fp32 over what it takes. Of several lines for one case the last counts; «–» was not measured,
«memory» did not fit."""

import json
import sys

MODES = ("fp32", "bf16", "compile", "graph")


def rows(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.startswith("{")]


def number(value):
    return value if isinstance(value, str) else f"{value:,.0f}".replace(",", " ") if value else "–"


def ratio(a, b):
    return f"{a / b:.2f}" if a and b else "–"


def speed(row):
    if not row:
        return 0
    return row["images_per_s"] if "ms" in row else "memory" if "memory" in row["error"] else "error"


ours, peers = {}, {}
for r in (r for path in sys.argv[1:] for r in rows(path)):
    key = (r["mode"], r.get("size", 224), r["model"], r["batch"])
    if "how" in r:
        peers.setdefault(key, {})[r["how"]] = r
    else:
        ours.setdefault(key, {})[r["precision"]] = r


def planned(row):
    return (row["memory"] - row.get("libraries", 0)) / 2**20 if row else 0


def least(theirs, what):
    return min((r[what] / 2**20 for m, r in theirs.items() if m != "fp32" and r.get(what)), default=0)


def line(key):
    mine, theirs = ours[key], peers.get(key, {})
    fp32, bf16 = mine.get("fp32"), mine.get("bf16")
    speeds = [speed(theirs.get(mode)) for mode in MODES]
    best = max((s for s in speeds if not isinstance(s, str)), default=0)
    peak, reserved = least(theirs, "peak"), least(theirs, "reserved")
    reserved32 = theirs["fp32"].get("reserved", 0) / 2**20 if "ms" in theirs.get("fp32", {}) else 0
    mode, size, model, batch = key
    cells = [f"{model} {mode}", size, batch, *map(number, speeds), number(fp32 and fp32["images_per_s"]),
             number(bf16 and bf16["images_per_s"]),
             ratio(fp32 and fp32["images_per_s"], speeds[0] if not isinstance(speeds[0], str) else 0),
             ratio(bf16 and bf16["images_per_s"], best), f"{bf16['ms']:.3f}" if bf16 else "–",
             number(planned(bf16)), number(reserved), number(peak), ratio(planned(bf16), reserved),
             ratio(planned(bf16), peak), ratio(planned(fp32), reserved32)]
    return "| " + " | ".join(map(str, cells)) + " |"


HEAD = ["", "size", "batch", *("PyTorch " + m for m in MODES), "ours fp32", "ours bf16", "ratio fp32", "ratio", "ms bf16",
        "memory MiB", "PyTorch's reserved", "allocated", "over reserved", "over allocated", "fp32's over reserved"]
print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
for k in sorted(ours, key=lambda k: (k[0] != "train", *k[1:])):
    print(line(k))
