#!/usr/bin/env python3
"""Training and inference on the CPU: rfuav's engine beside PyTorch, same threads, same machine, same run.

    make bench-cpu                                   everything, about ten minutes on two quiet cores
    tests/bench/cpu.py --only train:resnet18:8       one case
    tests/bench/cpu.py --json results.json           the numbers for other programs too

Every program that takes part in a case is started, warmed up, and then they take turns: a few steps each, round after
round, so that whatever else the machine does hits all of them. The table shows medians over all steps. PyTorch runs in
each of its modes and the best one counts; it gets float tensors that are ready, while ours starts from bytes.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = [("train", "resnet18", 8), ("train", "resnet18", 32), ("train", "resnet50", 8), ("train", "resnet50", 32),
         ("infer", "resnet18", 1), ("infer", "resnet18", 32), ("infer", "resnet50", 1), ("infer", "resnet50", 32),
         ("train", "vit_b_16", 8), ("infer", "vit_b_16", 1), ("train", "swin_v2_t", 8), ("infer", "swin_v2_t", 1),
         ("train", "mobilenet_v3_large", 8), ("infer", "mobilenet_v3_large", 1)]
MODES = {"train": ["default", "channels_last", "channels_last+foreach"],
         "infer": ["default", "channels_last", "jit", "jit+channels_last"]}
CLASSES, SIZE = 37, 224


def peak_memory():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0


def torch_step(task, model, batch, mode):
    """A function that does one training step or one inference."""
    import torch
    import torchvision

    torch.manual_seed(1)
    layout = torch.channels_last if "channels_last" in mode else torch.contiguous_format
    net = getattr(torchvision.models, model)(num_classes=CLASSES).to(memory_format=layout)
    images = torch.rand(batch, 3, SIZE, SIZE).to(memory_format=layout)
    labels = torch.arange(batch) % CLASSES
    if task == "infer":
        net.eval()
        if "jit" in mode:
            with torch.no_grad():
                net = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(net, images)))

        def infer():
            with torch.no_grad():
                net(images)
        return infer
    net.train()
    adam = torch.optim.Adam(net.parameters(), lr=1e-4, foreach="foreach" in mode)
    criterion = torch.nn.CrossEntropyLoss()

    def train():
        adam.zero_grad(set_to_none=True)
        loss = criterion(net(images), labels)
        loss.backward()
        adam.step()
        loss.item()
    return train


def torch_worker(task, model, batch, threads, mode):
    """What bench_net.c does, with PyTorch."""
    begin = time.perf_counter()
    import torch
    torch.set_num_threads(threads)
    step = torch_step(task, model, batch, mode)
    opened = time.perf_counter()
    step()
    print(json.dumps({"open": opened - begin, "first": time.perf_counter() - opened}), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - begin))
        print(json.dumps({"ms": times, "peak": peak_memory()}), flush=True)


class Runner:
    """A program that does steps when asked."""

    def __init__(self, name, command, threads):
        self.name, self.times, self.peak = name, [], 0
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        self.info = self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended: exit status {self.process.wait()}")
        return json.loads(line)

    def steps(self, count, keep=True):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.peak = answer["peak"]
        if keep:
            self.times += answer["ms"]
        return answer["ms"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def run_case(task, model, batch, options):
    threads = options.threads
    commands = {"rfuav": [options.bench, task, model, str(batch), str(threads)]}
    for mode in MODES[task]:
        commands[mode] = [sys.executable, __file__, "--torch-worker", task, model, str(batch), str(threads), mode]
    runners, failures = [], {}
    for name, command in commands.items():
        try:
            runner = Runner(name, command, threads)
            runner.steps(2, keep=False)
            runners.append(runner)
        except RuntimeError as error:
            if name == "rfuav":
                raise
            failures[name] = str(error)
    for _ in range(options.rounds):
        for runner in runners:
            fastest = min(runner.times or runner.steps(1))
            runner.steps(max(1, min(50, int(options.slice * 1e3 / fastest))))
    for runner in runners:
        runner.close()
    return runners, failures


def summarize(task, model, batch, runners, failures):
    ours, peers = runners[0], runners[1:]
    medians = {runner.name: statistics.median(runner.times) for runner in runners}
    best = min(peers, key=lambda runner: medians[runner.name])
    return {"task": task, "model": model, "batch": batch, "medians_ms": medians, "failures": failures,
            "minima_ms": {runner.name: min(runner.times) for runner in runners},
            "best": best.name, "ratio": medians[best.name] / medians["rfuav"],
            "ratio_of_minima": min(min(runner.times) for runner in peers) / min(ours.times),
            "open_s": ours.info["open"], "plan": ours.info["plan"], "peak": ours.peak,
            "torch_peak": min(runner.peak for runner in peers)}


def report(rows, threads):
    print(f"\n{threads} threads, images of {SIZE} x {SIZE}, fp32; medians\n")
    print("| task | model | batch | rfuav ms | images/s | PyTorch ms | its mode | ratio | ratio of minima "
          "| peak MB | plan MB | PyTorch MB |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        ours, theirs = row["medians_ms"]["rfuav"], row["medians_ms"][row["best"]]
        print(f"| {row['task']} | {row['model']} | {row['batch']} | {ours:.1f} | {1e3 * row['batch'] / ours:.1f} "
              f"| {theirs:.1f} | {row['best']} | {row['ratio']:.2f} | {row['ratio_of_minima']:.2f} "
              f"| {row['peak'] / 1e6:.0f} | {row['plan'] / 1e6:.0f} | {row['torch_peak'] / 1e6:.0f} |")


def main():
    if sys.argv[1:2] == ["--torch-worker"]:
        task, model, batch, threads, mode = sys.argv[2:]
        return torch_worker(task, model, int(batch), int(threads), mode)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", default=str(ROOT / "build/tests/bench/bench_net"), help="the program to measure")
    parser.add_argument("--threads", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slice", type=float, default=0.5, help="seconds of a turn, one step at least")
    parser.add_argument("--only", action="append", help="task:model:batch, several times for several")
    parser.add_argument("--json", help="file for the results")
    options = parser.parse_args()
    wanted = [tuple(text.split(":")) for text in options.only or []]
    rows = []
    for task, model, batch in CASES:
        if wanted and (task, model, str(batch)) not in wanted:
            continue
        row = summarize(task, model, batch, *run_case(task, model, batch, options))
        rows.append(row)
        for name, median in row["medians_ms"].items():
            print(f"{task} {model} batch {batch}: {name:24} median {median:9.2f} ms, best {row['minima_ms'][name]:9.2f}",
                  flush=True)
        for name, failure in row["failures"].items():
            print(f"{task} {model} batch {batch}: {failure}")
    report(rows, options.threads)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
