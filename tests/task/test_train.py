"""Trainings by a worker driven directly: the contract's lines, files and metrics, the latter against PyTorch's view of
the checkpoint that was written; the defects of section 16 by their numbers."""

import csv
import os
import re
import shutil
import time
import unittest

import torch
import torchvision
import yaml
from PIL import Image

from tests.task import reference
from tests.task.harness import TaskTest, Worker, class_folders, picture, train_request

CLASSES = ["alpha", "beta", "gamma"]


def is_line(prefix):
    return lambda message: message.get("message", "").startswith(prefix)


class TrainTest(TaskTest):
    def setUp(self):
        super().setUp()
        self.train = class_folders(self.path("train"), CLASSES, 7)
        self.val = class_folders(self.path("val"), CLASSES, 3)
        self.out = self.path("out")

    def request(self, **changes):
        return train_request(self.train, self.val, self.out, **changes)

    def run_training(self, changes=None, **start):
        return self.run_task("training", self.request(**(changes or {})), **start)


class Contract(TrainTest):
    """One training of two epochs, looked at from all sides."""

    def test_a_training(self):
        worker, end = self.run_training({"name": "run 1"})
        folder = os.path.join(self.out, "run 1")
        self.assertEqual(end, {"type": "end", "status": "completed"})
        self.check_lines(worker, folder)
        self.check_stages(worker)
        self.check_progress(worker)
        self.check_files(folder)
        self.check_train_log(folder, worker)
        self.check_metrics(worker, folder)

    def check_lines(self, worker, folder):
        log = worker.log
        self.assert_in_order(log, [
            "开始训练...", "模型: resnet18", "设备: cpu", "批次大小: 4", "训练轮数: 2", f"保存目录: {folder}",
            "Loading model: resnet18", "resnet18 loaded onto device: cpu",
            f"Loading dataset from: {self.train} and {self.val}"])
        for e in (1, 2):
            epoch = log[log.index(f"Epoch [{e}/2] started."):]
            for pattern in (rf"Epoch \[{e}/2\], Train Loss: \d+\.\d{{4}}, Train Accuracy: \d+\.\d\d%",
                            r"Starting validation\.\.\.",
                            r"Validation Loss: \d+\.\d{4}, Validation Accuracy: \d+\.\d\d%",
                            r"Learning Rate: 0\.001000", r"Validation macro_F1: [\d.]+", r"Validation micro_F1: [\d.]+",
                            r"Validation macro_Precision: [\d.]+", r"Validation macro_Recall: [\d.]+",
                            r"Validation micro_Precision: [\d.]+", r"Validation micro_Recall: [\d.]+",
                            r"Validation mAP: [\d.]+",
                            r"Validation Top-k Accuracy: \{'top1': [\d.]+, 'top3': [\d.]+\}",
                            rf"Model saved at {re.escape(folder)}/ResNet_epoch_{e}\.pth "
                            r"\(Validation Accuracy: \d+\.\d\d%\)"):
                at = next((i for i, line in enumerate(epoch) if re.fullmatch(pattern, line)), None)
                self.assertIsNotNone(at, pattern)
                epoch = epoch[at + 1:]
        self.assertIn("New best model saved with Accuracy: ", "\n".join(log))
        self.assertEqual(log[-1], "训练完成！")

    def check_stages(self, worker):
        keys = {}
        for message in worker.messages:
            if message["type"] == "log":
                self.assertEqual("metrics" in message, "stage" in message)
                self.assertRegex(message["timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$")
            if "stage" in message:
                self.assertEqual(message["metrics"]["total_epochs"], 2)
                self.assertIn(message["metrics"]["epoch"], (1, 2))
                keys.setdefault(message["stage"], set()).update(message["metrics"])
        every = {"epoch", "total_epochs"}
        self.assertEqual(keys, {
            "epoch_start": every,
            "training": every | {"train_loss", "train_acc", "learning_rate"},
            "validation": every | {"val_loss", "val_acc", "macro_f1", "micro_f1", "macro_precision", "precision",
                                   "macro_recall", "recall", "micro_precision", "micro_recall", "mAP", "top1_acc",
                                   "top3_acc"},
            "epoch_end": every | {"best_acc"},
            "completed": every | {"best_acc"}})

    def check_progress(self, worker):
        steps = [m for m in worker.messages if m["type"] == "progress"]
        values = [m["progress"] for m in steps]
        self.assertEqual(values, sorted(values))
        self.assertEqual(values[-1], 100)
        self.assertGreater(len(values), 8)
        self.assertEqual([m["current_epoch"] for m in steps], sorted(m["current_epoch"] for m in steps))
        planned = [m["planned"] for m in worker.messages if m["type"] == "memory"]
        self.assertEqual([m.get("allocated") for m in worker.messages if m["type"] == "memory"], [None, planned[0]])
        self.assertEqual(len(set(planned)), 1)
        self.assertGreater(planned[0], 4 * 4 * 11178051)

    def check_files(self, folder):
        self.assertEqual(sorted(os.listdir(folder)), [
            "ResNet_epoch_1.pth", "ResNet_epoch_2.pth", "best_model.pth", "config.yaml", "confusion_matrix.csv",
            "confusion_matrix.png", "metrics.csv", "train.log"])
        with open(os.path.join(folder, "config.yaml"), encoding="utf-8") as file:
            config = yaml.safe_load(file)
        self.assertEqual(config["class_names"], {"alpha": 0, "beta": 1, "gamma": 2})
        self.assertEqual((config["model"], config["num_classes"], config["image_size"]), ("resnet18", 3, 32))
        with Image.open(os.path.join(folder, "confusion_matrix.png")) as image:
            image.load()
        with open(os.path.join(folder, "metrics.csv"), encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["epoch"] for row in rows], ["1", "2"])

    def check_train_log(self, folder, worker):
        with open(os.path.join(folder, "train.log"), encoding="utf-8") as file:
            lines = file.read().splitlines()
        form = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - Train - (.*)")
        texts = [form.fullmatch(line).group(1) for line in lines]
        start = worker.log.index("Loading model: resnet18")
        self.assertEqual(texts, worker.log[start:-1])

    def check_metrics(self, worker, folder):
        """The last epoch's metrics are those that PyTorch sees in the checkpoint."""
        expected = reference.evaluate(os.path.join(folder, "ResNet_epoch_2.pth"), self.val, 3, 32, batch=4)
        for key, value in expected.items():
            digits = {"val_loss": 3, "val_acc": 2, "top1_acc": 2, "top3_acc": 2}.get(key, 5)
            self.assertAlmostEqual(worker.metrics(key)[-1], value, digits, key)
        self.assertEqual(worker.metrics("best_acc")[-1], max(worker.metrics("val_acc")))
        with open(os.path.join(folder, "confusion_matrix.csv"), encoding="utf-8") as file:
            rows = list(csv.reader(file))
        self.assertEqual(rows[0], ["true\\predicted", *CLASSES])
        self.assertEqual(sum(int(n) for row in rows[1:] for n in row[1:]), 9)
        self.assertAlmostEqual(100 * sum(int(rows[i + 1][i + 1]) for i in range(3)) / 9, worker.metrics("best_acc")[-1],
                               2)


class Life(TrainTest):
    def test_same_seed_same_weights(self):
        self.run_training()
        first = torch.load(self.path("out", "ResNet_epoch_2.pth"))
        self.out = self.path("again")
        self.run_training()
        second = torch.load(self.path("again", "ResNet_epoch_2.pth"))
        for name, tensor in first.items():
            self.assertTrue(torch.equal(tensor, second[name]), name)
        self.out = self.path("other")
        self.run_training({"seed": 8})
        other = torch.load(self.path("other", "ResNet_epoch_2.pth"))
        self.assertFalse(torch.equal(first["conv1.weight"], other["conv1.weight"]))

    def test_second_run_appends_to_train_log(self):
        self.run_training({"num_epochs": 1})
        before = self.read("out", "train.log")
        self.run_training({"num_epochs": 1})
        self.assertTrue(self.read("out", "train.log").startswith(before))
        self.assertEqual(self.read("out", "train.log").count("Loading model: resnet18"), 2)

    def test_it_learns(self):
        worker, _ = self.run_training({"num_epochs": 8, "batch_size": 7})
        self.assertGreater(worker.metrics("best_acc")[-1], 90)
        self.assertLess(worker.metrics("train_loss")[-1], worker.metrics("train_loss")[0])

    def test_D29_keep_checkpoints(self):
        self.run_training({"num_epochs": 4, "keep_checkpoints": 2})
        names = [n for n in os.listdir(self.out) if n.startswith("ResNet")]
        self.assertEqual(sorted(names), ["ResNet_epoch_3.pth", "ResNet_epoch_4.pth"])

    def cancel_at(self, prefix, changes):
        worker = Worker("training", self.request(**changes))
        self.assertIsNotNone(worker.until(is_line(prefix)))
        start = time.monotonic()
        worker.send({"type": "cancel"})
        end = worker.finish()
        self.assertLess(time.monotonic() - start, 2)
        self.assertEqual(end["status"], "cancelled")
        self.assertEqual(worker.log[-1], "训练已被取消")
        self.assertEqual(worker.process.returncode, 0)

    def test_cancel_in_training(self):
        self.cancel_at("Epoch [1/100] started.", {"num_epochs": 100})

    def test_cancel_in_validation(self):
        self.val = class_folders(self.path("large"), CLASSES, 150)
        self.cancel_at("Starting validation...", {"num_epochs": 1, "batch_size": 1})

    def test_sigterm_is_a_cancel(self):
        worker = Worker("training", self.request(num_epochs=100))
        worker.until(is_line("Epoch [1/100] started."))
        worker.process.terminate()
        self.assertEqual(worker.finish()["status"], "cancelled")

    def test_ends_with_its_daemon(self):
        worker = Worker("training", self.request(num_epochs=100))
        worker.until(is_line("Epoch [1/100] started."))
        worker.close()
        self.assertEqual(worker.process.returncode, 1)


class ThenInference(TrainTest):
    def test_D15_what_a_training_leaves_is_what_an_inference_takes(self):
        self.run_training({"num_epochs": 4, "batch_size": 7, "num_classes": 5})
        worker, end = self.run_task("inference", {
            "cfg_path": self.path("out", "config.yaml"), "weight_path": self.path("out", "best_model.pth"),
            "source_path": self.path("val", "beta"), "save_path": self.path("seen"), "device": "cpu"})
        self.assertEqual(end["status"], "completed")
        with open(self.path("seen", "predictions.csv"), encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        x = torch.stack([reference.load_picture(self.path("val", "beta", row["file"]), 32) for row in rows])
        p = torch.softmax(reference.logits_of(self.path("out", "best_model.pth"), x, 5), 1)
        names = [*CLASSES, "class_3", "class_4"]
        for row, expected in zip(rows, p):
            self.assertEqual(row["class"], names[int(expected.argmax())])
            self.assertAlmostEqual(float(row["probability"]), float(expected.max()), 4)


class Classes(TrainTest):
    def test_D33_one_class(self):
        shutil.rmtree(self.path("train", "beta"))
        shutil.rmtree(self.path("train", "gamma"))
        shutil.rmtree(self.path("val", "beta"))
        shutil.rmtree(self.path("val", "gamma"))
        worker, end = self.run_training({"num_classes": 1, "num_epochs": 1})
        self.assertEqual(end["status"], "completed")
        self.assertEqual(worker.metrics("val_acc"), [100])
        self.assertEqual(worker.metrics("top3_acc"), [])

    def test_D33_two_classes(self):
        shutil.rmtree(self.path("train", "gamma"))
        shutil.rmtree(self.path("val", "gamma"))
        worker, end = self.run_training({"num_classes": 2, "num_epochs": 1})
        self.assertEqual(end["status"], "completed")
        self.assertEqual(len(worker.metrics("top1_acc")), 1)
        self.assertEqual(worker.metrics("top3_acc"), [])

    def test_D33_more_outputs_than_folders(self):
        os.rename(self.path("train", "gamma"), self.path("train", "class_4"))
        os.rename(self.path("val", "gamma"), self.path("val", "class_4"))
        _, end = self.run_training({"num_classes": 6, "num_epochs": 1})
        self.assertEqual(end["status"], "completed")
        names = yaml.safe_load(self.read("out", "config.yaml"))["class_names"]
        self.assertEqual(names, {"alpha": 0, "beta": 1, "class_4": 2, "class_3": 3, "class_4_": 4, "class_5": 5})

    def test_D33_fewer_outputs_than_folders(self):
        worker, end = self.run_training({"num_classes": 2})
        self.assertEqual(end["status"], "failed")
        self.assertIn("num_classes 为 2", end["error"])
        self.assertIn("3 个类别文件夹", end["error"])
        self.assertNotIn("Epoch [1/2] started.", worker.log)

    def test_D13_class_missing_from_validation(self):
        """Labels do not shift: the class between is gone, and all accuracies are as PyTorch sees them."""
        shutil.rmtree(self.path("val", "beta"))
        worker, _ = self.run_training({"num_epochs": 1})
        expected = reference.evaluate(self.path("out", "best_model.pth"), self.val, 3, 32, batch=4, classes=CLASSES)
        self.assertAlmostEqual(worker.metrics("val_loss")[-1], expected["val_loss"], 3)
        self.assertAlmostEqual(worker.metrics("macro_recall")[-1], expected["macro_recall"], 5)

    def test_D13_class_unknown_to_training(self):
        os.rename(self.path("val", "beta"), self.path("val", "delta"))
        _, end = self.run_training()
        self.assertEqual(end["status"], "failed")
        self.assertIn("delta", end["error"])

    def test_D14_first_epoch_is_best_at_zero(self):
        model = torchvision.models.resnet18(num_classes=2)
        model.fc.weight.data.zero_()
        model.fc.bias.data = torch.tensor([100.0, -100.0])
        torch.save(model.state_dict(), self.path("sure.pth"))
        shutil.rmtree(self.path("val"))
        class_folders(self.path("val"), ["beta"], 4)
        shutil.rmtree(self.path("train", "gamma"))
        worker, end = self.run_training({"num_classes": 2, "num_epochs": 1, "learning_rate": 1e-9,
                                         "weight_path": self.path("sure.pth")})
        self.assertEqual(end["status"], "completed")
        self.assertEqual(worker.metrics("val_acc"), [0])
        self.assertTrue(os.path.exists(self.path("out", "best_model.pth")))
        self.assertIn("New best model saved with Accuracy: 0.00%", worker.log)


class Weights(TrainTest):
    def save_model(self, path, classes):
        torch.manual_seed(3)
        model = torchvision.models.resnet18(num_classes=classes)
        torch.save(model.state_dict(), path)
        return model.state_dict()

    def assert_started_from(self, weights, but=()):
        """With a step size of next to nothing the weights stay where they began."""
        got = torch.load(self.path("out", "best_model.pth"))
        for name, tensor in weights.items():
            if "running" not in name and "tracked" not in name and not name.startswith(but):
                self.assertTrue(torch.allclose(got[name], tensor, atol=1e-6), name)

    def test_weight_path(self):
        path = self.path("w.pth")
        weights = self.save_model(path, 3)
        worker, _ = self.run_training({"weight_path": path, "num_epochs": 1, "learning_rate": 1e-12,
                                       "pretrained": True})
        self.assert_in_order(worker.log, ["Loading model: resnet18", f"Loading pretrained weights from: {path}",
                                          f"Successfully loaded pretrained weights from: {path}",
                                          f"Loading pretrained weights from: {path}",
                                          "resnet18 loaded onto device: cpu"])
        self.assert_started_from(weights)

    def test_head_of_another_size_is_refused(self):
        self.save_model(self.path("w.pth"), 11)
        _, end = self.run_training({"weight_path": self.path("w.pth"), "pretrained": True})
        self.assertEqual(end["status"], "failed")
        for part in ("weight_path", self.path("w.pth"), "fc.weight", "11x512", "3x512", "num_classes"):
            self.assertIn(part, end["error"])

    def test_pretrained_found(self):
        os.mkdir(self.path("weights"))
        weights = self.save_model(self.path("weights", "resnet18-f37072fd.pth"), 1000)
        worker, _ = self.run_training({"pretrained": True, "num_epochs": 1, "learning_rate": 1e-12},
                                      weights_folder=self.path("weights"))
        self.assertIn(f"Loading pretrained weights from: {self.path('weights', 'resnet18-f37072fd.pth')}", worker.log)
        self.assert_started_from(weights, but=("fc.",))

    def test_pretrained_from_the_torch_hub_cache(self):
        os.makedirs(self.path("hub", "checkpoints"))
        weights = self.save_model(self.path("hub", "checkpoints", "resnet18-f37072fd.pth"), 1000)
        with open(self.path("hub", "checkpoints", "resnet18-00000000.pth"), "w", encoding="utf-8") as file:
            file.write("half a download")
        self.run_training({"pretrained": True, "num_epochs": 1, "learning_rate": 1e-12},
                          env={"TORCH_HOME": self.folder})
        self.assert_started_from(weights, but=("fc.",))

    def test_pretrained_not_found(self):
        worker, end = self.run_training({"pretrained": True, "num_epochs": 1}, weights_folder=self.path("none"),
                                        env={"TORCH_HOME": self.folder})
        self.assertEqual(end["status"], "completed")
        warnings = [m["message"] for m in worker.messages if m.get("level") == "WARNING"]
        self.assertTrue(any("未找到 resnet18 的 ImageNet 预训练权重" in w and self.path("none") in w for w in warnings))

    def test_weight_path_that_is_no_checkpoint(self):
        with open(self.path("w.pth"), "w", encoding="utf-8") as file:
            file.write("no checkpoint")
        _, end = self.run_training({"weight_path": self.path("w.pth")})
        self.assertEqual(end["status"], "failed")
        self.assertIn("w.pth", end["error"])

    def test_weights_of_another_model(self):
        torch.save(torchvision.models.resnet34(num_classes=3).state_dict(), self.path("w.pth"))
        _, end = self.run_training({"weight_path": self.path("w.pth")})
        self.assertEqual(end["status"], "failed")
        self.assertIn("w.pth", end["error"])


class Faults(TrainTest):
    def test_D27_save_path_is_a_file(self):
        with open(self.out, "w", encoding="utf-8"):
            pass
        _, end = self.run_training()
        self.assertEqual(end["status"], "failed")
        self.assertIn(self.out, end["error"])

    def test_D27_unwritable_save_path(self):
        self.out = "/proc/rfuav"
        _, end = self.run_training()
        self.assertEqual(end["status"], "failed")
        self.assertIn("/proc/rfuav", end["error"])

    def test_D27_no_class_folders(self):
        shutil.rmtree(self.train)
        os.mkdir(self.train)
        _, end = self.run_training()
        self.assertEqual(end["status"], "failed")
        self.assertIn(self.train, end["error"])

    def test_unreadable_picture_is_passed_over(self):
        with open(self.path("train", "beta", "000.png"), "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\nno more")
        worker, end = self.run_training({"num_epochs": 2})
        self.assertEqual(end["status"], "completed")
        lines = [line for line in worker.log if line.startswith("无法读取图像: ")]
        self.assertEqual(len(lines), 1)
        self.assertIn("beta/000.png", lines[0])

    def test_too_many_unreadable_pictures(self):
        for i in range(4):
            with open(self.path("train", "beta", f"00{i}.png"), "wb"):
                pass
        _, end = self.run_training()
        self.assertEqual(end["status"], "failed")
        self.assertIn("00", end["error"])

    def test_D50_last_batch_of_one(self):
        """At 32 pixels the last feature map is 1 x 1: one image has no variance there."""
        picture(self.path("train", "alpha", "one_more.png"), 0, 99)
        picture(self.path("train", "alpha", "two_more.png"), 0, 98)
        picture(self.path("train", "alpha", "three_more.png"), 0, 97)
        picture(self.path("train", "alpha", "four_more.png"), 0, 96)
        worker, end = self.run_training({"num_epochs": 1})
        self.assertEqual(end["status"], "completed")
        self.assertEqual(len(worker.metrics("train_loss")), 1)
        for name, tensor in torch.load(self.path("out", "best_model.pth")).items():
            self.assertTrue(bool(torch.isfinite(tensor).all()), name)

    def test_loss_that_is_no_number(self):
        model = torchvision.models.resnet18(num_classes=3)
        model.fc.bias.data[0] = float("nan")
        torch.save(model.state_dict(), self.path("w.pth"))
        worker, end = self.run_training({"weight_path": self.path("w.pth"), "num_epochs": 1})
        self.assertEqual(end["status"], "completed")
        line = next(m for m in worker.messages if m.get("message", "").startswith("Epoch [1/1], Train Loss: nan,"))
        self.assertNotIn("metrics", line)
        self.assertEqual(worker.metrics("train_loss"), [])


if __name__ == "__main__":
    unittest.main()
