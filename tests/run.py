"""Runs every test of the project and prints one line per test program and the closing line
`N passed, N failed, N skipped`. Used by `make test`; needs nothing but Python's standard library.

C tests are the cmocka programs that the Makefile built; Python tests are tests/<folder>/test_*.py (unittest);
the fuzz targets are fed their corpus and a few seconds of mutations of it."""

import argparse
import glob
import os
import re
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TIMEOUT = 600


def run(command, env):
    """Returns (exit status, output) of a command; a test that hangs is ended and counts as failed."""
    try:
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, timeout=TIMEOUT)
        return done.returncode, done.stdout.decode("utf-8", "replace")
    except subprocess.TimeoutExpired as late:
        return 1, (late.stdout or b"").decode("utf-8", "replace") + f"\nended after {TIMEOUT} s\n"


def count_cmocka(status, output):
    passed = len(re.findall(r"^\[ +OK +\]", output, re.M))
    failed = len(set(re.findall(r"^\[ +FAILED +\] (\w+)$", output, re.M)))
    skipped = len(set(re.findall(r"^\[ +SKIPPED +\] (\w+)$", output, re.M)))
    if status != 0 and failed == 0:
        failed = 1  # crashed, or a sanitizer spoke
    return passed, failed, skipped


def count_unittest(status, output):
    ran = re.search(r"^Ran (\d+) tests?", output, re.M)
    if not ran:
        return 0, 1, 0
    counts = {word: int(n) for word, n in re.findall(r"(failures|errors|skipped)=(\d+)", output)}
    failed = counts.get("failures", 0) + counts.get("errors", 0)
    skipped = counts.get("skipped", 0)
    if status != 0 and failed == 0:
        failed = 1
    return max(int(ran.group(1)) - failed - skipped, 0), failed, skipped


def count_exit(status, _output):
    return (1, 0, 0) if status == 0 else (0, 1, 0)


def programs(build):
    """(name, command, counter) of every test, quick ones first."""
    yield "layers", [sys.executable, "tools/check-includes"], count_exit
    for kind in ("unit", "kernels", "golden"):
        for path in sorted(glob.glob(f"{ROOT}/{build}/tests/{kind}/test_*")):
            if os.access(path, os.X_OK) and "." not in os.path.basename(path):
                yield f"{kind}/{os.path.basename(path)[5:]}", [path], count_cmocka
    for path in sorted(glob.glob(f"{ROOT}/{build}/tests/fuzz/replay_*")):
        if os.access(path, os.X_OK) and "." not in os.path.basename(path):
            name = os.path.basename(path)[7:]
            yield f"fuzz/{name}", [path, "3", f"tests/fuzz/corpus/{name}"], count_exit
    for folder in ("formats", "task", "client", "api", "fault"):
        for path in sorted(glob.glob(f"{ROOT}/tests/{folder}/test_*.py")):
            yield (f"{folder}/{os.path.basename(path)[5:-3]}",
                   [sys.executable, "-m", "unittest", "-v", os.path.relpath(path, ROOT)], count_unittest)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build", help="the build folder to test")
    parser.add_argument("--only", default="", help="run tests whose name contains this")
    options = parser.parse_args()
    env = dict(os.environ, RFUAV_BIN=f"{ROOT}/{options.build}/rfuav", RFUAV_BUILD=f"{ROOT}/{options.build}",
               CMOCKA_MESSAGE_OUTPUT="STDOUT", PYTHONDONTWRITEBYTECODE="1",
               PYTHONPATH=os.pathsep.join([ROOT, f"{ROOT}/client/python"]))
    cache = tempfile.TemporaryDirectory()  # the user's own stays as it is
    env["XDG_CACHE_HOME"] = cache.name
    totals = [0, 0, 0]
    for name, command, count in programs(options.build):
        if options.only not in name:
            continue
        start = time.monotonic()
        status, output = run(command, env)
        counts = count(status, output)
        totals = [a + b for a, b in zip(totals, counts)]
        passed, failed, skipped = counts
        print(f"{'FAIL' if failed else 'ok':4}  {name:28} {passed:4} passed {failed:3} failed {skipped:3} skipped"
              f" {time.monotonic() - start:7.1f} s", flush=True)
        for line in re.findall(r"^.*skipped ['\"].*$|^skip: .*$", output, re.M):
            print(f"        {line.strip()}")
        if failed:
            print("\n".join("        " + line for line in output.splitlines()[-60:]), flush=True)
    print(f"{totals[0]} passed, {totals[1]} failed, {totals[2]} skipped", flush=True)
    return 1 if totals[1] or not totals[0] else 0


if __name__ == "__main__":
    sys.exit(main())
