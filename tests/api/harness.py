"""What the tests against a running daemon share: starting one on a free port with a folder of its own, talking to it
by bytes and by requests, reading event streams, and making small data sets and weights.

The binary is $RFUAV_BIN, else build/rfuav. The contract's texts are Chinese, so a daemon speaks Chinese here unless a
test says otherwise. No real GPU is ever used: CUDA_VISIBLE_DEVICES is empty, GPUs come from a device file."""

import atexit
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

import requests

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.path.abspath(os.environ.get("RFUAV_BIN", os.path.join(ROOT, "build", "rfuav")))
ENDED = ("completed", "failed", "cancelled")
# under the sanitizers, and on a machine with other work, everything takes longer
PATIENCE = float(os.environ.get("RFUAV_TEST_PATIENCE", "4" if "address" in BINARY else "1"))

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no daemon and no folder is left behind

_scratch = None


def scratch(name="x"):
    """A new empty folder that is removed when the tests end."""
    global _scratch
    if _scratch is None:
        _scratch = tempfile.mkdtemp(prefix="rfuav-test-")
        atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
    return tempfile.mkdtemp(prefix=name + "-", dir=_scratch)


# ---- pictures, data sets, weights ----

def png(width=32, height=32, color=(200, 30, 30)):
    """A one-coloured RGB picture as PNG."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = (b"\0" + bytes(color) * width) * height
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    return path


def dataset(folder=None, classes=("A", "B"), images=4, size=32):
    """One folder for each class with one-coloured pictures; returns the root."""
    folder = folder or scratch("set")
    for index, name in enumerate(classes):
        for i in range(images):
            color = [20 + 3 * i, 20 + 2 * i, 20 + i]
            color[index % 3] = 200 + index
            write(f"{folder}/{name}/{i:03}.png", png(size, size, color))
    return folder


_long_set = None


def long_dataset():
    """A data set whose epochs take minutes: links to a few pictures. Made once for a test program."""
    global _long_set
    if _long_set is None:
        _long_set = scratch("long")
        for name, color in (("A", (200, 20, 20)), ("B", (20, 200, 20))):
            picture = write(f"{_long_set}/{name}/0.png", png(64, 64, color))
            for i in range(1, 3000):
                os.link(picture, f"{_long_set}/{name}/{i}.png")
    return _long_set


CFG = """model: resnet18
num_classes: {n}
class_names: {names}
image_size: 32
"""

_model = None


def model():
    """(cfg file, weight file) of a resnet18 for the classes A and B, made by torchvision. Made once."""
    global _model
    if _model is None:
        import torch
        import torchvision
        torch.manual_seed(1)
        folder = scratch("model")
        torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), f"{folder}/model.pth")
        write(f"{folder}/model.yaml", CFG.format(n=2, names="{A: 0, B: 1}").encode())
        _model = f"{folder}/model.yaml", f"{folder}/model.pth"
    return _model


def device_file(count, memory_mb=24576, used_mb=0):
    devices = [{"name": f"Test GPU {i}", "uuid": f"GPU-test-{i}", "memory_mb": memory_mb, "used_mb": used_mb,
                "compute_capability": "9.0"} for i in range(count)]
    return write(os.path.join(scratch("devices"), "devices.json"), json.dumps({"devices": devices}).encode())


# ---- the daemon ----

class Daemon:
    """A running `rfuav serve`."""

    def __init__(self, lang="zh", devices=None, env=None, args=(), folder=None, binary=BINARY,
                 start=True):
        self.folder = folder or scratch("daemon")
        self.binary = binary
        self.args = list(args)
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("RFUAV_", "MAX_"))}
        self.env.update({"DATA_DIR": f"{self.folder}/data", "RFUAV_LANG": lang, "CUDA_VISIBLE_DEVICES": ""})
        self.env.setdefault("LSAN_OPTIONS", "print_suppressions=0")  # a sanitized worker's log is only its own
        if devices:
            self.args += ["--devices", devices]
            del self.env["CUDA_VISIBLE_DEVICES"]
        self.env.update(env or {})
        self.process = None
        self.url = self.port = None
        self.session = None
        if start:
            self.start()

    def start(self):
        self.output = open(f"{self.folder}/output.txt", "ab")
        begin = self.output.tell()
        self.process = subprocess.Popen([self.binary, "serve", "--port", "0"] + self.args, cwd=self.folder, env=self.env,
                                        stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT)
        atexit.register(self._reap)
        end = time.monotonic() + 10 * PATIENCE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the daemon ended with {self.process.returncode}:\n{self.log(begin)}")
            found = re.search(r"http://127\.0\.0\.1:(\d+)", self.log(begin))
            if found:
                self.port = int(found.group(1))
                self.url = f"http://127.0.0.1:{self.port}"
                self.session = requests.Session()
                self.session.trust_env = False
                try:
                    self.session.get(self.url + "/api/v1/health", timeout=5)
                    return self
                except requests.RequestException:
                    pass
            time.sleep(0.01)
        raise RuntimeError(f"the daemon did not come up:\n{self.log(begin)}")

    def log(self, begin=0):
        with open(f"{self.folder}/output.txt", "rb") as file:
            file.seek(begin)
            return file.read().decode("utf-8", "replace")

    def alive(self):
        return self.process.poll() is None

    def kill(self, how=signal.SIGKILL):
        """Ends the daemon and returns its exit status."""
        if self.session:
            self.session.close()
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(20 * PATIENCE) if self.process else None
        self.output.close()
        return status

    def stop(self):
        """An orderly end; the tests fail when there was none."""
        status = self.kill(signal.SIGTERM)
        if status != 0:
            raise AssertionError(f"the daemon ended with {status}:\n{self.log()[-4000:]}")

    def _reap(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def workers(self):
        """Process ids of the daemon's children."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/stat") as file:
                        fields = file.read().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[1]) == self.process.pid and fields[0] != "Z":
                    found.append(int(entry))
        return sorted(found)

    def freeze(self, count, timeout=20):
        """Waits for that many workers and stops them all, so that running tasks cost no time. They can be killed."""
        self.until(lambda: len(self.workers()) >= count, timeout, f"{count} workers")
        for pid in self.workers():
            os.kill(pid, signal.SIGSTOP)

    def memory_mb(self, pid=None):
        """Resident memory of the daemon or one of its workers."""
        with open(f"/proc/{pid or self.process.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) / 1024

    # -- requests --

    def request(self, method, path, body=None, timeout=30, **more):
        return self.session.request(method, self.url + path, json=body, timeout=timeout * PATIENCE, **more)

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.request("POST", path, body, **more)

    def json(self, path):
        response = self.get(path)
        if response.status_code != 200:
            raise AssertionError(f"GET {path}: {response.status_code} {response.text}")
        return response.json()

    def task(self, task_id):
        return self.json(f"/api/v2/tasks/{task_id}")

    def train_fields(self, **fields):
        """A complete training request over the smallest data set; fields override, None drops one."""
        base = {"model": "resnet18", "num_classes": 2, "save_path": scratch("out"), "batch_size": 4, "num_epochs": 1,
                "image_size": 32, "device": "cpu", "pretrained": False}
        base.update(fields)
        for path in ("train_path", "val_path"):
            base.setdefault(path, small_set())
        return {key: value for key, value in base.items() if value is not None}

    def train(self, **fields):
        return self.started("/api/v2/training/start", self.train_fields(**fields))

    def train_long(self, **fields):
        """A training that does not end by itself within a test."""
        base = {"train_path": long_dataset(), "num_epochs": 1000, "image_size": 128, "batch_size": 8,
                "keep_checkpoints": 1}
        base.update(fields)
        return self.train(**base)

    def infer_fields(self, **fields):
        cfg, weights = model()
        base = {"cfg_path": cfg, "weight_path": weights, "source_path": small_set() + "/A", "save_path": scratch("res"),
                "device": "cpu"}
        base.update(fields)
        return {key: value for key, value in base.items() if value is not None}

    def infer(self, **fields):
        return self.started("/api/v2/inference/start", self.infer_fields(**fields))

    def infer_long(self, **fields):
        """An inference over thousands of pictures."""
        return self.infer(**dict({"source_path": long_dataset() + "/A", "batch_size": 1}, **fields))

    def started(self, path, body):
        response = self.post(path, body)
        if response.status_code != 200:
            raise AssertionError(f"POST {path}: {response.status_code} {response.text}")
        return response.json()["task_id"]

    def cancel(self, task_id):
        return self.post(f"/api/v2/tasks/{task_id}/cancel")

    def until(self, condition, timeout=10, what="the condition"):
        """Waits until condition() is true and returns its value."""
        end = time.monotonic() + timeout * PATIENCE
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"{what} did not come true within {timeout} s")
            time.sleep(0.02)

    def wait(self, task_id, states=ENDED, timeout=60):
        """Waits for one of the states and returns the record."""
        states = (states,) if isinstance(states, str) else states
        end = time.monotonic() + timeout * PATIENCE
        while True:
            record = self.task(task_id)
            if record["status"] in states:
                return record
            if record["status"] in ENDED or time.monotonic() > end:
                raise AssertionError(f"waited for {states}, got {record}\n" +
                                     "\n".join(line.get("message", "") for line in self.lines(task_id)))
            time.sleep(0.03)

    def wait_all_over(self, timeout=60):
        """Waits until nothing runs or waits and no worker is left."""
        def over():
            answer = self.json("/api/v2/tasks?limit=1000000")
            tasks = answer["training_tasks"] + answer["inference_tasks"]
            return all(task["status"] in ENDED for task in tasks) and not self.workers()
        self.until(over, timeout, "the end of all tasks")

    def cancel_all(self):
        answer = self.json("/api/v2/tasks?limit=1000000")
        for task in answer["training_tasks"] + answer["inference_tasks"]:
            if task["status"] not in ENDED:
                self.cancel(task["task_id"])
        self.wait_all_over()

    def lines(self, task_id):
        """The log as a list, without waiting for more."""
        return self.get(f"/api/v2/tasks/{task_id}/logs", headers={"Accept": "application/json"}).json()

    def messages(self, task_id):
        return [line.get("message") for line in self.lines(task_id)]

    # -- bytes --

    def connect(self, timeout=10):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout * PATIENCE)

    def raw(self, data, timeout=10):
        """Sends bytes on a connection of its own and reads one answer."""
        with self.connect(timeout) as connection:
            connection.sendall(data)
            return Answer(connection, data.split(b" ", 1)[0].decode("latin-1"))

    def ask(self, method, path, headers=None, body=None, timeout=10):
        """As raw(), with the request put together from its parts; body: bytes or None."""
        lines = [f"{method} {path} HTTP/1.1", "Host: example:1234"]
        headers = dict(headers or {})
        if body is not None:
            headers.setdefault("Content-Length", str(len(body)))
        lines += [f"{name}: {value}" for name, value in headers.items()]
        data = "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + (body or b"")
        return self.raw(data, timeout)

    def stream(self, path, **more):
        return Stream(self, path, **more)


class Answer:
    """One HTTP answer read from a socket."""

    def __init__(self, connection, method="GET"):
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()
        response.close()

    def json(self):
        return json.loads(self.body)


class Stream:
    """An open event stream. Iterating gives (id, event) until the server ends it; `comments` and `closed` say what else
    was seen."""

    def __init__(self, daemon, path, last_id=None, headers=None, timeout=30):
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=timeout * PATIENCE)
        headers = dict(headers or {}, Accept="text/event-stream")
        if last_id is not None:
            headers["Last-Event-ID"] = str(last_id)
        self.connection.request("GET", path, headers=headers)
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.headers = {name.lower(): value for name, value in self.response.getheaders()}
        self.comments = []
        self.raw_data = []

    def __iter__(self):
        event_id, data = None, []
        while True:
            line = self.response.readline()
            if not line:
                return
            line = line.decode("utf-8").rstrip("\r\n")
            if not line:
                if data:
                    self.raw_data.append("\n".join(data))
                    yield event_id, json.loads("\n".join(data))
                event_id, data = None, []
            elif line.startswith(":"):
                self.comments.append(line)
            elif line.startswith("data: "):
                data.append(line[6:])
            elif line.startswith("id:"):
                event_id = line[3:].strip()

    def all(self):
        """Every event until the end."""
        try:
            return [event for _, event in self]
        finally:
            self.close()

    def close(self):
        self.response.close()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


_small_set = None


def small_set():
    global _small_set
    if _small_set is None:
        _small_set = dataset(images=3)
    return _small_set


class DaemonCase(unittest.TestCase):
    """Tests that share one daemon. OPTIONS: the arguments of Daemon."""

    OPTIONS = {}
    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(**cls.OPTIONS)
        cls.addClassCleanup(cls._end)

    @classmethod
    def _end(cls):
        if cls.daemon.alive():
            cls.daemon.stop()

    def tearDown(self):
        self.assertTrue(self.daemon.alive(), "the daemon died:\n" + self.daemon.log()[-4000:])
        self.assertEqual(self.daemon.json("/api/v1/health")["status"], "healthy")

    # -- assertions that many tests need --

    def assert_detail(self, response, status, detail):
        self.assertEqual((response.status_code, response.json()), (status, {"detail": detail}))

    def assert_faults(self, response, *faults):
        """A 422 with exactly these (type, loc), in this order."""
        self.assertEqual(response.status_code, 422, response.text)
        found = [(fault["type"], fault["loc"]) for fault in response.json()["detail"]]
        self.assertEqual(found, [(kind, list(loc)) for kind, loc in faults])

    def assert_time(self, text):
        self.assertRegex(text, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$")
