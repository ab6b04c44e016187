"""safetensors files, against an implementation of the format in ten lines of Python."""

import json
import os
import struct
import unittest

import torch

from tests.formats.support import DTYPES, FormatsTest, random_tensor, raw_bytes

NAMES = {dtype: name for name, dtype in DTYPES.items()}


def encode(tensors, **header):
    data = b""
    for name, tensor in tensors.items():
        begin, data = len(data), data + raw_bytes(tensor)
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, len(data)]}
    return pack(header, data)


def pack(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def decode(data):
    size = struct.unpack("<Q", data[:8])[0]
    header, body, result = json.loads(data[8:8 + size]), data[8 + size:], {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            result[name] = (entry["dtype"], entry["shape"], body[begin:end])
    return header.get("__metadata__"), result, size


class Safetensors(FormatsTest):
    def test_every_type_is_read(self):
        expected = {f"{name}.{len(shape)}": random_tensor(dtype, *shape) for name, dtype in DTYPES.items()
                    for shape in [(), (3,), (2, 5), (0, 4)]}
        self.assert_reads(self.write("a.safetensors", encode(expected)), expected)
        self.assert_reads(self.write("b.pth", encode(expected, __metadata__={"format": "pt"})), expected)

    def test_written_form(self):
        expected = {"a.bool": torch.tensor([True]), "b": torch.randn(3), "c": torch.tensor(7), '"\n层': torch.randn(2, 2)}
        torch.save(expected, self.path("a.pth"))
        self.assertIsNone(self.convert(self.path("a.pth"), self.path("b.safetensors")))
        with open(self.path("b.safetensors"), "rb") as file:
            metadata, got, header_size = decode(file.read())
        self.assertEqual(metadata, {"format": "pt"})
        self.assertEqual(header_size % 8, 0)
        self.assertEqual(got, {name: (NAMES[t.dtype], list(t.shape), raw_bytes(t)) for name, t in expected.items()})
        self.assertEqual(sorted(os.listdir(self.folder)), ["a.pth", "b.safetensors"])

    def test_tensors_in_any_order(self):
        header = {"b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]},
                  "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
        self.assert_reads(self.write("a.safetensors", pack(header, b"xyz")),
                          {"b": torch.tensor([121, 122], dtype=torch.uint8), "a": torch.tensor([120], dtype=torch.uint8)})

    def test_faults_are_named(self):
        def one(dtype="U8", shape=[4], offsets=[0, 4]):
            return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}

        for header, data, word in [
                (one(dtype="F8_E4M3"), b"1234", "w: type F8_E4M3 is not supported"),
                (one(dtype=3), b"1234", "w: type missing"),
                ({"w": 5}, b"", "w: type missing"),
                (one(shape=[-4]), b"1234", "w: its shape"),
                (one(shape=[1] * 9), b"1234", "w: its shape"),
                (one(shape=[1.5]), b"1234", "w: its shape"),
                (one(shape="4"), b"1234", "w: its shape"),
                (one(shape=[1 << 40, 1 << 40]), b"1234", "w: impossible shape"),
                (one(shape=[5]), b"1234", "w: its shape takes 5 bytes, its data_offsets give 4"),
                (one(offsets=[4, 0]), b"1234", "w: its data_offsets"),
                (one(offsets=[0]), b"1234", "w: its data_offsets"),
                (one(offsets=[-4, 0]), b"1234", "w: its data_offsets"),
                (one(), b"123", "has 3 bytes of data, its tensors take 4"),
                (one(), b"12345", "has 5 bytes of data, its tensors take 4"),
                (one(offsets=[1, 5]), b"12345", "w: its data follow a hole"),
                ({**one(), "v": one(offsets=[2, 6])["w"]}, b"123456", "v: its data overlap"),
                (b'{"w":1,"w":2}', b"", "duplicate"),
                (b'{"w":', b"", "header"),
                (b'{"\xff":1}', b"", "header"),
                (b"{ [" * 3000, b"", "header")]:
            with self.subTest(header=header if len(header) < 200 else header[:20]):
                self.refused(self.write("a.safetensors", pack(header, data)), word)

    def test_lengths(self):
        whole = encode({"w": torch.randn(10)})
        for size in (9, 10, 50, len(whole) - 1):
            self.refused(self.write("cut.safetensors", whole[:size]))
        self.refused(self.write("long.safetensors", struct.pack("<Q", 1 << 60) + whole[8:]), "header of")


if __name__ == "__main__":
    unittest.main()
