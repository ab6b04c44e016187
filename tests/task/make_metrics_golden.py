#!/usr/bin/python3
"""Writes tests/unit/metrics_golden.h: metrics of logits made by a formula, by the definitions of the contract and in
the plainest way (every count by looking at every image), with PyTorch for the loss.

    /usr/bin/python3 tests/task/make_metrics_golden.py | clang-format > tests/unit/metrics_golden.h
"""
import math

import torch

# name, images, classes, batch size, classes that have images, period of the logits (1000: no ties)
CASES = [
    ("plain", 97, 7, 8, 7, 1000),
    ("two_classes", 33, 2, 10, 2, 1000),
    ("one_class", 5, 1, 2, 1, 1000),
    ("class_without_images", 60, 6, 16, 4, 1000),
    ("ties", 120, 5, 32, 5, 11),
    ("all_equal", 24, 3, 7, 3, 1),
    ("one_image", 1, 4, 8, 4, 1000),
    ("batch_larger_than_set", 12, 4, 64, 4, 1000),
]


def logit(i, c, period):
    i %= period
    return 3 * math.sin(1 + 0.7 * i + 1.3 * c + 0.11 * i * c)


def label(i, used):
    return (i * 5 + i // 3) % used


def batch_mean_loss(x, y, batch):
    losses = [torch.nn.functional.cross_entropy(x[i:i + batch].double(), y[i:i + batch]).item()
              for i in range(0, len(y), batch)]
    return sum(losses) / len(losses)


def average_precision(scores, positive):
    """Mean over the positives of the precision among all that score at least as high."""
    values = [sum(p for s, p in zip(scores, positive) if s >= own) / sum(s >= own for s in scores)
              for own, is_positive in zip(scores, positive) if is_positive]
    return sum(values) / len(values) if values else 0.0


def top_k(x, y, k):
    if k > x.shape[1]:
        return None
    hits = sum(target in sorted(range(len(row)), key=lambda c: (-row[c], c))[:k] for row, target in zip(x.tolist(), y))
    return 100 * hits / len(y)


def measure(n, classes, batch, used, period):
    x = torch.tensor([[logit(i, c, period) for c in range(classes)] for i in range(n)], dtype=torch.float32)
    y = [label(i, used) for i in range(n)]
    predicted = [max(range(classes), key=lambda c: (row[c], -c)) for row in x.tolist()]
    precisions, recalls, f1s = [], [], []
    for c in range(classes):
        hits = sum(p == c and t == c for p, t in zip(predicted, y))
        precision = hits / max(sum(p == c for p in predicted), 1e-8)
        recall = hits / max(sum(t == c for t in y), 1e-8)
        precisions.append(precision)
        recalls.append(recall)
        f1s.append(2 * precision * recall / max(precision + recall, 1e-8))
    correct = sum(p == t for p, t in zip(predicted, y)) / n
    scores = torch.log_softmax(x.double(), 1)
    mean_ap = sum(average_precision(scores[:, c].tolist(), [t == c for t in y]) for c in range(classes)) / classes
    return [batch_mean_loss(x, torch.tensor(y), batch), 100 * correct, sum(precisions) / classes,
            sum(recalls) / classes, sum(f1s) / classes, correct, correct, correct, mean_ap,
            *(top_k(x, y, k) for k in (1, 3, 5))]


def main():
    print("/* metrics_golden.h - made by tests/task/make_metrics_golden.py; do not edit. */")
    print("static const struct golden {\n    const char *name;\n    size_t n, classes, batch_size, used;\n"
          "    size_t period;\n    struct metrics expected;\n} goldens[] = {")
    for name, n, classes, batch, used, period in CASES:
        values = ["NAN" if v is None else f"{v:.12g}" for v in measure(n, classes, batch, used, period)]
        print(f'    {{"{name}", {n}, {classes}, {batch}, {used}, {period},\n     {{{", ".join(values[:9])},\n'
              f'      {{{", ".join(values[9:])}}}}}}},')
    print("};")


if __name__ == "__main__":
    main()
