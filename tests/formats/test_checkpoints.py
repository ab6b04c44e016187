"""Weights between torchvision and here, for every model: a file of torchvision's is taken strictly and gives the same
logits, and the file that is written then loads in torchvision with strict=True, every tensor the same to the bit."""

import os
import subprocess
import unittest

import torch
import torchvision

from tests.formats.support import CONVERT, FormatsTest

NET_FILE = os.path.join(os.path.dirname(CONVERT), "net_file")
CLASSES, IMAGES = 5, 2


def build(name, size, own_head=False):
    """The network as the service has it, or with torchvision's last layers; one that begins with zeros is drawn."""
    options = {"image_size": size} if name.startswith("vit") else {}
    model = getattr(torchvision.models, name)(num_classes=CLASSES, **options)
    nn = torch.nn
    if name.startswith("mobilenet_v3") and not own_head:
        model.classifier = nn.Sequential(nn.Linear(model.classifier[0].in_features, 512), nn.ReLU(), nn.Dropout(0.2),
                                         nn.Linear(512, CLASSES))
    if name.startswith("vit"):
        model.heads.head = nn.Linear(model.heads.head.in_features, CLASSES)
        nn.init.normal_(model.class_token)
    return model.eval()


class Checkpoints(FormatsTest):
    def through(self, name, size, state, *more):
        """Logits of random images, and the state_dict that comes out."""
        torch.save(state, self.path("in.pth"))
        images = torch.randint(0, 256, (IMAGES, size, size, 3), dtype=torch.uint8)
        self.write("images", images.numpy().tobytes())
        done = subprocess.run([NET_FILE, name, str(CLASSES), str(size), self.path("in.pth"), self.path("out.pth"),
                               self.path("images"), str(IMAGES), *more], capture_output=True, encoding="utf-8")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        os.remove(self.path("in.pth"))
        logits = torch.tensor([[float(x) for x in line.split()] for line in done.stdout.splitlines()])
        return images.permute(0, 3, 1, 2) / 255, logits, torch.load(self.path("out.pth"))

    def check(self, name, size, *more):
        model = build(name, size, "torchvision" in more)
        images, logits, out = self.through(name, size, model.state_dict(), *more)
        with torch.no_grad():
            want = model(images)
        self.assertLess((logits - want).abs().max() / want.abs().max(), 1e-4)
        self.assertEqual(list(out), list(model.state_dict()))
        for key, value in model.state_dict().items():
            self.assertTrue(torch.equal(out[key], value), key)
        model.load_state_dict(out, strict=True)

    def test_resnet(self):
        for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
            with self.subTest(name):
                self.check(name, 64)

    def test_vision_transformer(self):
        for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32"):
            with self.subTest(name):
                self.check(name, 2 * int(name[-2:]))

    def test_swin_v2(self):
        """Sizes with whole windows, with windows to fill up and shift, with pixels that no patch takes; the smallest."""
        for name, size in (("swin_v2_t", 64), ("swin_v2_t", 87), ("swin_v2_t", 4), ("swin_v2_s", 32), ("swin_v2_b", 32)):
            with self.subTest(name, size=size):
                self.check(name, size)

    def test_mobilenet_v3(self):
        for name in ("mobilenet_v3_large", "mobilenet_v3_small"):
            with self.subTest(name):
                self.check(name, 64)
                self.check(name, 65, "torchvision")

    def test_swin_v2(self):
        for name in ("swin_v2_t", "swin_v2_s", "swin_v2_b"):
            with self.subTest(name):
                self.check(name, 64)

    def test_older_names(self):
        """torchvision's files from before 0.14 name the layers of a vision transformer's MLP otherwise."""
        model = build("vit_b_32", 64)
        older = {key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
                 for key, value in model.state_dict().items()}
        _, _, out = self.through("vit_b_32", 64, older)
        self.assertEqual(list(out), list(model.state_dict()))
        model.load_state_dict(out, strict=True)

    def test_another_image_size(self):
        """Position embeddings are interpolated as torchvision's helper does it, to more patches and to fewer."""
        from torchvision.models.vision_transformer import interpolate_embeddings
        model = build("vit_b_32", 96)
        for size in (224, 64, 32):
            with self.subTest(size):
                _, _, out = self.through("vit_b_32", size, model.state_dict())
                want = interpolate_embeddings(size, 32, model.state_dict())
                self.assertLess((out["encoder.pos_embedding"] - want["encoder.pos_embedding"]).abs().max(), 1e-6)


if __name__ == "__main__":
    unittest.main()
