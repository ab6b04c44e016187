#!/usr/bin/env python3
"""Whole epochs from a folder of large JPEGs: rfuav's loader and training beside the loop that users of PyTorch write.

    make build/tests/bench/epochs && tests/bench/epochs.py --device cpu --images 48 --batch 8     a small one, here
    tests/bench/epochs.py --device cuda --images 800 --batch 32,128                               on a GPU server

Pictures are made first: 1800x1200 spectrograms of noise with bursts, JPEG as Pillow writes it at quality 75 and 4:2:0;
with --copies each of them several times, told apart by a comment. Then, in one run: PyTorch with DataLoader without
workers (the reference's loop: PIL, Resize, ToTensor), over a part of the folder; PyTorch with one loader process a core,
a whole epoch; rfuav (tests/bench/epochs.c), three epochs, the disk cache empty before the first; and rfuav once more as
a second task on the same folder. Everything is open and warm when the clock starts; both sides once more in a fresh
process whose first epoch counts from its start, of PyTorch from the end of its imports. Prints a table; --json keeps
the numbers."""

import argparse
import concurrent.futures as futures
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
WIDTH, HEIGHT, CLASSES = 1800, 1200, 4
CORES = len(os.sched_getaffinity(0))


def jet(values):
    """(h, w) in [0, 1] to RGB bytes."""
    channels = [numpy.clip(1.5 - numpy.abs(4 * values - centre), 0, 1) for centre in (3, 2, 1)]
    return (255 * numpy.stack(channels, axis=2)).astype(numpy.uint8)


def make_picture(job):
    path, label, seed = job
    random = numpy.random.default_rng(seed)
    power = random.standard_gamma(8, (HEIGHT, WIDTH), dtype=numpy.float32) / 8  # eight spectra averaged
    for _ in range(6 + 4 * label):
        top, left = random.integers(0, HEIGHT - 80), random.integers(0, WIDTH - 200)
        power[top:top + 20 + 12 * label, left:left + 180 - 30 * label] *= 30
    decibels = 10 * numpy.log10(power + 1e-3)
    Image.fromarray(jet(numpy.clip((decibels + 10) / 30, 0, 1))).save(path)


def make_copies(job):
    """Files of the same picture with other bytes: a comment after the start marker."""
    path, copies = job
    data = pathlib.Path(path).read_bytes()
    for i in range(1, copies):
        comment = b"copy %d" % i
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        pathlib.Path(path.replace(".jpg", f"_{i}.jpg")).write_bytes(data[:2] + segment + data[2:])


def make_folder(folder, images, copies=1):
    jobs = []
    for i in range(images // copies):
        label = i % CLASSES
        os.makedirs(f"{folder}/class{label}", exist_ok=True)
        jobs.append((f"{folder}/class{label}/{i:05}.jpg", label, i))
    with multiprocessing.Pool(CORES) as pool:
        pool.map(make_picture, jobs, chunksize=4)
        pool.map(make_copies, [(path, copies) for path, _, _ in jobs], chunksize=4)
    return sum(os.path.getsize(path) for path, _, _ in jobs) / len(jobs)


def torch_epoch(folder, device, batch, workers, images, cold=False):
    """Images a second of an epoch in PyTorch, of its first `images` pictures (0: all); cold: with all that is opened."""
    import torch
    import torchvision
    from torchvision import transforms

    begun, done = time.monotonic(), 0
    data = torchvision.datasets.ImageFolder(folder, transforms.Compose([transforms.Resize((224, 224)),
                                                                         transforms.ToTensor()]))
    loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True, num_workers=workers)
    device = "cpu" if device == "none" else device
    model = torchvision.models.resnet18(num_classes=len(data.classes)).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    criterion = torch.nn.CrossEntropyLoss()

    def step(inputs, labels):
        optimizer.zero_grad()
        loss = criterion(model(inputs.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        return loss.item()

    if not cold:
        for _ in range(3):
            step(torch.rand(batch, 3, 224, 224), torch.zeros(batch, dtype=torch.int64))
        begun = time.monotonic()
    for inputs, labels in loader:
        step(inputs, labels)
        done += len(labels)
        if images and done >= images:
            break
    return done / (time.monotonic() - begun)


def cold_torch_epoch(*job):
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(torch_epoch, *job, cold=True).result()


def ours(driver, folder, backend, batch, precision, epochs, environment, cold=False):
    done = subprocess.run([driver, *(["-c"] if cold else []), folder, backend, "resnet18", str(batch), precision, str(epochs)], text=True,
                          stdout=subprocess.PIPE, env={**os.environ, **environment}, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {"epochs": [line["images_per_s"] for line in lines if "epoch" in line],
            "seconds": [line["seconds"] for line in lines if "epoch" in line], "open": lines[0]["open"],
            "tail": lines[-1]}


def row(name, rate, reference, workers):
    ratios = [f"{rate / peer:.1f}" if peer else "–" for peer in (reference, workers)]
    return f"| {name} | {rate:,.0f} | {ratios[0]} | {ratios[1]} |"


def peers(arguments, folder):
    """Images a second of PyTorch, which its loader bounds whatever the batch: the reference's loop, and all cores."""
    device, batch = arguments.device, arguments.peer_batch
    if arguments.no_torch:
        return 0, 0, 0
    return (torch_epoch(folder, device, batch, 0, arguments.reference_images),
            torch_epoch(folder, device, batch, CORES, 0),
            cold_torch_epoch(folder, device, batch, CORES, 0))


def measure(arguments, folder, backend, precision, batch):
    with tempfile.TemporaryDirectory() as cache:
        environment = {"RFUAV_CACHE": cache}
        first = ours(arguments.driver, folder, backend, batch, precision, 3, environment)
        second = ours(arguments.driver, folder, backend, batch, precision, 1, environment)
        for pictures in pathlib.Path(cache).glob("pictures/*"):
            pictures.unlink()  # what cuDNN was timed for stays
        cold = backend != "none" and ours(arguments.driver, folder, backend, batch, precision, 1, environment, cold=True)
    return {"name": "loader alone" if backend == "none" else f"batch {batch}, {precision}", "first": first,
            "second": second, "cold": cold}


def table(reference, workers, cold, cases):
    rows = ["| resnet18, images/s | | × no workers | × workers |", "|---|---|---|---|",
            row("PyTorch, no loader processes (the reference)", reference, reference, workers),
            row(f"PyTorch, {CORES} loader processes", workers, reference, workers),
            row(f"PyTorch, {CORES} loader processes, from the start", cold, reference, cold)]
    for case in cases:
        rates = [("epoch 1", case["first"]["epochs"][0]), ("later epochs", case["first"]["epochs"][-1]),
                 ("second task, epoch 1", case["second"]["epochs"][0])]
        rows += [row(f"rfuav, {case['name']}, {what}", rate, reference, workers) for what, rate in rates]
        if case["cold"]:
            rows.append(row(f"rfuav, {case['name']}, epoch 1, from the start", case["cold"]["epochs"][0], reference, cold))
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "none"])
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--copies", type=int, default=1, help="files of each picture, which are quicker to make")
    parser.add_argument("--reference-images", type=int, default=64, help="of the loop without workers")
    parser.add_argument("--batch", default="32")
    parser.add_argument("--peer-batch", type=int, default=32)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--folder", help="use these pictures")
    parser.add_argument("--driver", default=str(ROOT / "build/tests/bench/epochs"))
    parser.add_argument("--json", help="file for the numbers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder or made
        if not arguments.folder:
            begun = time.monotonic()
            size = make_folder(made, arguments.images, arguments.copies)
            print(f"{arguments.images} pictures of {size / 1e3:.0f} kB made in {time.monotonic() - begun:.0f} s, "
                  f"{CORES} cores", flush=True)
        reference, workers, cold = peers(arguments, folder)
        jobs = [("none", "fp32", 32)]
        if arguments.device != "none":
            jobs += [(arguments.device, precision, int(batch)) for precision in arguments.precision.split(",")
                     for batch in arguments.batch.split(",")]
        cases = [measure(arguments, folder, *job) for job in jobs]
    print(table(reference, workers, cold, cases))
    if arguments.json:
        result = {"reference": reference, "workers": workers, "cold": cold, "cases": cases}
        pathlib.Path(arguments.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    sys.exit(main())
