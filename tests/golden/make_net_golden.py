#!/usr/bin/python3
"""Writes net_<model>.txt: what torchvision's networks compute, in double precision, from weights and images that are
given by formulas, so that files stay small; and the names and shapes of their state_dict as a count and a hash.
test_net_golden.c has the same formulas.

    tests/golden/make_net_golden.py [MODEL...]        (Debian: python3-torch python3-torchvision)
"""
import os
import sys

import numpy
import torch
import torchvision

CLASSES, SIZE = 5, 64
LOGITS_BATCH, TRAIN_BATCH, STEPS, LEARNING_RATE = 2, 4, 10, 1e-4
MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32",
          "swin_v2_t", "swin_v2_s", "swin_v2_b", "mobilenet_v3_large", "mobilenet_v3_small")
TRAINED = ("resnet18", "resnet50", "vit_b_32", "swin_v2_t", "mobilenet_v3_large", "mobilenet_v3_small")
OTHER_SIZE = {"swin_v2_t": 84}  # where shifted windows are filled up


def hash64(text):
    """FNV-1a"""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def noise(name, count):
    """count numbers in [-1, 1): splitmix64 of FNV-1a(name) + i."""
    seed = hash64(name)
    with numpy.errstate(over="ignore"):
        z = numpy.uint64(seed) + numpy.arange(count, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        z ^= z >> numpy.uint64(31)
    return (z >> numpy.uint64(40)).astype(numpy.float64) / 2**23 - 1


def weight(name, shape):
    """Tame activations, so that single precision can be held against this: He's variance for convolutions, batch norms
    near 1 with wide biases, a quarter of it where a branch ends (else gradients of 50 layers amplify rounding to percents)."""
    count = int(numpy.prod(shape)) if shape else 1
    value = noise(name, count).reshape(shape)
    if name.endswith("num_batches_tracked"):
        return numpy.zeros(shape)
    if len(shape) == 4:
        value *= numpy.sqrt(6 / (shape[1] * shape[2] * shape[3]))
    elif len(shape) == 2:
        value *= 1 / numpy.sqrt(shape[1])
    elif name.endswith("running_var"):
        value = 1 + 0.5 * value
    elif name.endswith(".weight") or name == "bn1.weight":
        value = (1 + 0.25 * value) * (0.25 if ".bn2." in name or ".bn3." in name else 1)
    else:
        value *= 0.5
    return value.astype(numpy.float32)


def images(n):
    """(n, 3, SIZE, SIZE) in [0, 1]: an 8 by 8 mosaic of random colours with finer noise."""
    i, y, x, c = numpy.ogrid[:n, :SIZE, :SIZE, :3]
    mosaic = ((noise("mosaic", n * 8 * 8 * 3) + 1) * 96).astype(numpy.int64).reshape(n, 8, 8, 3)
    grain = ((noise("grain", n * SIZE * SIZE * 3) + 1) * 32).astype(numpy.int64).reshape(n, SIZE, SIZE, 3)
    values = (mosaic[i, y * 8 // SIZE, x * 8 // SIZE, c] + grain).astype(numpy.float64)
    return torch.from_numpy(values / 255).permute(0, 3, 1, 2).contiguous()


def other_image(size):
    """The first bytes of images() as one image of another size."""
    data = images(TRAIN_BATCH).permute(0, 2, 3, 1).flatten()[:size * size * 3]
    return data.reshape(1, size, size, 3).permute(0, 3, 1, 2).contiguous()


def keys(model):
    """The state_dict's names and shapes, in order."""
    text = "".join("%s %s\n" % (key, "x".join(map(str, value.shape))) for key, value in model.state_dict().items())
    return "%d %d %d" % (len(model.state_dict()), hash64(text) >> 32, hash64(text) & 0xFFFFFFFF)


def service_head(name, model):
    """The last layers that the service gives a network instead of torchvision's."""
    if name.startswith("mobilenet_v3"):
        nn = torch.nn
        model.classifier = nn.Sequential(nn.Linear(model.classifier[0].in_features, 512), nn.ReLU(), nn.Dropout(0.2),
                                         nn.Linear(512, CLASSES))
    return model


def build(name, own_head=False):
    options = {"image_size": SIZE} if name.startswith("vit") else {}
    model = getattr(torchvision.models, name)(num_classes=CLASSES, **options)
    model = (model if own_head else service_head(name, model)).double()
    for module in model.modules():  # random ops off
        if isinstance(module, (torch.nn.Dropout, torchvision.ops.StochasticDepth)):
            module.p = 0.0
    state = {key: torch.from_numpy(numpy.asarray(weight(key, tuple(value.shape)))).to(value.dtype)
             if value.is_floating_point() or "num_batches" in key else value
             for key, value in model.state_dict().items()}
    model.load_state_dict(state)
    return model


def numbers(values):
    return " ".join("%.9g" % float(value) for value in values)


def main():
    folder = os.path.dirname(os.path.abspath(__file__))
    for name in sys.argv[1:] or MODELS:
        model = build(name).eval()
        lines = ["keys " + keys(model)]
        with torch.no_grad():
            lines.append("logits " + numbers(model(images(LOGITS_BATCH)).flatten()))
            if name in OTHER_SIZE:
                lines.append("other " + numbers(model(other_image(OTHER_SIZE[name])).flatten()))
            if name.startswith("mobilenet_v3"):
                model = build(name, own_head=True).eval()
                lines.append("torchvision keys " + keys(model))
                lines.append("torchvision logits " + numbers(model(images(LOGITS_BATCH)).flatten()))
        if name in TRAINED:
            model = build(name).train()
            labels = torch.arange(TRAIN_BATCH) * 2 % CLASSES
            optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
            losses = []
            for step in range(STEPS):
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(images(TRAIN_BATCH)), labels)
                loss.backward()
                losses.append(loss.item())
                if step == 0:
                    norms = ["norm %s %.9g" % (key, value.grad.norm().item()) for key, value in model.named_parameters()]
                optimizer.step()
            lines += ["losses " + numbers(losses)] + norms
            buffers = dict(model.named_buffers())
            chosen = list(buffers)[:3] + list(buffers)[-3:]
            lines += ["buffer %s %.9g" % (key, buffers[key].double().norm().item()) for key in chosen]
        with open(os.path.join(folder, "net_%s.txt" % name), "w") as out:
            out.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
