"""A daemon that is killed loses nothing that it has answered."""

import os
import signal
import sqlite3
import time
import unittest

from tests.api.harness import PATIENCE, Daemon, write


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Killed(unittest.TestCase):
    def test_kill_9_during_a_training(self):
        daemon = Daemon()
        done = daemon.infer()
        daemon.wait(done, "completed")
        task = daemon.train(num_epochs=40, keep_checkpoints=1)
        daemon.until(lambda: (daemon.task(task)["current_epoch"] or 0) >= 3, 60, "epoch 3")
        before, lines = daemon.task(task), daemon.lines(task)
        workers = daemon.workers()
        daemon.kill(signal.SIGKILL)
        daemon.until(lambda: all(is_gone(pid) for pid in workers), 3, "the end of the workers with their daemon")
        daemon.start()
        record = daemon.task(task)
        self.assertIn(record["status"], ("pending", "queued", "running"))
        self.assertEqual(record["created_at"], before["created_at"])
        self.assertEqual(daemon.task(done)["status"], "completed")
        daemon.wait(task, "completed", 120)
        after = daemon.lines(task)
        # what was flushed before the crash is there, unchanged; only the last moment may be missing
        kept = [line for line in lines if "level" in line][:-10]
        self.assertEqual(after[:len(kept)], kept)
        self.assertTrue([line for line in after if line.get("level") == "WARNING"], "it does not say what happened")
        self.assertEqual([line["message"] for line in after if "level" in line][-1], "训练完成！")
        self.assertEqual(daemon.task(task)["current_epoch"], 40)
        daemon.stop()

    def test_kill_9_at_the_moment_a_worker_starts(self):
        """Wherever the kill comes, a task whose worker had begun says that it begins anew."""
        for _ in range(4):
            daemon = Daemon()
            task = daemon.train_long()
            end = time.monotonic() + 10 * PATIENCE
            while not daemon.workers() and time.monotonic() < end:
                pass
            daemon.kill(signal.SIGKILL)
            daemon.start()
            warnings = [line["message"] for line in daemon.lines(task) if line.get("level") == "WARNING"]
            self.assertIn("服务已重启，任务重新排队并将重新开始", warnings)
            daemon.cancel_all()
            daemon.stop()

    def test_every_answered_task_is_on_disk(self):
        daemon = Daemon(env={"MAX_TRAINING_CONCURRENT_CPU": "0", "MAX_INFERENCE_CONCURRENT_CPU": "0"})
        for _ in range(3):
            tasks = [daemon.train() for _ in range(10)]
            daemon.kill(signal.SIGKILL)
            daemon.start()
            for task in tasks:
                daemon.wait(task, "queued", 10)
        deleted = tasks[0]
        daemon.cancel(deleted)
        daemon.until(lambda: daemon.request("DELETE", f"/api/v2/tasks/{deleted}").status_code == 200, 3)
        daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"inference": 7}}})
        daemon.kill(signal.SIGKILL)
        daemon.start()
        self.assertEqual(daemon.get(f"/api/v2/tasks/{deleted}").status_code, 404)
        self.assertEqual(daemon.json("/api/v2/resources")["limits"]["cpu"]["inference"], 7)
        self.assertEqual(daemon.json("/api/v1/health")["training_tasks"], 29)
        daemon.stop()

    def test_sigterm_during_work_keeps_the_work(self):
        daemon = Daemon()
        task = daemon.train_long()
        daemon.wait(task, "running")
        started = time.monotonic()
        self.assertEqual(daemon.kill(signal.SIGTERM), 0)
        self.assertLess(time.monotonic() - started, 5 * PATIENCE)
        daemon.start()
        self.assertIn(daemon.task(task)["status"], ("pending", "queued", "running"))
        daemon.cancel_all()
        daemon.stop()

    def test_a_damaged_database_is_said_and_not_overwritten(self):
        daemon = Daemon()
        daemon.wait(daemon.infer(), "completed")
        daemon.stop()
        folder = daemon.env["DATA_DIR"]
        for name in os.listdir(folder):
            if name.endswith(("-wal", "-shm")):
                os.remove(os.path.join(folder, name))
        write(folder + "/rfuav.db", b"this is no database at all, only some text " * 200)
        with self.assertRaises(RuntimeError) as caught:
            daemon.start()
        self.assertIn("rfuav.db", str(caught.exception))
        with open(folder + "/rfuav.db", "rb") as file:
            self.assertTrue(file.read().startswith(b"this is no database"))

    def test_the_database_is_sound_after_many_kills(self):
        daemon = Daemon(env={"MAX_TRAINING_CONCURRENT_CPU": "0", "TASK_QUEUE_SIZE": "1000"})
        for i in range(5):
            for _ in range(20):
                daemon.train()
            daemon.kill(signal.SIGKILL)
            if i < 4:
                daemon.start()
        with sqlite3.connect(daemon.env["DATA_DIR"] + "/rfuav.db") as database:
            self.assertEqual(database.execute("pragma integrity_check").fetchone(), ("ok",))


if __name__ == "__main__":
    unittest.main()
