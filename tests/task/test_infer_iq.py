"""Raw IQ files in an inference by a worker driven directly (section 14, defect D12): full frames of 10,000,000 samples."""

import csv
import json
import os
import shutil
import subprocess
import tempfile
import unittest

import numpy
from PIL import Image

from tests.task import harness
from tests.task.harness import picture
from tests.task.test_infer import CLASSES, InferTest

FRAME = 10_000_000
STEP = FRAME // 2


def tone(frequency, count):
    """A carrier at `frequency` cycles a sample, a burst of noise, silence at the end."""
    samples = numpy.exp(2j * numpy.pi * frequency * numpy.arange(1000)).astype(numpy.complex64)
    samples = numpy.resize(samples, count)
    noise = numpy.random.default_rng(3).standard_normal(2 * (count // 10), dtype=numpy.float32).view(numpy.complex64)
    samples[count // 3:count // 3 + len(noise)] += noise
    samples[count - count // 50:] = 0
    return samples


def probe(path):
    """What ffprobe says of the video stream."""
    text = subprocess.run(["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", path], check=True,
                          stdout=subprocess.PIPE).stdout
    return json.loads(text)["streams"][0]


def video_frames(path, folder):
    subprocess.run(["ffmpeg", "-v", "error", "-i", path, f"{folder}/v%d.png"], check=True)
    return [Image.open(f"{folder}/v{i + 1}.png").convert("RGB")
            for i in range(len([n for n in os.listdir(folder) if n.startswith("v")]))]


class Recordings(InferTest):
    @classmethod
    def setUpClass(cls):
        cls.kept = tempfile.mkdtemp(prefix="rfuav-iq-")
        cls.addClassCleanup(shutil.rmtree, cls.kept, True)
        tone(0.125, FRAME + STEP + 1000).tofile(cls.kept + "/two")  # two frames and a little

    def recording(self, name):
        os.link(self.kept + "/two", self.path("in", name))

    def frames(self):
        return [(r["file"], r["frame"]) for r in self.predictions()]

    def warnings(self, worker):
        return [m["message"] for m in worker.messages if m.get("level") == "WARNING"]

    def in_order_of(self, names):
        return [(n, f) for n in names for f in ("0", "1")]

    def test_pictures_and_recordings(self):
        self.recording("b.iq")
        self.recording("b.DAT")
        picture(self.path("in", "a.png"), 0, 0, 50)
        worker, end = self.run_inference({"batch_size": 3})
        self.assertEqual(end["status"], "completed")
        self.assertEqual(self.warnings(worker), [])
        self.assertEqual(sorted(os.listdir(self.path("out"))),
                         ["a.jpg", "b.mp4", "b_2.mp4", "predictions.csv", "predictions.jsonl"])
        self.assertEqual(self.frames(), [("a.png", "")] + self.in_order_of(["b.DAT", "b.iq"]))
        with open(self.path("out", "predictions.jsonl"), encoding="utf-8") as file:
            objects = [json.loads(line) for line in file]
        self.assertEqual([o.get("frame") for o in objects], [None, 0, 1, 0, 1])
        with open(self.path("out", "predictions.csv"), encoding="utf-8") as file:
            self.assertEqual(next(csv.reader(file))[-1], "frame")
        first, second = self.predictions()[1:3]
        self.assertEqual(self.predictions()[3]["probability"], first["probability"])  # the same recording
        self.assert_in_order(worker.log, [
            "b.DAT: 时长 0.150 秒，2 帧", "b.iq: 时长 0.150 秒，2 帧",
            f"b.DAT #0: {first['class']} {100 * float(first['probability']):.2f}%",
            f"b.DAT #1: {second['class']} {100 * float(second['probability']):.2f}%",
            f"已写入 {self.path('out', 'b.mp4')} (2 帧)", f"已写入 {self.path('out', 'b_2.mp4')} (2 帧)",
            "共识别 5 张图像，0 张无法读取", "其中 4 张是IQ文件的帧", "推理完成！"])
        self.check_video(self.path("out", "b.mp4"))

    def check_video(self, path):
        stream = probe(path)
        self.assertEqual([stream[key] for key in ("width", "height", "pix_fmt", "r_frame_rate", "nb_read_frames")],
                         [1920, 1440, "yuv420p", "5/1", "2"])
        self.assertIn(stream["codec_name"], ("h264", "mpeg4"))
        for image in video_frames(path, self.folder):
            pixels = numpy.asarray(image).astype(int)
            text = pixels[40:100, 40:300]
            self.assertTrue(((text[..., 0] > 180) & (text[..., 1] < 90) & (text[..., 2] < 90)).any())
            # the carrier: an eighth of the band above the middle, dark red over a colder ground
            row = 1440 - round((0.5 + 0.125) * 1440)
            line = pixels[row - 2:row + 3, 400:500].mean((0, 1))
            self.assertGreater(line[0], line[2] + 60)
            self.assertGreater(line[0], pixels[row - 200:row - 100, 400:500, 0].mean() + 60)

    def test_the_net_sees_the_picture(self):
        """The prediction is PyTorch's for the picture that tests/formats/test_iq.py compares with numpy's."""
        self.recording("b.iq")
        program = os.path.join(os.path.dirname(harness.RFUAV), "tests", "formats", "iq_picture")
        subprocess.run([program, self.path("in", "b.iq"), "0", "0", "0", "2", "1", self.path("in", "frame.png")], check=True,
                       stdout=subprocess.DEVNULL)
        self.run_inference({"source_path": self.path("in", "b.iq")})
        expected = self.expected(["frame.png"])[0]
        row = self.predictions()[1]
        self.assertEqual(row["class"], CLASSES[int(expected.argmax())])
        self.assertAlmostEqual(float(row["probability"]), float(expected.max()), 4)

    def test_without_the_encoder_frames_become_pictures(self):
        self.recording("b.iq")
        Image.new("RGB", (20, 20)).save(self.path("in", "b_1.png"))
        os.mkdir(self.path("bin"))
        program, harness.RFUAV = harness.RFUAV, shutil.copy(harness.RFUAV, self.path("bin"))
        try:
            worker, end = self.run_inference()
        finally:
            harness.RFUAV = program
        self.assertEqual(end["status"], "completed")
        self.assertEqual(self.outputs(), ["b_0.jpg", "b_1.jpg", "b_1_2.jpg"])
        with Image.open(self.path("out", "b_1_2.jpg")) as image:
            self.assertEqual(image.size, (1920, 1440))
        self.assertEqual(len(self.warnings(worker)), 1)
        self.assertIn("librfuav_video.so", self.warnings(worker)[0])
        self.assertEqual(self.frames(), [("b_1.png", ""), ("b.iq", "0"), ("b.iq", "1")])

    def test_too_short(self):
        with open(self.path("in", "b.iq"), "wb") as file:
            file.write(bytes(8 * 1_000_000 + 3))
        worker, end = self.run_inference()
        self.assertEqual(end["status"], "completed")
        odd, short = self.warnings(worker)
        self.assertIn("3 字节", odd)
        for part in ("b.iq", "0.010000 秒", "1000000 个采样", "0.1 秒", "10000000 个采样"):
            self.assertIn(part, short)
        self.assertEqual(os.listdir(self.path("out")), [])
        picture(self.path("in", "a.png"), 0, 0)
        self.assertEqual(self.run_inference()[1]["status"], "completed")
        self.assertEqual(self.frames(), [("a.png", "")])

    def test_values_that_are_no_numbers(self):
        samples = numpy.zeros(FRAME, numpy.complex64)
        samples[5_000_000:5_000_100] = numpy.nan
        samples[6_000_000:6_000_010] = numpy.inf
        samples[7_000_000] = 1e30
        samples[1000:2000] = 1
        samples.tofile(self.path("in", "b.iq"))
        worker, end = self.run_inference()
        self.assertEqual(end["status"], "completed")
        self.assertEqual(len(self.warnings(worker)), 1)
        self.assertIn("b.iq 第 0 帧: 111 个采样无效", self.warnings(worker)[0])
        self.assertTrue(0 < float(self.predictions()[0]["probability"]) <= 1)

    def test_silence(self):
        with open(self.path("in", "b.iq"), "wb") as file:
            file.truncate(8 * FRAME)
        worker, end = self.run_inference()
        self.assertEqual((end["status"], self.warnings(worker)), ("completed", []))
        self.assertEqual(len(self.predictions()), 1)

    def test_unreadable(self):
        os.symlink("/nowhere", self.path("in", "b.iq"))
        _, end = self.run_inference()
        self.assertEqual(end["status"], "failed")
        self.assertIn("/in/b.iq", end["error"])
        picture(self.path("in", "a.png"), 0, 0)
        worker, end = self.run_inference()
        self.assertEqual(end["status"], "completed")
        self.assertIn("b.iq", self.warnings(worker)[0])

    def test_results_among_sources(self):
        self.recording("b.iq")
        with open(self.path("in", "b.mp4"), "w", encoding="utf-8") as file:
            file.write("mine")
        self.assertEqual(self.run_inference({"save_path": self.path("in")})[1]["status"], "completed")
        with open(self.path("in", "b.mp4"), encoding="utf-8") as file:
            self.assertEqual(file.read(), "mine")
        self.assertEqual(probe(self.path("in", "b_2.mp4"))["nb_read_frames"], "2")

    def test_cancel_leaves_no_half_video(self):
        with open(self.path("in", "b.iq"), "wb") as file:
            file.truncate(8 * 40 * FRAME)
        worker = harness.Worker("inference", self.request())
        worker.until(lambda m: m.get("message", "").startswith("b.iq #"))
        worker.send({"type": "cancel"})
        self.assertEqual(worker.finish()["status"], "cancelled")
        self.assertEqual(os.listdir(self.path("out")), [])

    @unittest.skipIf("address" in harness.RFUAV, "a sanitizer's memory is its own")
    def test_memory(self):
        """The peak of the process stays within the plan that the worker tells, however long the recording is."""
        with open(self.path("in", "b.iq"), "wb") as file:
            file.truncate(8 * 6 * FRAME)
        worker = harness.Worker("inference", self.request())
        peak = 0
        while (message := worker.next()) is not None:
            if message["type"] == "end":
                break
            with open(f"/proc/{worker.process.pid}/status", encoding="utf-8") as file:
                peak = max([peak] + [int(line.split()[1]) for line in file if line.startswith("VmHWM")])
        worker.close()
        planned = next(m for m in worker.messages if m["type"] == "memory")
        self.assertEqual(len(self.predictions()), 11)
        self.assertLess(peak * 1024, planned["planned"])


del InferTest  # its own tests run elsewhere


if __name__ == "__main__":
    unittest.main()
