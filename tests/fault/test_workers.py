"""A worker that dies, hangs or is cancelled costs one task and nothing else."""

import os
import signal
import time
import unittest

from tests.api.harness import PATIENCE, DaemonCase


class Workers(DaemonCase):
    # a sanitizer would turn the signals into an ordinary exit
    OPTIONS = {"env": {"ASAN_OPTIONS": "handle_segv=0:handle_sigbus=0:handle_abort=0"}}

    def die(self, start, prefix, *signals):
        for how in signals:
            with self.subTest(signal=how.name):
                task = start()
                self.daemon.wait(task, "running")
                worker, = self.daemon.until(self.daemon.workers, 5)
                time.sleep(0.2)
                os.kill(worker, how)
                record = self.daemon.wait(task, "failed", 10)
                self.assertTrue(record["message"].startswith(prefix), record["message"])
                self.assertRegex(record["message"], rf"{how.name}|{int(how)}|{signal.strsignal(how)}")
                errors = [line["message"] for line in self.daemon.lines(task) if line.get("level") == "ERROR"]
                self.assertEqual(errors[-1], record["message"])
                self.assertEqual(self.daemon.stream(f"/api/v2/tasks/{task}/logs").all()[-1]["status"], "failed")
                self.assertEqual(self.daemon.json("/api/v2/resources")["device_usage"]["cpu"],
                                 {"training": 0, "inference": 0})

    def test_training(self):
        self.die(self.daemon.train_long, "训练失败: ", signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)

    def test_inference(self):
        self.die(self.daemon.infer_long, "推理失败: ", signal.SIGKILL, signal.SIGSEGV)

    def test_another_task_goes_on(self):
        tasks = [self.daemon.train_long() for _ in range(2)]
        for task in tasks:
            self.daemon.wait(task, "running")
        self.daemon.until(lambda: len(self.daemon.workers()) == 2, 5, "two workers")
        os.kill(self.daemon.workers()[0], signal.SIGKILL)

        def states():
            return sorted(self.daemon.task(task)["status"] for task in tasks)
        self.daemon.until(lambda: "failed" in states(), 5, "a failed task")
        self.assertEqual(states(), ["failed", "running"])
        self.daemon.cancel_all()

    def test_the_next_in_line_gets_the_slot(self):
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 1}}})
        first, second = self.daemon.train_long(), self.daemon.train()
        self.daemon.wait(first, "running")
        self.daemon.wait(second, "queued")
        os.kill(self.daemon.until(self.daemon.workers, 5)[0], signal.SIGKILL)
        self.daemon.wait(second, "completed")
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 2}}})

    def test_a_stopped_worker_can_be_cancelled(self):
        task = self.daemon.train_long()
        self.daemon.wait(task, "running")
        os.kill(self.daemon.until(self.daemon.workers, 5)[0], signal.SIGSTOP)
        self.assertEqual(self.daemon.cancel(task).status_code, 200)
        self.daemon.until(lambda: not self.daemon.workers(), 2.5, "the end of a stopped worker")

    def test_cancelled_work_is_gone_within_two_seconds(self):
        for start in (self.daemon.train_long, self.daemon.infer_long):
            task = start()
            self.daemon.wait(task, "running")
            self.daemon.until(self.daemon.workers, 5)
            time.sleep(0.5)
            self.daemon.cancel(task)
            started = time.monotonic()
            while self.daemon.workers():
                self.assertLess(time.monotonic() - started, 2 * PATIENCE)
                time.sleep(0.01)
            self.daemon.until(lambda: self.daemon.json("/api/v2/resources")["active_tasks"]["cpu"] == [], 1, "a free slot")


if __name__ == "__main__":
    unittest.main()
