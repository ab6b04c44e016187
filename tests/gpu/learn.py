#!/usr/bin/env python3
"""learn.py: does it learn on this GPU as PyTorch does, in fp32 and bf16, and as on the CPU? Makes simulated data (8
classes at 10 dB), trains resnet18 at 64x64 from random weights through the service and with the same program in PyTorch
on the same card, with several seeds, and prints the validation accuracies after the last epoch as a table.

    make bundle && tests/gpu/learn.py [--epochs 12] [--seeds 3] [--only WORD]

Ends with 1 when a mean of ours is more than `--apart` percentage points below PyTorch's in fp32."""

import argparse
import statistics
import sys
import time

from card import Card
from running import Service, find_program

OURS = [("rfuav, GPU, fp32", "cuda", "fp32"), ("rfuav, GPU, bf16", "cuda", "bf16"), ("rfuav, CPU, fp32", "cpu", "fp32")]
THEIRS = [("PyTorch, GPU, fp32", False), ("PyTorch, GPU, bf16 autocast", True)]


def start_ours(service, data, options, device, precision):
    return [service.train(f"{data}", num_classes=options.classes, image_size=options.size, batch_size=options.batch,
                          num_epochs=options.epochs, learning_rate=options.lr, device=device, precision=precision,
                          seed=seed) for seed in range(1, options.seeds + 1)]


def accuracies(service, tasks):
    return [service.wait(task, "completed", 300)["latest_metrics"]["val_acc"] for task in tasks]


class Peer:
    """The reference's loop in PyTorch: Adam, cross-entropy, pixels / 255, no augmentation."""

    def __init__(self, data, options):
        import torch
        import torchvision
        self.torch, self.torchvision, self.options = torch, torchvision, options
        self.x, self.y = self.load(f"{data}/train")
        self.vx, self.vy = self.load(f"{data}/valid")

    def load(self, folder):
        size = (self.options.size, self.options.size)
        transform = self.torchvision.transforms.Compose([self.torchvision.transforms.Resize(size),
                                                         self.torchvision.transforms.ToTensor()])
        pairs = list(self.torchvision.datasets.ImageFolder(folder, transform))
        return self.torch.stack([x for x, _ in pairs]).cuda(), self.torch.tensor([y for _, y in pairs]).cuda()

    def train(self, seed, half):
        torch, options = self.torch, self.options
        torch.manual_seed(seed)
        model = self.torchvision.models.resnet18(weights=None, num_classes=options.classes).cuda()
        optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)

        def forward(x):
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
                return model(x)

        for _ in range(options.epochs):
            model.train()
            for batch in torch.randperm(len(self.x), device="cuda").split(options.batch):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(forward(self.x[batch]).float(), self.y[batch]).backward()
                optimizer.step()
        model.eval()
        with torch.no_grad():
            right = sum((forward(a).argmax(1) == b).sum().item() for a, b in zip(self.vx.split(64), self.vy.split(64)))
        return round(100 * right / len(self.vx), 2)


def line(name, values, seconds):
    print(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} | {statistics.mean(values):.2f} | {seconds:.1f} |",
          flush=True)


def main():
    parser = argparse.ArgumentParser()
    for name, value in (("epochs", 12), ("seeds", 3), ("train", 100), ("val", 100), ("classes", 8), ("size", 64),
                        ("batch", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--snr", type=float, default=10)
    parser.add_argument("--apart", type=float, default=3)
    parser.add_argument("--only", default="", help="rows with this word, such as GPU or PyTorch")
    options = parser.parse_args()
    try:
        card = Card()
    except OSError as error:
        print(f"skipped: this machine has no usable NVIDIA GPU ({error})")
        return 0
    means = {}
    with Service(find_program()) as service:
        service.client.update_resource_config({"cuda": {"training": options.seeds}})
        data = service.synth(options.classes, options.train, options.val, 128, snr=options.snr)
        seeds = range(1, options.seeds + 1)
        print(f"{card.name()}; resnet18, {options.classes} classes at {options.snr:g} dB, {options.size}x{options.size}, "
              f"{options.classes * options.train} pictures, batch {options.batch}, learning rate {options.lr:g}, "
              f"{options.epochs} epochs; accuracy in % of {options.classes * options.val} pictures\n")
        print(f"| | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | s |\n|---{'|---' * options.seeds}|---|---|")
        for name, device, precision in OURS:
            if options.only in name:
                begun = time.monotonic()
                values = accuracies(service, start_ours(service, data, options, device, precision))
                means[name] = statistics.mean(values)
                line(name, values, time.monotonic() - begun)
        try:
            peer = Peer(data, options) if any(options.only in name for name, _ in THEIRS) else None
        except ImportError as error:
            print(f"skipped: PyTorch ({error})")
            peer = None
        for name, half in THEIRS if peer else []:
            if options.only in name:
                begun = time.monotonic()
                values = [peer.train(seed, half) for seed in seeds]
                means[name] = statistics.mean(values)
                line(name, values, time.monotonic() - begun)
    aim = means.get(THEIRS[0][0])
    bad = [name for name, _, _ in OURS if aim is not None and name in means and means[name] < aim - options.apart]
    print(f"\nbelow PyTorch by more than {options.apart:g} points: {', '.join(bad) or 'none'}" if aim is not None else "")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
