"""GET /api/v2/models: every model with its size, its cost and its memory."""

import unittest

from tests.api.harness import DaemonCase, device_file, Daemon

# section 20 of the contract: parameters with 5 classes
PARAMETERS = {"resnet18": 11179077, "resnet34": 21287237, "resnet50": 23518277, "resnet101": 42510405,
              "resnet152": 58154053, "vit_b_16": 85802501, "vit_b_32": 87459077, "vit_l_16": 303306757,
              "vit_l_32": 305515525, "swin_v2_t": 27586415, "swin_v2_s": 48972287, "swin_v2_b": 86910973,
              "mobilenet_v3_large": 3466549, "mobilenet_v3_small": 1224997}
# torchvision's tables: 10^9 multiply-adds an image with 1000 classes, at 224 but for Swin v2 (256). Of a vision
# transformer's last layer only the class token is computed here, which saves up to 8 %; MobileNet v3 has another head.
GIGA = {"resnet18": 1.81, "resnet34": 3.66, "resnet50": 4.09, "resnet101": 7.80, "resnet152": 11.51, "vit_b_16": 17.56,
        "vit_b_32": 4.41, "vit_l_16": 61.55, "vit_l_32": 15.38, "swin_v2_t": 5.94, "swin_v2_s": 11.55,
        "swin_v2_b": 20.32, "mobilenet_v3_large": 0.22, "mobilenet_v3_small": 0.06}


class Models(DaemonCase):
    def models(self, query=""):
        answer = self.daemon.json("/api/v2/models" + query)
        return answer, {model["name"]: model for model in answer["models"]}

    def test_all_are_listed_in_the_order_of_info(self):
        answer, models = self.models("?num_classes=5")
        self.assertEqual(list(models), self.daemon.json("/api/v1/info")["supported_models"])
        self.assertEqual(answer["total"], len(models))
        self.assertEqual((answer["image_size"], answer["batch_size"], answer["precision"], answer["device"]),
                         (224, 8, "fp32", "cpu"))
        self.assertEqual({name: model["parameters"] for name, model in models.items()}, PARAMETERS)

    def test_operations_are_those_of_torchvision(self):
        models = self.models()[1]
        large = self.models("?image_size=256")[1]
        for name, expected in GIGA.items():
            model = (large if name.startswith("swin") else models)[name]
            self.assertLess(model["flops"] / 2e9, expected * 1.01 + 0.006, name)
            self.assertGreater(model["flops"] / 2e9, expected * (0.92 if name.startswith("vit") else 0.99) - 0.006, name)

    def test_memory_grows_with_the_batch_and_bf16_saves_some(self):
        small, large = self.models("?batch_size=1&device=cuda")[1], self.models("?batch_size=64&device=cuda")[1]
        half = self.models("?batch_size=64&device=cuda&precision=bf16")[1]
        for name, model in small.items():
            for key in ("training_memory_mb", "inference_memory_mb"):
                self.assertGreater(model[key], 4 * model["parameters"] / 2**20, name)
                self.assertGreater(large[name][key], model[key], name)
            self.assertGreater(model["training_memory_mb"], model["inference_memory_mb"], name)
            self.assertGreater(large[name]["training_memory_mb"], half[name]["training_memory_mb"], name)

    def test_a_size_that_a_model_does_not_take_is_explained(self):
        models = self.models("?image_size=225")[1]
        self.assertIsNone(models["vit_b_16"]["parameters"])
        self.assertIn("225", models["vit_b_16"]["note"])
        self.assertIsNone(models["resnet18"]["note"])
        self.assertIsInstance(models["resnet18"]["training_memory_mb"], float)

    def test_bad_queries(self):
        for query, status in (("?image_size=0", 422), ("?batch_size=x", 422), ("?precision=fp8", 400), ("?device=tpu", 400)):
            self.assertEqual(self.daemon.get("/api/v2/models" + query).status_code, status, query)

    def test_with_a_gpu_its_memory_is_told(self):
        daemon = Daemon(devices=device_file(1))
        self.addCleanup(daemon.stop)
        self.assertEqual(daemon.json("/api/v2/models")["device"], "cpu")  # a device of a file: the CPU computes there
        self.assertEqual(daemon.json("/api/v2/models?device=cuda")["device"], "cuda")

    def test_the_command_says_the_same_without_a_service(self):
        import json
        import subprocess
        from tests.api.harness import BINARY
        out = subprocess.run([BINARY, "models", "--json", "--num-classes", "5", "--device", "cpu"], capture_output=True,
                             text=True, check=True).stdout
        self.assertEqual(json.loads(out), self.models("?num_classes=5")[0]["models"])


if __name__ == "__main__":
    unittest.main()
