"""The NVIDIA GPU as its driver sees it (NVML), and a process that takes its memory: for tests of the service on a real
card. Needs nothing but Python's standard library and the driver."""

import ctypes
import subprocess
import sys

MIB = 1 << 20


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Process(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong), ("gpu_instance", ctypes.c_uint),
                ("compute_instance", ctypes.c_uint)]


class Card:
    """GPU `index`. Raises OSError where there is no driver or no such GPU; str(error) says why."""

    def __init__(self, index=0):
        self._nvml = ctypes.CDLL("libnvidia-ml.so.1")
        self._device = ctypes.c_void_p()
        self._check(self._nvml.nvmlInit_v2(), "nvmlInit")
        self._check(self._nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(self._device)), f"GPU {index}")

    def _check(self, status, what):
        if status != 0:
            self._nvml.nvmlErrorString.restype = ctypes.c_char_p
            raise OSError(f"{what}: {self._nvml.nvmlErrorString(status).decode()}")

    def name(self):
        text = ctypes.create_string_buffer(96)
        self._check(self._nvml.nvmlDeviceGetName(self._device, text, 96), "name")
        return text.value.decode()

    def memory(self):
        """(total, free) bytes."""
        memory = _Memory()
        self._check(self._nvml.nvmlDeviceGetMemoryInfo(self._device, ctypes.byref(memory)), "memory")
        return memory.total, memory.free

    def free(self):
        return self.memory()[1]

    def used_by(self, pid):
        """Bytes that a process holds; 0: none, or it is not on this card."""
        count = ctypes.c_uint(64)
        found = (_Process * 64)()
        self._check(self._nvml.nvmlDeviceGetComputeRunningProcesses_v3(self._device, ctypes.byref(count), found),
                    "processes")
        return sum(entry.used for entry in found[:count.value] if entry.pid == pid)


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
    """Another program on the card: take(left) takes all of its memory but `left` bytes at once, end() gives it back."""

    def __init__(self):
        self._process = subprocess.Popen([sys.executable, "-c", _HOLDER], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, encoding="utf-8")
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
