"""What the tests of the file formats share: the program under test, and comparison with PyTorch's tensors."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

import numpy
import torch

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONVERT = os.path.join(os.environ.get("RFUAV_BUILD", os.path.join(ROOT, "build")), "tests", "formats", "convert")

DTYPES = {"F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
          "BOOL": torch.bool}


def raw_bytes(tensor):
    """The bytes of a tensor's elements, row-major; also for types that NumPy does not know."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.int16)
    return tensor.numpy().tobytes()


class FormatsTest(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="rfuav-formats-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)
        return self.path(name)

    def convert(self, source, target):
        """Runs the program; its error as text, None when it did what it should."""
        done = subprocess.run([CONVERT, source, target], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
        self.assertIn(done.returncode, (0, 1), done.stderr.decode("utf-8", "replace"))
        if done.returncode == 0:
            self.assertEqual(done.stderr, b"")
            return None
        return done.stderr.decode("utf-8").strip()

    def refused(self, source, *words):
        """The error, which must contain the file's name and all the words."""
        error = self.convert(source, self.path("out.json"))
        self.assertIsNotNone(error, "was not refused")
        for word in (source, *words):
            self.assertIn(word, error)
        return error

    def read(self, source):
        """What the C reader makes of a file."""
        error = self.convert(source, self.path("out.json"))
        self.assertIsNone(error)
        with open(self.path("out.json"), encoding="utf-8") as file:
            return json.load(file)

    def assert_same(self, got, expected):
        """Names in order, types, shapes and every bit."""
        self.assertEqual(list(got), list(expected))
        for name, tensor in expected.items():
            self.assertEqual(DTYPES[got[name]["dtype"]], tensor.dtype, name)
            self.assertEqual(got[name]["shape"], list(tensor.shape), name)
            self.assertEqual(bytes.fromhex(got[name]["hex"]), raw_bytes(tensor), name)

    def assert_reads(self, source, expected):
        self.assert_same(self.read(source), expected)


def random_tensor(dtype, *shape):
    if dtype == torch.bool:
        return torch.rand(shape) > 0.5
    if dtype.is_floating_point:
        return torch.randn(shape).to(dtype)
    low, high = (0, 256) if dtype == torch.uint8 else (-128, 128)
    return torch.from_numpy(numpy.random.randint(low, high, shape)).to(dtype)
