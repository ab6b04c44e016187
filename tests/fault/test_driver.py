"""What a task says where the NVIDIA driver does not do its work: a libcuda.so.1 that fails with a status of CUDA's, under
the real runtime of the CUDA object. Inventory, cuDNN and cuBLASLt are pretended, so that it needs no GPU, only a
compiler and a build with the CUDA object. tests/gpu/faults.py does the same over a real driver, in mid-work."""

import os
import re
import subprocess
import unittest

from tests.api.harness import BINARY, Daemon, scratch
from tests.fault.test_cuda import HERE, OBJECT, library

ROOT = os.path.dirname(os.path.dirname(HERE))
MISMATCH, NOT_READY, NO_DEVICE, UNAVAILABLE, ECC, UNKNOWN = 803, 802, 100, 46, 214, 999

# status of cuInit, the sentence in both languages
CASES = [
    (MISMATCH, "the NVIDIA driver's kernel module and libcuda.so.1 are of different versions; restart the machine, or use "
     "cpu", "NVIDIA 驱动的内核模块与 libcuda.so.1 版本不一致；请重启机器，或使用 cpu"),
    (NOT_READY, "the GPUs are not ready (does nvidia-fabricmanager run?); try again later, or use cpu",
     "GPU 系统尚未就绪 (nvidia-fabricmanager 是否在运行？)；请稍后重试，或使用 cpu"),
    (NO_DEVICE, "CUDA finds no GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES, or use cpu",
     "CUDA 没有找到 GPU；请检查 nvidia-smi 与 CUDA_VISIBLE_DEVICES，或使用 cpu"),
    (UNAVAILABLE, "the GPU is reserved by another program or closed to computing (nvidia-smi -q -d COMPUTE); use another "
     "device or cpu", "GPU 被其他程序独占或禁止计算 (nvidia-smi -q -d COMPUTE)；请换用其他设备或 cpu"),
    (ECC, "the GPU has failed or is lost; look at nvidia-smi and dmesg (Xid), and try another device or cpu",
     "GPU 出错或已掉线；请用 nvidia-smi 和 dmesg (Xid) 检查，换用其他设备或 cpu 重试"),
    (UNKNOWN, "the GPU has failed or is lost; look at nvidia-smi and dmesg (Xid), and try another device or cpu",
     "GPU 出错或已掉线；请用 nvidia-smi 和 dmesg (Xid) 检查，换用其他设备或 cpu 重试"),
]


def pretend_libraries(folder):
    """cuDNN and cuBLASLt that can be opened and asked for their versions; no more comes to pass here."""
    with open(f"{ROOT}/src/engine/cuda/library.h", encoding="utf-8") as file:
        names = set(re.findall(r"X\((cu\w+)\)", file.read()))
    for name, prefix, version in (("libcudnn.so.9", "cudnn", 91000), ("libcublasLt.so.13", "cublasLt", 130000)):
        library(folder, name, "".join(f"unsigned long {one}(void) {{ return {version if 'GetVersion' in one else 1}; }}\n"
                                      for one in sorted(names) if one.startswith(prefix)))


@unittest.skipUnless(os.path.exists(OBJECT), "this build has no librfuav_cuda.so (no nvcc)")
class Driver(unittest.TestCase):
    def setUp(self):
        self.folder = scratch("driver")
        library(self.folder, "libnvidia-ml.so.1", f"{HERE}/fake_nvml.c")
        library(self.folder, "libcuda.so.1", f"{HERE}/broken_cuda.c")
        pretend_libraries(self.folder)

    def daemon(self, lang):
        daemon = Daemon(lang=lang, env={"LD_LIBRARY_PATH": self.folder, "RFUAV_CUDA_LIBRARIES": self.folder,
                                        "CUDA_VISIBLE_DEVICES": "0", "RFUAV_BREAK": f"{self.folder}/rule"})
        self.addCleanup(daemon.kill)
        return daemon

    def break_with(self, status):
        with open(f"{self.folder}/rule", "w", encoding="utf-8") as file:
            file.write(f"cuInit 1 {status}\n")

    def test_each_status_has_its_sentence_and_costs_one_task(self):
        for lang, prefix in (("en", "training failed: "), ("zh", "训练失败: ")):
            daemon = self.daemon(lang)
            other = daemon.train_long(device="cpu")
            daemon.wait(other, "running")
            for status, *sentences in CASES:
                with self.subTest(status=status, lang=lang):
                    self.break_with(status)
                    record = daemon.wait(daemon.train(device="cuda"), "failed", 20)
                    self.assertEqual(record["device"], "cuda:0")
                    self.assertTrue(record["message"].startswith(prefix + sentences[lang == "zh"] + " ("), record["message"])
                    self.assertRegex(record["message"], r"\(looking for GPUs: .*, cudaError\w+\)$")
                    self.assertEqual(daemon.json("/api/v2/resources")["device_usage"]["cuda:0"],
                                     {"training": 0, "inference": 0})
            self.assertEqual(daemon.task(other)["status"], "running")
            self.assertEqual(daemon.json("/api/v1/health")["status"], "healthy")
            daemon.cancel(other)

    def test_an_inference_says_it_too(self):
        daemon = self.daemon("en")
        self.break_with(ECC)
        record = daemon.wait(daemon.infer(device="cuda:0"), "failed", 20)
        self.assertRegex(record["message"], r"^inference failed: the GPU has failed or is lost; .*cudaErrorECCUncorrectable\)$")
        daemon.wait(daemon.infer(device="cpu"), "completed")

    def test_a_broken_device_keeps_no_other_task_waiting(self):
        """Those in the queue of the GPU fail one after another, each with the sentence; none hangs."""
        daemon = self.daemon("en")
        self.break_with(MISMATCH)
        tasks = [daemon.train(device=device) for device in ("cuda", "cuda:0", "cuda", "cpu")]
        ends = [daemon.wait(task, ("failed", "completed"), 30) for task in tasks]
        self.assertEqual([end["status"] for end in ends], ["failed", "failed", "failed", "completed"])
        self.assertTrue(all("different versions" in end["message"] for end in ends[:3]))

    def test_a_broken_gpu_does_not_draw_the_whole_queue(self):
        """Having failed a task it is the least loaded one: tasks for any GPU go to another first."""
        daemon = Daemon(lang="en", env={"LD_LIBRARY_PATH": self.folder, "RFUAV_CUDA_LIBRARIES": self.folder,
                                        "CUDA_VISIBLE_DEVICES": "0,1", "RFUAV_BREAK": f"{self.folder}/rule",
                                        "RFUAV_FAKE_GPUS": "2"})
        self.addCleanup(daemon.kill)
        self.break_with(ECC)
        devices = [daemon.wait(daemon.train(device=device), "failed", 20)["device"]
                   for device in ("cuda", "cuda", "cuda:0", "cuda")]
        self.assertEqual(devices, ["cuda:0", "cuda:1", "cuda:0", "cuda:0"])  # in the end there is no better one


class Lost(unittest.TestCase):
    """A GPU of two that falls off the bus while the service runs, as NVML tells it, and comes back. What is placed on the
    pretended cards is computed on the CPU: there is no CUDA object."""

    def setUp(self):
        self.folder = scratch("lost")
        library(self.folder, "libnvidia-ml.so.1", f"{HERE}/fake_nvml.c")
        self.env = {"LD_LIBRARY_PATH": self.folder, "CUDA_VISIBLE_DEVICES": "0,1", "RFUAV_FAKE_GPUS": "2",
                    "RFUAV_FAKE_LOST": f"{self.folder}/lost", "RFUAV_CUDA_OBJECT": "/nowhere/librfuav_cuda.so"}
        self.daemon = Daemon(lang="en", env=self.env)
        self.addCleanup(self.daemon.kill)

    def lose(self, index):
        with open(f"{self.folder}/lost", "w", encoding="utf-8") as file:
            file.write(f"{index}\n")
        self.seen(index, True)

    def bring_back(self, index):
        os.unlink(f"{self.folder}/lost")
        self.seen(index, False)

    def seen(self, index, lost):
        self.daemon.until(lambda: self.daemon.json("/api/v2/resources/gpu")["devices"][index]["lost"] == lost, 10)

    def device(self, task):
        return self.daemon.wait(task, "running")["device"]

    def test_nothing_is_placed_on_it(self):
        beside = self.daemon.train_long(device="cuda:1")
        self.assertEqual(self.device(beside), "cuda:1")
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cuda": {"training": 2}}})
        self.lose(0)
        self.assertEqual(self.device(self.daemon.train_long(device="cuda")), "cuda:1")  # though GPU 0 has fewer tasks
        pinned, free = self.daemon.train_long(device="cuda:0"), self.daemon.train_long(device="cuda")
        reason = "waiting for resources... (cuda:0: it does not answer, it may be lost)"
        self.daemon.until(lambda: self.daemon.task(pinned)["message"] == reason, 10)
        self.assertIn("(cuda: training 2/2, ", self.daemon.wait(free, "queued")["message"])
        self.assertEqual(self.daemon.task(beside)["status"], "running")
        self.bring_back(0)
        self.assertEqual([self.device(pinned), self.device(free)], ["cuda:0", "cuda:0"])
        self.daemon.cancel_all()

    def test_it_is_shown(self):
        self.lose(1)
        done = subprocess.run([BINARY, "devices", "--url", self.daemon.url], capture_output=True, encoding="utf-8",
                              env=dict(os.environ, RFUAV_LANG="en"), check=True)
        self.assertRegex(done.stdout, r"(?m)^cuda:1 .* lost +0/1 +0/3 +Pretended GPU$")
        self.assertNotRegex(done.stdout, r"(?m)^cuda:0 .*lost")

    def test_lost_from_the_start(self):
        """The driver gives no handle for it."""
        self.daemon.kill()
        with open(f"{self.folder}/lost", "w", encoding="utf-8") as file:
            file.write("0\n")
        daemon = Daemon(lang="en", env=dict(self.env, RFUAV_FAKE_NO_HANDLE="1"))
        self.addCleanup(daemon.kill)
        self.assertEqual(daemon.wait(daemon.train(device="cuda"), "completed")["device"], "cuda:1")
        task = daemon.train(device="cuda:0")
        self.assertIn("(cuda:0: it does not answer, it may be lost)", daemon.wait(task, "queued")["message"])
        daemon.cancel(task)


if __name__ == "__main__":
    unittest.main()
