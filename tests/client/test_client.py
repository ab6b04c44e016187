"""The Python client: against canned answers for the rough cases, and against a real service for the rest."""

import contextlib
import io
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

from rfuav_client import RFUAVClient, RFUAVError, __version__
from rfuav_client.transport import parse_events
from tests.api.harness import ROOT, DaemonCase, scratch, small_set
from tests.client.stub import FINAL, LINES, Stub


class Rough(unittest.TestCase):
    def setUp(self):
        self.stub = Stub()
        self.addCleanup(self.stub.end)
        self.client = RFUAVClient(self.stub.url + "/", api_key="key")

    def test_stream_goes_on_after_broken_connections(self):
        events = list(self.client.stream_logs("t 1/ä"))
        self.assertEqual(events, LINES + [FINAL])
        asked = [headers.get("Last-Event-ID") for _, path, headers in self.stub.seen if path.endswith("/logs")]
        self.assertEqual(asked, [None, "2", "4"])

    def test_ids_are_encoded_and_the_key_is_sent(self):
        self.client.get_task("t 1/ä")
        _, path, headers = self.stub.seen[-1]
        self.assertEqual(path, "/api/v2/tasks/t%201%2F%C3%A4")
        self.assertEqual(headers["Authorization"], "Bearer key")

    def test_errors(self):
        with self.assertRaises(RFUAVError) as caught:
            self.client.get_task("gone")
        self.assertEqual((caught.exception.status, caught.exception.detail), (404, "任务 gone 不存在"))
        with self.assertRaises(RFUAVError) as caught:
            self.client.start_training("m", 1, "t", "v", "s")
        self.assertEqual(caught.exception.status, 422)
        self.assertEqual(str(caught.exception), "422: model: Field required; batch_size: Input should be too")
        with self.assertRaises(RFUAVError) as caught:
            self.client.get_info()
        self.assertEqual((caught.exception.status, caught.exception.detail), (500, "Internal Server Error"))

    def test_nobody_there(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            client = RFUAVClient(f"http://127.0.0.1:{free.getsockname()[1]}")
            with self.assertRaises(RFUAVError) as caught:
                client.health_check()
        self.assertIsNone(caught.exception.status)
        self.assertIn("rfuav serve", str(caught.exception))

    def test_config_takes_both_forms(self):
        for config in ({"cpu": {"training": 1}}, {"max_concurrent": {"cpu": {"training": 1}}}):
            self.client.update_resource_config(config)
            self.assertEqual(self.stub.seen[-1][2], b'{"max_concurrent": {"cpu": {"training": 1}}}')

    def test_bad_addresses(self):
        for url in ("ftp://x", "http://", "http:///path"):
            with self.assertRaises(ValueError):
                RFUAVClient(url)

    def test_parser(self):
        lines = [b": c\n", b"data: a\r\n", b"data:b\n", b"id: 7\n", b"\n", b"\n", b"data\n", b"event: x\n", b"\n",
                 b"retry: 5\n", b"\n", b"data: unfinished\n"]
        self.assertEqual(list(parse_events(lines)), [("7", None, "a\nb"), (None, None, ""), (None, 5, None)])


class Real(DaemonCase):
    def setUp(self):
        self.client = RFUAVClient(self.daemon.url)

    def test_training_and_inference(self):
        out = scratch("out")
        task = self.client.start_training("resnet18", 2, small_set(), small_set(), out, num_epochs=2, batch_size=4,
                                          image_size=32, device="cpu", pretrained=False)
        events = list(self.client.stream_training_logs(task["task_id"]))
        self.assertEqual(events[-1]["status"], "completed")
        records = []
        record = self.client.wait_for_task(task["task_id"], on_update=records.append)
        self.assertEqual((record["status"], records[-1]), ("completed", record))
        self.assertEqual(self.client.get_training_status(task["task_id"]), record)
        self.assertEqual([e for e in self.client.get_logs(task["task_id"]) if "level" in e], events[:-1])

        answer = self.client.start_inference(out + "/config.yaml", out + "/best_model.pth", small_set() + "/A",
                                             save_path=out + "/r", device="cpu")
        record = self.client.wait_for_task(answer["task_id"], interval=0.1)
        self.assertEqual(self.client.get_inference_status(answer["task_id"])["status"], "completed")
        batch = self.client.start_batch_inference(out + "/config.yaml", out + "/best_model.pth",
                                                  [small_set() + "/A", small_set() + "/B"], out + "/b", device="cpu")
        self.assertEqual(batch["total"], 2)
        for task_id in batch["task_ids"]:
            self.client.wait_for_task(task_id, interval=0.1)
        self.client.delete_task(answer["task_id"])
        with self.assertRaises(RFUAVError):
            self.client.get_task(answer["task_id"])

    def test_reading(self):
        self.assertEqual(self.client.health_check()["status"], "healthy")
        self.assertEqual(self.client.get_info(), self.client.get_system_info())
        self.assertIn("cpu", self.client.get_resources()["limits"])
        self.assertEqual(self.client.get_models(image_size=64, device="cpu")["models"][0]["parameters"], 11689512)
        self.assertFalse(self.client.get_gpu_info()["available"])
        self.assertGreater(self.client.get_cpu_info()["cores"], 0)
        self.assertIn("training_tasks", self.client.list_tasks(status="completed", task_type="training", limit=3))

    def test_cancel_and_timeout(self):
        task = self.daemon.train_long()
        with self.assertRaises(TimeoutError):
            self.client.wait_for_task(task, interval=0.1, timeout=0.3)
        self.client.stop_training(task)
        self.assertEqual(self.client.wait_for_task(task, interval=0.1)["status"], "cancelled")
        with self.assertRaises(RFUAVError):
            self.client.cancel_task(task)

    def test_a_stream_outlives_a_restart_of_the_service(self):
        from tests.api.harness import Daemon
        import signal
        daemon = Daemon(env={"MAX_TRAINING_CONCURRENT_CPU": "0"})
        task = daemon.train()
        client, events = RFUAVClient(daemon.url), []
        reader = threading.Thread(target=lambda: events.extend(client.stream_logs(task)))
        reader.start()
        daemon.until(lambda: daemon.json("/api/v1/health")["active_log_streams"] == 1, 5)
        port = daemon.port
        daemon.kill(signal.SIGKILL)
        daemon.args += ["--port", str(port)]
        daemon.start()
        daemon.until(lambda: daemon.json("/api/v1/health")["active_log_streams"] == 1, 10)
        daemon.cancel(task)
        reader.join(20)
        self.assertEqual(events[-1]["status"], "cancelled")
        daemon.stop()


class Package(unittest.TestCase):
    def test_version_is_the_projects(self):
        with open(f"{ROOT}/src/base/version.h") as file:
            self.assertIn(f'"{__version__}"', file.read())

    def test_pip_installs_it_without_a_network(self):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target",
                                   folder, f"{ROOT}/client/python"], capture_output=True, text=True)
            if "No module named pip" in done.stderr:
                self.skipTest("pip is not installed")
            self.assertEqual(done.returncode, 0, done.stderr)
            done = subprocess.run([sys.executable, "-c", "import rfuav_client, test_refactored_api as t; "
                                   "print(rfuav_client.__file__, t.RFUAVClient.__name__)"], capture_output=True,
                                  text=True, cwd=folder, env={"PYTHONPATH": folder})
            self.assertTrue(done.stdout.startswith(folder), done.stdout + done.stderr)


EXAMPLE = """
from test_refactored_api import RFUAVClient
client = RFUAVClient({url!r})
info = client.get_system_info()
print(info["version"], info["gpu_available"])
result = client.start_training(model="resnet18", num_classes=2, train_path={data!r}, val_path={data!r},
                               save_path={out!r}, num_epochs=1, device="cpu", image_size=32, pretrained=False)
task_id = result["task_id"]
for log in client.stream_training_logs(task_id):
    print(f"[{{log['level']}}] {{log['message']}}")
    if log.get("metrics"):
        print(log.get("stage", ""), log["metrics"].get("train_acc"))
final = client.wait_for_task(task_id, interval=1)
tasks = client.get_all_tasks()
print(tasks["total_training"], tasks["total_inference"])
client.update_resource_config({{"max_concurrent": {{"cpu": {{"training": 2, "inference": 4}}}}}})
client.delete_task(task_id)
"""


class Compatible(DaemonCase):
    def test_programs_for_the_earlier_service_run_unchanged(self):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(EXAMPLE.format(url=self.daemon.url, data=small_set(), out=scratch("out")), {})
        self.assertIn("[INFO] 训练完成！", output.getvalue())
        self.assertRegex(output.getvalue(), r"\[\w{8}\] 状态: completed, 进度: 100%")


if __name__ == "__main__":
    unittest.main()
