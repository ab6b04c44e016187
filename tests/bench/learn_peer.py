"""The peer of learn.py, here and in tests/gpu: the same training in PyTorch. Prints the validation accuracy in % after
each epoch, a line each, as soon as it is known.

    learn_peer.py DATA MODEL [--size 64] [--batch 16] [--lr 0.001] [--epochs 15] [--seed 1] [--device cpu|cuda]
                  [--precision fp32|bf16] [--threads 0]

Weights are random, as torchvision makes them. Adam, cross-entropy, pixels / 255, no augmentation: the service's loop. On
a GPU the first epoch runs op by op, the later ones replay the step as one CUDA graph, which changes its time alone."""

import argparse

import torch
import torchvision
from torch.nn import functional
from torchvision import datasets, transforms


def build(name, classes, size):
    """The network as the service has it: its last layers, the image's size, PyTorch's defaults for what is replaced."""
    nn = torch.nn
    more = {"image_size": size} if name.startswith("vit") else {}
    model = getattr(torchvision.models, name)(weights=None, num_classes=classes, **more)
    if name.startswith("vit"):
        model.heads.head = nn.Linear(model.heads.head.in_features, classes)
    if name.startswith("mobilenet_v3"):
        model.classifier = nn.Sequential(nn.Linear(model.classifier[0].in_features, 512), nn.ReLU(), nn.Dropout(0.2),
                                         nn.Linear(512, classes))
    return model


def load(folder, options):
    """All pictures (N, 3, H, W) and labels of a folder, on the device."""
    size = (options.size, options.size)
    pairs = list(datasets.ImageFolder(folder, transforms.Compose([transforms.Resize(size), transforms.ToTensor()])))
    x = torch.stack([picture for picture, _ in pairs]).to(options.device)
    return x.contiguous(memory_format=torch.channels_last), torch.tensor([y for _, y in pairs], device=options.device)


class Trainer:
    def __init__(self, options, classes):
        torch.manual_seed(options.seed)
        self.options = options
        self.on_gpu = options.device != "cpu"
        self.model = build(options.model, classes, options.size).to(options.device, memory_format=torch.channels_last)
        more = {"capturable": True} if self.on_gpu else {}
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=options.lr, **more)
        self.replay = None

    def forward(self, x):
        if self.options.precision == "fp32":
            return self.model(x)
        with torch.autocast(self.options.device, dtype=torch.bfloat16, cache_enabled=False):
            return self.model(x).float()

    def step(self, x, y):
        self.optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(self.forward(x), y).backward()
        self.optimizer.step()

    def capture(self, x, y):
        """From here on steps over as many pictures are one launch."""
        self.x, self.y, graph = x.clone(), y.clone(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step(self.x, self.y)
        self.replay = graph.replay

    def train(self, x, y):
        self.model.train()
        for batch in torch.randperm(len(x), device=x.device).split(self.options.batch):
            if self.replay and len(batch) == len(self.y):
                self.x.copy_(x[batch])
                self.y.copy_(y[batch])
                self.replay()
            else:
                self.step(x[batch], y[batch])
        if self.on_gpu and not self.replay:
            self.capture(x[:self.options.batch], y[:self.options.batch])

    def accuracy(self, x, y):
        self.model.eval()
        with torch.no_grad():
            right = sum((self.forward(a).argmax(1) == b).sum().item() for a, b in zip(x.split(64), y.split(64)))
        return 100 * right / len(x)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("model")
    for name, value in (("epochs", 15), ("size", 64), ("batch", 16), ("seed", 1), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    x, y = load(f"{options.data}/train", options)
    vx, vy = load(f"{options.data}/valid", options)
    trainer = Trainer(options, int(y.max()) + 1)
    side = torch.cuda.Stream() if trainer.on_gpu else None  # what is to be captured must not run on the default stream
    with torch.cuda.stream(side):
        for _ in range(options.epochs):
            trainer.train(x, y)
            print(f"{trainer.accuracy(vx, vy):.2f}", flush=True)


if __name__ == "__main__":
    main()
