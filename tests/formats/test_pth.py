"""PyTorch checkpoints: what torch.save writes is read, what we write loads in torch, and nothing is ever executed."""

import collections
import io
import os
import pickle
import struct
import subprocess
import unittest
import zipfile

import torch
import torchvision

from tests.formats.support import CONVERT, DTYPES, FormatsTest, random_tensor


def parameters():
    return collections.OrderedDict([("conv.weight", torch.randn(4, 3, 2, 2)), ("bn.num_batches_tracked", torch.tensor(7)),
                                    ("fc.bias", torch.randn(5))])


class Read(FormatsTest):
    def saved(self, value, **options):
        torch.save(value, self.path("in.pth"), **options)
        return self.path("in.pth")

    def test_resnet18(self):
        expected = torchvision.models.resnet18(num_classes=5).state_dict()
        self.assertEqual(len(expected), 122)
        self.assert_reads(self.saved(expected), expected)

    def test_every_type(self):
        expected = {str(dtype): random_tensor(dtype, 3, 4) for dtype in DTYPES.values()}
        self.assert_reads(self.saved(expected), expected)

    def test_plain_dict_and_every_pickle_protocol(self):
        for protocol in (2, 3, 4, 5):
            with self.subTest(protocol=protocol):
                expected = dict(parameters())
                self.assert_reads(self.saved(expected, pickle_protocol=protocol), expected)

    def test_ranks_and_empty_tensors(self):
        expected = {"scalar": torch.tensor(1.5), "one": torch.randn(1), "eight": torch.randn(1, 2, 1, 2, 1, 2, 1, 2),
                    "empty": torch.empty(0), "empty2": torch.empty(3, 0, 2)}
        self.assert_reads(self.saved(expected), expected)

    def test_nine_dimensions_are_refused(self):
        self.refused(self.saved({"nine": torch.zeros([1] * 9)}), "8 dimensions")

    def test_views_and_strides(self):
        base = torch.arange(120.).reshape(4, 5, 6)
        expected = {"whole": base, "transposed": base.transpose(0, 2), "permuted": base.permute(1, 2, 0),
                    "slice": base[1:3, ::2, 1:], "offset": base[2], "last": base[3, 4, 5], "column": base[:, 0, 0],
                    "expanded": torch.tensor([1., 2.]).expand(3, 2), "diagonal": base[0].diagonal(),
                    "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)}
        self.assert_reads(self.saved(expected), expected)

    def test_one_storage_for_all(self):
        flat = torch.randn(1000)
        expected = {f"p{i}": flat[10 * i:10 * i + 10].reshape(2, 5) for i in range(100)}
        self.assert_reads(self.saved(expected), expected)

    def test_parameters(self):
        expected = {"w": torch.nn.Parameter(torch.randn(2, 3)), "b": torch.nn.Parameter(torch.randn(2), False)}
        self.assert_reads(self.saved(expected), expected)

    def test_wrappers_with_optimizer_and_scheduler(self):
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        adam = torch.optim.Adam(model.parameters(), lr=1e-3)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(adam, [3, 5])
        model(torch.randn(8, 3)).sum().backward()
        adam.step()
        for key in ("state_dict", "model", "model_state_dict", "net"):
            with self.subTest(key=key):
                path = self.saved({"epoch": 12, "best_acc": 97.5, "arch": "resnet18", "amp": None, "ema": True,
                                   "losses": [0.5, 0.25], "classes": ("a", "b"), "ids": {1, 2}, "big": 1 << 100,
                                   "optimizer": adam.state_dict(), "lr_scheduler": scheduler.state_dict(),
                                   key: model.state_dict()})
                self.assert_reads(path, model.state_dict())

    def test_wrapper_in_wrapper(self):
        self.assert_reads(self.saved({"model": {"state_dict": parameters()}}), self.read_back())

    def read_back(self):
        return torch.load(self.path("in.pth"))["model"]["state_dict"]

    def test_data_parallel(self):
        model = torch.nn.Linear(2, 3)
        expected = model.state_dict()
        self.assert_reads(self.saved(torch.nn.DataParallel(model).state_dict()), expected)
        compiled = {f"_orig_mod.module.{name}": tensor for name, tensor in expected.items()}
        self.assert_reads(self.saved(compiled), expected)
        mixed = {"module.weight": expected["weight"], "bias": expected["bias"]}
        self.assert_reads(self.saved(mixed), mixed)

    def test_written_to_memory(self):
        """Written to a BytesIO the archive's folder is called "archive"."""
        expected = parameters()
        stream = io.BytesIO()
        torch.save(expected, stream)
        self.assert_reads(self.write("renamed.bin", stream.getvalue()), expected)

    def test_names_with_any_characters(self):
        expected = {"层.weight": torch.randn(2), 'quote"\\': torch.randn(2), "\n": torch.randn(1), " ": torch.randn(1)}
        self.assert_reads(self.saved(expected), expected)

    def test_other_entries_are_skipped(self):
        expected = parameters()
        path = self.saved(expected)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("in/byteorder", "little")
            archive.writestr("in/.data/serialization_id", "0123")
            archive.writestr("in/.format_version", "1")
        self.assert_reads(path, expected)

    def rezip(self, compression, **changes):
        """The archive written again by Python, entries changed by name (None: left out)."""
        with zipfile.ZipFile(self.path("in.pth")) as old, zipfile.ZipFile(self.path("re.pth"), "w", compression) as new:
            for name in old.namelist():
                data = changes.get(name.split("/", 1)[1].replace("/", "_").replace(".", "_"), old.read(name))
                if data is not None:
                    new.writestr(name, data)
        return self.path("re.pth")

    def test_archives_by_other_writers(self):
        expected = parameters()
        self.saved(expected)
        self.assert_reads(self.rezip(zipfile.ZIP_STORED), expected)
        self.refused(self.rezip(zipfile.ZIP_DEFLATED), "in/data.pkl", "compressed")

    def test_zip64(self):
        expected = parameters()
        self.saved(expected)
        with zipfile.ZipFile(self.path("in.pth")) as old, zipfile.ZipFile(self.path("64.pth"), "w") as new:
            for name in old.namelist():
                with new.open(name, "w", force_zip64=True) as entry:
                    entry.write(old.read(name))
        self.assert_reads(self.path("64.pth"), expected)

    def test_without_checksums(self):
        """As PyTorch 2.6 and later leave them after torch.serialization.set_crc32_options(False): all 0."""
        expected = parameters()
        with open(self.saved(expected), "rb") as file:
            data = bytearray(file.read())
        at = data.index(b"PK\1\2")
        while data[at:at + 4] == b"PK\1\2":
            data[at + 16:at + 20] = bytes(4)
            at += 46 + sum(struct.unpack("<HHH", data[at + 28:at + 34]))
        self.assert_reads(self.write("nocrc.pth", bytes(data)), expected)

    def test_damage_is_named(self):
        self.saved({"w": torch.randn(64)})
        self.refused(self.rezip(zipfile.ZIP_STORED, data_0=None), "data/0", "missing")
        self.refused(self.rezip(zipfile.ZIP_STORED, data_0=b"\0" * 100), "re.pth: w: entry in/data/0 has 100 bytes")
        self.refused(self.rezip(zipfile.ZIP_STORED, data_pkl=None), "no data.pkl")
        self.refused(self.rezip(zipfile.ZIP_STORED, data_pkl=b"\x80\x02}"), "data.pkl", "ends too early")
        with zipfile.ZipFile(self.rezip(zipfile.ZIP_STORED), "a") as archive:
            archive.writestr("in/byteorder", "big")
        self.refused(self.path("re.pth"), "big-endian")
        with open(self.path("in.pth"), "rb") as file:
            whole = file.read()
        at = whole.index(b"in/data/0") + 200
        self.refused(self.write("flip.pth", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:]), "w: ", "in/data/0",
                     "checksum")
        for size in (1, 4, 100, len(whole) // 2, len(whole) - 1):
            self.refused(self.write("cut.pth", whole[:size]))

    def test_what_is_no_dictionary_of_tensors(self):
        self.refused(self.saved([torch.zeros(1)]), "a list")
        self.refused(self.saved(torch.zeros(1)), "a tensor, not a dictionary")
        self.refused(self.saved({}), "empty")
        self.refused(self.saved({"w": torch.zeros(1), "epoch": 3}), '"epoch" is an integer')
        self.refused(self.saved({3: torch.zeros(1)}), "an integer as a name")
        self.refused(self.saved({"w": torch.zeros(2, dtype=torch.complex64)}), '"torch.ComplexFloatStorage"')
        self.refused(self.saved({"w": torch.zeros(2, 2).to_sparse()}), "_rebuild_sparse_tensor")

    def test_other_kinds_of_files(self):
        torch.save(parameters(), self.path("old.pth"), _use_new_zipfile_serialization=False)
        self.refused(self.path("old.pth"), "old form", "torch.save")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), self.path("script.pth"))
        self.refused(self.path("script.pth"), "TorchScript", "constants.pkl")
        self.refused(self.write("x.pth", pickle.dumps({"a": 1})), "pickle")
        self.refused(self.write("x.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Git LFS pointer")
        self.refused(self.write("x.pth", b"\n<!DOCTYPE html>\n<html>404</html>"), "HTML page")
        self.refused(self.write("x.pth", "hällo\n".encode()), "a text file")
        self.refused(self.write("x.pth", b""), "empty")
        self.refused(self.write("x.pth", os.urandom(8).hex().encode() + b"\0\1\2"), "no known kind")
        self.refused(self.path("."), "a folder")
        self.refused(self.path("none.pth"), "No such file", "NOT_FOUND")
        with zipfile.ZipFile(self.path("x.zip"), "w") as archive:
            archive.writestr("a.txt", "x")
        self.refused(self.path("x.zip"), "no data.pkl")


class Refuse(FormatsTest):
    """Pickles that would do something: refused by name, and the thing is not done."""

    def archive(self, data):
        with zipfile.ZipFile(self.path("evil.pth"), "w") as archive:
            archive.writestr("evil/data.pkl", data)
            archive.writestr("evil/version", "3")
        return self.path("evil.pth")

    def check(self, data, *words):
        self.refused(self.archive(data), "refused", *words)
        self.assertFalse(os.path.exists(self.path("pwned")))

    def reduced(self, function, *arguments):
        class Evil:
            def __reduce__(self):
                return function, arguments

        return Evil()

    def test_calls(self):
        import builtins
        command = f"touch {self.path('pwned')}"
        for protocol in (2, 4):
            for function, arguments, name in [
                    (os.system, (command,), '"posix.system"'),
                    (builtins.eval, (f"__import__('os').system('{command}')",), ".eval"),
                    (builtins.exec, (f"import os; os.system('{command}')",), ".exec"),
                    (subprocess.call, (["touch", self.path("pwned")],), '.call"'),
                    (torch.hub.load, ("a/b", "c"), '"torch.hub.load"'),
                    (getattr, (os, "system"), ".getattr"),
                    (torch.load, ("x",), '"torch.serialization.load"')]:
                with self.subTest(function=name, protocol=protocol):
                    if function is getattr:
                        function, arguments = getattr, ("x", "upper")
                    self.check(pickle.dumps({"w": self.reduced(function, *arguments)}, protocol), name,
                               "not a plain dictionary of tensors")

    def test_nested_in_what_is_skipped(self):
        evil = self.reduced(os.system, f"touch {self.path('pwned')}")
        torch.save({"state_dict": parameters(), "args": {"deep": [(evil,)]}}, self.path("nested.pth"))
        self.refused(self.path("nested.pth"), '"posix.system"')
        torch.save({"w": torch.nn.Parameter(torch.zeros(1)), "h": collections.OrderedDict(x=evil)}, self.path("n.pth"))
        self.refused(self.path("n.pth"), '"posix.system"')
        self.assertFalse(os.path.exists(self.path("pwned")))

    def test_whole_models(self):
        torch.save(torch.nn.Linear(2, 3), self.path("model.pth"))
        self.refused(self.path("model.pth"), '"torch.nn.modules.linear.Linear"', "state_dict")

    def test_raw_opcodes(self):
        """Written by hand: classes called in odd ways, names by STACK_GLOBAL, attributes, extension codes."""
        for data, word in [
                (b"\x80\x02cposix\nsystem\nX\x02\0\0\0id\x85R.", "posix.system"),
                (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.", "posix.system"),
                (b"\x80\x02cos\nsystem\n\x81.", "os.system"),
                (b"\x80\x02ctorch\nFloatStorage\nX\x01\0\0\0a\x85R.", "torch.FloatStorage"),
                (b"\x80\x02ctorch\nfloat32\n)R.", "torch.float32"),
                (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "_rebuild_tensor_v2"),
                (b"\x80\x02ccollections\nOrderedDict\n}b.", "attributes"),
                (b"\x80\x02]}b.", "attributes of a list"),
                (b"\x80\x02X\x01\0\0\0aX\x01\0\0\0b\x85R.", "calls a string"),
                (b"\x80\x02X\x01\0\0\0aQ.", "persistent id"),
                (b"\x80\x02\x82\x01.", "0x82"),   # EXT1
                (b"(S'id'\nios\nsystem\n.", "0x53"),  # protocol 0: STRING, INST
                (b"\x80\x02(cos\nsystem\nX\x02\0\0\0ido.", "os.system"),  # OBJ
                (b"\x80\x02P0\n.", "0x50"),  # PERSID
        ]:
            with self.subTest(data=data):
                self.check(data, word)

    def tensor(self, offset, shape, stride, elements=4):
        """A pickle of {"w": tensor} with any numbers in it."""
        def integer(value):
            return b"\x8a\x08" + struct.pack("<q", value)

        def numbers(values):
            return b"(" + b"".join(map(integer, values)) + b"t"

        return (b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
                b"X\x01\0\0\x000X\x03\0\0\0cpu" + integer(elements) + b"tQ" + integer(offset) + numbers(shape) +
                numbers(stride) + b"\x89ccollections\nOrderedDict\n)RtRs.")

    def test_views_beyond_their_storage(self):
        big = 1 << 62
        for offset, shape, stride in [(0, [5], [1]), (1, [4], [1]), (-1, [1], [1]), (0, [2, 2], [3, 1]), (0, [2], [-1]),
                                      (0, [2], [big]), (0, [big, big], [big, big]), (big, [2], [big]), (0, [-1], [1]),
                                      (4, [], []), (0, [2], [1, 1]), (0, [1, 2], [1])]:
            with self.subTest(offset=offset, shape=shape, stride=stride):
                self.refused(self.archive(self.tensor(offset, shape, stride)), "data.pkl: damaged tensor")
        self.refused(self.archive(self.tensor(0, [4], [1], 1 << 50)), "damaged storage")
        self.refused(self.archive(self.tensor(0, [4], [1])), "data/0 is missing")
        self.refused(self.archive(self.tensor(0, [5], [0], -1)), "damaged storage")

    def test_views_that_explode(self):
        """A few bytes that claim to be a terabyte, by strides of 0."""
        with zipfile.ZipFile(self.archive(self.tensor(0, [1 << 20, 1 << 18], [0, 0])), "a") as archive:
            archive.writestr("evil/data/0", b"\0" * 16)
        self.refused(self.path("evil.pth"), "add up to far more")
        with zipfile.ZipFile(self.archive(self.tensor(0, [1 << 40, 1 << 40], [0, 0])), "a") as archive:
            archive.writestr("evil/data/0", b"\0" * 16)
        self.refused(self.path("evil.pth"), "add up to far more")

    def test_circles(self):
        """A dictionary that contains itself, under the names that are looked through."""
        self.refused(self.archive(b"\x80\x02}q\x00X\x05\0\0\0modelh\x00s."), "not a tensor")


class Write(FormatsTest):
    def test_loads_in_torchvision(self):
        model = torchvision.models.resnet18(num_classes=5).eval()
        torch.save(model.state_dict(), self.path("a.pth"))
        self.assertIsNone(self.convert(self.path("a.pth"), self.path("b.pth")))
        loaded = torch.load(self.path("b.pth"), weights_only=True)
        self.assertIsInstance(loaded, collections.OrderedDict)
        self.assertEqual(list(loaded), list(model.state_dict()))
        other = torchvision.models.resnet18(num_classes=5).eval()
        other.load_state_dict(loaded, strict=True)
        image = torch.randn(1, 3, 64, 64)
        self.assertTrue(torch.equal(model(image), other(image)))

    def test_every_type_and_shape(self):
        expected = {f"{dtype} {shape}": random_tensor(dtype, *shape) for dtype in DTYPES.values()
                    for shape in [(), (1,), (3, 5), (0,), (2, 0, 3), (300, 70000 // 300), (1, 2, 1, 2, 1, 2, 1, 2)]}
        torch.save(expected, self.path("a.pth"))
        for step in ("b.pth", "c.safetensors", "d.pth"):
            self.assertIsNone(self.convert(self.path("a.pth"), self.path(step)))
            os.rename(self.path(step), self.path("a.pth"))
        loaded = torch.load(self.path("a.pth"), weights_only=True)
        self.assertEqual(sorted(loaded), sorted(expected))
        for name, tensor in expected.items():
            self.assertEqual(loaded[name].dtype, tensor.dtype)
            self.assertEqual(loaded[name].shape, tensor.shape)
            self.assertTrue(torch.equal(loaded[name], tensor), name)
            self.assertEqual(loaded[name].stride(), tensor.stride() if tensor.numel() else loaded[name].stride())

    def test_form(self):
        """Stored, aligned, checksums right, entries as torch names them, and nothing left beside the file."""
        torch.save(parameters(), self.path("a.pth"))
        self.assertIsNone(self.convert(self.path("a.pth"), self.path("best_model.pth")))
        self.assertEqual(sorted(os.listdir(self.folder)), ["a.pth", "best_model.pth"])
        with zipfile.ZipFile(self.path("best_model.pth")) as archive, open(self.path("best_model.pth"), "rb") as file:
            self.assertIsNone(archive.testzip())
            self.assertEqual(archive.namelist(), ["best_model/" + name for name in
                                                  ("data.pkl", "byteorder", "data/0", "data/1", "data/2", "version")])
            self.assertEqual(archive.read("best_model/version"), b"3\n")
            self.assertEqual(archive.read("best_model/byteorder"), b"little")
            for entry in archive.infolist():
                self.assertEqual(entry.compress_type, zipfile.ZIP_STORED)
                file.seek(entry.header_offset + 26)
                name_size, extra_size = struct.unpack("<HH", file.read(4))
                self.assertEqual((entry.header_offset + 30 + name_size + extra_size) % 64, 0, entry.filename)

    def test_equal_content_makes_equal_files(self):
        torch.save(parameters(), self.path("a.pth"))
        os.mkdir(self.path("x"))
        self.assertIsNone(self.convert(self.path("a.pth"), self.path("b.pth")))
        self.assertIsNone(self.convert(self.path("a.pth"), self.path("x/b.pth")))
        with open(self.path("b.pth"), "rb") as one, open(self.path("x/b.pth"), "rb") as two:
            self.assertEqual(one.read(), two.read())

    def test_paths_that_cannot_be_written(self):
        torch.save(parameters(), self.path("a.pth"))
        error = self.convert(self.path("a.pth"), self.path("none/b.pth"))
        self.assertIn("none/b.pth: no such file", error)
        os.mkdir(self.path("folder.pth"))
        self.assertIn("folder.pth: cannot be replaced", self.convert(self.path("a.pth"), self.path("folder.pth")))
        self.assertEqual(sorted(os.listdir(self.folder)), ["a.pth", "folder.pth"])

    def test_full_disk(self):
        """On a file system of a megabyte: the old file stays, the new one leaves nothing, the error says why."""
        small, disk = self.path("small.pth"), self.path("disk")
        torch.save({"w": torch.zeros(10)}, small)
        torch.save({"w": torch.zeros(1 << 19)}, self.path("large.pth"))
        os.mkdir(disk)
        script = f"mount -t tmpfs -o size=1m none {disk} && {CONVERT} {small} {disk}/a.pth && " \
                 f"! {CONVERT} {self.path('large.pth')} {disk}/a.pth && {CONVERT} {disk}/a.pth {self.path('b.pth')} && ls {disk}"
        done = subprocess.run(["unshare", "-rm", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        error = done.stderr.decode()
        if done.returncode != 0 and ("unshare" in error or "mount" in error):
            self.skipTest(f"no mount namespace: {error.strip()}")
        self.assertEqual(done.returncode, 0, error)
        self.assertRegex(error, rf"^NO_SPACE: disk full: cannot write {disk}/a.pth \(the disk of folder {disk} has [0-9.]+ MB left of 1.0 MB\)")
        self.assertEqual(done.stdout, b"a.pth\n")
        self.assertTrue(torch.equal(torch.load(self.path("b.pth"))["w"], torch.zeros(10)))


if __name__ == "__main__":
    unittest.main()
