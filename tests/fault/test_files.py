"""Broken pictures, broken and malicious checkpoints: a clear error that names the file, and nothing is executed."""

import io
import os
import pickle
import unittest
import zipfile

from tests.api.harness import ENDED, DaemonCase, dataset, model, png, scratch, write


def broken_images():
    """Files with an image's ending that are none, as name → bytes."""
    from PIL import Image
    good = {}
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF"):
        data = io.BytesIO()
        Image.effect_noise((64, 48), 60).convert("RGB").save(data, kind)
        good[kind.lower()] = data.getvalue()
    files = {"empty.png": b"", "text.jpg": b"hello", "zeros.bmp": bytes(1000)}
    for kind, data in good.items():
        files[f"cut.{kind}"] = data[:len(data) // 3]
        files[f"head.{kind}"] = data[:20]
        files[f"noise.{kind}"] = data[:40] + os.urandom(len(data) - 40)
    huge = bytearray(good["png"])
    huge[16:24] = b"\x7f\xff\xff\xff\x7f\xff\xff\xff"
    files["huge.png"] = bytes(huge)
    huge = bytearray(good["bmp"])
    huge[18:26] = b"\xff\xff\xff\x7f\xff\xff\xff\x7f"
    files["huge.bmp"] = bytes(huge)
    return files


class Images(DaemonCase):
    def test_one_broken_file_at_a_time(self):
        tasks = {}
        for name, data in broken_images().items():
            source = scratch("one")
            write(f"{source}/{name}", data)
            write(f"{source}/good.png", png())
            tasks[name] = self.daemon.infer(source_path=source)
        for name, task in tasks.items():
            self.assertEqual((name, self.daemon.wait(task, ENDED)["status"]), (name, "completed"))

    def test_all_broken(self):
        source = scratch("all")
        files = {name: data for name, data in broken_images().items() if not name.startswith(("noise", "cut"))}
        for name, data in files.items():
            write(f"{source}/{name}", data)
        task = self.daemon.infer(source_path=source)
        self.daemon.wait(task, "failed")
        text = str(self.daemon.lines(task))
        for name in files:
            self.assertIn(name, text)

    def test_training_names_file_and_reason(self):
        root = dataset(images=2)
        for name, data in broken_images().items():
            write(f"{root}/A/{name}", data)
        task = self.daemon.train(train_path=root)
        record = self.daemon.wait(task, "failed")
        self.assertIn(root, record["message"] + str(self.daemon.lines(task)))


class Exploit:
    """Unpickled by a careless reader, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def archive(payload):
    path = scratch("pth") + "/model.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr("model/data.pkl", payload)
        file.writestr("model/version", "3\n")
    return path


class Checkpoints(DaemonCase):
    def refused(self, *paths, training=True):
        """An inference and a training with each file fail, naming it; returns the messages."""
        starts = (self.daemon.infer, self.daemon.train) if training else (self.daemon.infer,)
        tasks = [(path, start(weight_path=path)) for path in paths for start in starts]
        messages = []
        for path, task in tasks:
            messages.append(self.daemon.wait(task, "failed")["message"])
            self.assertIn(path, messages[-1])
            self.assertNotIn("SIG", messages[-1].replace(path, ""))
        return messages

    def test_a_pickle_that_would_run_a_command(self):
        mark = scratch("mark") + "/executed"
        paths = [archive(pickle.dumps(value, protocol)) for protocol in (0, 2, 4)
                 for value in (Exploit(mark), {"conv1.weight": Exploit(mark)}, [Exploit(mark)])]
        paths.append(write(scratch("pth") + "/bare.pth", pickle.dumps(Exploit(mark), 2)))
        messages = self.refused(*paths)
        self.assertFalse(os.path.exists(mark), "it was executed")
        self.assertTrue([message for message in messages if "posix" in message or "system" in message], messages)

    def test_damaged_files(self):
        with open(model()[1], "rb") as file:
            good = file.read()
        where = scratch("pth")
        self.refused(*[write(f"{where}/{name}.pth", data) for name, data in (
            ("empty", b""), ("cut", good[:len(good) // 2]), ("head", good[:100]), ("tail", good[100:]),
            ("flipped", good[:40] + bytes(400) + good[440:]), ("text", b"weights\n" * 1000))])

    def test_hostile_archives(self):
        bomb = scratch("pth") + "/bomb.pth"
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("model/data.pkl", bytes(200 << 20))
        self.refused(bomb, archive(b""), archive(b"\x80\x02" + b"(" * 100000 + b"."),
                     archive(b"\x80\x02X\xff\xff\xff\x7fabc."), archive(b"\x80\x02}q\x00."),
                     archive(pickle.dumps({"a": 1}, 2)))

    def test_tensors_beyond_their_storage(self):
        cut = scratch("pth") + "/cut.pth"
        with zipfile.ZipFile(model()[1]) as source, zipfile.ZipFile(cut, "w", zipfile.ZIP_STORED) as target:
            for entry in source.infolist():
                data = source.read(entry)
                target.writestr(entry.filename, data[:len(data) // 2] if "/data/" in entry.filename else data)
        self.refused(cut)

    def test_wrong_shapes_and_names(self):
        import torch
        state = torch.load(model()[1], map_location="cpu")
        for name, change in (("fc.weight", lambda s: s.pop("fc.weight")),
                             ("extra", lambda s: s.update({"extra": torch.zeros(3)})),
                             ("fc.weight", lambda s: s.update({"fc.weight": torch.zeros(3, 512)})),
                             ("conv1.weight", lambda s: s.update({"conv1.weight": torch.zeros(64, 3, 7)}))):
            changed = dict(state)
            change(changed)
            path = scratch("pth") + "/changed.pth"
            torch.save(changed, path)
            # a training may start from a checkpoint for another number of classes
            for message in self.refused(path, training=name != "fc.weight"):
                self.assertIn(name, message)


if __name__ == "__main__":
    unittest.main()
