"""Section 12 of the contract: which task runs where and when, over device files with 2 and 8 GPUs.

Workers that only have to be there are stopped by SIGSTOP, so that eight of them cost nothing; cancelling them still
works, since a stopped process can be killed."""

import json
import re
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from tests.api.harness import ENDED, Daemon, DaemonCase, device_file, scratch, write


def cards(*capabilities):
    """A device file with a GPU for each compute capability."""
    devices = [{"name": f"Card {i}", "memory_mb": 24576, "compute_capability": text}
               for i, text in enumerate(capabilities)]
    return write(scratch("cards") + "/devices.json", json.dumps({"devices": devices}).encode())


class OldGpus(unittest.TestCase):
    """GPUs that the engine's kernels are not built for."""

    def test_beside_a_newer_one(self):
        daemon = Daemon(devices=cards("6.1", "8.6"))
        self.addCleanup(daemon.kill)
        self.assertEqual(daemon.wait(daemon.train_long(device="cuda"), "running")["device"], "cuda:1")
        record = daemon.wait(daemon.train_long(device="cuda"), "queued")  # it waits for that one
        self.assertIn("训练 1/1", record["message"])
        fault, = daemon.post("/api/v2/training/start", daemon.train_fields(device="cuda:0")).json()["detail"]
        self.assertEqual((fault["type"], fault["loc"], fault["input"]), ("device_unsupported", ["body", "device"], "cuda:0"))
        self.assertEqual(fault["msg"], "cuda:0 (Card 0) 的计算能力为 6.1，至少需要 8.0；本机可用: cuda:1 and cpu")
        self.assertEqual(len(daemon.json("/api/v2/resources/gpu")["devices"]), 2)
        daemon.cancel_all()

    def test_alone(self):
        daemon = Daemon(devices=cards("7.5"), lang="en")
        self.addCleanup(daemon.kill)
        record = daemon.wait(daemon.train(device="cuda"), "completed")
        self.assertEqual(record["device"], "cpu")
        warnings = [line["message"] for line in daemon.lines(record["task_id"]) if line.get("level") == "WARNING"]
        self.assertEqual(warnings, ["this machine has no usable GPU: running on the CPU: cuda:0 (Card 0) has compute "
                                    "capability 7.5, at least 8.0 is needed"])
        fault, = daemon.post("/api/v2/training/start", daemon.train_fields(device="cuda:0")).json()["detail"]
        self.assertIn("usable here: only cpu", fault["msg"])


class TwoGpus(DaemonCase):
    OPTIONS = {"devices": device_file(2)}

    def tearDown(self):
        self.daemon.cancel_all()
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {
            name: {"training": 1, "inference": 3} for name in ("cuda", "cuda:0", "cuda:1")}})
        super().tearDown()

    def device(self, task):
        return self.daemon.wait(task, "running")["device"]

    def test_least_loaded_and_ties_to_the_lower_index(self):
        self.assertEqual(self.device(self.daemon.train_long(device="cuda")), "cuda:0")
        self.assertEqual(self.device(self.daemon.train_long(device="cuda")), "cuda:1")
        self.daemon.freeze(2)
        usage = self.daemon.json("/api/v2/resources")["device_usage"]
        self.assertEqual([usage[d]["training"] for d in ("cuda:0", "cuda:1")], [1, 1])

    def test_load_of_the_other_kind_counts(self):
        self.assertEqual(self.device(self.daemon.train_long(device="cuda:0")), "cuda:0")
        self.assertEqual(self.device(self.daemon.infer_long(device="cuda")), "cuda:1")

    def test_inferences_spread(self):
        devices = [self.device(self.daemon.infer_long(device="cuda")) for _ in range(4)]
        self.assertEqual(devices, ["cuda:0", "cuda:1", "cuda:0", "cuda:1"])

    def test_pinned(self):
        first = self.daemon.train_long(device="cuda:1")
        self.assertEqual(self.device(first), "cuda:1")
        second = self.daemon.train_long(device="cuda:1")
        record = self.daemon.wait(second, "queued")
        self.assertTrue(record["message"].startswith("等待资源..."), record["message"])
        self.assertIn("cuda:1: 训练 1/1", record["message"])
        self.assertIn(first, record["message"])
        self.assertEqual(record["device"], "cuda:1")
        self.daemon.cancel(first)
        self.assertEqual(self.device(second), "cuda:1")

    def test_first_line_names_the_device_asked_for(self):
        task = self.daemon.train_long(device="cuda:1")
        self.device(task)
        messages = self.daemon.messages(task)
        self.assertEqual(messages[0], "等待CUDA:1资源...")
        self.assertIn("资源已分配，使用设备: cuda:1", messages)

    def test_one_that_cannot_run_does_not_hold_up_one_that_can(self):
        self.device(self.daemon.train_long(device="cuda:0"))
        pinned = self.daemon.train_long(device="cuda:0", priority=1)
        self.daemon.wait(pinned, "queued")
        self.assertEqual(self.device(self.daemon.train_long(device="cuda", priority=10)), "cuda:1")

    def test_limits_at_run_time(self):
        tasks = [self.daemon.train_long(device="cuda:0") for _ in range(3)]
        self.device(tasks[0])
        self.daemon.freeze(1)
        for n in (2, 3):
            self.assertEqual(self.daemon.task(tasks[n - 1])["status"], "queued")
            self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cuda:0": {"training": n}}})
            self.assertEqual(self.device(tasks[n - 1]), "cuda:0")
            self.daemon.freeze(n)

    def test_cpu_is_a_device_of_its_own(self):
        for device in ("cuda:0", "cuda:1"):
            self.device(self.daemon.train_long(device=device))
        self.assertEqual(self.device(self.daemon.train_long(device="cpu")), "cpu")

    def test_out_of_range(self):
        for device in ("cuda:2", "cuda:99"):
            for path, fields in (("training", self.daemon.train_fields), ("inference", self.daemon.infer_fields)):
                response = self.daemon.post(f"/api/v2/{path}/start", fields(device=device))
                self.assert_faults(response, ("device_out_of_range", ("body", "device")))
                fault, = response.json()["detail"]
                self.assertEqual(fault["input"], device)
                for word in (device[5:], "cuda:0", "cuda:1", "cpu"):
                    self.assertIn(word, fault["msg"])
                self.assertIn("cuda:1", str(fault["ctx"]))

    def test_unknown_device(self):
        for device in ("gpu", "CPU", "", "cuda:x", "cuda:", "cuda:-1", "cuda:0x1", "cuda: 0", "cuda:1.0", " cuda",
                       "cuda:01", "cuda:99999999999999999999"):
            response = self.daemon.post("/api/v2/training/start", self.daemon.train_fields(device=device))
            self.assertEqual((device, response.status_code), (device, 422))
            fault, = response.json()["detail"]
            self.assertIn(fault["type"], ("device_unknown", "device_out_of_range"))
            self.assertEqual(fault["loc"], ["body", "device"])

    def test_batch_checks_the_device_too(self):
        cfg, weights = self.daemon.infer_fields()["cfg_path"], self.daemon.infer_fields()["weight_path"]
        response = self.daemon.post("/api/v2/inference/batch", {"cfg_path": cfg, "weight_path": weights, "device": "cuda:7",
                                                               "source_paths": [scratch("s")]})
        self.assert_faults(response, ("device_out_of_range", ("body", "device")))

    def test_a_job_that_can_never_fit(self):
        response = self.daemon.post("/api/v2/training/start",
                                    self.daemon.train_fields(device="cuda:0", model="resnet152", batch_size=4096,
                                                             image_size=512))
        self.assertEqual(response.status_code, 422, response.text)
        fault, = response.json()["detail"]
        self.assertEqual(fault["type"], "does_not_fit")
        self.assertIn("batch_size", fault["msg"] + str(fault["ctx"]))
        self.assertTrue(fault["ctx"])

    def test_priorities(self):
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cuda:0": {"inference": 0}}})
        order = [5, 10, 1, 9, 1, 3]
        tasks = [(priority, index, self.daemon.infer(device="cuda:0", priority=priority))
                 for index, priority in enumerate(order)]
        for _, _, task in tasks:
            self.daemon.wait(task, "queued")
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cuda:0": {"inference": 1}}})
        starts = []
        for priority, index, task in tasks:
            self.daemon.wait(task, "completed")
            begin = next(line["timestamp"] for line in self.daemon.lines(task)
                         if line["message"].startswith("资源已分配"))
            starts.append((begin, priority, index))
        self.assertEqual([start[1:] for start in sorted(starts)], sorted((p, i) for p, i, _ in tasks))


class FullMemory(DaemonCase):
    OPTIONS = {"devices": device_file(1, memory_mb=24576, used_mb=24500)}

    def test_waits_for_memory_and_says_so(self):
        task = self.daemon.train(device="cuda:0", image_size=224, batch_size=16)
        record = self.daemon.wait(task, "queued")
        self.assertTrue(record["message"].startswith("等待资源..."))
        self.assertRegex(record["message"], r"\d+(\.\d+)? GB")
        self.assertIn("cuda:0", record["message"])
        self.daemon.cancel_all()


class FullMemories(DaemonCase):
    OPTIONS = {"devices": device_file(2, memory_mb=24576, used_mb=24500)}

    def test_names_every_gpu_that_it_may_use(self):
        message = self.daemon.wait(self.daemon.train(device="cuda", batch_size=16), "queued")["message"]
        self.assertRegex(message, r"^等待资源... \(cuda:0: 需要 .* GB, 空闲 0\.1 GB, .*; cuda:1: 需要 .* GB, 空闲 0\.1 GB, .*\)$")
        message = self.daemon.wait(self.daemon.train(device="cuda:1", batch_size=16), "queued")["message"]
        self.assertNotIn("cuda:0", message)
        self.daemon.cancel_all()


class EightGpus(DaemonCase):
    OPTIONS = {"devices": device_file(8), "env": {"TASK_QUEUE_SIZE": "1000", "CPU_THREADS": "1"}}

    def tearDown(self):
        self.daemon.cancel_all()
        super().tearDown()

    def test_eight_trainings_take_eight_gpus(self):
        tasks = [self.daemon.train_long(device="cuda") for _ in range(10)]
        self.daemon.until(lambda: len([t for t in tasks if self.daemon.task(t)["status"] == "running"]) == 8, 30)
        self.daemon.freeze(8)
        records = [self.daemon.task(t) for t in tasks]
        self.assertEqual(sorted(r["device"] for r in records[:8]), [f"cuda:{i}" for i in range(8)])
        self.assertEqual([r["status"] for r in records[8:]], ["queued", "queued"])
        self.assertEqual([r["device"] for r in records[8:]], ["cuda", "cuda"])
        freed = records[5]["device"]
        self.daemon.cancel(tasks[5])
        self.assertEqual(self.daemon.wait(tasks[8], "running")["device"], freed)

    def test_200_at_once_never_take_more_than_there_is(self):
        seen, stop = [], threading.Event()
        watcher = Daemon.__new__(Daemon)  # a session of its own for the watching thread
        watcher.__dict__.update(self.daemon.__dict__)
        import requests
        watcher.session = requests.Session()

        def watch():
            while not stop.is_set():
                usage = watcher.json("/api/v2/resources")
                seen.append((max(usage["device_usage"][f"cuda:{i}"]["inference"] for i in range(8)),
                             max(len(usage["active_tasks"][f"cuda:{i}"]) for i in range(8)), len(watcher.workers())))
                time.sleep(0.005)
        thread = threading.Thread(target=watch)
        thread.start()
        try:
            body = self.daemon.infer_fields(device="cuda")

            def submit(_):
                return requests.post(self.daemon.url + "/api/v2/inference/start", json=body, timeout=60)
            with ThreadPoolExecutor(50) as pool:
                answers = list(pool.map(submit, range(200)))
            self.assertEqual([a.status_code for a in answers], [200] * 200)
            tasks = [a.json()["task_id"] for a in answers]
            self.assertEqual(len(set(tasks)), 200)
            self.daemon.until(lambda: len(self.daemon.json("/api/v2/tasks?status=completed&limit=1000")
                                          ["inference_tasks"]) >= 30, 120, "thirty ends")
        finally:
            stop.set()
            thread.join()
        self.assertGreater(len(seen), 20)
        self.assertLessEqual(max(row[0] for row in seen), 3)
        self.assertLessEqual(max(row[1] for row in seen), 3)
        self.assertLessEqual(max(row[2] for row in seen), 24)
        self.assertGreater(max(row[2] for row in seen), 3)  # it did use several
        self.daemon.cancel_all()
        usage = self.daemon.json("/api/v2/resources")["device_usage"]
        self.assertTrue(all(entry == {"training": 0, "inference": 0} for entry in usage.values()), usage)
        self.assertEqual({self.daemon.task(t)["status"] for t in tasks} - set(ENDED), set())
        self.assertFalse([t for t in tasks if self.daemon.task(t)["status"] == "failed"])


class NoGpu(DaemonCase):
    def test_cuda_runs_on_the_cpu_and_says_so(self):
        for task in (self.daemon.train(device="cuda"), self.daemon.infer(device="cuda")):
            self.assertEqual(self.daemon.wait(task, "completed")["device"], "cpu")
            lines = self.daemon.lines(task)
            self.assertEqual(lines[0]["message"], "等待CUDA资源...")
            self.assertTrue([line for line in lines if line.get("level") == "WARNING" and
                             re.search("GPU", line["message"])], lines)

    def test_a_numbered_gpu_is_refused(self):
        response = self.daemon.post("/api/v2/training/start", self.daemon.train_fields(device="cuda:0"))
        self.assert_faults(response, ("device_out_of_range", ("body", "device")))
        self.assertIn("cpu", response.json()["detail"][0]["msg"])


class Queue(DaemonCase):
    OPTIONS = {"env": {"TASK_QUEUE_SIZE": "2", "MAX_TRAINING_CONCURRENT_CPU": "0"}}

    def test_full_queue(self):
        tasks = [self.daemon.train() for _ in range(2)]
        response = self.daemon.post("/api/v2/training/start", self.daemon.train_fields())
        self.assertEqual(response.status_code, 503, response.text)
        self.assertIsInstance(response.json()["detail"], str)
        self.assertRegex(response.headers["Retry-After"], r"^\d+$")
        self.daemon.cancel(tasks[0])
        self.daemon.train()
        self.daemon.cancel_all()


if __name__ == "__main__":
    unittest.main()
