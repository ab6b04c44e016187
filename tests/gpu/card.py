"""NVIDIA GPUs as their driver sees them (NVML), and a process that takes the memory of one: for tests of the service on
real cards. Needs nothing but Python's standard library and the driver."""

import ctypes
import os
import subprocess
import sys

MIB = 1 << 20


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Process(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong), ("gpu_instance", ctypes.c_uint),
                ("compute_instance", ctypes.c_uint)]


def _nvml():
    """The library, ready for use. Raises OSError where there is no driver."""
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    nvml.nvmlErrorString.restype = ctypes.c_char_p
    _check(nvml, nvml.nvmlInit_v2(), "nvmlInit")
    return nvml


def _check(nvml, status, what):
    if status != 0:
        raise OSError(f"{what}: {nvml.nvmlErrorString(status).decode()}")


def visible():
    """NVML's indices of the GPUs that CUDA_VISIBLE_DEVICES (numbers or UUIDs) leaves, in its order. Raises OSError as
    Card does."""
    nvml, number, words = _nvml(), ctypes.c_uint(), os.environ.get("CUDA_VISIBLE_DEVICES")
    _check(nvml, nvml.nvmlDeviceGetCount_v2(ctypes.byref(number)), "count")
    uuids = {Card(i).uuid(): i for i in range(number.value)}
    if words is None:
        return list(uuids.values())
    return [uuids[word] if word in uuids else int(word) for word in filter(None, words.split(","))]


class Card:
    """GPU `index` in NVML's order. Raises OSError where there is no driver or no such GPU; str(error) says why."""

    def __init__(self, index=0):
        self.index = index
        self._nvml = _nvml()
        self._device = ctypes.c_void_p()
        self._check(self._nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(self._device)), f"GPU {index}")

    def _check(self, status, what):
        _check(self._nvml, status, what)

    def _text(self, function, what):
        text = ctypes.create_string_buffer(96)
        self._check(function(self._device, text, 96), what)
        return text.value.decode()

    def name(self):
        return self._text(self._nvml.nvmlDeviceGetName, "name")

    def uuid(self):
        return self._text(self._nvml.nvmlDeviceGetUUID, "uuid")

    def memory(self):
        """(total, free) bytes."""
        memory = _Memory()
        self._check(self._nvml.nvmlDeviceGetMemoryInfo(self._device, ctypes.byref(memory)), "memory")
        return memory.total, memory.free

    def free(self):
        return self.memory()[1]

    def processes(self):
        """{process id: bytes} of those that compute on this card."""
        number = ctypes.c_uint(256)
        found = (_Process * 256)()
        self._check(self._nvml.nvmlDeviceGetComputeRunningProcesses_v3(self._device, ctypes.byref(number), found),
                    "processes")
        return {entry.pid: entry.used for entry in found[:number.value]}

    def used_by(self, pid):
        """Bytes that a process holds; 0: none, or it is not on this card."""
        return self.processes().get(pid, 0)


_HOLDER = """
import ctypes, sys
cuda, context, pointers = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), []
def check(status):
    if status: sys.exit(f"CUDA says {status}")
check(cuda.cuInit(0))
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
check(cuda.cuCtxSetCurrent(context))
print("ready", flush=True)
for line in sys.stdin:
    left, total = ctypes.c_size_t(), ctypes.c_size_t()
    check(cuda.cuMemGetInfo_v2(ctypes.byref(left), ctypes.byref(total)))
    size = left.value - int(line)
    if size > 0:
        pointer = ctypes.c_void_p()
        check(cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)))
        pointers.append(pointer)
    print("taken", max(size, 0), flush=True)
"""


class Holder:
    """Another program on a card (the first one without `uuid`): take(left) takes all of its memory but `left` bytes at
    once, end() gives it back."""

    def __init__(self, uuid=None):
        env = dict(os.environ, **({"CUDA_VISIBLE_DEVICES": uuid} if uuid else {}))
        self._process = subprocess.Popen([sys.executable, "-c", _HOLDER], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, env=env, encoding="utf-8")
        self._answer("ready")

    def _answer(self, word):
        line = self._process.stdout.readline().split()
        if not line or line[0] != word:
            raise RuntimeError("the process that is to take the GPU's memory ended")
        return line

    def take(self, left):
        self._process.stdin.write(f"{left}\n")
        self._process.stdin.flush()
        return int(self._answer("taken")[1])

    def end(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
