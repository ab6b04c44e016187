"""A service under test on a real card: started from a bundle or a build, talked to through the Python client, with
data sets of its own. Needs nothing but Python's standard library."""

import glob
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "client", "python"))

from rfuav_client import RFUAVClient, RFUAVError  # noqa: E402  (the client is not installed)

ENDED = ("completed", "failed", "cancelled")


def find_program():
    """$RFUAV_BIN, else what `make bundle` made, else what `make` built."""
    names = [os.environ.get("RFUAV_BIN"), f"{ROOT}/build/bundle/rfuav/bin/rfuav", f"{ROOT}/build/rfuav"]
    return next((os.path.abspath(name) for name in names if name and os.path.exists(name)), None)


def without(*names):
    """A command that runs its arguments as on a machine without these libraries: an empty file lies over each. Needs
    root."""
    places = ["/usr/lib/x86_64-linux-gnu", "/usr/local/cuda*/lib64", "/usr/local/cuda*/compat", "/usr/local/nvidia/lib64",
              "/usr/local/lib/python3*/*-packages/nvidia/*/lib", "/opt/*/.venv/lib/python3*/site-packages/nvidia/*/lib"]
    found = {os.path.realpath(path) for place in places for name in names for path in glob.glob(f"{place}/{name}")}
    script = "".join(f"mount --bind /dev/null '{path}' && " for path in sorted(found))
    return ["unshare", "-m", "sh", "-c", script + 'exec "$0" "$@"']


def until(condition, seconds, what):
    """Waits for condition() to be true; returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(0.005)


class Service:
    """A running `rfuav serve` with a folder of its own."""

    def __init__(self, program, lang="en", env=None, wrap=()):
        self.program = program
        self.wrap = list(wrap)  # a command that runs the service
        self.folder = tempfile.mkdtemp(prefix="rfuav-gpu-")
        self.env = dict(os.environ, RFUAV_LANG=lang, DATA_DIR=f"{self.folder}/state", **(env or {}))
        self._numbers = itertools.count(1)
        self.start()

    def start(self):
        self.output = open(f"{self.folder}/output.txt", "ab")
        begin = self.output.tell()
        self.process = subprocess.Popen(self.wrap + [self.program, "serve", "--port", "0"], cwd=self.folder, env=self.env,
                                        stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT)
        found = until(lambda: self.process.poll() is not None or re.search(r"http://127\.0\.0\.1:\d+", self.log(begin)),
                      20, "the service's start")
        if found is True:
            raise AssertionError(f"the service did not start:\n{self.log(begin)}")
        self.client = RFUAVClient(found.group(0))
        until(lambda: "available" in self.client.get_gpu_info(), 20, "a healthy answer")
        return self

    def log(self, begin=0):
        with open(f"{self.folder}/output.txt", encoding="utf-8", errors="replace") as file:
            file.seek(begin)
            return file.read()

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def run(self, *arguments):
        """`rfuav ARGUMENTS` as a user types it; its standard output, and an error when it fails."""
        done = subprocess.run(self.wrap + [self.program, *arguments], env=dict(self.env, RFUAV_URL=self.client.base_url),
                              capture_output=True, encoding="utf-8", timeout=60, check=False)
        if done.returncode:
            raise AssertionError(f"rfuav {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def new_folder(self, name):
        return f"{self.folder}/{name}-{next(self._numbers)}"

    # ---- data ----

    def synth(self, classes=4, train=40, val=10, size=256, **more):
        """A folder with train/ and valid/ of simulated spectrograms as JPEG."""
        out = self.new_folder("data")
        words = ["--out", out, "--classes", str(classes), "--train", str(train), "--val", str(val), "--size", str(size),
                 "--format", "jpg"]
        for name, value in more.items():
            words += [f"--{name}", str(value)]
        self.run("synth", *words)
        return out

    def multiplied(self, data, count):
        """A data set of at least `count` training pictures: links to those of `data`; validation as it is."""
        out = self.new_folder("many")
        shutil.copytree(f"{data}/valid", f"{out}/valid")
        for name in sorted(os.listdir(f"{data}/train")):
            pictures = sorted(os.listdir(f"{data}/train/{name}"))
            each = -(-count // (len(pictures) * len(os.listdir(f"{data}/train"))))
            os.makedirs(f"{out}/train/{name}")
            for picture in pictures:
                for i in range(each):
                    os.link(f"{data}/train/{name}/{picture}", f"{out}/train/{name}/{i:05}-{picture}")
        return out

    # ---- tasks ----

    def train(self, data, **fields):
        base = {"model": "resnet18", "num_classes": 4, "train_path": f"{data}/train", "val_path": f"{data}/valid",
                "save_path": self.new_folder("out"), "pretrained": False, "keep_checkpoints": 1, "device": "cuda",
                "num_epochs": 2, "batch_size": 32, "seed": 1}
        base.update(fields)
        return self.client.start_training(**base)["task_id"]

    def infer(self, model, source, **fields):
        """model: a folder that a training has left."""
        fields.setdefault("save_path", self.new_folder("results"))
        fields.setdefault("device", "cuda")
        return self.client.start_inference(f"{model}/config.yaml", f"{model}/best_model.pth", source,
                                           **fields)["task_id"]

    def wait(self, task, states=ENDED, seconds=60):
        """The record once it is in one of the states; another end is an error with the log."""
        states = (states,) if isinstance(states, str) else states
        record = until(lambda: (lambda r: r if r["status"] in states + ENDED else None)(self.client.get_task(task)),
                       seconds, f"{task}: {states}")
        if record["status"] not in states:
            raise AssertionError(f"{task} is {record['status']}, not {states}: {record['message']}\n" +
                                 "\n".join(self.messages(task)[-15:]))
        return record

    def lines(self, task):
        return [line for line in self.client.get_logs(task) if "level" in line]

    def messages(self, task):
        return [line["message"] for line in self.lines(task)]

    def said(self, task, pattern):
        """The first line of the task's log that matches, or None."""
        return next((line for line in self.lines(task) if re.search(pattern, line["message"])), None)

    def workers(self):
        """{process id} of the daemon's children."""
        found = set()
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self.process.pid and fields[0] != "Z":
                found.add(int(entry))
        return found

    def healthy(self):
        return self.process.poll() is None and self.client.health_check()["status"] == "healthy"


def seconds_between(first, second):
    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()


__all__ = ["ENDED", "ROOT", "RFUAVError", "Service", "find_program", "seconds_between", "until", "without"]
