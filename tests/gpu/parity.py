#!/usr/bin/env python3
"""parity.py BUILD: ResNets on the CUDA backend against PyTorch in double precision on the same GPU: logits, gradients
of the first step, the losses of ten steps and the weights after them. PyTorch in our precision (fp32 without TF32, or bf16
by autocast) stands beside, to tell what the number format alone costs: with batch statistics and rectifiers that can be
much. Ours must be within a limit, or not much further away than PyTorch is. Tame networks have branches that end in a
batch norm of 0.25, so that the identity leads, and pictures of tiles instead of noise: there in fp32 a handful of
activations within rounding of 0 make all of the difference, 1e-6 without one and some 1e-3 with. (The golden networks
of tests/golden have none: golden.c.)"""

import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torchvision

torch.backends.cudnn.allow_tf32 = False
torch.backends.cuda.matmul.allow_tf32 = False
BUILD = sys.argv[1]


def distance(a, b):
    """‖a − b‖ / ‖b‖; NaN never passes."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    d = np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12)
    return d if np.isfinite(d) else float("inf")


def torch_run(name, classes, weights, images, labels, steps, dtype):
    model = getattr(torchvision.models, name)(weights=None, num_classes=classes).cuda()
    half = dtype == torch.bfloat16
    kept = torch.float32 if half else dtype
    model.load_state_dict(weights)
    model.to(kept)
    x = torch.from_numpy(images).cuda().permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).to(kept) / 255
    y = torch.from_numpy(labels).cuda().long()
    model.eval()
    auto = torch.autocast("cuda", dtype=torch.bfloat16, enabled=half)
    with torch.no_grad(), auto:
        logits = model(x).float().cpu().numpy()
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses, gradients = [], None
    for _ in range(steps):
        optimizer.zero_grad()
        with auto:
            loss = torch.nn.functional.cross_entropy(model(x).to(kept), y)
        loss.backward()
        if gradients is None:
            gradients = [p.grad.float().cpu().numpy().ravel() for p in model.parameters()]
        optimizer.step()
        losses.append(loss.item())
    after = [t.float().cpu().numpy().ravel() for t in model.state_dict().values()]
    return logits, gradients, np.array(losses), after


def split(flat, like):
    out, at = [], 0
    for part in like:
        out.append(flat[at : at + part.size])
        at += part.size
    assert at == flat.size, (at, flat.size)
    return out


def check(name, size, batch, precision, tame, steps=10, classes=37):
    torch.manual_seed(3)
    rng = np.random.default_rng(5)
    model = getattr(torchvision.models, name)(weights=None, num_classes=classes)
    last = "bn2" if name in ("resnet18", "resnet34") else "bn3"
    for key, module in model.named_modules():  # statistics that are not the initial ones
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            if tame and key.endswith(last):
                module.weight.data.fill_(0.25)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    images = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    if tame:
        tiles = rng.integers(0, 192, (batch, 8, 8, 3), dtype=np.uint8)
        images = tiles.repeat(size // 8, axis=1).repeat(size // 8, axis=2) + images // 4
    labels = rng.integers(0, classes, batch, dtype=np.int32)
    want = torch_run(name, classes, weights, images, labels, steps, torch.float64)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    peer = torch_run(name, classes, weights, images, labels, steps, dtype)
    with tempfile.TemporaryDirectory() as folder:
        flat = np.concatenate([v.float().numpy().ravel() for v in weights.values()])
        flat.astype(np.float32).tofile(folder + "/weights")
        images.tofile(folder + "/images")
        labels.tofile(folder + "/labels")
        command = [BUILD + "/tests/gpu/parity", folder, name, *map(str, (classes, size, batch, precision, steps))]
        environment = dict(os.environ, RFUAV_TF32="0")
        subprocess.run(command, check=True, env=environment)
        first = open(folder + "/after", "rb").read()
        subprocess.run(command, check=True, env=environment)
        same = first == open(folder + "/after", "rb").read()
        logits = np.fromfile(folder + "/logits", np.float32).reshape(batch, classes)
        gradients = split(np.fromfile(folder + "/gradients", np.float32), want[1])
        losses = np.fromfile(folder + "/losses", np.float64).reshape(steps, 2)[:, 0]
        after = split(np.fromfile(folder + "/after", np.float32), want[3])
    names = list(weights)
    params = [k for k, _ in model.named_parameters()]

    def worst(mine, theirs, labels):
        d = [distance(a, b) for a, b in zip(mine, theirs)]
        i = int(np.argmax(d))
        return d[i], labels[i]

    def row(got):
        whole = distance(np.concatenate(got[1]), np.concatenate(want[1]))
        return (distance(got[0], want[0]), whole, worst(got[1], want[1], params),
                float(np.max(np.abs(got[2] - want[2]) / np.abs(want[2]))),
                distance(np.concatenate(got[3]), np.concatenate(want[3])))

    ours, theirs = row((logits, gradients, losses, after)), row(peer)
    limits = (1e-4, 1e-2, None, 1e-2, 1e-2) if precision == "fp32" else (2e-2, 2e-2, None, 2e-2, 2e-2)
    good = same and all(limit is None or mine < max(limit, 3 * other) for mine, other, limit in zip(ours, theirs, limits))
    print(f"       PyTorch: logits {theirs[0]:.1e} gradients {theirs[1]:.1e} (worst {theirs[2][0]:.1e}) "
          f"losses {theirs[3]:.1e} weights {theirs[4]:.1e}")
    print(f"{'ok' if good else 'FAILED':6} {name} {size} batch {batch} {precision}{' tame' if tame else ''}: logits {ours[0]:.1e} gradients "
          f"{ours[1]:.1e} (worst {ours[2][0]:.1e} {ours[2][1]}) losses {ours[3]:.1e} weights {ours[4]:.1e}, "
          f"two runs {'equal to the bit' if same else 'DIFFER'}", flush=True)
    return good


ok = True
for case in (("resnet18", 64, 8, "fp32", True), ("resnet50", 64, 8, "fp32", True), ("resnet18", 224, 16, "bf16", True),
             ("resnet50", 224, 16, "bf16", True), ("resnet18", 224, 16, "bf16", False)):
    try:
        ok = check(*case) and ok
    except subprocess.CalledProcessError as error:
        print("FAILED", *case, error)
        ok = False
sys.exit(0 if ok else 1)
