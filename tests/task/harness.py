"""Drives `rfuav worker` as the daemon does (src/task/message.h): a socket on descriptor 3, a start message, then what
the worker says. Also makes the small picture folders that the tests train on."""

import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RFUAV = os.environ.get("RFUAV_BIN", os.path.join(ROOT, "build", "rfuav"))


class Worker:
    """One worker process with its task started. `messages` holds all that it has said so far."""

    def __init__(self, kind, request, env=None, **start):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket, self.messages = ours, []
        fd = theirs.fileno()
        self.process = subprocess.Popen([RFUAV, "worker"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        pass_fds=(3,), preexec_fn=lambda: os.dup2(fd, 3),
                                        env=dict(os.environ, GOMP_SPINCOUNT="10000", **(env or {})))
        theirs.close()
        self.send({"type": "start", "task_id": "t", "kind": kind, "device": "cpu", "backend": os.environ.get("RFUAV_TEST_BACKEND", "cpu"),
                   "asked_device": "cpu", "threads": 2, "memory_limit": 1 << 28, "language": "zh",
                   **start, "request": request})

    def send(self, message):
        self.socket.send(json.dumps(message).encode())

    def next(self, timeout=120):
        """The next message, or None when the worker has closed its end."""
        self.socket.settimeout(timeout)
        try:
            packet = self.socket.recv(1 << 17)
        except ConnectionResetError:
            packet = b""
        if not packet:
            return None
        self.messages.append(json.loads(packet))
        return self.messages[-1]

    def until(self, wanted):
        """Reads on until wanted(message); returns that message, or None at the end."""
        message = self.next()
        while message is not None and not wanted(message):
            message = self.next()
        return message

    def finish(self):
        """Reads all that comes and waits for the end; returns the end message."""
        while self.next() is not None:
            pass
        self.close()
        assert self.messages and self.messages[-1]["type"] == "end", (self.messages[-3:], self.stderr)
        assert self.process.returncode == 0, self.stderr  # a sanitizer speaks after the end message
        return self.messages[-1]

    def close(self):
        self.socket.close()
        self.stderr = self.process.communicate(timeout=30)[1].decode("utf-8", "replace")

    @property
    def log(self):
        return [m["message"] for m in self.messages if m["type"] == "log"]

    def metrics(self, key):
        """The values of one metric in the order in which they came."""
        return [m["metrics"][key] for m in self.messages if key in m.get("metrics", {})]


class TaskTest(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="rfuav-task-")
        self.addCleanup(shutil.rmtree, self.folder, True)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def run_task(self, kind, request, **start):
        worker = Worker(kind, request, **start)
        end = worker.finish()
        return worker, end

    def assert_in_order(self, lines, wanted):
        """Every wanted line is among the lines, in this order."""
        at = 0
        for line in wanted:
            self.assertIn(line, lines[at:])
            at = lines.index(line, at) + 1

    def read(self, *parts):
        with open(self.path(*parts), encoding="utf-8") as file:
            return file.read()


def picture(path, label, index, size=32):
    """A picture whose colours tell its class, with noise: the same for the same label and index."""
    generator = random.Random(label * 1000 + index)
    base = [(200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60), (60, 200, 200)][label % 5]
    image = Image.new("RGB", (size, size))
    image.putdata([tuple(max(0, min(255, c + generator.randint(-50, 50))) for c in base) for _ in range(size * size)])
    image.save(path)


def class_folders(root, classes, count, size=32, ending=".png"):
    """`count` pictures for each class name under root/{class}/."""
    for label, name in enumerate(classes):
        os.makedirs(os.path.join(root, name))
        for i in range(count):
            picture(os.path.join(root, name, f"{i:03}{ending}"), label, i, size)
    return root


def train_request(train, val, save, **changes):
    return {"model": "resnet18", "num_classes": 3, "train_path": train, "val_path": val, "save_path": save,
            "batch_size": 4, "num_epochs": 2, "learning_rate": 1e-3, "image_size": 32, "device": "cpu",
            "pretrained": False, "shuffle": True, "seed": 7, **changes}


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()
