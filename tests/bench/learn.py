"""Does it learn as PyTorch does? Makes simulated data (8 classes at 10 dB), trains a model at 64x64 with the service's
worker and with the same program in PyTorch from the same kind of random weights, and prints both validation accuracies.

    RFUAV_BIN=build/rfuav /usr/bin/python3 tests/bench/learn.py [--model resnet18] [--epochs 15] [--train 100] [--val 25]
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

import torch
import torchvision
from torchvision import datasets, transforms

RFUAV = os.environ.get("RFUAV_BIN", "build/rfuav")


def ours(data, options, url):
    """Validation accuracies by epoch of a training through the API."""
    command = [RFUAV, "train", "--url", url, "--model", options.model, "--num-classes", str(options.classes),
               "--train-path", f"{data}/train", "--val-path", f"{data}/valid", "--save-path", f"{data}/model",
               "--image-size", str(options.size), "--batch-size", str(options.batch), "--num-epochs",
               str(options.epochs), "--learning-rate", str(options.lr), "--no-pretrained", "--device", "cpu",
               "--seed", str(options.seed)]
    text = subprocess.run(command, stdout=subprocess.PIPE, check=True, encoding="utf-8").stdout
    return [float(x) for x in re.findall(r"Validation Loss: \S+, Validation Accuracy: ([0-9.]+)%", text)]


def build(options):
    """The network as the service has it: its last layers, the image's size, PyTorch's defaults for what is replaced."""
    nn, name = torch.nn, options.model
    more = {"image_size": options.size} if name.startswith("vit") else {}
    model = getattr(torchvision.models, name)(weights=None, num_classes=options.classes, **more)
    if name.startswith("vit"):
        model.heads.head = nn.Linear(model.heads.head.in_features, options.classes)
    if name.startswith("mobilenet_v3"):
        model.classifier = nn.Sequential(nn.Linear(model.classifier[0].in_features, 512), nn.ReLU(), nn.Dropout(0.2),
                                         nn.Linear(512, options.classes))
    return model


def theirs(data, options):
    """The reference's loop: Adam, cross-entropy, pixels / 255, no augmentation."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(os.cpu_count())
    transform = transforms.Compose([transforms.Resize((options.size, options.size)), transforms.ToTensor()])

    def load(folder):
        pairs = list(datasets.ImageFolder(f"{data}/{folder}", transform))
        return torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])

    x, y = load("train")
    vx, vy = load("valid")
    model = build(options)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    accuracies = []
    for _ in range(options.epochs):
        model.train()
        for batch in torch.randperm(len(x)).split(options.batch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = sum((model(a).argmax(1) == b).sum().item() for a, b in zip(vx.split(64), vy.split(64)))
        accuracies.append(100 * right / len(vx))
    return accuracies


def main():
    parser = argparse.ArgumentParser()
    for name, value in (("epochs", 15), ("train", 100), ("val", 25), ("classes", 8), ("size", 64), ("batch", 16),
                        ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--snr", type=float, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/data"
        subprocess.run([RFUAV, "synth", "--out", data, "--classes", str(options.classes), "--train",
                        str(options.train), "--val", str(options.val), "--snr", str(options.snr), "--size", "128",
                        "--seed", str(options.seed)], check=True, stdout=subprocess.DEVNULL)
        daemon = subprocess.Popen([RFUAV, "serve", "--port", "0", "--data-dir", f"{folder}/state"],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
        try:
            url = next(m.group(0) for m in (re.search(r"http://\S+:\d+", line) for line in daemon.stdout) if m)
            start = time.monotonic()
            mine = ours(data, options, url)
            middle = time.monotonic()
            other = theirs(data, options)
            end = time.monotonic()
        finally:
            daemon.terminate()
            daemon.wait()
    print("epoch    ours %   PyTorch %")
    for epoch, (a, b) in enumerate(zip(mine, other), 1):
        print(f"{epoch:5} {a:9.2f} {b:11.2f}")
    print(f"best  {max(mine):9.2f} {max(other):11.2f}")
    print(f"time  {middle - start:8.1f}s {end - middle:10.1f}s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
