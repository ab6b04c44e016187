"""Section 5 of the contract, with what sections 11 and 14 say about an inference."""

import csv
import json
import os
import unittest
import uuid

from tests.api.harness import CFG, DaemonCase, model, png, scratch, small_set, write


def pictures(count=3, ending=".png"):
    folder = scratch("pictures")
    for i in range(count):
        write(f"{folder}/p{i}{ending}", png(60, 40, (200, 10 * i, 0)))
    return folder


def rows(folder):
    with open(folder + "/predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Start(DaemonCase):
    def start(self, **fields):
        return self.daemon.post("/api/v2/inference/start", self.daemon.infer_fields(**fields))

    def test_answer(self):
        response = self.start(priority=9)
        self.assertEqual(response.status_code, 200)
        record = response.json()
        uuid.UUID(record["task_id"], version=4)
        self.assertEqual([record[key] for key in ("task_type", "status", "message", "progress", "device", "priority",
                                                  "current_epoch", "total_epochs", "latest_metrics")],
                         ["inference", "pending", "等待开始", 0, "cpu", 9, None, None, None])
        record = self.daemon.wait(record["task_id"], "completed")
        self.assertEqual([record[key] for key in ("status", "message", "progress", "device", "current_epoch",
                                                  "total_epochs", "latest_metrics")],
                         ["completed", "推理完成", 100, "cpu", None, None, None])

    def test_missing_paths_in_order(self):
        cfg, weights = model()
        self.assert_detail(self.start(cfg_path="/no/c", weight_path="/no/w", source_path="/no/s"), 400,
                           "配置文件不存在: /no/c")
        self.assert_detail(self.start(weight_path="/no/w", source_path="/no/s"), 400, "模型权重不存在: /no/w")
        self.assert_detail(self.start(source_path="/no/s"), 400, "数据路径不存在: /no/s")

    def test_status_of_an_unknown_task(self):
        self.assert_detail(self.daemon.get("/api/v2/inference/none"), 404, "任务 none 不存在")

    def test_a_training_is_no_inference(self):
        task = self.daemon.train()
        self.daemon.wait(task, "completed")
        self.assert_detail(self.daemon.get(f"/api/v2/inference/{task}"), 404, f"任务 {task} 不存在")

    def test_there_is_no_logs_route(self):
        self.assert_detail(self.daemon.get("/api/v2/inference/x/logs"), 404, "Not Found")

    def test_default_priority(self):
        record = self.start().json()
        self.assertEqual(record["priority"], 3)
        self.daemon.wait(record["task_id"], "completed")

    def test_default_save_path(self):
        task = self.daemon.infer(save_path="", source_path=pictures(1))
        self.daemon.wait(task, "completed")
        self.assertTrue(os.path.exists(f"{self.daemon.folder}/results/p0.jpg"))


class Results(DaemonCase):
    def run_over(self, source, **fields):
        out = scratch("results")
        task = self.daemon.infer(source_path=source, save_path=out, **fields)
        self.daemon.wait(task, "completed")
        return task, out

    def test_lines(self):
        source = pictures()
        task, out = self.run_over(source, name="n")
        messages = self.daemon.messages(task)
        expected = ["等待CPU资源...", "资源已分配，使用设备: cpu", "开始推理...", f"加载模型: {model()[1]}",
                    f"推理数据: {source}", f"保存目录: {out}/n", "推理完成！"]
        self.assertEqual([m for m in messages if m in expected], expected)

    def test_files(self):
        from PIL import Image
        _, out = self.run_over(pictures())
        self.assertLessEqual({"p0.jpg", "p1.jpg", "p2.jpg", "predictions.csv", "predictions.jsonl"},
                             set(os.listdir(out)))
        with Image.open(out + "/p0.jpg") as image:
            self.assertEqual((image.format, image.size, image.mode), ("JPEG", (60, 40), "RGB"))

    def test_predictions(self):
        _, out = self.run_over(pictures())
        table = rows(out)
        self.assertEqual([os.path.basename(row["file"]) for row in table], ["p0.png", "p1.png", "p2.png"])
        for row in table:
            self.assertIn(row["class"], ("A", "B"))
            self.assertTrue(0.5 <= float(row["probability"]) <= 1)
        with open(out + "/predictions.jsonl", encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        self.assertEqual([line["class"] for line in lines], [row["class"] for row in table])

    def test_predictions_equal_torchvisions(self):
        import numpy
        import torch
        import torchvision
        from PIL import Image
        source = scratch("random")
        random = numpy.random.default_rng(5)
        for i in range(6):
            Image.fromarray(random.integers(0, 256, (50 + i, 70, 3), dtype=numpy.uint8)).save(f"{source}/{i}.png")
        _, out = self.run_over(source)
        net = torchvision.models.resnet18(num_classes=2)
        net.load_state_dict(torch.load(model()[1]))
        net.eval()
        for row in rows(out):
            image = Image.open(f"{source}/{os.path.basename(row['file'])}").convert("RGB").resize((32, 32),
                                                                                                 Image.BILINEAR)
            x = torch.from_numpy(numpy.array(image)).permute(2, 0, 1)[None].float() / 255
            with torch.no_grad():
                probability, index = net(x).softmax(1)[0].max(0)
            self.assertEqual(row["class"], "AB"[index])
            self.assertAlmostEqual(float(row["probability"]), float(probability), 3)

    def test_single_file(self):
        _, out = self.run_over(pictures() + "/p1.png")
        self.assertEqual(len(rows(out)), 1)
        self.assertTrue(os.path.exists(out + "/p1.jpg"))

    def test_nothing_to_do(self):
        for source in (scratch("empty"), write(scratch("text") + "/x.txt", b"x")):
            task, out = self.run_over(source)
            self.assertFalse([name for name in os.listdir(out) if name.endswith(".jpg")] if os.path.isdir(out) else [])

    def test_precision_of_a_batch(self):
        cfg, weights = model()
        body = {"cfg_path": cfg, "weight_path": weights, "source_paths": [small_set() + "/A"], "device": "cpu",
                "save_base_path": scratch("batch"), "precision": "fp8"}
        self.assert_detail(self.daemon.post("/api/v2/inference/batch", body), 400, "不支持的精度: fp8 (可选 fp32、bf16)")
        body["precision"] = "bf16"  # on the CPU in fp32
        task, = self.daemon.post("/api/v2/inference/batch", body).json()["task_ids"]
        self.daemon.wait(task, "completed")

    def test_other_files_are_skipped(self):
        source = pictures(2)
        write(source + "/.hidden.png", png())
        write(source + "/notes.txt", b"x")
        write(source + "/sub/deep.png", png())
        _, out = self.run_over(source)
        self.assertEqual(len(rows(out)), 2)

    def test_config_as_a_list_with_oddities(self):
        folder = scratch("cfg")
        cfg = write(folder + "/c.yaml", "model : resnet18   # 模型\r\nnum_classes: 2\r\nclass_names: [A A, B-B,]\r\n"
                    "image_size: (32, 32)\r\nweights: None\r\ntrain: E:\\data\\train\r\nval:\r\nlr: 1.0e-05".encode())
        _, out = self.run_over(pictures(), cfg_path=cfg)
        self.assertIn(rows(out)[0]["class"], ("A A", "B-B"))

    def test_chinese_class_names(self):
        cfg = write(scratch("cfg") + "/c.yaml", CFG.format(n=2, names="{大疆: 0, 御: 1}").encode())
        _, out = self.run_over(pictures(), cfg_path=cfg)
        self.assertIn(rows(out)[0]["class"], ("大疆", "御"))

    def test_faults_name_the_file(self):
        cfg, weights = model()
        junk = write(scratch("junk") + "/junk.pth", b"PK\3\4 no zip" * 20)
        for fields, part in (({"weight_path": junk}, junk), ({"weight_path": cfg}, cfg), ({"cfg_path": weights}, weights),
                             ({"cfg_path": write(scratch("cfg") + "/c.yaml", b"model: resnet18\n")}, "num_classes"),
                             ({"cfg_path": write(scratch("cfg") + "/c.yaml", CFG.format(n=3, names="[a, b]").encode())},
                              "class_names"),
                             ({"cfg_path": write(scratch("cfg") + "/c.yaml", b"a: [unclosed")}, "c.yaml")):
            with self.subTest(fields=fields):
                response = self.daemon.post("/api/v2/inference/start", self.daemon.infer_fields(**fields))
                if response.status_code != 200:  # said at once
                    self.assertIn(response.status_code, (400, 422))
                    self.assertIn(part, response.text)
                    continue
                record = self.daemon.wait(response.json()["task_id"], "failed")
                self.assertTrue(record["message"].startswith("推理失败: "), record["message"])
                self.assertIn(part, record["message"])
                self.assertEqual(record["progress"], 0)


class Batch(DaemonCase):
    def batch(self, **fields):
        cfg, weights = model()
        body = {"cfg_path": cfg, "weight_path": weights, "source_paths": [pictures(1), pictures(2)], "device": "cpu",
                "save_base_path": scratch("base")}
        body.update(fields)
        return body, self.daemon.post("/api/v2/inference/batch",
                                      {key: value for key, value in body.items() if value is not None})

    def test_answer(self):
        body, response = self.batch()
        answer = response.json()
        self.assertEqual(response.status_code, 200)
        self.assertEqual(list(answer)[:4], ["status", "message", "task_ids", "total"])
        self.assertEqual((answer["status"], answer["message"], answer["total"]), ("success", "已启动 2 个推理任务", 2))
        for i, task in enumerate(answer["task_ids"]):
            self.assertEqual(self.daemon.wait(task, "completed")["task_type"], "inference")
            self.assertEqual(len(rows(f"{body['save_base_path']}/{i}")), i + 1)

    def test_empty_list(self):
        _, response = self.batch(source_paths=[], cfg_path="/nowhere")
        self.assertEqual(response.json(), {"status": "success", "message": "已启动 0 个推理任务", "task_ids": [], "total": 0})

    def test_missing_path_starts_nothing(self):
        before = self.daemon.json("/api/v1/health")["inference_tasks"]
        _, response = self.batch(source_paths=[pictures(1), "/no/such"])
        self.assert_detail(response, 400, "数据路径不存在: /no/such")
        self.assertEqual(self.daemon.json("/api/v1/health")["inference_tasks"], before)

    def test_priority_bounds(self):
        for value, kind in ((0, "greater_than_equal"), (11, "less_than_equal")):
            _, response = self.batch(priority=value)
            self.assert_faults(response, (kind, ("body", "priority")))


if __name__ == "__main__":
    unittest.main()
