"""Does it learn as PyTorch does? Makes simulated data (8 classes at 10 dB), trains a model at 64x64 with the service's
worker and with the same program in PyTorch (learn_peer.py), both from random weights of their own, and prints both
validation accuracies.

    RFUAV_BIN=build/rfuav /usr/bin/python3 tests/bench/learn.py [--model resnet18] [--epochs 15] [--train 100] [--val 25]
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

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


def theirs(data, options):
    """The same of PyTorch."""
    command = [sys.executable, os.path.join(os.path.dirname(__file__), "learn_peer.py"), data, options.model]
    for name in ("size", "batch", "lr", "epochs", "seed"):
        command += [f"--{name}", str(getattr(options, name))]
    text = subprocess.run(command, stdout=subprocess.PIPE, check=True, encoding="utf-8").stdout
    return [float(line) for line in text.split()]


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
