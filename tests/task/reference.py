"""What PyTorch and plain Python say about a checkpoint and a folder of pictures: the other side of the tests' comparisons."""

import os

import numpy
import torch
import torchvision
from PIL import Image

torch.set_num_threads(2)


def load_picture(path, size):
    image = Image.open(path).convert("RGB").resize((size, size), Image.BILINEAR)
    return torch.from_numpy(numpy.asarray(image).copy()).permute(2, 0, 1).float() / 255


def load_folder(root, size, classes=None):
    """(n, 3, size, size), labels, class names: class by class, by name within a class."""
    classes = classes or sorted(os.listdir(root))
    paths = [(os.path.join(root, name, file), label) for label, name in enumerate(classes)
             if os.path.isdir(os.path.join(root, name)) for file in sorted(os.listdir(os.path.join(root, name)))]
    return torch.stack([load_picture(path, size) for path, _ in paths]), torch.tensor([label for _, label in paths]), classes


def logits_of(checkpoint, x, num_classes, model="resnet18"):
    net = torchvision.models.get_model(model, num_classes=num_classes)
    net.load_state_dict(torch.load(checkpoint, weights_only=True))
    net.eval()
    with torch.no_grad():
        return net(x)


def evaluate(checkpoint, root, num_classes, size, batch, classes=None, model="resnet18"):
    """The validation metrics of section 13 under the names of section 3."""
    x, y, _ = load_folder(root, size, classes)
    logits = logits_of(checkpoint, x, num_classes, model)
    losses = [torch.nn.functional.cross_entropy(logits[i:i + batch], y[i:i + batch]).item()
              for i in range(0, len(y), batch)]
    predicted, scores, truth = logits.argmax(1).tolist(), torch.softmax(logits.double(), 1), y.tolist()
    result = {"val_loss": sum(losses) / len(losses)}
    sums = {"precision": 0, "recall": 0, "f1": 0, "ap": 0}
    for c in range(num_classes):
        hits = sum(p == c == t for p, t in zip(predicted, truth))
        precision, recall = hits / max(predicted.count(c), 1e-8), hits / max(truth.count(c), 1e-8)
        sums["precision"] += precision
        sums["recall"] += recall
        sums["f1"] += 2 * precision * recall / max(precision + recall, 1e-8)
        ranked = [truth[i] == c for i in torch.argsort(scores[:, c], descending=True).tolist()]
        at = [sum(ranked[:i + 1]) / (i + 1) for i in range(len(ranked)) if ranked[i]]
        sums["ap"] += sum(at) / len(at) if at else 0
    accuracy = sum(p == t for p, t in zip(predicted, truth)) / len(truth)
    result.update({"val_acc": 100 * accuracy, "macro_f1": sums["f1"] / num_classes,
                   "macro_precision": sums["precision"] / num_classes, "macro_recall": sums["recall"] / num_classes,
                   "precision": sums["precision"] / num_classes, "recall": sums["recall"] / num_classes,
                   "micro_f1": accuracy, "micro_precision": accuracy, "micro_recall": accuracy,
                   "mAP": sums["ap"] / num_classes})
    for k in (1, 3, 5):
        if k <= num_classes:
            top = logits.topk(k, 1).indices
            result[f"top{k}_acc"] = 100 * (top == y[:, None]).any(1).double().mean().item()
    return result
