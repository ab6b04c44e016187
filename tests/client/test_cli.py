"""The command line: against canned answers for the rough cases, and against a real service for the rest."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time
import unittest

from tests.api.harness import BINARY, DaemonCase, scratch, small_set
from tests.client.stub import Stub


def environment(lang="en", url=None):
    env = {key: value for key, value in os.environ.items() if not key.startswith("RFUAV_")}
    env["RFUAV_LANG"] = lang
    if url:
        env["RFUAV_URL"] = url
    return env


def rfuav(*words, lang="en", url=None, cwd=None, timeout=120):
    """(exit status, standard output, standard error)"""
    done = subprocess.run([BINARY, *words], env=environment(lang, url), capture_output=True, timeout=timeout, cwd=cwd,
                          stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def on_terminal(*words, url, columns=100, keys=(), timeout=120, lang="en"):
    """Runs a command on a terminal; keys: (text to wait for, what to type). Returns (exit status, all output)."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe(BINARY, ["rfuav", *words], environment(lang, url))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    output, keys, end = b"", list(keys), time.monotonic() + timeout
    while time.monotonic() < end:
        if keys and keys[0][0].encode() in output:
            os.write(fd, keys.pop(0)[1])
        if not select.select([fd], [], [], 0.1)[0]:
            continue
        try:
            piece = os.read(fd, 65536)
        except OSError:
            break
        if not piece:
            break
        output += piece
    else:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    return os.waitstatus_to_exitcode(status), output.decode("utf-8", "replace")


class Words(unittest.TestCase):
    """What needs no service."""

    def test_help(self):
        for command in ("train", "infer", "tasks", "status", "logs", "cancel", "delete", "devices", "config"):
            for lang, word in (("en", "usage: rfuav " + command), ("zh", "用法: rfuav " + command)):
                status, out, err = rfuav(command, "--help", lang=lang)
                self.assertEqual((status, err), (0, ""))
                self.assertIn(word, out)
                self.assertIn("--url", out)
            self.assertIn(command, rfuav("--help")[1])

    def test_every_field_is_an_option(self):
        out = rfuav("train", "--help")[1]
        for name in ("model", "num-classes", "train-path", "batch-size", "learning-rate", "device", "seed"):
            self.assertIn(f"--{name} ", out)
        self.assertIn("--[no-]shuffle", out)

    def test_wrong_usage(self):
        for words, part in ((["train", "--modell", "x"], "--modell"), (["train", "--model"], "--model"),
                            (["train", "--batch-size", "x"], "batch-size"), (["train"], "--model is missing"),
                            (["infer", "--cfg-path", "x"], "--weight-path is missing"), (["logs"], "TASK_ID"),
                            (["cancel", "a", "b"], "b"), (["tasks", "--limit", "x"], "limit"),
                            (["config", "cuda=2"], "cuda=2"), (["config", "cuda.training=many"], "many"),
                            (["tasks", "--url", "ftp://x"], "ftp://x"), (["tasks", "--url", "https://x"], "https"),
                            (["tasks", "--url", "http://a:99999999"], "99999999"), (["tasks", "--url"], "--url")):
            status, out, err = rfuav(*words)
            self.assertEqual((words, status, out), (words, 2, ""))
            self.assertIn(part, err)

    def test_version(self):
        status, text, _ = rfuav("version")
        self.assertEqual(status, 0)
        self.assertRegex(text, r"^rfuav \d+\.\d+\.\d+\n$")

    def test_bench(self):
        words = ("bench", "--device", "cpu", "--model", "resnet18", "--size", "32", "--batch", "1,2", "--seconds", "0.02")
        status, text, err = rfuav(*words, "--json")
        self.assertEqual((status, err), (0, ""))
        rows = [json.loads(line) for line in text.splitlines()]
        self.assertEqual([(row["mode"], row["batch"]) for row in rows],
                         [("train", 1), ("train", 2), ("infer", 1), ("infer", 2)])
        for row in rows:
            self.assertAlmostEqual(row["images_per_s"], 1000 * row["batch"] / row["ms"], delta=0.1 + row["images_per_s"] * 0.01)
            self.assertGreater(row["memory"], 0)
        status, text, err = rfuav(*words, "--mode", "infer", "--ops")
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(text, r"CONV2D +\S+x\S+")
        self.assertRegex(text, r"resnet18 +infer +fp32 +2 ")
        status, text, err = rfuav("bench", "--device", "cpu", "--model", "resnet19")
        self.assertEqual(status, 1)
        self.assertIn("resnet19", err)

    def test_models(self):
        status, text, _ = rfuav("models", "--device", "cpu")
        self.assertEqual(status, 0)
        self.assertRegex(text, r"\nresnet18 +11\.69 +3\.63 +\d+ +\d+")
        self.assertEqual(rfuav("models", "--precision", "fp8")[0], 2)

    def test_no_service(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
            for words in (["tasks"], ["devices"], ["config"], ["status"], ["logs", "x"], ["cancel", "x"]):
                status, out, err = rfuav(*words, url=url)
                self.assertEqual((words, status, out), (words, 1, ""))
                self.assertIn("rfuav serve", err)
                self.assertIn(url, err)
        self.assertIn("rfuav serve", rfuav("tasks", url=url, lang="zh")[2])
        self.assertEqual(rfuav("tasks", url="http://no-such-host.invalid")[0], 1)


class Rough(unittest.TestCase):
    def setUp(self):
        self.stub = Stub()
        self.addCleanup(self.stub.end)

    def test_logs_go_on_after_broken_connections(self):
        status, out, err = rfuav("logs", "t 1/ä", url=self.stub.url)
        self.assertEqual(status, 0, err)
        lines = out.splitlines()
        self.assertEqual(lines[:3], ["09:15:02 行 1", "09:15:02 行 2", "09:15:02 Epoch [1/2] started."])
        self.assertEqual(lines[-1], "训练完成")
        self.assertEqual(len(lines), 7)
        asked = [headers.get("Last-Event-ID") for method, path, headers in self.stub.seen if path.endswith("/logs")]
        self.assertEqual(asked, [None, "2", "4"])
        self.assertEqual([path for _, path, _ in self.stub.seen if "logs" in path][0], "/api/v2/tasks/t%201%2F%C3%A4/logs")

    def test_a_log_cannot_drive_the_terminal(self):
        self.assertIn("WARNING ?[31mwatch out", rfuav("logs", "x", url=self.stub.url)[1])

    def test_json(self):
        status, out, _ = rfuav("logs", "x", "--json", url=self.stub.url)
        self.assertEqual(status, 0)
        self.assertEqual([json.loads(line).get("message") for line in out.splitlines()][-1], "任务结束")
        self.assertEqual(json.loads(rfuav("tasks", "--json", url=self.stub.url)[1])["total_training"], 1)

    def test_errors_of_the_service(self):
        status, out, err = rfuav("status", "gone", url=self.stub.url)
        self.assertEqual((status, out, err), (1, "", "rfuav status: 任务 gone 不存在\n"))
        status, _, err = rfuav("train", "--model", "m", "--num-classes", "2", "--train-path", "t", "--val-path", "v",
                               "--save-path", "s", url=self.stub.url)
        self.assertEqual(status, 1)
        self.assertIn("model: Field required", err)
        self.assertIn("batch_size: Input should be too", err)

    def test_only_given_fields_are_sent_and_paths_are_made_absolute(self):
        folder = scratch("here")
        rfuav("train", "--model", "m", "--num-classes", "2", "--train-path", "t", "--val-path=/v", "--save-path", "s",
              "--no-shuffle", "--learning-rate", "1e-3", "--name", "n", url=self.stub.url, cwd=folder)
        self.assertEqual(json.loads(self.stub.seen[-1][2]),
                         {"model": "m", "num_classes": 2, "train_path": folder + "/t", "val_path": "/v",
                          "save_path": folder + "/s", "shuffle": False, "learning_rate": 0.001, "name": "n"})

    def test_number_of_classes_is_counted(self):
        rfuav("train", "--model", "m", "--train-path", small_set(), "--val-path", "v", "--save-path", "s",
              url=self.stub.url)
        self.assertEqual(json.loads(self.stub.seen[-1][2])["num_classes"], 2)

    def test_config(self):
        rfuav("config", "cuda.training=2", "cuda:0.inference=4", "cuda.inference=3", url=self.stub.url)
        self.assertEqual(json.loads(self.stub.seen[-1][2]),
                         {"max_concurrent": {"cuda": {"training": 2, "inference": 3}, "cuda:0": {"inference": 4}}})

    def test_columns_stand_below_each_other(self):
        header, row = rfuav("tasks", url=self.stub.url, lang="zh")[1].splitlines()

        def cells(text):
            return sum(2 if ord(c) > 0x2e7f else 1 for c in text)
        self.assertEqual(cells(header[:header.index("设备")]), cells(row[:row.index("cpu")]))


class Real(DaemonCase):
    def rfuav(self, *words, **more):
        return rfuav(*words, url=self.daemon.url, **more)

    TRAIN = ["train", "--model", "resnet18", "--batch-size", "4", "--image-size", "32", "--device", "cpu",
             "--no-pretrained"]

    def train(self, *words, out=None, **more):
        return self.rfuav(*self.TRAIN, "--train-path", small_set(), "--val-path", small_set(), "--save-path",
                          out or scratch("out"), *words, **more)

    def test_train_then_infer(self):
        out = scratch("out")
        status, text, err = self.train("--num-epochs", "2", out=out)
        self.assertEqual((status, err), (0, ""))
        self.assertIn("Epoch [2/2] started.", text)
        self.assertTrue(text.endswith("训练完成\n"))
        folder = scratch("cwd")
        status, text, err = self.rfuav("infer", "--cfg-path", out + "/config.yaml", "--weight-path",
                                       out + "/best_model.pth", "--source-path", small_set() + "/A", "--device", "cpu",
                                       cwd=folder)
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(text, r"\nfile +class +probability\n000\.png +[AB] +\d+\.\d\d%\n")
        self.assertIn(f"the results are in {folder}/results", text)

    def test_failure_is_an_exit_status(self):
        status, text, err = self.rfuav(*self.TRAIN, "--num-classes", "2", "--train-path", scratch("empty"), "--val-path",
                                       small_set(), "--save-path", scratch("out"))
        self.assertEqual(status, 1)
        self.assertIn("训练失败: ", err)

    def test_detach_then_cancel_and_delete(self):
        status, text, _ = self.train("--detach", "--num-epochs", "5000", "--keep-checkpoints", "1", "--task-id", "mine")
        self.assertEqual((status, text), (0, "task mine\n"))
        self.assertIn("running", self.daemon.wait("mine", "running")["status"])
        self.assertIn("mine", self.rfuav("tasks")[1])
        self.assertIn("cpu: training mine", self.rfuav("devices")[1])
        self.assertEqual(self.rfuav("delete", "mine")[0], 1)
        self.assertEqual(self.rfuav("cancel", "mine")[:2], (0, "任务已取消\n"))
        self.assertEqual(self.rfuav("logs", "mine")[0], 1)
        self.assertRegex(self.rfuav("status", "mine")[1], r"status +cancelled")
        self.assertEqual(self.rfuav("delete", "mine")[:2], (0, "任务记录已删除\n"))
        self.assertEqual(self.rfuav("logs", "mine")[0], 1)

    def test_devices_and_config(self):
        status, text, _ = self.rfuav("devices")
        self.assertEqual(status, 0)
        self.assertRegex(text, r"\ncpu +[\d.]+ / [\d.]+ GB +\d+% +0/2 +0/4 ")
        status, text, _ = self.rfuav("config", "cpu.inference=3")
        self.assertRegex(text, r"cpu +2 +3\n")
        self.assertRegex(self.rfuav("config")[1], r"cpu +2 +3\n")
        status, _, err = self.rfuav("config", "tpu.training=1")
        self.assertEqual(status, 1)
        self.assertIn("tpu", err)

    def test_status(self):
        self.assertIn("healthy", self.rfuav("status")[1])
        self.assertIn("healthy", self.rfuav("status", "--url", self.daemon.url)[1])

    def terminal(self, *words, **more):
        return on_terminal(*self.TRAIN, "--train-path", small_set(), "--val-path", small_set(), "--save-path",
                           scratch("out"), *words, url=self.daemon.url, **more)

    def test_progress_bar(self):
        status, text = self.terminal("--num-epochs", "3", columns=70)
        self.assertEqual(status, 0, text)
        summaries = re.findall(r"epoch (\d)/3  loss \d\.\d{4}  train \d+\.\d\d%  val ", text)
        self.assertEqual(summaries, ["1", "2", "3"])
        self.assertTrue(text.rstrip().endswith("训练完成"))
        for line in re.split(r"\r|\n", text):
            if "[#" in line or "[." in line:
                self.assertLess(len(line.replace("\x1b[K", "")), 70)

    def test_interrupt_detaches(self):
        status, text = self.terminal("--num-epochs", "3000", "--task-id", "left", keys=[("[", b"\x03")])
        self.assertEqual(status, 130)
        self.assertIn("rfuav logs left", text)
        self.assertEqual(self.daemon.task("left")["status"], "running")
        self.daemon.cancel_all()

    def test_interrupt_cancels_when_asked(self):
        status, text = self.terminal("--num-epochs", "3000", "--task-id", "ended", "--cancel-on-interrupt",
                                     keys=[("[", b"\x03")])
        self.assertEqual(status, 1)
        self.assertEqual(self.daemon.task("ended")["status"], "cancelled")


if __name__ == "__main__":
    unittest.main()
