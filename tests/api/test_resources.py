"""Sections 8 and 9 of the contract: resources, limits, health, info, the overview, OpenAPI."""

import re
import unittest

from tests.api.harness import Daemon, DaemonCase, device_file

MODELS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32",
          "swin_v2_t", "swin_v2_s", "swin_v2_b", "mobilenet_v3_large", "mobilenet_v3_small"]
GPU = ["id", "device_name", "name", "compute_capability", "total_memory_gb", "allocated_memory_gb", "cached_memory_gb",
       "free_memory_gb", "utilization", "current_tasks"]


class WithoutGpu(DaemonCase):
    def test_resources(self):
        answer = self.daemon.json("/api/v2/resources")
        self.assertEqual(list(answer)[:4], ["device_usage", "active_tasks", "limits", "gpu_info"])
        self.assertEqual(answer["device_usage"], {"cpu": {"training": 0, "inference": 0}})
        self.assertEqual(answer["active_tasks"], {"cpu": []})
        self.assertEqual(answer["limits"], {"cuda": {"training": 1, "inference": 3}, "cpu": {"training": 2,
                                                                                           "inference": 4}})
        self.assertEqual(answer["gpu_info"], self.daemon.json("/api/v2/resources/gpu"))

    def test_gpu(self):
        answer = self.daemon.json("/api/v2/resources/gpu")
        self.assertEqual(list(answer)[:5], ["available", "count", "devices", "cuda_version", "pytorch_version"])
        self.assertEqual([answer[key] for key in ("available", "count", "devices", "cuda_version")],
                         [False, 0, [], None])
        self.assertIsInstance(answer["pytorch_version"], str)

    def test_cpu(self):
        import os
        answer = self.daemon.json("/api/v2/resources/cpu")
        self.assertEqual(list(answer)[:7], ["percent", "per_cpu_percent", "cores", "physical_cores", "freq_mhz",
                                            "load_avg", "memory_percent"])
        self.assertEqual(answer["cores"], os.cpu_count())
        self.assertEqual(len(answer["per_cpu_percent"]), answer["cores"])
        self.assertTrue(1 <= answer["physical_cores"] <= answer["cores"])
        for value in [answer["percent"], answer["memory_percent"]] + answer["per_cpu_percent"]:
            self.assertTrue(0 <= value <= 100)
            self.assertIsInstance(value, float)
        self.assertEqual(list(answer["load_avg"]), ["1", "5", "15"])

    def test_slots_are_seen(self):
        task = self.daemon.train_long(device="cuda")
        self.daemon.wait(task, "running")
        answer = self.daemon.json("/api/v2/resources")
        self.assertEqual(answer["device_usage"], {"cpu": {"training": 1, "inference": 0}})
        self.assertEqual(answer["active_tasks"], {"cpu": [{"id": task, "type": "training"}]})
        self.daemon.cancel(task)
        self.daemon.until(lambda: self.daemon.json("/api/v2/resources")["active_tasks"] == {"cpu": []}, 3)

    def test_health(self):
        answer = self.daemon.json("/api/v1/health")
        self.assertEqual(list(answer)[:7], ["status", "timestamp", "version", "training_tasks", "inference_tasks",
                                            "active_log_streams", "resource_status"])
        self.assertEqual(answer["status"], "healthy")
        self.assert_time(answer["timestamp"])
        status = answer["resource_status"]
        self.assertLessEqual({"device_usage", "active_tasks", "limits", "gpu_available", "gpu_count"}, set(status))
        self.assertEqual((status["gpu_available"], status["gpu_count"]), (False, 0))

    def test_info(self):
        answer = self.daemon.json("/api/v1/info")
        self.assertEqual(list(answer)[:6], ["app_name", "version", "environment", "supported_models",
                                            "resource_limits", "gpu_available"])
        self.assertEqual((answer["app_name"], answer["environment"], answer["gpu_available"]),
                         ("RFUAV Model Service", "development", False))
        self.assertEqual(answer["resource_limits"], self.daemon.json("/api/v2/resources")["limits"])
        self.assertEqual(answer["supported_models"], [m for m in MODELS if m in answer["supported_models"]])
        self.assertLessEqual({m for m in MODELS if m.startswith("resnet")}, set(answer["supported_models"]))

    def test_root(self):
        answer = self.daemon.json("/")
        for key in ("name", "version", "environment", "features", "endpoints", "documentation"):
            self.assertIn(key, answer)
        self.assertEqual(answer["documentation"], {"swagger": "/docs", "redoc": "/redoc"})
        for group in answer["endpoints"].values():
            for line in group.values():
                self.assertRegex(line, r"^(GET|POST|DELETE) /")
        self.assertEqual(answer["version"], self.daemon.json("/api/v1/health")["version"])

    def test_openapi(self):
        answer = self.daemon.json("/openapi.json")
        self.assertEqual(answer["openapi"], "3.1.0")
        self.assertEqual(answer["info"]["title"], "RFUAV Model Service")
        start = answer["paths"]["/api/v2/training/start"]["post"]
        self.assertEqual(start["operationId"], "start_training_api_v2_training_start_post")
        self.assertEqual(start["tags"], ["Training"])
        self.assertLessEqual({"200", "422"}, set(start["responses"]))
        self.assertIn("$ref", str(start["requestBody"]))
        schema = answer["components"]["schemas"]["TrainingRequest"]
        self.assertLessEqual({"model", "num_classes", "train_path", "val_path", "save_path"}, set(schema["required"]))
        self.assertEqual(schema["properties"]["batch_size"]["default"], 8)
        self.assertEqual(schema["properties"]["priority"]["maximum"], 10)
        for path, methods in answer["paths"].items():
            for method, operation in methods.items():
                self.assertRegex(operation["operationId"], r"^\w+$")
                self.assertTrue(operation["operationId"].endswith("_" + method), operation["operationId"])
                self.assertIn("200", operation["responses"])
                for parameter in re.findall(r"\{(\w+)\}", path):
                    self.assertIn(parameter, [p["name"] for p in operation.get("parameters", [])])

    def test_openapi_references_resolve(self):
        answer = self.daemon.json("/openapi.json")
        names = set(re.findall(r"#/components/schemas/(\w+)", self.daemon.get("/openapi.json").text))
        self.assertLessEqual(names, set(answer["components"]["schemas"]))


class Config(DaemonCase):
    def config(self, limits):
        return self.daemon.post("/api/v2/resources/config", {"max_concurrent": limits})

    def test_answer(self):
        response = self.config({"cpu": {"training": 5}})
        self.assertEqual(response.status_code, 200)
        answer = response.json()
        self.assertEqual(list(answer)[:3], ["status", "message", "current_config"])
        self.assertEqual((answer["status"], answer["message"]), ("success", "资源配置已更新"))
        self.assertEqual(answer["current_config"]["cpu"]["training"], 5)
        self.assertEqual(self.daemon.json("/api/v2/resources")["limits"], answer["current_config"])

    def test_nothing_to_change(self):
        before = self.daemon.json("/api/v2/resources")["limits"]
        for body in ({}, {"max_concurrent": None}, {"max_concurrent": {}}):
            response = self.daemon.post("/api/v2/resources/config", body)
            self.assertEqual((response.status_code, response.json()["current_config"]), (200, before))

    def test_numeric_strings(self):
        self.assertEqual(self.config({"cpu": {"inference": "6"}}).json()["current_config"]["cpu"]["inference"], 6)

    def test_takes_effect_on_waiting_tasks(self):
        self.config({"cpu": {"training": 0}})
        task = self.daemon.train()
        self.daemon.wait(task, "queued")
        self.config({"cpu": {"training": 1}})
        self.daemon.wait(task, "completed")

    def test_lowering_kills_nothing(self):
        self.config({"cpu": {"training": 2}})
        task = self.daemon.train_long()
        self.daemon.wait(task, "running")
        self.config({"cpu": {"training": 0}})
        self.assertEqual(self.daemon.task(task)["status"], "running")
        self.daemon.cancel_all()

    def test_refusals(self):
        before = self.daemon.json("/api/v2/resources")["limits"]
        for limits in ({"tpu": {"training": 1}}, {"cuda:0": {"training": 1}}, {"cpu": {"dreaming": 1}},
                       {"cpu": {"training": -1}}, {"cpu": {"training": "x"}}, {"cpu": {"training": 1.5}},
                       {"cpu": {"training": None}}, {"cpu": 3}, {"cpu": None}, {"": {"training": 1}},
                       {"cpu": {"training": 9, "inference": -2}}):
            response = self.config(limits)
            self.assertEqual((limits, response.status_code), (limits, 422))
            for fault in response.json()["detail"]:
                self.assertEqual(fault["loc"][:2], ["body", "max_concurrent"])
        self.assertEqual(self.daemon.json("/api/v2/resources")["limits"], before)

    def test_limits_survive_a_restart(self):
        daemon = Daemon()
        daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 7}}})
        daemon.stop()
        daemon.start()
        self.assertEqual(daemon.json("/api/v2/resources")["limits"]["cpu"], {"training": 7, "inference": 4})
        daemon.stop()


class WithGpus(DaemonCase):
    OPTIONS = {"devices": device_file(2, memory_mb=24576, used_mb=512)}

    def test_gpu(self):
        answer = self.daemon.json("/api/v2/resources/gpu")
        self.assertEqual((answer["available"], answer["count"]), (True, 2))
        for i, device in enumerate(answer["devices"]):
            self.assertEqual(list(device)[:len(GPU)], GPU)
            self.assertEqual([device[key] for key in GPU],
                             [i, f"cuda:{i}", f"Test GPU {i}", "9.0", 24.0, 0.5, 0.0, 23.5, 2.1,
                              {"training": 0, "inference": 0}])

    def test_limits(self):
        gpu, cpu = {"training": 1, "inference": 3}, {"training": 2, "inference": 4}
        answer = self.daemon.json("/api/v2/resources")
        self.assertEqual(answer["limits"], {"cuda": gpu, "cpu": cpu, "cuda:0": gpu, "cuda:1": gpu})
        self.assertEqual(set(answer["device_usage"]), {"cuda:0", "cuda:1", "cpu"})

    def test_health(self):
        status = self.daemon.json("/api/v1/health")["resource_status"]
        self.assertEqual((status["gpu_available"], status["gpu_count"]), (True, 2))
        self.assertTrue(self.daemon.json("/api/v1/info")["gpu_available"])

    def test_banner(self):
        log = self.daemon.log()
        rule = "=" * 70
        for line in (rule, "🚀 GPU硬件信息", "✅ GPU可用", "🎯 检测到 2 个GPU设备:", "  GPU 0 (cuda:0)",
                     "  ├─ 型号: Test GPU 0", "  ├─ Compute Capability: 9.0", "  ├─ 总显存: 24.00 GB",
                     "  ├─ 已用显存: 0.50 GB (2.1%)", "  ├─ 空闲显存: 23.50 GB", "  └─ 当前任务: 训练=0, 推理=0",
                     "  GPU 1 (cuda:1)"):
            self.assertIn("\n" + line + "\n", log)


class Settings(DaemonCase):
    OPTIONS = {"env": {"APP_NAME": "Mein Dienst", "ENVIRONMENT": "production", "MAX_TRAINING_CONCURRENT_CPU": "3",
                       "MAX_INFERENCE_CONCURRENT_GPU": "9", "SUPPORTED_MODELS": "resnet18, resnet50",
                       "DEFAULT_TRAIN_PRIORITY": "8", "DEFAULT_INFERENCE_PRIORITY": "2"}}

    def test_they_are_used(self):
        info = self.daemon.json("/api/v1/info")
        self.assertEqual((info["app_name"], info["environment"], info["supported_models"]),
                         ("Mein Dienst", "production", ["resnet18", "resnet50"]))
        self.assertEqual(info["resource_limits"], {"cuda": {"training": 1, "inference": 9},
                                                   "cpu": {"training": 3, "inference": 4}})
        self.assert_detail(self.daemon.post("/api/v2/training/start", self.daemon.train_fields(model="resnet34")), 400,
                           "不支持的模型: resnet34")

    def test_default_priorities(self):
        for task, priority in ((self.daemon.train(), 8), (self.daemon.infer(), 2)):
            self.assertEqual(self.daemon.task(task)["priority"], priority)
            self.daemon.wait(task, "completed")

    def test_env_file(self):
        from tests.api.harness import scratch, write
        folder = scratch("envfile")
        write(folder + "/.env", b'APP_NAME="From File"\n# a comment\nMAX_TRAINING_CONCURRENT_CPU=6\nUNKNOWN_NAME=1\n'
              b'ENVIRONMENT=file\nSUPPORTED_MODELS=["resnet18"]\n')
        daemon = Daemon(folder=folder, env={"ENVIRONMENT": "variable"})
        info = daemon.json("/api/v1/info")
        self.assertEqual((info["app_name"], info["environment"], info["supported_models"]),
                         ("From File", "variable", ["resnet18"]))
        self.assertEqual(info["resource_limits"]["cpu"]["training"], 6)
        self.assertIn("UNKNOWN_NAME", daemon.log())
        daemon.stop()

    def test_wrong_settings_stop_the_start(self):
        for name, value in (("PORT", "abc"), ("MAX_TRAINING_CONCURRENT_CPU", "-1"), ("CORS_ORIGINS", "[")):
            with self.assertRaises(RuntimeError) as caught:
                daemon = Daemon(env={name: value}, start=False)
                if name == "PORT":
                    daemon.args += ["--port", value]
                daemon.start()
                daemon.kill()
            self.assertIn(name.lower().replace("_", "-")[:4], str(caught.exception).lower().replace("_", "-"))


if __name__ == "__main__":
    unittest.main()
