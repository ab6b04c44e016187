#!/usr/bin/env python3
"""steps.py BUILD [first|equal|stale ...]: what tests/gpu/steps shows.

first: seconds from the start of the process to the end of the first training step, without a file of timed algorithms
and with it, for MODELS, SIZES and BATCHES of the environment; a Markdown table, and failure past LIMITS.
equal: two processes with `deterministic`, each with an empty cache of its own, have equal weights after some steps; so
have two with one cache without it.
stale: choices that do not exist any more are looked for anew."""

import glob
import json
import os
import subprocess
import sys
import tempfile
import time

BUILD = sys.argv[1]
LIMITS = {"cold": 5.0, "warm": 2.0}
ok = True


def steps(cache, model, size, batch, precision, count, *more):
    command = [f"{BUILD}/tests/gpu/steps", "0", model, *map(str, (size, batch)), precision, str(count), *more]
    command[1] = repr(time.time())
    environment = dict(os.environ, RFUAV_CACHE=cache)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    return json.loads(done.stdout)


def items(variable, default):
    return os.environ.get(variable, default).split(",")


def check(good, text):
    global ok
    ok = ok and good
    print("ok    " if good else "FAILED", text, flush=True)


def first():
    print("| first step, s | size | batch | fp32 cold | fp32 warm | bf16 cold | bf16 warm |\n|---|---|---|---|---|---|---|")
    late = []
    for model in items("MODELS", "resnet18,resnet50"):
        for size in items("SIZES", "224"):
            for batch in items("BATCHES", "1,8,32,128,256"):
                row = []
                for precision in ("fp32", "bf16"):
                    with tempfile.TemporaryDirectory() as cache:
                        for state in ("cold", "warm"):
                            try:
                                seconds = steps(cache, model, size, batch, precision, 1)["first_step_s"]
                            except RuntimeError as error:
                                row.append("–")
                                print("no result:", model, size, batch, precision, error, file=sys.stderr)
                                continue
                            row.append(f"{seconds:.2f}")
                            if seconds > LIMITS[state]:
                                late.append((model, size, batch, precision, state, seconds))
                print(f"| {model} | {size} | {batch} | " + " | ".join(row) + " |", flush=True)
    check(not late, f"first steps within {LIMITS['warm']} s warm and {LIMITS['cold']} s cold {late or ''}")


def equal():
    for model, batch in (("resnet18", 32), ("resnet50", 8)):
        for precision in ("fp32", "bf16"):
            with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
                runs = [steps(cache, model, 224, batch, precision, 6, "deterministic") for cache in (a, b)]
                check(runs[0]["weights"] == runs[1]["weights"] and not os.listdir(a),
                      f"{model} {precision} deterministic: {runs[0]['weights']} {runs[1]['weights']}")
                runs = [steps(a, model, 224, batch, precision, 6) for _ in range(2)]
                check(runs[0]["weights"] == runs[1]["weights"],
                      f"{model} {precision} with one cache: {runs[0]['weights']} {runs[1]['weights']}")


def stale():
    with tempfile.TemporaryDirectory() as cache:
        right = steps(cache, "resnet18", 64, 4, "bf16", 3)
        (path,) = glob.glob(cache + "/cudnn-*.txt")
        with open(path, encoding="utf-8") as file:
            lines = [line.split(" = ")[0] for line in file]
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(line + " = 999\n" for line in lines)
        again = steps(cache, "resnet18", 64, 4, "bf16", 3)
        with open(path, encoding="utf-8") as file:
            found = {k: v for k, v in (line.rstrip("\n").split(" = ") for line in file)}
        check("999" not in found.values() and abs(again["loss"] - right["loss"]) < 0.05 * right["loss"],
              f"{len(lines)} choices that do not exist were looked for anew")


for part in sys.argv[2:] or ("equal", "stale", "first"):
    {"first": first, "equal": equal, "stale": stale}[part]()
sys.exit(0 if ok else 1)
