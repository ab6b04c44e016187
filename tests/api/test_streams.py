"""Section 11 of the contract: logs and server-sent events."""

import re
import threading
import time
import unittest

from tests.api.harness import DaemonCase, Stream

FINAL = {"status": "completed", "message": "任务结束"}


class Streams(DaemonCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.done = cls.daemon.train(num_epochs=2)
        cls.daemon.wait(cls.done, "completed")
        cls.path = f"/api/v2/tasks/{cls.done}/logs"

    def test_headers(self):
        for path in (self.path, f"/api/v2/training/{self.done}/logs"):
            with self.daemon.stream(path) as stream:
                self.assertEqual(stream.status, 200)
                self.assertEqual(stream.headers["content-type"], "text/event-stream; charset=utf-8")
                self.assertEqual(stream.headers["cache-control"], "no-cache")
                self.assertEqual(stream.headers["x-accel-buffering"], "no")
                self.assertEqual(stream.headers["transfer-encoding"], "chunked")

    def test_bytes(self):
        answer = self.daemon.ask("GET", self.path)
        text = answer.body.decode()
        for event in text.rstrip("\n").split("\n\n"):
            data = [line for line in event.split("\n") if not line.startswith(("id:", "retry:", ":"))]
            self.assertLessEqual(len(data), 1, event)
            self.assertTrue(all(line.startswith('data: {"') for line in data), event)
        self.assertIn('"message": "训练完成！"', text)
        self.assertIn('", "level": "INFO", "message": "', text)
        self.assertTrue(text.endswith('data: {"status": "completed", "message": "任务结束"}\n\n'), text[-100:])

    def test_a_finished_stream_can_be_read_again_and_again(self):
        first = self.daemon.stream(self.path).all()
        self.assertEqual(first[-1], FINAL)
        self.assertEqual(first[-2]["message"], "训练完成！")
        for _ in range(3):
            self.assertEqual(self.daemon.stream(self.path).all(), first)
        self.assertEqual(self.daemon.stream(f"/api/v2/training/{self.done}/logs").all(), first)

    def test_last_event_id(self):
        with self.daemon.stream(self.path) as stream:
            events = list(stream)
        ids = [event_id for event_id, _ in events[:-1]]
        self.assertEqual(len(set(ids)), len(ids))
        middle = len(ids) // 2
        rest = self.daemon.stream(self.path, last_id=ids[middle]).all()
        self.assertEqual(rest, [event for _, event in events[middle + 1:]])
        self.assertEqual(self.daemon.stream(self.path, last_id=ids[-1]).all(), [FINAL])
        for nonsense in ("abc", "-5", "99999999999999999999999", ""):
            self.assertEqual(self.daemon.stream(self.path, last_id=nonsense).all()[-1], FINAL)

    def test_json_instead_of_a_stream(self):
        answer = self.daemon.ask("GET", self.path, {"Accept": "application/json"})
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "application/json"))
        lines = answer.json()
        stream = [event for event in self.daemon.stream(self.path).all() if "level" in event]
        self.assertEqual([line for line in lines if "level" in line], stream)

    def test_other_accepts_get_the_stream(self):
        for accept in ("*/*", "text/event-stream", "text/html,*/*;q=0.8", "text/event-stream, application/json"):
            answer = self.daemon.ask("GET", self.path, {"Accept": accept})
            self.assertTrue(answer.headers["content-type"].startswith("text/event-stream"), accept)

    def test_many_readers_each_get_everything(self):
        task = self.daemon.train(num_epochs=6)
        results = {}

        def read(name, delay):
            time.sleep(delay)
            results[name] = self.daemon.stream(f"/api/v2/tasks/{task}/logs").all()
        readers = [threading.Thread(target=read, args=(i, 0.03 * i)) for i in range(40)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(60)
        whole = self.daemon.stream(f"/api/v2/tasks/{task}/logs").all()
        self.assertEqual(len(results), 40)
        for events in results.values():
            self.assertEqual(events, whole)
        self.assertEqual(len([e for e in whole if e.get("stage") == "epoch_start"]), 6)

    def test_lines_arrive_while_it_runs(self):
        task = self.daemon.train_long()
        with self.daemon.stream(f"/api/v2/tasks/{task}/logs") as stream:
            for _, event in stream:
                if event.get("stage") == "epoch_start":
                    break
            self.assertEqual(self.daemon.task(task)["status"], "running")
            self.daemon.cancel(task)
            events = [event for _, event in stream]
        self.assertIn("任务已被用户取消", [event.get("message") for event in events])
        self.assertEqual(events[-1], {"status": "cancelled", "message": "任务结束"})

    def test_a_reader_in_the_middle_and_a_reconnect(self):
        task = self.daemon.train(num_epochs=5)
        seen, last = [], None
        for _ in range(100):
            with self.daemon.stream(f"/api/v2/tasks/{task}/logs", last_id=last) as stream:
                for count, (event_id, event) in enumerate(stream):
                    seen.append(event)
                    last = event_id if event_id is not None else last
                    if count == 4 or "level" not in event:
                        break
            if "level" not in seen[-1]:
                break
        self.assertEqual(seen, self.daemon.stream(f"/api/v2/tasks/{task}/logs").all())

    def test_keep_alive_comments(self):
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 0}}})
        task = self.daemon.train()
        try:
            with self.daemon.stream(f"/api/v2/tasks/{task}/logs", timeout=40) as stream:
                threading.Timer(17, lambda: self.daemon.cancel(task)).start()
                list(stream)
                self.assertTrue(stream.comments)
        finally:
            self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 2}}})

    def test_deleted_while_open(self):
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 0}}})
        task = self.daemon.train()
        try:
            with self.daemon.stream(f"/api/v2/tasks/{task}/logs") as stream:
                iterator = iter(stream)
                next(iterator)
                self.daemon.cancel(task)
                self.daemon.until(lambda: self.daemon.request("DELETE", f"/api/v2/tasks/{task}").status_code == 200, 3)
                list(iterator)  # it ends
            self.assert_detail(self.daemon.get(f"/api/v2/tasks/{task}/logs"), 404, f"任务 {task} 不存在")
        finally:
            self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 2}}})

    def test_open_streams_are_counted(self):
        task = self.daemon.train_long()
        streams = [self.daemon.stream(f"/api/v2/tasks/{task}/logs") for _ in range(7)]
        count = lambda: self.daemon.json("/api/v1/health")["active_log_streams"]
        self.daemon.until(lambda: count() == 7, 3, "seven streams")
        for stream in streams:
            stream.close()
        self.daemon.until(lambda: count() == 0, 3, "no stream")
        self.daemon.cancel_all()

    def test_a_reader_that_never_reads(self):
        task = self.daemon.train(num_epochs=8)
        lazy = [Stream(self.daemon, f"/api/v2/tasks/{task}/logs") for _ in range(20)]
        self.daemon.wait(task, "completed")
        whole = self.daemon.stream(f"/api/v2/tasks/{task}/logs").all()
        for stream in lazy:
            self.assertEqual(stream.all(), whole)

    def test_metrics_of_a_line_are_its_own(self):
        for event in self.daemon.stream(self.path).all():
            if event.get("stage") == "training" and "Train Loss" in event["message"]:
                self.assertNotIn("val_loss", event["metrics"])
            if re.match("Validation Loss", event.get("message", "")):
                self.assertNotIn("train_loss", event["metrics"])


if __name__ == "__main__":
    unittest.main()
