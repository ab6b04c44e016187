"""Inferences by a worker driven directly: the contract's lines and files, predictions against PyTorch's, and the defects
of section 16 by their numbers."""

import csv
import json
import os
import shutil
import time
import unittest

import torch
import torchvision
from PIL import Image

from tests.task import reference
from tests.task.harness import TaskTest, Worker, picture

CLASSES = ["DJI FPV", "无人机", "noise"]


class InferTest(TaskTest):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path("in"))
        torch.manual_seed(1)
        torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), self.path("w.pth"))
        self.write_cfg("class_names: {DJI FPV: 0, 无人机: 1, noise: 2}\nimage_size: 64\n")

    def write_cfg(self, rest, model="resnet18", classes=3):
        with open(self.path("cfg.yaml"), "w", encoding="utf-8") as file:
            file.write(f"model: {model}\nnum_classes: {classes}\n{rest}")

    def request(self, **changes):
        return {"cfg_path": self.path("cfg.yaml"), "weight_path": self.path("w.pth"), "source_path": self.path("in"),
                "save_path": self.path("out"), "device": "cpu", **changes}

    def run_inference(self, changes=None, **start):
        return self.run_task("inference", self.request(**(changes or {})), **start)

    def predictions(self, *parts):
        with open(self.path(*(parts or ("out",)), "predictions.csv"), encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def outputs(self):
        return sorted(n for n in os.listdir(self.path("out")) if n.endswith(".jpg"))

    def expected(self, names):
        x = torch.stack([reference.load_picture(self.path("in", name), 64) for name in names])
        return torch.softmax(reference.logits_of(self.path("w.pth"), x, 3), 1)


class Contract(InferTest):
    def test_an_inference(self):
        names = [f"{i:02}.png" for i in range(19)]
        for i, name in enumerate(names):
            picture(self.path("in", name), i % 3, i, 80)
        worker, end = self.run_inference({"name": "run"})
        self.assertEqual(end, {"type": "end", "status": "completed"})
        self.assert_in_order(worker.log, ["开始推理...", f"加载模型: {self.path('w.pth')}",
                                          f"推理数据: {self.path('in')}", f"保存目录: {self.path('out', 'run')}",
                                          "共识别 19 张图像，0 张无法读取", "推理完成！"])
        self.assertEqual(worker.log[-1], "推理完成！")
        self.check_predictions(worker, names)
        self.check_pictures(names)
        progress = [m["progress"] for m in worker.messages if m["type"] == "progress"]
        self.assertEqual(progress, sorted(progress))
        self.assertEqual(progress[-1], 100)
        self.assertNotIn("current_epoch", json.dumps(worker.messages))

    def check_predictions(self, worker, names):
        expected = self.expected(names)
        rows = self.predictions("out", "run")
        with open(self.path("out", "run", "predictions.jsonl"), encoding="utf-8") as file:
            objects = [json.loads(line) for line in file]
        self.assertEqual([row["file"] for row in rows], names)
        self.assertEqual([o["file"] for o in objects], names)
        for i, (row, one) in enumerate(zip(rows, objects)):
            order = expected[i].argsort(descending=True).tolist()
            self.assertEqual(row["class"], CLASSES[order[0]])
            self.assertEqual(one["class"], CLASSES[order[0]])
            self.assertAlmostEqual(float(row["probability"]), expected[i][order[0]].item(), 4)
            self.assertEqual([pair["class"] for pair in one["top5"]], [CLASSES[c] for c in order])
            for k, c in enumerate(order):
                self.assertEqual(row[f"top{k + 1}_class"], CLASSES[c])
                self.assertAlmostEqual(float(row[f"top{k + 1}_probability"]), expected[i][c].item(), 4)
                self.assertAlmostEqual(one["top5"][k]["probability"], expected[i][c].item(), 4)
            self.assertEqual(row["top4_class"], "")
            line = f"{names[i]}: {row['class']} {100 * float(row['probability']):.2f}%"
            self.assertTrue(any(l.rsplit(" ", 1)[0] == line.rsplit(" ", 1)[0] for l in worker.log), line)

    def check_pictures(self, names):
        for name in names:
            with Image.open(self.path("out", "run", name[:-4] + ".jpg")) as image:
                self.assertEqual((image.format, image.size, image.mode), ("JPEG", (80, 80), "RGB"))
                # the text begins at (40, 40): something red there, nothing above
                region = image.crop((40, 40, 80, 80)).getdata()
                self.assertTrue(any(r > 180 and g < 90 and b < 90 for r, g, b in region))

    def test_source_is_one_file(self):
        picture(self.path("in", "one.png"), 0, 1, 50)
        picture(self.path("in", "two.png"), 0, 2, 50)
        _, end = self.run_inference({"source_path": self.path("in", "one.png")})
        self.assertEqual(end["status"], "completed")
        self.assertEqual(self.outputs(), ["one.jpg"])

    def test_batch_sizes_agree(self):
        for i in range(7):
            picture(self.path("in", f"{i}.png"), i, i, 40)
        found = []
        for size in (1, 3, 7, 64):
            self.run_inference({"batch_size": size})
            found.append([(r["file"], r["class"], round(float(r["probability"]), 4)) for r in self.predictions()])
        for other in found[1:]:
            for (file, name, p), (other_file, other_name, other_p) in zip(found[0], other):
                self.assertEqual((file, name), (other_file, other_name))
                self.assertAlmostEqual(p, other_p, 3)

    def test_every_kind_of_picture_in_any_case(self):
        for name in ("a.jpg", "b.JPEG", "c.png", "d.gif", "e.BMP", "f.tiff", "g.tif", "h.webp", "i.ppm"):
            Image.new("RGB", (30, 20), (9, 99, 199)).save(self.path("in", name))
        for name in ("j.txt", ".hidden.png", "k"):
            with open(self.path("in", name), "w", encoding="utf-8"):
                pass
        os.mkdir(self.path("in", "folder.png"))
        _, end = self.run_inference()
        self.assertEqual(end["status"], "completed")
        self.assertEqual(self.outputs(), [f"{c}.jpg" for c in "abcdefghi"])

    def test_empty_folder(self):
        worker, end = self.run_inference()
        self.assertEqual(end["status"], "completed")
        self.assertEqual(os.listdir(self.path("out")), [])
        self.assertEqual(worker.log[-1], "推理完成！")


class Defects(InferTest):
    def test_D16_list_of_names_and_size_as_text(self):
        picture(self.path("in", "a.png"), 0, 0, 50)
        self.write_cfg("class_names: [DJI FPV, 无人机, noise]\nimage_size: (64, 64)\ntrain: E:\\data\\train\nweights: None\n")
        _, end = self.run_inference()
        self.assertEqual(end["status"], "completed")
        best = int(self.expected(["a.png"]).argmax())
        self.assertEqual(self.predictions()[0]["class"], CLASSES[best])

    def test_D18_one_unreadable_picture(self):
        picture(self.path("in", "a.png"), 0, 0)
        with open(self.path("in", "b.png"), "wb") as file:
            file.write(b"no picture")
        picture(self.path("in", "c.png"), 0, 0)
        worker, end = self.run_inference()
        self.assertEqual(end["status"], "completed")
        self.assertEqual([r["file"] for r in self.predictions()], ["a.png", "c.png"])
        self.assertEqual(len([line for line in worker.log if line.startswith("无法读取图像: b.png")]), 1)

    def test_D18_nothing_readable(self):
        for name in ("b.png", "c.png"):
            with open(self.path("in", name), "wb") as file:
                file.write(b"no picture")
        _, end = self.run_inference()
        self.assertEqual(end["status"], "failed")
        self.assertIn("2 张图像均无法读取", end["error"])

    def test_D18_stems(self):
        Image.new("RGB", (30, 20)).save(self.path("in", "x.jpeg"))
        Image.new("RGB", (30, 20)).save(self.path("in", "y.z.tiff"))
        self.run_inference()
        self.assertEqual(self.outputs(), ["x.jpg", "y.z.jpg"])

    def test_D20_equal_stems(self):
        for name in ("x.bmp", "x.jpg", "x.png", "x_2.png"):
            Image.new("RGB", (30, 20)).save(self.path("in", name))
        self.run_inference()
        self.assertEqual(len(self.outputs()), 4)
        self.assertIn("x.jpg", self.outputs())

    def test_sources_are_never_overwritten(self):
        Image.new("RGB", (30, 20), (1, 2, 3)).save(self.path("in", "x.jpg"))
        with open(self.path("in", "x.jpg"), "rb") as file:
            before = file.read()
        _, end = self.run_inference({"save_path": self.path("in")})
        self.assertEqual(end["status"], "completed")
        with open(self.path("in", "x.jpg"), "rb") as file:
            self.assertEqual(file.read(), before)
        self.assertIn("x_2.jpg", os.listdir(self.path("in")))

    def test_D52_faults_are_sentences(self):
        picture(self.path("in", "a.png"), 0, 0)
        self.write_cfg("class_names: [a, b]\n")
        _, end = self.run_inference()
        self.assertEqual(end["status"], "failed")
        self.assertIn("cfg.yaml", end["error"])
        self.write_cfg("class_names: [a, b, c, d]\n", classes=4)
        _, end = self.run_inference()
        self.assertEqual(end["status"], "failed")
        self.assertIn("w.pth", end["error"])
        self.assertIn("fc.", end["error"])
        with open(self.path("w.pth"), "w", encoding="utf-8") as file:
            file.write("nothing")
        _, end = self.run_inference()
        self.assertEqual(end["status"], "failed")
        self.assertIn("w.pth", end["error"])

    def test_D1_cancel(self):
        picture(self.path("in", "0000.png"), 0, 0, 64)
        for i in range(1, 900):
            shutil.copy(self.path("in", "0000.png"), self.path("in", f"{i:04}.png"))
        worker = Worker("inference", self.request(batch_size=1))
        worker.until(lambda m: m.get("message", "").startswith("0000.png: "))
        start = time.monotonic()
        worker.send({"type": "cancel"})
        end = worker.finish()
        self.assertLess(time.monotonic() - start, 1)
        self.assertEqual(end["status"], "cancelled")

    def test_many_files_do_not_flood_the_log(self):
        picture(self.path("in", "0000.png"), 0, 0, 32)
        for i in range(1, 1101):
            os.link(self.path("in", "0000.png"), self.path("in", f"{i:04}.png"))
        self.write_cfg("class_names: [a, b, c]\nimage_size: 32\n")
        worker, end = self.run_inference()
        self.assertEqual(end["status"], "completed")
        self.assertEqual(len(self.predictions()), 1101)
        self.assertEqual(len([line for line in worker.log if ".png: " in line]), 11)


if __name__ == "__main__":
    unittest.main()
