"""The peer of service.py: the training loop that users of PyTorch write, over the same folder. Prints the images a
second of the training part of each epoch as a JSON list.

    torch_loop.py FOLDER THREADS LOADER_PROCESSES CHANNELS_LAST"""

import json
import sys
import time

import torch
import torchvision
from torchvision import transforms


def main():
    folder, threads, workers, channels_last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    data = torchvision.datasets.ImageFolder(folder, transforms.Compose([transforms.Resize((224, 224)),
                                                                         transforms.ToTensor()]))
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, num_workers=workers)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = torchvision.models.resnet18(num_classes=len(data.classes)).to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    criterion = torch.nn.CrossEntropyLoss()
    rates = []
    for _ in range(3):
        model.train()
        begun, correct = time.monotonic(), 0
        for images, labels in loader:
            optimizer.zero_grad()
            outputs = model(images.to(memory_format=layout))
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            correct += (outputs.argmax(1) == labels).sum().item()
        rates.append(len(data) / (time.monotonic() - begun))
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
