#!/usr/bin/env python3
"""learn.py: does it learn on this GPU as PyTorch does, in fp32 and bf16, and as on the CPU? Makes simulated data (8
classes at 10 dB), trains resnet18 at 64x64 from random weights through the service and with the same program in PyTorch
on the same card, with several seeds, and prints the best validation accuracy of each as a table. All run at once: it is
what they learn that counts here, not how fast.

    make bundle && tests/gpu/learn.py [--epochs 12] [--seeds 3] [--seconds 300]

Ends with 1 when a mean of ours is more than `--apart` percentage points below PyTorch's in fp32."""

import argparse
import json
import statistics
import subprocess
import sys
import time

from card import Card
from running import ENDED, Service, find_program

OURS = [("rfuav, GPU, fp32", "cuda", "fp32"), ("rfuav, GPU, bf16", "cuda", "bf16"), ("rfuav, CPU, fp32", "cpu", "fp32")]
THEIRS = [("PyTorch, GPU, fp32", "fp32"), ("PyTorch, GPU, bf16 autocast", "bf16")]


def peer(data, options):
    """The reference's loop in PyTorch: Adam, cross-entropy, pixels / 255, no augmentation. Prints a number a seed."""
    import torch
    import torchvision
    size, half = (options.size, options.size), options.peer == "bf16"
    transform = torchvision.transforms.Compose([torchvision.transforms.Resize(size), torchvision.transforms.ToTensor()])

    def load(folder):
        pairs = list(torchvision.datasets.ImageFolder(folder, transform))
        return torch.stack([x for x, _ in pairs]).cuda(), torch.tensor([y for _, y in pairs]).cuda()

    def forward(model, x):
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
            return model(x).float()

    x, y = load(f"{data}/train")
    vx, vy = load(f"{data}/valid")
    for seed in range(1, options.seeds + 1):
        torch.manual_seed(seed)
        model = torchvision.models.resnet18(weights=None, num_classes=options.classes).cuda()
        optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
        best = 0
        for _ in range(options.epochs):
            model.train()
            for batch in torch.randperm(len(x), device="cuda").split(options.batch):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(forward(model, x[batch]), y[batch]).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                right = sum((forward(model, a).argmax(1) == b).sum().item() for a, b in zip(vx.split(256), vy.split(256)))
            best = max(best, 100 * right / len(vx))
        print(f"{best:.2f}", flush=True)


def best_so_far(service, task, end):
    """The best accuracy once the task is over; None when it is not over in time, or has failed."""
    while (record := service.client.get_task(task))["status"] not in ENDED and time.monotonic() < end:
        time.sleep(0.1)
    return record["latest_metrics"]["best_acc"] if record["status"] == "completed" else None


def learn(service, data, options):
    """{row: [accuracy or None for each seed]}"""
    end = time.monotonic() + options.seconds
    peers = {name: subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--peer", mode, "--data", data],
                                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
             for name, mode in THEIRS}
    tasks = {name: [service.train(data, num_classes=options.classes, image_size=options.size, batch_size=options.batch,
                                  num_epochs=options.epochs, learning_rate=options.lr, device=device,
                                  precision=precision, seed=seed) for seed in range(1, options.seeds + 1)]
             for name, device, precision in OURS}
    rows = {name: [best_so_far(service, task, end) for task in tasks[name]] for name in tasks}
    for name, process in peers.items():
        try:
            output = process.communicate(timeout=max(0.1, end - time.monotonic()))[0]
        except subprocess.TimeoutExpired:
            process.kill()
            output = process.communicate()[0]
        values = [float(word) for word in output.split()]
        rows[name] = values + [None] * (options.seeds - len(values))
    return rows


def cell(value):
    return "–" if value is None else f"{value:.2f}"


def main():
    parser = argparse.ArgumentParser()
    for name, value in (("epochs", 12), ("seeds", 3), ("train", 100), ("val", 100), ("classes", 8), ("size", 64),
                        ("batch", 16), ("seconds", 300)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--snr", type=float, default=10)
    parser.add_argument("--apart", type=float, default=3)
    for name in ("peer", "data"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return peer(options.data, options)
    try:
        card = Card()
    except OSError as error:
        print(f"skipped: this machine has no usable NVIDIA GPU ({error})")
        return 0
    with Service(find_program(), env={"CPU_THREADS": "4"}) as service:
        service.client.update_resource_config({"cuda": {"training": 2 * options.seeds},
                                               "cpu": {"training": options.seeds}})
        data = service.synth(options.classes, options.train, options.val, 128, snr=options.snr)
        rows = learn(service, data, options)
    print(f"{card.name()}; resnet18, {options.classes} classes at {options.snr:g} dB, {options.size}x{options.size}, "
          f"{options.classes * options.train} pictures, batch {options.batch}, learning rate {options.lr:g}, "
          f"{options.epochs} epochs; best accuracy in % of {options.classes * options.val} pictures\n")
    print(f"| | {' | '.join(f'seed {seed}' for seed in range(1, options.seeds + 1))} | mean |\n"
          f"|---{'|---' * options.seeds}|---|")
    means = {}
    for name, values in rows.items():
        known = [value for value in values if value is not None]
        means[name] = statistics.mean(known) if known else None
        print(f"| {name} | {' | '.join(map(cell, values))} | {cell(means[name])} |")
    aim = means[THEIRS[0][0]]
    bad = [name for name, _, _ in OURS if None not in (aim, means[name]) and means[name] < aim - options.apart]
    missing = [name for name, values in rows.items() if None in values]
    print(f"\nmore than {options.apart:g} points below PyTorch: {', '.join(bad) or 'none'}"
          f"{'; not finished: ' + ', '.join(missing) if missing else ''}\n{json.dumps(rows)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
