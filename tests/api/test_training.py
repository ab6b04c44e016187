"""Section 4 of the contract, with what sections 3, 10, 11 and 13 say about a training."""

import csv
import os
import re
import unittest
import uuid

from tests.api.harness import DaemonCase, dataset, png, scratch, write

RECORD = ["task_id", "task_type", "status", "message", "progress", "device", "priority", "created_at", "updated_at",
          "current_epoch", "total_epochs", "latest_metrics"]
METRICS = ["epoch", "total_epochs", "train_loss", "train_acc", "val_loss", "val_acc", "macro_f1", "micro_f1", "mAP",
           "top1_acc", "top3_acc", "top5_acc", "macro_precision", "macro_recall", "micro_precision", "micro_recall",
           "precision", "recall", "learning_rate", "best_acc"]


class Start(DaemonCase):
    def start(self, **fields):
        return self.daemon.post("/api/v2/training/start", self.daemon.train_fields(**fields))

    def test_answer(self):
        response = self.start(num_epochs=2, priority=7, device="cpu")
        self.assertEqual(response.status_code, 200)
        record = response.json()
        self.assertEqual(list(record)[:len(RECORD)], RECORD)
        self.assertEqual(str(uuid.UUID(record["task_id"], version=4)), record["task_id"])
        self.assert_time(record["created_at"])
        self.assert_time(record["updated_at"])
        self.assertEqual([record[key] for key in RECORD[1:7] + RECORD[9:]],
                         ["training", "pending", "等待开始", 0, "cpu", 7, None, 2, None])
        self.daemon.wait(record["task_id"], "completed")

    def test_unknown_model(self):
        for name in ("resnet19", "ResNet18", "", "vgg16", "resnet18 "):
            self.assert_detail(self.start(model=name), 400, f"不支持的模型: {name}")

    def test_precision(self):
        for name in ("fp16", "BF16", ""):
            self.assert_detail(self.start(precision=name), 400, f"不支持的精度: {name} (可选 fp32、bf16)")
        self.daemon.wait(self.daemon.train(precision="bf16", num_epochs=1), "completed")  # on the CPU in fp32

    def test_deterministic(self):
        response = self.start(deterministic="perhaps")
        self.assertEqual(response.status_code, 422, response.text)
        self.assertEqual(response.json()["detail"][0]["loc"], ["body", "deterministic"])
        self.daemon.wait(self.daemon.train(deterministic=True, num_epochs=1), "completed")

    def test_missing_paths(self):
        self.assert_detail(self.start(train_path="/nowhere/训练"), 400, "训练集路径不存在: /nowhere/训练")
        self.assert_detail(self.start(val_path="/nowhere/v"), 400, "验证集路径不存在: /nowhere/v")
        self.assert_detail(self.start(weight_path="/nowhere/w.pth"), 400, "权重文件不存在: /nowhere/w.pth")

    def test_checks_come_in_order(self):
        bad = {"model": "x", "train_path": "/nowhere/t", "val_path": "/nowhere/v"}
        self.assert_detail(self.start(**bad), 400, "不支持的模型: x")
        del bad["model"]
        self.assert_detail(self.start(**bad), 400, "训练集路径不存在: /nowhere/t")

    def test_empty_paths(self):
        self.assert_detail(self.start(train_path=""), 400, "训练集路径不存在: ")

    def test_empty_weight_path_and_id(self):
        for value in ("", None):
            body = self.daemon.train_fields()
            body.update(weight_path=value, task_id=value, name=value)
            response = self.daemon.post("/api/v2/training/start", body)
            self.assertEqual(response.status_code, 200, response.text)
            uuid.UUID(response.json()["task_id"])
            self.daemon.wait(response.json()["task_id"], "completed")

    def test_own_id(self):
        for name in ("mine", "a.b-c_d~1", "实验 7", "x" * 100):
            self.assertEqual(self.daemon.train(task_id=name), name)
            self.assertEqual(self.daemon.wait(name, "completed")["task_id"], name)

    def test_status_of_an_unknown_task(self):
        self.assert_detail(self.daemon.get("/api/v2/training/none"), 404, "任务 none 不存在")
        self.assert_detail(self.daemon.get("/api/v2/training/none/logs"), 404, "任务 none 不存在")
        self.assert_detail(self.daemon.post("/api/v2/training/none/stop"), 404, "任务 none 不存在")

    def test_an_inference_is_no_training(self):
        task = self.daemon.infer()
        self.daemon.wait(task, "completed")
        for method, path in (("GET", ""), ("GET", "/logs"), ("POST", "/stop")):
            response = self.daemon.request(method, f"/api/v2/training/{task}{path}")
            self.assert_detail(response, 404, f"任务 {task} 不存在")

    def test_relative_save_path_is_below_the_working_folder(self):
        task = self.daemon.train(save_path="", name="deep/er")
        self.daemon.wait(task, "completed")
        self.assertTrue(os.path.exists(f"{self.daemon.folder}/models/output/deep/er/best_model.pth"))

    def test_defaults(self):
        body = {key: value for key, value in self.daemon.train_fields().items()
                if key in ("model", "num_classes", "train_path", "val_path", "save_path")}
        record = self.daemon.post("/api/v2/training/start", body).json()
        self.assertEqual([record[key] for key in ("device", "priority", "total_epochs")], ["cuda", 5, 100])
        self.daemon.cancel(record["task_id"])


class Whole(DaemonCase):
    """One training of three classes and two epochs, looked at from all sides."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.train_set, cls.val_set = dataset(classes=("a", "b", "c"), images=4), dataset(classes=("a", "b", "c"),
                                                                                        images=2)
        cls.out = scratch("out")
        cls.task = cls.daemon.train(train_path=cls.train_set, val_path=cls.val_set, num_classes=3, num_epochs=2,
                                    save_path=cls.out, name="run1", learning_rate=0.001, batch_size=4)
        cls.record = cls.daemon.wait(cls.task, "completed")
        cls.lines = cls.daemon.lines(cls.task)
        cls.folder = cls.out + "/run1"

    def test_record(self):
        self.assertEqual(list(self.record)[:len(RECORD)], RECORD)
        self.assertEqual([self.record[key] for key in ("status", "message", "progress", "device", "current_epoch",
                                                       "total_epochs")],
                         ["completed", "训练完成", 100, "cpu", 2, 2])
        self.assertEqual(self.daemon.json(f"/api/v2/training/{self.task}"), self.record)

    def test_metrics(self):
        metrics = self.record["latest_metrics"]
        self.assertEqual(list(metrics)[:len(METRICS)], METRICS)
        self.assertIsNone(metrics["top5_acc"])  # of three classes
        for key in METRICS:
            if key != "top5_acc":
                self.assertIsInstance(metrics[key], (int, float), key)
        self.assertEqual((metrics["epoch"], metrics["total_epochs"], metrics["learning_rate"]), (2, 2, 0.001))
        for key in ("train_acc", "val_acc", "best_acc", "top1_acc", "top3_acc"):
            self.assertTrue(0 <= metrics[key] <= 100, key)
        for key in METRICS[6:9] + METRICS[12:18]:
            self.assertTrue(0 <= metrics[key] <= 1, key)
        self.assertEqual(metrics["top3_acc"], 100)
        self.assertAlmostEqual(metrics["micro_f1"] * 100, metrics["val_acc"], 1)
        self.assertAlmostEqual(metrics["top1_acc"], metrics["val_acc"], 1)
        self.assertEqual((metrics["precision"], metrics["recall"]),
                         (metrics["macro_precision"], metrics["macro_recall"]))

    def test_lines(self):
        messages = [line["message"] for line in self.lines if "level" in line]
        number, percent = r"\d+\.\d{4}", r"\d+\.\d\d%"
        expected = [r"等待CPU资源\.\.\.", r"资源已分配，使用设备: cpu", r"开始训练\.\.\.", r"模型: resnet18", r"设备: cpu",
                    r"批次大小: 4", r"训练轮数: 2", "保存目录: " + re.escape(self.folder), r"Loading model: resnet18",
                    r"resnet18 loaded onto device: cpu",
                    re.escape(f"Loading dataset from: {self.train_set} and {self.val_set}")]
        for epoch in (1, 2):
            expected += [rf"Epoch \[{epoch}/2\] started\.",
                         rf"Epoch \[{epoch}/2\], Train Loss: {number}, Train Accuracy: {percent}",
                         r"Starting validation\.\.\.", rf"Validation Loss: {number}, Validation Accuracy: {percent}",
                         rf"Model saved at {re.escape(self.folder)}/ResNet_epoch_{epoch}\.pth "
                         rf"\(Validation Accuracy: {percent}\)"]
            if epoch == 1:
                expected.append(rf"New best model saved with Accuracy: {percent}")
        expected.append("训练完成！")
        left = list(messages)
        for pattern in expected:  # in this order, with lines of our own between
            while left and not re.fullmatch(pattern, left[0]):
                left.pop(0)
            self.assertTrue(left, f"no line like {pattern} in its place:\n" + "\n".join(messages))
            left.pop(0)
        self.assertEqual(left, [])

    def test_metric_lines(self):
        text = "\n".join(line["message"] for line in self.lines if "level" in line)
        self.assertIn("Learning Rate: 0.001000", text)
        for name in ("macro_F1", "micro_F1", "macro_Precision", "macro_Recall", "micro_Precision", "micro_Recall",
                     "mAP"):
            self.assertRegex(text, rf"Validation {name}: [\d.]+")
        self.assertRegex(text, r"Validation Top-k Accuracy: \{'top1': [\d.]+, 'top3': [\d.]+")

    def test_events(self):
        for line in self.lines:
            if "status" in line and "level" not in line:
                continue
            self.assert_time(line["timestamp"])
            self.assertIn(line["level"], ("INFO", "WARNING", "ERROR"))
            self.assertEqual("stage" in line, "metrics" in line or line["message"] == "训练完成！", line)
            for value in line.get("metrics", {}).values():
                self.assertIsNotNone(value)
        staged = [(line["stage"], line["message"].split(",")[0].split(":")[0]) for line in self.lines if "stage" in line]
        self.assertEqual(staged[0], ("epoch_start", "Epoch [1/2] started."))
        self.assertEqual(staged[1], ("training", "Epoch [1/2]"))
        by_message = {line["message"].split(":")[0]: line for line in self.lines if "metrics" in line}
        self.assertEqual(by_message["Validation Loss"]["stage"], "validation")
        self.assertEqual(by_message["New best model saved with Accuracy"]["stage"], "epoch_end")
        self.assertEqual([line.get("stage") for line in self.lines if line.get("message") == "训练完成！"], ["completed"])
        start = next(line for line in self.lines if line.get("stage") == "epoch_start")
        self.assertEqual((start["metrics"]["epoch"], start["metrics"]["total_epochs"]), (1, 2))
        training = next(line for line in self.lines if line.get("stage") == "training")
        self.assertLessEqual({"epoch", "total_epochs", "train_loss", "train_acc"}, set(training["metrics"]))

    def test_line_and_metrics_agree(self):
        for line in self.lines:
            found = re.fullmatch(r"Validation Loss: ([\d.]+), Validation Accuracy: ([\d.]+)%", line.get("message", ""))
            if found:
                self.assertAlmostEqual(line["metrics"]["val_loss"], float(found.group(1)), 4)
                self.assertAlmostEqual(line["metrics"]["val_acc"], float(found.group(2)), 2)

    def test_files(self):
        files = set(os.listdir(self.folder))
        self.assertLessEqual({"ResNet_epoch_1.pth", "ResNet_epoch_2.pth", "best_model.pth", "train.log", "config.yaml"},
                             files)
        self.assertFalse([name for name in files if name.endswith(".tmp")])

    def test_train_log(self):
        with open(self.folder + "/train.log", encoding="utf-8") as file:
            lines = file.read().splitlines()
        for line in lines:
            self.assertRegex(line, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - Train - ")
        messages = [line.split(" - Train - ")[1] for line in lines]
        self.assertEqual(messages[0], "Loading model: resnet18")
        self.assertIn("Epoch [2/2] started.", messages)

    def test_config_serves_inference(self):
        import yaml
        with open(self.folder + "/config.yaml", encoding="utf-8") as file:
            cfg = yaml.safe_load(file)
        self.assertEqual((cfg["model"], cfg["num_classes"], cfg["image_size"]), ("resnet18", 3, 32))
        names = cfg["class_names"]
        self.assertEqual(names if isinstance(names, dict) else {n: i for i, n in enumerate(names)},
                         {"a": 0, "b": 1, "c": 2})
        results = scratch("results")
        task = self.daemon.infer(cfg_path=self.folder + "/config.yaml", weight_path=self.folder + "/best_model.pth",
                                 source_path=self.val_set + "/a", save_path=results)
        self.daemon.wait(task, "completed")
        with open(results + "/predictions.csv", encoding="utf-8") as file:
            self.assertEqual(len(list(csv.reader(file))), 3)

    def test_checkpoint_loads_in_torch(self):
        import torch
        import torchvision
        state = torch.load(self.folder + "/best_model.pth", map_location="cpu", weights_only=True)
        net = torchvision.models.resnet18(num_classes=3)
        net.load_state_dict(state, strict=True)
        self.assertEqual(list(state), list(net.state_dict()))


class Course(DaemonCase):
    def test_progress_never_falls_and_states_go_forward(self):
        order = ["pending", "queued", "running", "completed"]
        task = self.daemon.train(num_epochs=4)
        seen, progress = ["pending"], 0
        while seen[-1] != "completed":
            record = self.daemon.task(task)
            self.assertGreaterEqual(order.index(record["status"]), order.index(seen[-1]))
            self.assertGreaterEqual(record["progress"], progress)
            progress = record["progress"]
            seen.append(record["status"])
        self.assertEqual(progress, 100)

    def test_stop(self):
        task = self.daemon.train_long()
        self.daemon.wait(task, "running")
        self.daemon.until(lambda: self.daemon.task(task)["current_epoch"], 30, "the first epoch")
        response = self.daemon.post(f"/api/v2/training/{task}/stop")
        self.assertEqual((response.status_code, response.json()),
                         (200, {"status": "success", "message": "训练任务已停止", "task_id": task}))
        record = self.daemon.task(task)
        self.assertEqual(record["status"], "cancelled")
        self.assertIn(record["message"], ("任务已取消", "训练已被用户取消"))
        self.daemon.until(lambda: not self.daemon.workers(), 2, "the end of the worker")
        self.daemon.until(lambda: self.daemon.task(task)["message"] == "训练已被用户取消", 2, "the last message")
        warnings = [line["message"] for line in self.daemon.lines(task) if line.get("level") == "WARNING"]
        self.assertIn("任务已被用户取消", warnings)
        self.assert_detail(self.daemon.post(f"/api/v2/training/{task}/stop"), 404, f"任务 {task} 不存在")

    def test_stop_ignores_a_body(self):
        task = self.daemon.train_long()
        answer = self.daemon.ask("POST", f"/api/v2/training/{task}/stop", {"Content-Type": "text/plain"}, b"\xffjunk")
        self.assertEqual(answer.status, 200)

    def test_start_from_a_checkpoint(self):
        first = self.daemon.train(save_path=scratch("first"))
        self.daemon.wait(first, "completed")
        out = scratch("again")
        source = self.daemon.train(save_path=out)
        self.daemon.wait(source, "completed")
        weights = out + "/best_model.pth"
        task = self.daemon.train(weight_path=weights)
        self.daemon.wait(task, "completed")
        messages = self.daemon.messages(task)
        self.assertEqual(messages.count(f"Loading pretrained weights from: {weights}"), 2)
        self.assertIn(f"Successfully loaded pretrained weights from: {weights}", messages)

    def test_seed_makes_it_reproducible(self):
        files = []
        for _ in range(2):
            out = scratch("seeded")
            self.daemon.wait(self.daemon.train(save_path=out, seed=7, num_epochs=2), "completed")
            with open(out + "/ResNet_epoch_2.pth", "rb") as file:
                files.append(file.read())
        self.assertEqual(files[0], files[1])

    def test_keep_checkpoints(self):
        out = scratch("kept")
        self.daemon.wait(self.daemon.train(save_path=out, num_epochs=4, keep_checkpoints=2), "completed")
        self.assertEqual(sorted(name for name in os.listdir(out) if "epoch" in name),
                         ["ResNet_epoch_3.pth", "ResNet_epoch_4.pth"])

    def test_pretrained_without_a_file_says_so(self):
        task = self.daemon.train(pretrained=True)
        self.daemon.wait(task, "completed")
        self.assertTrue(any(line.get("level") == "WARNING" for line in self.daemon.lines(task)))


class Failures(DaemonCase):
    """Every fault of the data ends in `failed` with a text that names it, and nothing is left behind."""

    def fails(self, *parts, **fields):
        task = self.daemon.train(**fields)
        record = self.daemon.wait(task, "failed")
        self.assertTrue(record["message"].startswith("训练失败: "), record["message"])
        for part in parts:
            self.assertIn(part, record["message"])
        self.assertEqual(record["progress"], 0)
        errors = [line["message"] for line in self.daemon.lines(task) if line.get("level") == "ERROR"]
        self.assertEqual(errors[-1], record["message"])
        self.assertEqual(self.daemon.stream(f"/api/v2/tasks/{task}/logs").all()[-1],
                         {"status": "failed", "message": "任务结束"})
        self.daemon.until(lambda: not self.daemon.workers(), 2, "the end of the worker")
        return record

    def test_folder_without_classes(self):
        empty = scratch("empty")
        self.fails(empty, train_path=empty)

    def test_class_without_images(self):
        root = dataset()
        os.makedirs(root + "/nothing")
        self.fails("nothing", train_path=root, num_classes=3)

    def test_path_that_is_a_file(self):
        path = write(scratch("file") + "/x", b"x")
        self.fails(path, train_path=path)

    def test_fewer_outputs_than_folders(self):
        root = dataset(classes=("a", "b", "c"))
        self.fails("num_classes", train_path=root, val_path=root, num_classes=2)

    def test_weights_of_another_model(self):
        import torch
        import torchvision
        path = scratch("weights") + "/other.pth"
        torch.save(torchvision.models.resnet34(num_classes=2).state_dict(), path)
        self.fails(path, weight_path=path)

    def test_weights_that_are_none(self):
        path = write(scratch("weights") + "/junk.pth", b"junk" * 100)
        self.fails(path, weight_path=path)

    def test_save_path_that_is_a_file(self):
        path = write(scratch("file") + "/taken", b"x")
        self.fails(path, save_path=path)

    def test_unreadable_images(self):
        root = dataset(images=2)
        for i in range(4):
            write(f"{root}/A/bad{i}.png", b"\x89PNG\r\n\x1a\nnonsense")
        self.fails("bad", train_path=root)

    def test_one_unreadable_image_of_many_is_skipped(self):
        root = dataset(images=12)
        write(f"{root}/A/bad.png", png()[:40])
        task = self.daemon.train(train_path=root)
        self.daemon.wait(task, "completed")
        self.assertTrue(any("bad.png" in line["message"] for line in self.daemon.lines(task)
                            if line.get("level") == "WARNING"))


if __name__ == "__main__":
    unittest.main()
