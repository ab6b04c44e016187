"""The YAML configuration of a model: all the variations in circulation are read; what is written comes back exactly,
here and in PyYAML."""

import os
import time
import unittest

import yaml

from tests.formats.support import FormatsTest

SAMPLE = """\
# 模型配置
model: resnet18  # 模型名称
num_classes: 3
class_names: ['DJI AVATA2', 'DJI FPV', 'Fly-Back T8']
image_size: 224
device: cuda
batch_size: 8
shuffle: True
num_epochs: 100
lr: 0.00001
train: data/train
val: data/val
save_path: ./out
weights: None
"""


class ModelCfg(FormatsTest):
    def read_text(self, text):
        return self.read(self.write("cfg.yaml", text if isinstance(text, bytes) else text.encode()))

    def refused_text(self, text, *words):
        return self.refused(self.write("cfg.yaml", text if isinstance(text, bytes) else text.encode()), *words)

    def with_key(self, key, value):
        """The sample with one key's value replaced, or the line dropped (None)."""
        lines = [line for line in SAMPLE.splitlines() if not line.startswith(key + ":")]
        return "\n".join(lines + ([f"{key}: {value}"] if value is not None else [])) + "\n"

    def test_sample(self):
        self.assertEqual(self.read_text(SAMPLE), {
            "model": "resnet18", "num_classes": 3, "class_names": ["DJI AVATA2", "DJI FPV", "Fly-Back T8"],
            "image_size": 224, "device": "cuda", "batch_size": 8, "shuffle": 1, "num_epochs": 100, "lr": 1e-5,
            "train": "data/train", "val": "data/val", "save_path": "./out", "weights": None})

    def test_forms_of_writing(self):
        expected = self.read_text(SAMPLE)
        for change in [lambda s: s.replace("\n", "\r\n"), lambda s: s.rstrip("\n"), lambda s: s.replace(":", " :"),
                       lambda s: "\ufeff" + s, lambda s: "---\n" + s, lambda s: s + "...\n",
                       lambda s: s.replace("'Fly-Back T8']", "'Fly-Back T8',]"), lambda s: s.replace("'", '"'),
                       lambda s: s.replace("num_epochs", "epochs"), lambda s: s.replace("0.00001", "1.0e-05"),
                       lambda s: s.replace("0.00001", "1e-5"), lambda s: s.replace(": None", ":"),
                       lambda s: s.replace(": None", ": null"), lambda s: s.replace(": 224", ": (224, 224)"),
                       lambda s: s.replace(": 224", ": [224, 224]"), lambda s: s.replace(": 224", ': "224"'),
                       lambda s: s.replace(": 224", ": (224,)"), lambda s: s.replace(": 224", ": (224,224)"),
                       lambda s: s.replace(", '", ",\n\t'"), lambda s: s.replace(": [", ":\t["),
                       lambda s: s.encode("utf-16"), lambda s: s + "unknown: {a: [1, 2]}\n? [complex, key]\n: 1\n",
                       lambda s: s.replace("['DJI AVATA2', 'DJI FPV', 'Fly-Back T8']",
                                           "{DJI AVATA2: 0, 'Fly-Back T8': 2, DJI FPV: 1}"),
                       lambda s: s.replace("['DJI AVATA2', 'DJI FPV', 'Fly-Back T8']",
                                           "\n- DJI AVATA2\n- DJI FPV   # 无人机\n- Fly-Back T8")]:
            text = change(SAMPLE)
            with self.subTest(text=text):
                self.assertEqual(self.read_text(text), expected)

    def test_oddities(self):
        cfg = self.read_text(self.with_key("class_names", "[S 'DJIAVATA2', 'DJIMAVIC3', 'None']"))
        self.assertEqual(cfg["class_names"], ["S 'DJIAVATA2'", "DJIMAVIC3", "None"])
        cfg = self.read_text(self.with_key("train", "E:\\data\\train"))
        self.assertEqual(cfg["train"], "E:\\data\\train")
        cfg = self.read_text(self.with_key("image_size", None))
        self.assertEqual(cfg["image_size"], 224)
        cfg = self.read_text(self.with_key("class_names", "[yes, 007, null]"))
        self.assertEqual(cfg["class_names"], ["yes", "007", "null"])

    def test_values_that_only_a_training_needs_are_no_error(self):
        for key, value in [("batch_size", "auto"), ("lr", "[1, 2]"), ("train", "{a: 1}"), ("shuffle", "[]"),
                           ("num_epochs", "-3"), ("lr", "nan"), ("device", "[]")]:
            with self.subTest(key=key, value=value):
                cfg = self.read_text(self.with_key(key, value))
                self.assertIn(cfg[key], (0, None))

    def test_faults_are_named(self):
        for text, words in [
                ("", ["empty"]), ("# nothing\n", ["empty"]), ("- a\n- b\n", ["line 1", "key: value"]),
                ("just text", ["line 1"]),
                (self.with_key("model", None), ["model is missing"]),
                (self.with_key("model", ""), ["model is missing"]),
                (self.with_key("model", "[a]"), ["line 14: model must be a name", "not a list"]),
                (self.with_key("num_classes", None), ["num_classes is missing"]),
                (self.with_key("num_classes", "many"), ["line 14: num_classes must be a whole number", "not many"]),
                (self.with_key("num_classes", "0"), ["num_classes must be", "not 0"]),
                (self.with_key("num_classes", "3.5"), ["num_classes must be", "not 3.5"]),
                (self.with_key("num_classes", "99999999999999999999"), ["num_classes must be"]),
                (self.with_key("num_classes", "4"), ["line 3: class_names has 3 names, but num_classes is 4"]),
                (self.with_key("class_names", None), ["class_names is missing"]),
                (self.with_key("class_names", "DJI"), ["line 14: class_names must be a list", "not DJI"]),
                (self.with_key("class_names", "[a, [b], c]"), ["line 14: class_names: a name must be a text", "a list"]),
                (self.with_key("class_names", "[a, '', c]"), ["must be a text, not empty"]),
                (self.with_key("class_names", "[a, \"b\\0c\", d]"), ["must be a text", "NUL"]),
                (self.with_key("class_names", "{a: 0, b: 1, c: 3}"), ['"c" must have an index from 0 to 2, not 3']),
                (self.with_key("class_names", "{a: 0, b: 1, c: 1}"), ['index 1 belongs to "b" and "c"']),
                (self.with_key("class_names", "{0: a, 1: b, 2: c}"), ['"0" must have an index', "not a"]),
                (self.with_key("image_size", "(224, 448)"), ["image_size must be one whole number", "(224, 448)"]),
                (self.with_key("image_size", "(224"), ["image_size must be"]),
                (self.with_key("image_size", "224)"), ["image_size must be"]),
                (self.with_key("image_size", "big"), ["image_size must be", "not big"]),
                (self.with_key("image_size", "[224, 224, 3]"), ["image_size must be", "a list"]),
                (self.with_key("train", '"E:\\data"'), ["line 14", "escape", "Windows path"]),
                (SAMPLE.replace("num_classes", "\tnum_classes"), ["line 3", "tab"]),
                (SAMPLE.replace("8']", "8'"), ["line "]),
                (SAMPLE.encode("gbk"), ["UTF-8"]),
                (SAMPLE + "x: *nobody\n", ["line 15", "undefined alias"])]:
            with self.subTest(text=text):
                self.refused_text(text, *words)

    def test_limits(self):
        self.refused_text(SAMPLE + "#" * (1 << 20), "1048576")
        laughs = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
        self.assertEqual(self.read_text(laughs + SAMPLE)["num_classes"], 3)  # never expanded
        self.refused_text("".join(f"a{i}: &a{i} x\n" for i in range(101)) + SAMPLE, "anchors")
        self.refused_text(self.with_key("class_names", "&x [*x, *x, *x]"), "class_names", "a list")
        self.refused_text("x: " + "[" * 1001, "brackets")
        self.refused_text("x: " + "{a: " * 500, "line 2")

    def test_worst_cases_take_no_time(self):
        """Texts just below the limits that are as bad as can be for a YAML reader."""
        size = (1 << 20) - 4000
        for name, text in [("aliases", "a: [" + ", ".join(f"&a{i} x" for i in range(100)) + "]\nb: [" + "*a0," * (size // 4)),
                           ("nested", "[" * 1000 + "a," * (size // 2)), ("sequences", "- " * (size // 2)),
                           ("keys", "? " * (size // 2)), ("tabs", "\t" * size), ("quotes", "'" * size),
                           ("names", "".join(f"{i}:\n" for i in range(size // 8))), ("flow", "{" + "a: b," * (size // 5)),
                           ("indents", "".join(" " * i + "a:\n" for i in range(1400)))]:
            with self.subTest(name=name):
                start = time.monotonic()
                self.refused_text(text)
                self.assertLess(time.monotonic() - start, 20)

    NAMES = ["plain", "with blank", "中文 类别", "yes", "null", "None", "~", "007", "1.5", "1e5", "0x10", "2023-01-01", "=",
             "<<", "#1", "a: b", "- x", "[x]", "{x}", "'", '"', "a'b\"c", "\\", "C:\\x", " lead", "trail ", "a\nb", "\n",
             "a\tb", "\x01", "\x7f", "\x85", "\u00a0", "\u2028", "\ufeff", "\ufffe", "😀", "é", "%", "@x", "`x", "!x", "&x",
             "*x", "|", ">", "?", "? x", ":", "x:", ",", "true", ".inf", ".nan", "---", "...", "x" * 300, "a\r\nb", "\u200b"]

    def test_written_names_come_back(self):
        lines = "".join("- \"" + "".join(f"\\U{ord(c):08X}" for c in name) + "\"\n" for name in self.NAMES)
        text = f"model: resnet18\nnum_classes: {len(self.NAMES)}\nlr: 1e-5\nclass_names:\n{lines}"
        first = self.read_text(text)
        self.assertEqual(first["class_names"], self.NAMES)
        self.assertIsNone(self.convert(self.path("cfg.yaml"), self.path("b.yaml")))
        self.assertEqual(self.read(self.path("b.yaml")), first)
        with open(self.path("b.yaml"), encoding="utf-8") as file:
            loaded = yaml.safe_load(file)
        self.assertEqual(loaded, {"model": "resnet18", "num_classes": len(self.NAMES), "image_size": 224, "lr": 1e-5,
                                  "class_names": {name: i for i, name in enumerate(self.NAMES)}})
        self.assertEqual(list(loaded["class_names"]), self.NAMES)

    def test_written_values_come_back(self):
        for lr in ("0.0001", "1e-5", "0.1", "3", "123456789.0", "1e-300", "0.30000000000000004", "2.5e20"):
            with self.subTest(lr=lr):
                first = self.read_text(self.with_key("lr", lr).replace("data/train", "'E:\\data #1'"))
                self.assertIsNone(self.convert(self.path("cfg.yaml"), self.path("b.yaml")))
                self.assertEqual(self.read(self.path("b.yaml")), first)
                with open(self.path("b.yaml"), encoding="utf-8") as file:
                    loaded = yaml.safe_load(file)
                self.assertEqual(loaded["lr"], float(lr))
                self.assertIsInstance(loaded["lr"], float)
                self.assertIs(loaded["shuffle"], True)
                self.assertEqual(loaded["train"], "E:\\data #1")
                self.assertEqual(loaded["class_names"], {"DJI AVATA2": 0, "DJI FPV": 1, "Fly-Back T8": 2})
                self.assertNotIn("weights", loaded)
        self.assertEqual(sorted(os.listdir(self.folder)), ["b.yaml", "cfg.yaml", "out.json"])

    def test_equal_names_cannot_be_written(self):
        self.read_text(self.with_key("class_names", "[a, b, a]"))
        self.assertIn('two classes have the name "a"', self.convert(self.path("cfg.yaml"), self.path("b.yaml")))
        self.assertFalse(os.path.exists(self.path("b.yaml")))


if __name__ == "__main__":
    unittest.main()
