"""What a task on a GPU says where CUDA's libraries or the driver are missing or too old: the driver's inventory is a fake
library with one GPU, the rest is real. Needs a compiler and a build with the CUDA object."""

import glob
import os
import subprocess
import unittest

from tests.api.harness import BINARY, Daemon, scratch

HERE = os.path.dirname(os.path.abspath(__file__))
OBJECT = os.path.join(os.path.dirname(BINARY), "librfuav_cuda.so")
PLACES = ("/usr/lib/x86_64-linux-gnu", "/usr/local/cuda*/lib64", "/usr/local/lib/python3*/*-packages/nvidia/*/lib",
          "/opt/*/.venv/lib/python3*/site-packages/nvidia/*/lib")


def found(name):
    return [path for place in PLACES for path in glob.glob(f"{place}/{name}")]


def library(folder, name, source):
    """A shared object from C source, or a file of C."""
    command = ["cc", "-shared", "-fPIC", "-o", f"{folder}/{name}"]
    if source.endswith(".c"):
        subprocess.run(command + [source], check=True)
    else:
        subprocess.run(command + ["-x", "c", "-"], input=source, encoding="utf-8", check=True)


@unittest.skipUnless(os.path.exists(OBJECT), "this build has no librfuav_cuda.so (no nvcc)")
class Cuda(unittest.TestCase):
    def setUp(self):
        self.libraries = scratch("libraries")
        library(self.libraries, "libnvidia-ml.so.1", f"{HERE}/fake_nvml.c")

    def message(self, lang="en", device="cuda", **env):
        """How a training on the GPU ends; the daemon must live on and the CPU must work."""
        env.update(LD_LIBRARY_PATH=self.libraries, CUDA_VISIBLE_DEVICES="0")
        daemon = Daemon(lang=lang, env=env)
        self.addCleanup(daemon.kill)
        record = daemon.wait(daemon.train(device=device), "failed", 20)
        self.assertEqual(record["device"], "cuda:0")
        daemon.wait(daemon.train(device="cpu"), "completed")
        self.assertEqual(daemon.json("/api/v1/health")["status"], "healthy")
        return record["message"]

    def needs_libraries(self):
        for name in ("libcudnn.so.9", "libcublasLt.so.1[23]"):
            if not found(name):
                self.skipTest(f"this machine has no {name}")
        if found("libcuda.so.1"):
            self.skipTest("this machine has a driver")

    def test_no_driver(self):
        self.needs_libraries()
        self.assertEqual(self.message(), "training failed: no NVIDIA driver was found (libcuda.so.1); install it, start a "
                         "container with --gpus all, or use cpu")
        self.assertEqual(self.message(lang="zh", device="cuda:0"), "训练失败: 没有找到 NVIDIA 驱动 (libcuda.so.1)；请安装驱动，容器需用 "
                         "--gpus all 启动，或使用 cpu")

    def test_old_driver(self):
        self.needs_libraries()
        library(self.libraries, "libcuda.so.1", "int cuDriverGetVersion(int *v) { *v = 11040; return 0; }\n"
                "int cuInit(unsigned f) { return 0; }\n")
        self.assertRegex(self.message(), r"^training failed: the NVIDIA driver is too old: it supports CUDA 11\.4, this build "
                         r"needs 1[23]\.\d; update the driver, or use cpu$")

    def test_old_cudnn(self):
        self.needs_libraries()
        folder = scratch("old")
        library(folder, "libcudnn.so.9", "unsigned long cudnnGetVersion(void) { return 90000; }\n")
        self.assertIn("it is too old; install cuDNN 9 and CUDA 12 or 13, or use cpu",
                      self.message(RFUAV_CUDA_LIBRARIES=folder))

    def test_no_cudnn(self):
        """An empty file lies over each library, in a name space of its own."""
        self.needs_libraries()
        script = "".join(f"mount --bind /dev/null {os.path.realpath(path)} && " for path in found("libcudnn.so.9"))
        if subprocess.run(["unshare", "-m", "sh", "-c", script + "true"], capture_output=True, check=False).returncode:
            self.skipTest("hiding libraries needs root")
        wrapper = scratch("wrapper") + "/rfuav"
        with open(wrapper, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\nexec unshare -m sh -c '{script} exec \"$0\" \"$@\"' {BINARY} \"$@\"\n")
        os.chmod(wrapper, 0o755)
        env = {"LD_LIBRARY_PATH": self.libraries, "CUDA_VISIBLE_DEVICES": "0"}
        for lang, words in (("en", ["cuDNN 9 was not found", "pip install", "RFUAV_CUDA_LIBRARIES", "or use cpu",
                                    "Searched: the system's library path"]),
                            ("zh", ["没有找到 cuDNN 9", "请安装", "RFUAV_CUDA_LIBRARIES", "或使用 cpu", "已查找"])):
            daemon = Daemon(lang=lang, env=env, binary=wrapper)
            self.addCleanup(daemon.kill)
            message = daemon.wait(daemon.train(device="cuda"), "failed", 20)["message"]
            for word in words:
                self.assertIn(word, message)
            self.assertIn(os.path.dirname(found("libcudnn.so.9")[-1]).split("/lib")[0], message)

    def test_old_gpu(self):
        daemon = Daemon(lang="en", env={"LD_LIBRARY_PATH": self.libraries, "CUDA_VISIBLE_DEVICES": "0",
                                        "RFUAV_FAKE_CAPABILITY": "7.0"})
        self.addCleanup(daemon.kill)
        task = daemon.train(device="cuda")
        self.assertEqual(daemon.wait(task, "completed")["device"], "cpu")
        self.assertTrue([text for text in daemon.messages(task) if "Pretended GPU" in text and "at least 8.0" in text])

    def test_no_cuda_object(self):
        """Another program than `rfuav` has CUDA's part: it computes on the CPU and says so."""
        daemon = Daemon(lang="en", env={"LD_LIBRARY_PATH": self.libraries, "CUDA_VISIBLE_DEVICES": "0",
                                        "RFUAV_CUDA_OBJECT": "/nowhere/librfuav_cuda.so"})
        self.addCleanup(daemon.kill)
        task = daemon.train(device="cuda")
        daemon.wait(task, "completed")
        self.assertIn("this build has no CUDA support: the CPU computes the task", daemon.messages(task))


if __name__ == "__main__":
    unittest.main()
