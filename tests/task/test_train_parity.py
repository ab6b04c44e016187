"""A training against the same training in PyTorch: identical first weights (one .pth for both), identical order of
images, the same Adam. The losses of every epoch agree."""

import unittest

import torch
import torchvision

from tests.task import reference
from tests.task.harness import TaskTest, class_folders, train_request

CLASSES, SIZE, BATCH, EPOCHS = ["alpha", "beta", "gamma"], 64, 8, 4

# Adam's first steps are about RATE in each weight whatever the gradient's size, so that rounding noise in small
# gradients turns into steps: at 1e-4 PyTorch disagrees with itself (channels_last, or in double) by 0.003 after four
# epochs, at 1e-5 by 0.0001.
RATE = 1e-5


def formula_weights(model, path):
    """Kaiming-sized first weights from a fixed seed."""
    torch.manual_seed(5)
    net = torchvision.models.get_model(model, num_classes=len(CLASSES))
    torch.save(net.state_dict(), path)


def torch_curve(model, weights, train, val):
    """(train_loss, train_acc, val_loss, val_acc) of each epoch, by the reference's own definitions."""
    x, y, _ = reference.load_folder(train, SIZE)
    vx, vy, _ = reference.load_folder(val, SIZE)
    net = torchvision.models.get_model(model, num_classes=len(CLASSES))
    net.load_state_dict(torch.load(weights))
    adam = torch.optim.Adam(net.parameters(), lr=RATE)
    curve = []
    for _ in range(EPOCHS):
        net.train()
        losses, correct = [], 0
        for i in range(0, len(y), BATCH):
            logits = net(x[i:i + BATCH])
            loss = torch.nn.functional.cross_entropy(logits, y[i:i + BATCH])
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item())
            correct += (logits.argmax(1) == y[i:i + BATCH]).sum().item()
        net.eval()
        with torch.no_grad():
            out = net(vx)
        val_losses = [torch.nn.functional.cross_entropy(out[i:i + BATCH], vy[i:i + BATCH]).item()
                      for i in range(0, len(vy), BATCH)]
        curve.append((sum(losses) / len(losses), 100 * correct / len(y), sum(val_losses) / len(val_losses),
                      100 * (out.argmax(1) == vy).float().mean().item()))
    return curve


class Parity(TaskTest):
    def compare(self, model, backend="cpu"):
        train = class_folders(self.path("train"), CLASSES, 13, SIZE)  # 39 images: a short last batch
        val = class_folders(self.path("val"), CLASSES, 5, SIZE)
        formula_weights(model, self.path("first.pth"))
        curve = torch_curve(model, self.path("first.pth"), train, val)
        worker, end = self.run_task("training", train_request(
            train, val, self.path("out"), model=model, weight_path=self.path("first.pth"), image_size=SIZE,
            batch_size=BATCH, num_epochs=EPOCHS, learning_rate=RATE, shuffle=False), backend=backend)
        self.assertEqual(end["status"], "completed", end)
        for i, (train_loss, train_acc, val_loss, val_acc) in enumerate(curve):
            print(f"{model} epoch {i + 1}: train_loss {worker.metrics('train_loss')[i]:.4f} (PyTorch {train_loss:.4f}), "
                  f"val_loss {worker.metrics('val_loss')[i]:.4f} ({val_loss:.4f})")
        for i, (train_loss, train_acc, val_loss, val_acc) in enumerate(curve):
            self.assertAlmostEqual(worker.metrics("train_loss")[i], train_loss, delta=1e-3)
            self.assertAlmostEqual(worker.metrics("train_acc")[i], train_acc, delta=0.01)
            self.assertAlmostEqual(worker.metrics("val_loss")[i], val_loss, delta=5e-3)
            self.assertAlmostEqual(worker.metrics("val_acc")[i], val_acc, delta=0.01)

    def test_resnet18(self):
        self.compare("resnet18")


if __name__ == "__main__":
    unittest.main()
