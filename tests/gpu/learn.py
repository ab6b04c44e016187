#!/usr/bin/env python3
"""learn.py [CASE...]: does every family learn on this GPU as it does in PyTorch? Makes simulated data (8 classes at 10
dB), trains each case from random weights through the service and with the same program in PyTorch
(tests/bench/learn_peer.py) on the same card, each from random weights of its own, with several seeds, and prints the best
validation accuracies as tables. All run at once: it is what they learn that counts here, not how fast.

    make bundle && tests/gpu/learn.py                      every case of the table below
    tests/gpu/learn.py swin_v2_t vit_b_32:lr=3e-4,epochs=20,precision=fp32    these, the second with settings of its own
    tests/gpu/learn.py --seeds 2 --precision fp32,bf16 --seconds 300

What is not ready SECONDS after the start is ended; then the epochs that all have done count, and the table says how many. Ends
with 1 when a mean of ours is more than `--apart` percentage points below PyTorch's."""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace

from parts import take_cards
from running import ENDED, ROOT, Service, find_program

PEER = os.path.join(ROOT, "tests", "bench", "learn_peer.py")


@dataclass(frozen=True)
class Case:
    """Settings under which a family learns from nothing within a minute."""
    model: str
    size: int
    batch: int
    lr: float
    epochs: int
    precision: str = ""  # that of the command line

    def precisions(self, options):
        return [self.precision] if self.precision else options.precision

    def title(self):
        return f"{self.model}, {self.size}x{self.size}, batch {self.batch}, Adam {self.lr:g}, {self.epochs} epochs"


CASES = [Case("resnet18", 64, 32, 1e-3, 8), Case("mobilenet_v3_small", 64, 32, 1e-3, 15),
         Case("vit_b_32", 64, 32, 1e-4, 16), Case("swin_v2_t", 64, 32, 1e-4, 20)]


def parse_case(text):
    """MODEL or MODEL:NAME=VALUE,..."""
    model, _, settings = text.partition(":")
    case = next((case for case in CASES if case.model == model), replace(CASES[0], model=model))
    for word in filter(None, settings.split(",")):
        name, _, value = word.partition("=")
        case = replace(case, **{name: type(getattr(case, name))(value)})
    return case


class Ours:
    """A training through the service."""

    def __init__(self, service, data, case, precision, seed, classes):
        self._service = service
        self._task = service.train(data, model=case.model, num_classes=classes, image_size=case.size,
                                   batch_size=case.batch, num_epochs=case.epochs, learning_rate=case.lr, device="cuda",
                                   precision=precision, seed=seed)

    def ended(self):
        return self._service.client.get_task(self._task)["status"] in ENDED

    def end(self):
        if not self.ended():
            self._service.client.cancel_task(self._task)

    def accuracies(self):
        """[accuracy after each epoch]"""
        found = (re.search(r"Validation Loss: \S+, Validation Accuracy: ([0-9.]+)%", line) for line in self._service.messages(self._task))
        return [float(match.group(1)) for match in found if match]

    def trouble(self):
        record = self._service.client.get_task(self._task)
        return record["message"] if record["status"] == "failed" else ""


class Theirs:
    """The same in PyTorch."""

    def __init__(self, service, data, case, precision, seed, _classes):
        self._output = service.new_folder("peer")
        words = ["--size", case.size, "--batch", case.batch, "--lr", case.lr, "--epochs", case.epochs, "--seed", seed,
                 "--device", "cuda", "--precision", precision, "--threads", 1]
        with open(self._output, "wb") as out, open(f"{self._output}.errors", "wb") as errors:
            self._process = subprocess.Popen([sys.executable, PEER, data, case.model, *map(str, words)], stdout=out,
                                             stderr=errors)

    def ended(self):
        return self._process.poll() is not None

    def end(self):
        if not self.ended():
            self._process.kill()
            self._process.wait()
            self._process.returncode = 0  # ended by us, not by a fault

    def accuracies(self):
        with open(self._output, encoding="utf-8") as file:
            return [float(line) for line in file if line.endswith("\n")]

    def trouble(self):
        if not self._process.returncode:
            return ""
        with open(f"{self._output}.errors", encoding="utf-8", errors="replace") as file:
            return (file.read().strip().splitlines() or ["ended without a word"])[-1]


def train(service, data, options, end):
    """{case: {(side, precision): [accuracies by epoch of each seed]}}; all at once."""
    sides = (("PyTorch", Theirs), ("rfuav", Ours))[options.ours_alone:]
    begun = {case: {(side, precision): [] for side, _ in sides for precision in case.precisions(options)}
             for case in options.cases}
    everything = []
    try:
        for (side, kind), case in itertools.product(sides, options.cases):
            for precision, seed in itertools.product(case.precisions(options), range(1, options.seeds + 1)):
                everything.append(kind(service, data, case, precision, seed, options.classes))
                begun[case][side, precision].append(everything[-1])
        while not all(one.ended() for one in everything) and time.monotonic() < end:
            time.sleep(0.2)
    finally:
        for one in everything:
            one.end()
    found = {case: {key: [one.accuracies() for one in row] for key, row in rows.items()} for case, rows in begun.items()}
    for words in sorted({one.trouble() for one in everything} - {""}):
        print(f"FAILED  {words}")
    return found


def row_text(name, values, more):
    cells = [*values, *more]
    return f"| {name} | {' | '.join('–' if value is None else f'{value:.2f}' for value in cells)} |"


def report(case, rows, options):
    """Prints the case's table; returns what is wrong. Runs are compared over the epochs that all of a precision have."""
    seeds = range(1, options.seeds + 1)
    print(f"\n{case.title()}\n\n| | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | mean of the last 3 epochs |\n"
          f"|---{'|---' * options.seeds}|---|---|")
    means, bad = {}, []
    for (side, precision), runs in rows.items():
        epochs = min((len(run) for key, row in rows.items() for run in row if key[1] == precision and run), default=0)
        known = [run[:epochs] for run in runs if run]
        means[side, precision] = statistics.mean(map(max, known)) if known else None
        last = statistics.mean(statistics.mean(run[-3:]) for run in known) if known else None
        name = f"{side}, {precision}" + (f", the first {epochs} epochs" if epochs < case.epochs else "")
        print(row_text(name, [max(run[:epochs]) if run else None for run in runs], (means[side, precision], last)))
    for precision in case.precisions(options):
        mine, aim = means["rfuav", precision], means.get(("PyTorch", precision))
        if mine is None or (aim is not None and mine < aim - options.apart):
            bad.append(f"{case.model} in {precision}")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", type=parse_case, default=CASES)
    for name, value in (("seeds", 3), ("train", 256), ("val", 100), ("classes", 8), ("pixels", 64), ("seconds", 300)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--precision", type=lambda text: text.split(","), default=["bf16"])
    parser.add_argument("--snr", type=float, default=10)
    parser.add_argument("--apart", type=float, default=3)
    parser.add_argument("--ours-alone", action="store_true", help="without PyTorch")
    parser.add_argument("--json", help="file for all accuracies by epoch")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    cards, lack = take_cards(1)
    if lack:
        print(f"skipped: {lack}")
        return 0
    with Service(find_program()) as service:
        service.client.update_resource_config({"cuda": {"training": 100}})
        data = service.synth(options.classes, options.train, options.val, options.pixels, snr=options.snr)
        print(f"data after {time.monotonic() - end + options.seconds:.0f} s", flush=True)
        found = train(service, data, options, end)
    print(f"{cards[0].name()}; {options.classes} classes at {options.snr:g} dB, {options.classes * options.train} pictures; best "
          f"accuracy over the epochs in % of {options.classes * options.val} other pictures")
    bad = [words for case, rows in found.items() for words in report(case, rows, options)]
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            for case, rows in found.items():
                for (side, precision), runs in rows.items():
                    file.write(json.dumps({"case": case.title(), "side": side, "precision": precision, "runs": runs}) + "\n")
    print(f"\nmore than {options.apart:g} points below PyTorch: {', '.join(bad) or 'none'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
