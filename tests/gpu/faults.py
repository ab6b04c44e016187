#!/usr/bin/env python3
"""faults.py [PART...]: a driver and a GPU that break under the service's feet, on a real card: between CUDA's runtime and
the driver lies tests/fault/broken_cuda.c, which fails from a call on, or launches a kernel that traps, so that the driver
itself breaks the context. One task must end with a sentence; all others, the service and the card go on. Prints every
figure and whether it is what it should be; ends with 1 when one is not. Without a GPU it says so and ends with 0.

    make bundle && tests/gpu/faults.py                 what is in build/bundle, or $RFUAV_BIN

It needs a C compiler."""

import ctypes
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

from parts import Parts, check
from running import ROOT, Service, until

part = Parts()

BROKEN = "the GPU has failed or is lost; look at nvidia-smi and dmesg (Xid), and try another device or cpu"
BUG = "a computation on the GPU failed, a bug in the program; try cpu"
OPENING = [  # what opening the GPU says
    ("cuInit 1 803", "the NVIDIA driver's kernel module and libcuda.so.1 are of different versions; restart the machine, or "
     "use cpu", "cudaErrorSystemDriverMismatch"),
    ("cuDevicePrimaryCtxRetain 1 46", "the GPU is reserved by another program or closed to computing (nvidia-smi -q -d "
     "COMPUTE); use another device or cpu", "cudaErrorDevicesUnavailable"),
    ("cuInit 1 802", "the GPUs are not ready (does nvidia-fabricmanager run?); try again later, or use cpu",
     "cudaErrorSystemNotReady"),
    ("cuInit 1 100", "CUDA finds no GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES, or use cpu", "cudaErrorNoDevice")]
WORKING = [  # what a training says that has begun
    ("cuGraphLaunch 20 trap", BUG, "cudaErrorLaunchFailure"), ("cuGraphLaunch 20 719", BUG, "cudaErrorLaunchFailure"),
    ("cuGraphLaunch 20 700", BUG, "cudaErrorIllegalAddress"), ("cuGraphLaunch 20 214", BROKEN, "cudaErrorECCUncorrectable"),
    ("cuGraphLaunch 20 999", BROKEN, "cudaErrorUnknown"), ("cuStreamSynchronize 30 214", BROKEN, "cudaErrorECCUncorrectable")]

SEARCHING = [("cuLaunchKernel 40 trap", BUG, "cudaErrorLaunchFailure"),
             ("cuLaunchKernel 40 214", BROKEN, "cudaErrorECCUncorrectable")]
INFERRING = [("cuGraphLaunch 2 trap", BUG, "cudaErrorLaunchFailure"),
             ("cuGraphLaunch 2 214", BROKEN, "cudaErrorECCUncorrectable")]


def real_driver():
    """Path of the driver's libcuda.so.1."""
    ctypes.CDLL("libcuda.so.1")
    with open("/proc/self/maps", encoding="utf-8") as file:
        return next(line.split()[-1] for line in file if "/libcuda.so" in line)


def broken_driver(folder):
    """Builds broken_cuda.c as the driver's library in a folder for LD_LIBRARY_PATH."""
    real = real_driver()
    with open(real, "rb") as file:
        names = {name.decode() for name in re.findall(rb"\0(cu[A-Z]\w{2,90})(?=\0)", file.read())}
    names -= {"cuInit", "cuDriverGetVersion", "cuGetExportTable", "cuGetProcAddress", "cuGetProcAddress_v2"}
    library = ctypes.CDLL(real)
    with open(f"{folder}/forwarded.h", "w", encoding="ascii") as file:
        file.writelines(f"X({name})\n" for name in sorted(names) if hasattr(library, name))
    subprocess.run(["cc", "-std=gnu17", "-shared", "-fPIC", f'-DFORWARDED="{folder}/forwarded.h"', "-o",
                    f"{folder}/libcuda.so.1", f"{ROOT}/tests/fault/broken_cuda.c", "-ldl"], check=True)


class Breakable(Service):
    """A service whose tasks run over the driver that breaks when rule() has said so; those that run already do not."""

    def __init__(self, program):
        self._libraries = tempfile.mkdtemp(prefix="rfuav-broken-")
        broken_driver(self._libraries)
        path = os.environ.get("LD_LIBRARY_PATH")
        super().__init__(program, env={
            "LD_LIBRARY_PATH": self._libraries + (f":{path}" if path else ""), "RFUAV_REAL_CUDA": real_driver(),
            "RFUAV_BREAK": f"{self._libraries}/rule", "RFUAV_CACHE": f"{self._libraries}/cache"})

    def remembered(self):
        """Lines of the files of timed algorithms."""
        return [line.strip() for name in glob.glob(f"{self._libraries}/cache/cudnn-*.txt")
                for line in open(name, encoding="utf-8")]

    def rule(self, text=None):
        path = f"{self._libraries}/rule"
        if text is None:
            os.unlink(path)
        else:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text + "\n")

    def end(self):
        super().end()
        shutil.rmtree(self._libraries, ignore_errors=True)


def broken(service, card, rule, start, sentence, status, kind="training"):
    """The task that start() begins under the rule fails with the sentence, and its process leaves the card."""
    service.rule(rule)
    task = start()
    service.wait(task, ("running", "failed"))
    pids = service.workers()
    record = service.wait(task, "failed", 60)
    service.rule()
    message = record["message"]
    check(rule, message.startswith(f"{kind} failed: {sentence} (") and status in message, message)
    until(lambda: not any(pid in card.processes() for pid in pids - service.workers()), 10, "a process less on the card")


def first_epoch(service, task):
    until(lambda: (service.wait(task, "running")["current_epoch"] or 0) >= 1, 30, "an epoch of the task beside")


@part
def opening(service, card):
    """A driver that fails while the GPU is opened: one task fails with a sentence, those beside it go on."""
    with Breakable(service.program) as other:
        data = other.synth(train=20, val=5)
        other.client.update_resource_config({"cuda": {"training": 2}})
        beside = other.train(data, num_epochs=100000)
        first_epoch(other, beside)
        for rule, sentence, status in OPENING:
            broken(other, card, rule, lambda: other.train(data), sentence, status)
        goes_on(other, beside, data)


def goes_on(service, beside, data):
    """The task beside the broken ones trains on, the next ones on the card run, the service is healthy."""
    epoch = service.client.get_task(beside)["current_epoch"]
    until(lambda: service.client.get_task(beside)["current_epoch"] > epoch, 30, "another epoch of the task beside")
    check("the training beside them goes on", service.client.get_task(beside)["status"] == "running", f"epoch {epoch + 1}")
    task = service.train(data)
    record = service.wait(task, "completed")
    check("the next one on the same card runs", record["device"] == "cuda:0", record["message"])
    until(lambda: service.client.get_resources()["device_usage"]["cuda:0"] == {"training": 1, "inference": 0}, 5, "free slots")
    check("the slots are given back", True)
    check("the service is healthy", service.healthy())
    service.client.cancel_task(beside)
    until(lambda: not service.workers(), 10, "the end of the cancelled worker")


@part
def working(service, card):
    """A GPU that breaks in the middle of a training or an inference, beside a training on the same card."""
    with Breakable(service.program) as other:
        data, model = other.synth(train=20, val=5), other.new_folder("model")
        other.wait(other.train(data, save_path=model), "completed")
        many = other.multiplied(data, 4000)
        other.client.update_resource_config({"cuda": {"training": 2}})
        beside = other.train(data, num_epochs=100000)
        first_epoch(other, beside)
        for rule, sentence, status in WORKING:
            broken(other, card, rule, lambda: other.train(many), sentence, status)
        before = len(other.remembered())
        for rule, sentence, status in SEARCHING:  # a batch that is not known yet
            broken(other, card, rule, lambda: other.train(many, batch_size=24), sentence, status)
        check("nothing that a broken GPU could not do is remembered", not [
            line for line in other.remembered() if line.endswith("= -1")], f"{before} lines, now {len(other.remembered())}")
        source = f"{many}/train/{sorted(os.listdir(f'{many}/train'))[0]}"
        for rule, sentence, status in INFERRING:
            broken(other, card, rule, lambda: other.infer(model, source), sentence, status, "inference")
        goes_on(other, beside, data)


if __name__ == "__main__":
    sys.exit(part.main())
