"""Section 16 of the contract: one test for each known defect of the earlier service that concerns the routes there
are. The number in a test's name is the defect's.

They are about preprocessing, whose routes come later, so there is nothing to test yet: D4 (cancelling it does not stop
it), D30 (a second split mixes the sets), D31 (the default output folder), D49 (its tasks cannot be listed), D53
(augmentation swaps colours)."""

import csv
import os
import re
import signal
import struct
import threading
import time
import unittest

import requests

from tests.api.harness import (ENDED, Daemon, DaemonCase, dataset, device_file, model, png, scratch, small_set, write)


def epochs_seen(lines):
    return [line["metrics"]["epoch"] for line in lines if line.get("stage") == "epoch_start"]


class Tasks(DaemonCase):
    def tearDown(self):
        self.daemon.cancel_all()
        super().tearDown()

    def test_d01_cancelling_an_inference_stops_it(self):
        task = self.daemon.infer_long()
        self.daemon.wait(task, "running")
        self.assertEqual(self.daemon.cancel(task).status_code, 200)
        self.daemon.until(lambda: not self.daemon.workers(), 2, "the end of the worker")
        self.daemon.until(lambda: self.daemon.json("/api/v2/resources")["device_usage"]["cpu"]["inference"] == 0, 1)
        time.sleep(0.3)
        self.assertEqual(self.daemon.task(task)["status"], "cancelled")

    def test_d02_cancelling_a_waiting_task_sticks(self):
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 1}}})
        running = self.daemon.train_long()
        self.daemon.wait(running, "running")
        waiting = self.daemon.train_long()
        self.daemon.wait(waiting, "queued")
        fresh = self.daemon.train_long()  # perhaps still pending
        for task in (waiting, fresh):
            self.daemon.cancel(task)
        self.daemon.cancel(running)
        self.daemon.until(lambda: not self.daemon.workers(), 3, "the end of the worker")
        time.sleep(0.3)
        for task in (waiting, fresh):
            self.assertEqual(self.daemon.task(task)["status"], "cancelled")
            self.assertNotIn("开始训练...", self.daemon.messages(task))
        self.assertEqual(self.daemon.workers(), [])
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 2}}})

    def test_d03_a_deleted_task_never_comes_back(self):
        task = self.daemon.train_long()
        self.daemon.wait(task, "running")
        self.daemon.until(lambda: self.daemon.task(task)["current_epoch"], 30)
        self.daemon.cancel(task)
        self.daemon.until(lambda: self.daemon.request("DELETE", f"/api/v2/tasks/{task}").status_code == 200, 3)
        self.daemon.until(lambda: not self.daemon.workers(), 3, "the end of the worker")
        time.sleep(0.2)
        self.assertEqual(self.daemon.get(f"/api/v2/tasks/{task}").status_code, 404)
        self.assertEqual(self.daemon.get("/api/v2/tasks").status_code, 200)
        self.assertEqual(self.daemon.json("/api/v1/health")["status"], "healthy")
        self.assertEqual(self.daemon.json("/api/v2/resources")["device_usage"]["cpu"]["training"], 0)

    def test_d05_an_id_in_use_is_refused(self):
        task = self.daemon.train(task_id="taken")
        for when in ("running or waiting", "ended"):
            for kind, fields in (("training", self.daemon.train_fields), ("inference", self.daemon.infer_fields)):
                response = self.daemon.post(f"/api/v2/{kind}/start", fields(task_id=task))
                self.assertEqual((when, response.status_code), (when, 409))
                self.assertIn("taken", response.json()["detail"])
            before = self.daemon.wait(task, "completed")
        self.assertEqual(self.daemon.task(task), before)

    def test_d05_of_many_at_once_one_gets_the_id(self):
        body = self.daemon.infer_fields(task_id="contested")
        codes = []

        def submit():
            codes.append(requests.post(self.daemon.url + "/api/v2/inference/start", json=body, timeout=30).status_code)
        threads = [threading.Thread(target=submit) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(codes), [200] + [409] * 19)
        self.daemon.wait("contested", "completed")

    def test_d06_priority_decides(self):
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 0}}})
        tasks = {priority: self.daemon.train(priority=priority) for priority in (10, 9, 5, 1)}
        for task in tasks.values():
            self.daemon.wait(task, "queued")
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 1}}})
        begun = {}
        for priority, task in tasks.items():
            self.daemon.wait(task, "completed")
            begun[priority] = next(line["timestamp"] for line in self.daemon.lines(task)
                                   if line["message"] == "开始训练...")
        self.assertEqual(sorted(begun, key=begun.get), [1, 5, 9, 10])
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 2}}})

    def test_d07_a_freed_slot_is_handed_over_at_once(self):
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"inference": 1}}})
        tasks = [self.daemon.infer() for _ in range(4)]
        for task in tasks:
            self.daemon.wait(task, "completed")
        from datetime import datetime
        times = []
        for task in tasks:
            lines = self.daemon.lines(task)
            times.append([datetime.fromisoformat(next(line["timestamp"] for line in lines if line["message"] == text))
                          for text in ("资源已分配，使用设备: cpu", "推理完成！")])
        gaps = [(later[0] - earlier[1]).total_seconds() for earlier, later in zip(times, times[1:])]
        self.assertLess(sorted(gaps)[1], 0.3, gaps)  # the median: the machine may be busy
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"inference": 4}}})

    def test_d19_the_tasks_of_a_batch_are_independent(self):
        cfg, weights = model()
        bad = scratch("bad")
        write(bad + "/x.png", b"no picture")
        good = small_set() + "/A"
        response = self.daemon.post("/api/v2/inference/batch", {
            "cfg_path": cfg, "weight_path": weights, "source_paths": [bad, good, good], "device": "cpu",
            "save_base_path": scratch("base")})
        tasks = response.json()["task_ids"]
        self.assertEqual([self.daemon.wait(task)["status"] for task in tasks], ["failed", "completed", "completed"])
        response = self.daemon.post("/api/v2/inference/batch", {
            "cfg_path": cfg, "weight_path": weights, "source_paths": [good, "/no/such"], "device": "cpu"})
        self.assertEqual(response.status_code, 400)
        self.assertFalse([t for t in self.daemon.json("/api/v2/tasks")["inference_tasks"] if t["status"] == "pending"])

    def test_d26_slots_are_given_back_exactly_once(self):
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"inference": 2}}})
        broken = write(scratch("w") + "/junk.pth", b"junk")
        tasks = [self.daemon.infer(**({"weight_path": broken} if i % 2 else {})) for i in range(10)]
        for _ in range(50):
            used = self.daemon.json("/api/v2/resources")["device_usage"]["cpu"]["inference"]
            self.assertLessEqual(used, 2)
            self.assertLessEqual(len(self.daemon.workers()), 2)
            time.sleep(0.01)
        states = [self.daemon.wait(task, ENDED)["status"] for task in tasks]
        self.assertEqual(states, ["completed", "failed"] * 5)
        self.daemon.until(lambda: self.daemon.json("/api/v2/resources")["device_usage"]["cpu"]["inference"] == 0, 2)
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"inference": 4}}})

    def test_d27_every_fault_before_the_loop_ends_in_failed(self):
        empty, file = scratch("empty"), write(scratch("f") + "/f", b"")
        for fields in ({"train_path": empty}, {"weight_path": file}, {"save_path": file}, {"num_classes": 1}):
            task = self.daemon.train(**fields)
            self.assertEqual(self.daemon.wait(task, "failed")["progress"], 0)
            self.assertEqual(self.daemon.stream(f"/api/v2/tasks/{task}/logs").all()[-1]["status"], "failed")
            self.assertEqual(self.daemon.request("DELETE", f"/api/v2/tasks/{task}").status_code, 200)
        for fields in ({"device": "cuda:9"}, {"device": "gpu"}, {"num_classes": -1}):
            response = self.daemon.post("/api/v2/training/start", self.daemon.train_fields(**fields))
            self.assertEqual(response.status_code, 422)
        task = self.daemon.train(weight_path=None)
        self.daemon.wait(task, "completed")

    def test_d28_waiting_tasks_do_not_block_other_kinds(self):
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 0}}})
        waiting = [self.daemon.train() for _ in range(60)]
        self.daemon.wait(self.daemon.infer(), "completed", 20)
        self.assertEqual({self.daemon.task(task)["status"] for task in waiting}, {"queued"})
        with open(f"/proc/{self.daemon.process.pid}/status") as file:
            self.assertLess(int(re.search(r"Threads:\s+(\d+)", file.read()).group(1)), 16)
        self.daemon.cancel_all()
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 2}}})

    def test_d46_a_cancel_is_never_overwritten(self):
        for delay in (0, 0.05, 0.1, 0.2, 0.4, 0.6):
            task = self.daemon.train(num_epochs=50)
            time.sleep(delay)
            self.assertEqual(self.daemon.cancel(task).status_code, 200)
            for _ in range(20):
                self.assertEqual(self.daemon.task(task)["status"], "cancelled")
                time.sleep(0.01)
        self.daemon.until(lambda: not self.daemon.workers(), 4)

    def test_d52_failures_say_what_is_wrong(self):
        empty = scratch("empty")
        message = self.daemon.wait(self.daemon.train(train_path=empty), "failed")["message"]
        self.assertIn(empty, message)
        self.assertGreater(len(message), len("训练失败: ") + len(empty) + 5)


class Process(unittest.TestCase):
    def test_d35_nothing_is_lost_by_a_restart(self):
        daemon = Daemon(env={"MAX_TRAINING_CONCURRENT_CPU": "1"})
        done = daemon.train(num_epochs=2)
        before = daemon.wait(done, "completed")
        lines = daemon.lines(done)
        running = daemon.train_long()
        daemon.wait(running, "running")
        waiting = daemon.train(task_id="waits")
        daemon.wait(waiting, "queued")
        time.sleep(1.5)  # until it is known on the disk, too, that it runs
        daemon.kill(signal.SIGKILL)
        daemon.start()
        self.assertEqual(daemon.task(done), before)
        self.assertEqual(daemon.lines(done), lines)
        self.assertIn(daemon.task(running)["status"], ("queued", "pending", "running"))
        daemon.wait(running, "running")
        self.assertTrue([line for line in daemon.lines(running) if line.get("level") == "WARNING"])
        daemon.cancel(running)
        daemon.wait(waiting, "completed")
        daemon.stop()

    def test_d36_sigterm_ends_it_within_seconds(self):
        for how in (signal.SIGTERM, signal.SIGINT):
            daemon = Daemon()
            task = daemon.train_long()
            daemon.wait(task, "running")
            stream = daemon.stream(f"/api/v2/tasks/{task}/logs")
            started = time.monotonic()
            self.assertEqual(daemon.kill(how), 0)
            self.assertLess(time.monotonic() - started, 5)
            list(stream)

    def test_d43_two_services_never_share_a_data_folder(self):
        daemon = Daemon()
        with self.assertRaises(RuntimeError) as caught:
            Daemon(env={"DATA_DIR": daemon.env["DATA_DIR"]})
        self.assertIn(str(daemon.process.pid), str(caught.exception))
        daemon.stop()

    def test_d44_it_starts_in_any_folder(self):
        daemon = Daemon(folder=scratch("elsewhere"))
        self.assertEqual(daemon.json("/api/v1/health")["status"], "healthy")
        daemon.stop()


class Logs(DaemonCase):
    def test_d08_all_metrics_reach_the_api(self):
        root = dataset(classes=("a", "b", "c", "d", "e", "f"), images=2)
        task = self.daemon.train(train_path=root, val_path=root, num_classes=6)
        metrics = self.daemon.wait(task, "completed")["latest_metrics"]
        self.assertFalse([key for key, value in metrics.items() if value is None])
        self.assertIn("top5_acc", metrics)

    def test_d09_each_training_has_its_own_log(self):
        outs = [scratch("log"), scratch("log")]
        roots = [dataset(classes=("a", "b")), dataset(classes=("x", "y"))]
        tasks = [self.daemon.train(save_path=out, train_path=root, val_path=root, num_epochs=3 + i)
                 for i, (out, root) in enumerate(zip(outs, roots))]
        for i, task in enumerate(tasks):
            record = self.daemon.wait(task, "completed")
            self.assertEqual((record["total_epochs"], record["current_epoch"]), (3 + i, 3 + i))
            lines = self.daemon.lines(task)
            self.assertEqual(epochs_seen(lines), list(range(1, 4 + i)))
            self.assertNotIn(outs[1 - i], str(lines))
            with open(outs[i] + "/train.log", encoding="utf-8") as file:
                self.assertNotIn(outs[1 - i], file.read())

    def test_d10_every_reader_gets_every_line(self):
        task = self.daemon.train(num_epochs=4)
        path = f"/api/v2/training/{task}/logs"
        first, second = self.daemon.stream(path), self.daemon.stream(path)
        events = first.all()
        self.assertEqual(second.all(), events)
        self.assertEqual(self.daemon.stream(path).all(), events)
        self.assertEqual(epochs_seen(events), [1, 2, 3, 4])

    def test_d25_open_streams_are_counted_not_tasks(self):
        for _ in range(3):
            self.daemon.wait(self.daemon.infer(), "completed")
        self.assertEqual(self.daemon.json("/api/v1/health")["active_log_streams"], 0)

    def test_d38_a_deleted_record_takes_its_log_along(self):
        task = self.daemon.infer(task_id="short")
        self.daemon.wait(task, "completed")
        self.daemon.request("DELETE", "/api/v2/tasks/short")
        self.assertEqual(self.daemon.get("/api/v2/tasks/short/logs").status_code, 404)
        self.daemon.infer(task_id="short")
        self.daemon.wait("short", "completed")
        self.assertEqual(self.daemon.messages("short").count("推理完成！"), 1)

    def test_d41_lines_are_not_repeated(self):
        for _ in range(3):
            task = self.daemon.infer()
            self.daemon.wait(task, "completed")
            messages = self.daemon.messages(task)
            self.assertEqual(messages.count("推理完成！"), 1)
        self.assertEqual(messages.count("开始推理..."), 1)

    def test_d45_the_last_line_comes_before_the_end(self):
        for _ in range(5):
            task = self.daemon.train()
            events = self.daemon.stream(f"/api/v2/tasks/{task}/logs").all()
            self.assertEqual(events[-2]["message"], "训练完成！")
            self.assertEqual(self.daemon.task(task)["status"], "completed")

    def test_d54_a_failed_task_hears_nothing_of_later_ones(self):
        failed = self.daemon.train(train_path=scratch("empty"))
        record = self.daemon.wait(failed, "failed")
        lines = self.daemon.lines(failed)
        self.daemon.wait(self.daemon.train(num_epochs=2), "completed")
        self.assertEqual(self.daemon.task(failed), record)
        self.assertEqual(self.daemon.lines(failed), lines)


class Training(DaemonCase):
    def test_d13_validation_is_indexed_by_the_training_folders(self):
        train = dataset(classes=("a", "b", "c"), images=6)
        val = scratch("val")
        for name in ("b", "c"):  # "a" is missing: the labels of the others must not move
            os.makedirs(f"{val}/{name}")
            for i in range(3):
                os.link(f"{train}/{name}/{i:03}.png", f"{val}/{name}/{i}.png")
        task = self.daemon.train(train_path=train, val_path=val, num_classes=3, num_epochs=12, learning_rate=0.001,
                                 batch_size=6, keep_checkpoints=1, seed=3)
        self.assertGreater(self.daemon.wait(task, "completed")["latest_metrics"]["best_acc"], 60)
        task = self.daemon.train(train_path=train, val_path=dataset(classes=("a", "stranger")), num_classes=3)
        self.assertIn("stranger", self.daemon.wait(task, "failed")["message"])

    def test_d14_the_first_epoch_always_counts_as_best(self):
        val = scratch("val")  # the pictures of the other class: nothing will be right after a while
        out = scratch("out")
        train = dataset()
        for name, other in (("A", "B"), ("B", "A")):
            os.makedirs(f"{val}/{name}")
            os.link(f"{train}/{other}/000.png", f"{val}/{name}/x.png")
        self.daemon.wait(self.daemon.train(train_path=train, val_path=val, save_path=out), "completed")
        self.assertTrue(os.path.exists(out + "/best_model.pth"))

    def test_d15_a_config_for_inference_is_written(self):
        out = scratch("out")
        self.daemon.wait(self.daemon.train(save_path=out), "completed")
        task = self.daemon.infer(cfg_path=out + "/config.yaml", weight_path=out + "/best_model.pth")
        self.daemon.wait(task, "completed")

    def test_d29_no_half_written_checkpoints(self):
        out = scratch("out")
        task = self.daemon.train(save_path=out, num_epochs=40)
        self.daemon.until(lambda: os.path.exists(out + "/best_model.pth"), 30)
        for pid in self.daemon.workers():
            os.kill(pid, signal.SIGKILL)
        self.daemon.wait(task, "failed")
        import torch
        for name in os.listdir(out):
            if name.endswith(".pth"):
                torch.load(f"{out}/{name}", map_location="cpu")

    def test_d33_one_and_two_classes_work(self):
        for classes in (("only",), ("a", "b")):
            root = dataset(classes=classes)
            task = self.daemon.train(train_path=root, val_path=root, num_classes=len(classes))
            metrics = self.daemon.wait(task, "completed")["latest_metrics"]
            self.assertIsNone(metrics["top3_acc"])
        for number in (0, -1):
            response = self.daemon.post("/api/v2/training/start", self.daemon.train_fields(num_classes=number))
            self.assert_faults(response, ("greater_than_equal", ("body", "num_classes")))

    def test_d34_nan_and_surrogates_are_refused(self):
        for text in (b'{"learning_rate": NaN}', b'{"learning_rate": Infinity}', b'{"learning_rate": -Infinity}',
                     b'{"model": "\\ud83d"}', b'{"model": "\\udc00x"}'):
            response = self.daemon.post("/api/v2/training/start", data=text)
            self.assertEqual((text, response.status_code), (text, 422))
            self.assertEqual(response.json()["detail"][0]["type"], "json_invalid")

    def test_d39_the_machine_is_used(self):
        task = self.daemon.train_long()
        self.daemon.wait(task, "running")
        worker, = self.daemon.until(self.daemon.workers, 5)
        self.daemon.until(lambda: self.daemon.task(task)["current_epoch"], 30)

        def ticks():
            with open(f"/proc/{worker}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        with open(f"/proc/{worker}/status") as file:
            self.assertGreaterEqual(int(re.search(r"Threads:\s+(\d+)", file.read()).group(1)), os.cpu_count())
        self.assertGreater(ticks(), 0)
        self.daemon.cancel_all()

    def test_d40_cuda_without_a_gpu_takes_a_cpu_slot(self):
        task = self.daemon.train_long(device="cuda")
        self.assertEqual(self.daemon.wait(task, "running")["device"], "cpu")
        self.assertEqual(self.daemon.json("/api/v2/resources")["device_usage"], {"cpu": {"training": 1, "inference": 0}})
        self.daemon.cancel_all()

    def test_d47_pretrained_false_stays_false(self):
        task = self.daemon.train(pretrained=False)  # the daemon has no standard input
        self.daemon.wait(task, "completed")
        self.assertFalse([line for line in self.daemon.lines(task) if line.get("level") == "WARNING"])

    def test_d48_a_missing_weight_file_is_said(self):
        response = self.daemon.post("/api/v2/training/start", self.daemon.train_fields(weight_path="/no/w.pth"))
        self.assert_detail(response, 400, "权重文件不存在: /no/w.pth")

    def test_d50_a_last_batch_of_one_image(self):
        root = dataset(classes=("a", "b"), images=5)  # ten images in batches of three: one is left over
        task = self.daemon.train(train_path=root, val_path=root, batch_size=3, image_size=32)
        self.daemon.wait(task, "completed")


class Inference(DaemonCase):
    def test_d12_raw_files_are_classified(self):
        source, out = scratch("raw"), scratch("out")
        for name, samples in (("a.iq", 15_000_000), ("b.dat", 1000)):
            with open(f"{source}/{name}", "wb") as file:
                file.truncate(8 * samples)  # silence, without the disk's help
                file.seek(8 * 3_000_000)
                file.write(struct.pack("<2f", 0.5, -0.5) * 1000)
        os.truncate(source + "/b.dat", 8000)
        task = self.daemon.infer(source_path=source, save_path=out)
        self.daemon.wait(task, "completed")
        self.assertEqual(sorted(os.listdir(out)), ["a.mp4", "predictions.csv", "predictions.jsonl"])
        with open(out + "/predictions.csv", encoding="utf-8") as file:
            self.assertEqual([(row["file"], row["frame"]) for row in csv.DictReader(file)], [("a.iq", "0"), ("a.iq", "1")])
        with open(out + "/a.mp4", "rb") as file:
            self.assertEqual(file.read(8)[4:], b"ftyp")
        lines = self.daemon.lines(task)
        for part in ("a.iq #0: ", "a.iq #1: "):
            self.assertTrue([line for line in lines if line.get("message", "").startswith(part)], part)
        short = [line["message"] for line in lines if line.get("level") == "WARNING" and "b.dat" in line["message"]]
        self.assertEqual(len(short), 1)
        self.assertIn("1000 ", short[0])

    def test_d16_shipped_configurations_work(self):
        cfg = write(scratch("cfg") + "/c.yaml",
                    "train: /not/here\nval: E:\\data\\valid\nsave_path:\nmodel: resnet18\nnum_classes: 2\n"
                    "class_names: ['DJI AVATA2', DJI-FPV]\nimage_size: (224, 224)\ndevice: cuda\nbatch_size: 8\n"
                    "shuffle: True\nepochs: 30\nlr: 0.00001\noptimizer: None\nweights: None".encode())
        task = self.daemon.infer(cfg_path=cfg)
        self.daemon.wait(task, "completed")

    def test_d18_an_unreadable_picture_is_skipped(self):
        source, out = scratch("mixed"), scratch("out")
        for name in ("a.jpeg", "b.tiff"):
            from PIL import Image
            Image.new("RGB", (40, 30), (9, 200, 9)).save(f"{source}/{name}")
        write(source + "/broken.png", png()[:50])
        task = self.daemon.infer(source_path=source, save_path=out)
        self.daemon.wait(task, "completed")
        self.assertTrue([line for line in self.daemon.lines(task)
                         if line.get("level") in ("WARNING", "ERROR") and "broken.png" in line["message"]])
        self.assertLessEqual({"a.jpg", "b.jpg"}, set(os.listdir(out)))
        only = scratch("only")
        write(only + "/broken.png", b"junk")
        self.assertIn("broken.png", str(self.daemon.lines(self._failed(source_path=only))))

    def _failed(self, **fields):
        task = self.daemon.infer(**fields)
        self.daemon.wait(task, "failed")
        return task

    def test_d20_equal_stems_get_distinct_names(self):
        source, out = scratch("stems"), scratch("out")
        from PIL import Image
        for name in ("x.png", "x.bmp", "x.jpg"):
            Image.new("RGB", (40, 30), (9, 200, 9)).save(f"{source}/{name}")
        self.daemon.wait(self.daemon.infer(source_path=source, save_path=out), "completed")
        self.assertEqual(len([name for name in os.listdir(out) if name.endswith(".jpg")]), 3)

    def test_d20_a_batch_without_a_base_path_overwrites_nothing(self):
        cfg, weights = model()
        sources = []
        for _ in range(3):
            sources.append(scratch("src"))
            write(sources[-1] + "/same.png", png())
        response = self.daemon.post("/api/v2/inference/batch", {"cfg_path": cfg, "weight_path": weights, "device": "cpu",
                                                               "source_paths": sources})
        for task in response.json()["task_ids"]:
            self.daemon.wait(task, "completed")
        found = [os.path.join(root, name) for root, _, names in os.walk(self.daemon.folder + "/results")
                 for name in names if name.endswith(".jpg")]
        self.assertEqual(len(found), 3, found)
        tables = [os.path.join(root, name) for root, _, names in os.walk(self.daemon.folder + "/results")
                  for name in names if name == "predictions.csv"]
        rows = 0
        for table in tables:
            with open(table, encoding="utf-8", newline="") as file:
                rows += len(list(csv.DictReader(file)))
        self.assertEqual(rows, 3)

    def test_d32_batch_priority_is_checked(self):
        response = self.daemon.post("/api/v2/inference/batch", {"cfg_path": "c", "weight_path": "w", "source_paths": [],
                                                               "priority": 77})
        self.assert_faults(response, ("less_than_equal", ("body", "priority")))

    def test_d51_a_hundred_pictures_take_no_minute(self):
        source = scratch("hundred")
        for i in range(100):
            write(f"{source}/{i}.png", png(32, 32, (i, 2 * i, 50)))
        started = time.monotonic()
        self.daemon.wait(self.daemon.infer(source_path=source), "completed")
        self.assertLess(time.monotonic() - started, 20)


class Resources(DaemonCase):
    OPTIONS = {"devices": device_file(2, memory_mb=10240, used_mb=5120)}

    def test_d11_an_inference_runs_where_its_slot_is(self):
        task = self.daemon.infer(device="cuda:1")
        self.assertEqual(self.daemon.wait(task, "completed")["device"], "cuda:1")
        self.assertIn("资源已分配，使用设备: cuda:1", self.daemon.messages(task))

    def test_d17_the_newest_are_listed_and_all_are_counted(self):
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 0}}})
        tasks = [self.daemon.train() for _ in range(5)]
        answer = self.daemon.json("/api/v2/tasks?limit=2&task_type=training")
        self.assertEqual([t["task_id"] for t in answer["training_tasks"]], tasks[-2:])
        self.assertGreaterEqual(answer["total_training"], 5)
        self.assertEqual(self.daemon.json("/api/v1/health")["training_tasks"], answer["total_training"])
        self.daemon.cancel_all()

    def test_d21_a_partial_update_keeps_the_rest(self):
        before = self.daemon.json("/api/v2/resources")["limits"]
        response = self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 1}}})
        before["cpu"]["training"] = 1
        self.assertEqual(response.json()["current_config"], before)
        self.daemon.wait(self.daemon.infer(device="cpu"), "completed")
        for limits in ({"cuda:2": {"training": 1}}, {"cpu": {"other": 1}}, {"cpu": {"training": -1}}):
            self.assertEqual(self.daemon.post("/api/v2/resources/config", {"max_concurrent": limits}).status_code, 422)
        self.assertEqual(self.daemon.json("/api/v2/resources")["limits"], before)

    def test_d22_only_real_devices_are_shown(self):
        for device in ("cuda:7", "gpu", "cuda:x"):
            self.daemon.post("/api/v2/training/start", self.daemon.train_fields(device=device))
        answer = self.daemon.json("/api/v2/resources")
        for key in ("device_usage", "active_tasks"):
            self.assertEqual(set(answer[key]), {"cuda:0", "cuda:1", "cpu"})
        for device in answer["device_usage"]:
            self.assertTrue(device in answer["limits"] or "cuda" in answer["limits"])

    def test_d23_changing_cuda_reaches_gpus_without_an_entry_of_their_own(self):
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cuda": {"inference": 0}}})
        task = self.daemon.infer(device="cuda")
        self.daemon.wait(task, "queued")
        time.sleep(0.2)
        self.assertEqual(self.daemon.task(task)["status"], "queued")
        limits = self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cuda": {"inference": 3}}}).json()
        self.assertEqual(limits["current_config"]["cuda:1"]["inference"], 3)
        self.daemon.wait(task, "completed")

    def test_d24_memory_of_other_programs_is_seen(self):
        device = self.daemon.json("/api/v2/resources/gpu")["devices"][0]
        self.assertEqual((device["total_memory_gb"], device["allocated_memory_gb"], device["free_memory_gb"],
                          device["utilization"]), (10.0, 5.0, 5.0, 50.0))

    def test_d37_no_route_holds_up_another(self):
        stop = threading.Event()

        def ask():
            session = requests.Session()
            while not stop.is_set():
                session.get(self.daemon.url + "/api/v2/resources/cpu", timeout=10)
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            times = []
            for _ in range(50):
                started = time.monotonic()
                self.daemon.json("/api/v1/health")
                times.append(time.monotonic() - started)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertLess(sorted(times)[25], 0.05)

    def test_d42_names_stay_inside_the_save_path(self):
        for name in ("/etc", "../up", "a/../../b", "..", "a/.."):
            for kind, fields in (("training", self.daemon.train_fields), ("inference", self.daemon.infer_fields)):
                response = self.daemon.post(f"/api/v2/{kind}/start", fields(name=name))
                self.assertEqual((name, response.status_code), (name, 422))
                self.assertEqual(response.json()["detail"][0]["loc"], ["body", "name"])

    def test_d55_memory_goes_back_after_a_task(self):
        before = [d["allocated_memory_gb"] for d in self.daemon.json("/api/v2/resources/gpu")["devices"]]
        self.daemon.wait(self.daemon.train(device="cuda:0"), "completed")
        self.daemon.until(lambda: not self.daemon.workers(), 3)
        self.assertEqual([d["allocated_memory_gb"] for d in self.daemon.json("/api/v2/resources/gpu")["devices"]],
                         before)


class DataRoots(unittest.TestCase):
    def test_d42_paths_can_be_confined(self):
        root = scratch("root")
        dataset(root + "/set")
        inside = {"train_path": root + "/set", "val_path": root + "/set", "save_path": root + "/out"}
        daemon = Daemon(env={"DATA_ROOTS": root})
        daemon.wait(daemon.train(**inside), "completed")
        os.symlink("/etc", root + "/link")
        outside = dataset()
        for fields in ({"train_path": outside}, {"save_path": "/tmp/elsewhere"}, {"val_path": root + "/../x"},
                       {"save_path": root + "/link/x"}):
            response = daemon.post("/api/v2/training/start", daemon.train_fields(**dict(inside, **fields)))
            self.assertIn((fields, response.status_code), ((fields, 403), (fields, 422), (fields, 400)))
        daemon.stop()


if __name__ == "__main__":
    unittest.main()
