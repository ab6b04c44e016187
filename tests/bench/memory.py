"""The peak memory of whole training workers on the CPU against what they were planned to take.

    PYTHONPATH=. /usr/bin/python3 tests/bench/memory.py [--pictures N] [MODEL:BATCH...]

Planned is what the worker tells the daemon before its first step (shown by `rfuav tasks` as memory); admitted is what the
daemon assumed before it had looked at the data. Peak is the worker's largest resident size (VmHWM). Ends with 1 when a
peak is more than 5 % away from its plan."""

import argparse
import os
import sqlite3
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.api.harness import Daemon, scratch  # noqa: E402
from tests.bench.service import pictures  # noqa: E402

LIMIT = 0.05
MIB = 1 << 20


def planned(daemon, task):
    with sqlite3.connect(daemon.env["DATA_DIR"] + "/rfuav.db") as database:
        return database.execute("select memory from tasks where id = ?", (task,)).fetchone()[0] or 0


def peak(daemon):
    """The largest VmHWM of the daemon's workers, in bytes; 0 when there is none."""
    most = 0
    for pid in subprocess.run(["pgrep", "-P", str(daemon.process.pid)], capture_output=True, text=True).stdout.split():
        try:
            with open(f"/proc/{pid}/status", encoding="ascii") as status:
                most = max([most] + [int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")])
        except OSError:
            pass
    return most


def measure(daemon, folder, model, batch):
    task = daemon.train(train_path=folder, val_path=folder, model=model, batch_size=batch, image_size=224,
                        num_epochs=2, keep_checkpoints=1, pretrained=False)
    numbers, most = [], 0
    while daemon.get(f"/api/v2/tasks/{task}").json()["status"] in ("pending", "queued", "running"):
        most = max(most, peak(daemon))
        now = planned(daemon, task)
        if now and now not in numbers:
            numbers.append(now)
        time.sleep(0.05)
    status = daemon.get(f"/api/v2/tasks/{task}").json()
    if status["status"] != "completed":
        raise RuntimeError(status["message"])
    return numbers[0], numbers[-1], most


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("cases", nargs="*", default=["resnet18:8", "resnet18:32", "resnet50:8", "resnet50:32"])
    options = parser.parse_args()
    folder = pictures(scratch("memory"), options.pictures)
    daemon = Daemon()
    worst = 0
    print("| training, CPU | batch | admitted MiB | planned MiB | peak MiB | peak / planned |\n|---|---|---|---|---|---|")
    for case in options.cases:
        model, batch = case.split(":")
        admitted, plan, most = measure(daemon, folder, model, int(batch))
        worst = max(worst, abs(most / plan - 1))
        print(f"| {model} | {batch} | {admitted / MIB:.0f} | {plan / MIB:.0f} | {most / MIB:.0f} | {most / plan:.3f} |",
              flush=True)
    daemon.stop()
    return worst > LIMIT


if __name__ == "__main__":
    sys.exit(main())
