"""A raw recording's frames as pictures, against the same computed by numpy as scipy.signal.stft() and matplotlib's
imshow(); and videos, read back by FFmpeg."""

import hashlib
import os
import shutil
import subprocess
import tempfile
import unittest

import numpy
from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("RFUAV_BUILD", os.path.join(ROOT, "build"))
WINDOW, HOP = 1024, 512


def jet():
    """matplotlib's jet, (256, 3), from its published corner points."""
    points = (((0, 0), (0.35, 0), (0.66, 1), (0.89, 1), (1, 0.5)),
              ((0, 0), (0.125, 0), (0.375, 1), (0.64, 1), (0.91, 0), (1, 0)),
              ((0, 0.5), (0.11, 1), (0.34, 1), (0.65, 0), (1, 0)))
    colors = numpy.empty((256, 3), int)
    for c, channel in enumerate(points):
        x, y = numpy.array(channel, float).T
        x, at = 255 * x, 255 * numpy.linspace(0, 1, 256)
        right = numpy.clip(numpy.searchsorted(x, at), 1, len(x) - 1)
        share = (at - x[right - 1]) / (x[right] - x[right - 1])
        colors[:, c] = 255 * (share * (y[right] - y[right - 1]) + y[right - 1])
    return colors


def stft(samples):
    """(WINDOW, transforms), as scipy.signal.stft(samples, window=hamming(1024), nperseg=1024, return_onesided=False) with
    the frequencies in order: zeros at both ends, then up to a whole number of hops; scaled by the window's sum."""
    weights = 0.54 - 0.46 * numpy.cos(2 * numpy.pi * numpy.arange(WINDOW) / (WINDOW - 1))
    padded = numpy.concatenate([numpy.zeros(HOP), samples, numpy.zeros(HOP)])
    padded = numpy.concatenate([padded, numpy.zeros(-(len(padded) - WINDOW) % HOP)])
    n = (len(padded) - WINDOW) // HOP + 1
    windows = numpy.lib.stride_tricks.as_strided(padded, (n, WINDOW), (HOP * padded.itemsize, padded.itemsize))
    return numpy.concatenate([numpy.fft.fftshift(numpy.fft.fft(part * weights), axes=1) / weights.sum()
                              for part in numpy.array_split(windows, n // 1000 + 1)]).T


def resampled(values, size):
    """The last axis to `size` with imshow()'s Hanning weights."""
    n = values.shape[-1]
    scale = n / size
    out = numpy.empty(values.shape[:-1] + (size,))
    for i in range(size):
        distance = (numpy.arange(n) - ((i + 0.5) * scale - 0.5)) / max(scale, 1)
        near = numpy.abs(distance) < 1
        weights = 0.5 + 0.5 * numpy.cos(numpy.pi * distance[near])
        out[..., i] = values[..., near] @ weights / weights.sum()
    return out


def level_picture(samples, width, height):
    """(height, width) from 0 to 256: the colour's number before it is cut to a whole one."""
    values = 10 * numpy.log10(numpy.abs(stft(samples)))
    low, high = values.min(), values.max()
    values = resampled(resampled(values, width).T, height).T
    return numpy.flipud((values - low) / (high - low) * 256)


def recording(n, seed=0):
    """A tone, a chirp and noise."""
    random, t = numpy.random.default_rng(seed), numpy.arange(n)
    samples = 0.5 * numpy.exp(2j * numpy.pi * 0.2 * t) + 0.5 * numpy.exp(2j * numpy.pi * (-0.4 * t + 0.3 / n * t * t))
    return (samples + 0.05 * random.standard_normal((n, 2)).view(complex)[:, 0]).astype(numpy.complex64)


class Frames(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="rfuav-iq-")
        self.addCleanup(shutil.rmtree, self.folder)

    def picture(self, samples, frame=0, index=0, width=0, height=0, threads=2):
        """Runs the program; returns the picture, and (samples, spare bytes, frames, unusable)."""
        path = self.folder + "/x.iq"
        with open(path, "wb") as file:
            file.write(samples if isinstance(samples, bytes) else samples.tobytes())
        done = subprocess.run([f"{BUILD}/tests/formats/iq_picture", path, str(frame), str(width), str(height), str(threads),
                               str(index), self.folder + "/x.png"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.seconds = float(done.stdout.split()[-1])
        with Image.open(self.folder + "/x.png") as image:
            return numpy.asarray(image).astype(int), tuple(map(int, done.stdout.split()[:4]))

    def check(self, samples, pixels):
        """Each pixel has the colour of its number, or of the next where rounding decides."""
        height, width = pixels.shape[:2]
        levels, colors = level_picture(samples, width, height), jet()
        best = numpy.full((height, width), 999)
        for shift in (-0.02, 0.02):  # single precision against double
            number = numpy.clip(numpy.floor(levels + shift), 0, 255).astype(int)
            best = numpy.minimum(best, numpy.abs(pixels - colors[number]).max(2))
        self.assertLessEqual((best > 0).mean(), 1e-4)
        self.assertLessEqual(best.max(), 6)

    def test_small_frames(self):
        for n, width, height in ((20000, 30, 40), (50000, 97, 1440), (4096, 64, 64), (3000, 50, 1024), (60000, 20, 2048),
                                 (512, 8, 8), (300, 7, 100)):
            with self.subTest(n=n, width=width, height=height):
                samples = recording(n + n // 2)
                pixels, numbers = self.picture(samples, n, 1, width, height)
                self.assertEqual(numbers, (len(samples), 0, 2, 0))
                self.check(samples[n // 2:n // 2 + n], pixels)

    def test_a_full_frame(self):
        samples = recording(10_000_000, 1)
        pixels, numbers = self.picture(samples)
        self.assertEqual(pixels.shape, (1440, 1920, 3))
        self.assertEqual(numbers, (10_000_000, 0, 1, 0))
        self.check(samples, pixels)
        # the tone lies a fifth of the band above the middle, the chirp rises
        red = numpy.array([numpy.argmax(pixels[:, x, 0] - pixels[:, x, 1]) for x in (100, 1800)])
        self.assertTrue((numpy.abs(red - 1440 * 0.3) < 4).any())

    def test_threads_change_nothing(self):
        samples = recording(40000)
        one = self.picture(samples, 40000, 0, 200, 100, threads=1)[0]
        for threads in (2, 3, 8):
            self.assertTrue((self.picture(samples, 40000, 0, 200, 100, threads=threads)[0] == one).all())

    def test_frames_overlap_by_half(self):
        samples = recording(10 * 1024)
        for n, frames in ((1024, 19), (1023, 19), (10240, 1), (6826, 2), (6828, 1)):
            self.assertEqual(self.picture(samples, n, 0, 16, 16)[1][2], frames, n)

    def test_spare_bytes(self):
        self.assertEqual(self.picture(recording(2048).tobytes() + b"12345", 2048, 0, 16, 16)[1], (2048, 5, 1, 0))

    def test_silence_is_the_lowest_colour(self):
        pixels, _ = self.picture(numpy.zeros(8192, numpy.complex64), 8192, 0, 20, 20)
        self.assertTrue((pixels == jet()[0]).all())

    def test_silence_does_not_count_for_the_least(self):
        samples = recording(81920)
        samples[40960:] = 0
        pixels, _ = self.picture(samples, 81920, 0, 160, 100)
        self.assertTrue((pixels[:, 82:] == jet()[0]).all())
        loud = level_picture(samples[:40960], 79, 100)  # as if the silence were not there
        number = numpy.clip(loud[:, 2:76], 0, 255).astype(int)
        self.assertLess(numpy.abs(pixels[:, 2:76] - jet()[number]).mean(), 12)

    def test_values_that_are_no_numbers_count_as_0(self):
        samples = recording(50000)
        clean = samples.copy()
        for at, value in ((0, numpy.nan), (777, 1j * numpy.inf), (20000, 1e20), (30001, -numpy.inf), (49999, numpy.nan)):
            samples[at], clean[at] = value, 0
        pixels, numbers = self.picture(samples, 50000, 0, 100, 100)
        self.assertEqual(numbers[3], 5)
        self.assertTrue((pixels == self.picture(clean, 50000, 0, 100, 100)[0]).all())

    def test_any_bytes(self):
        data = numpy.random.default_rng(5).integers(0, 256, 8 * 30000, dtype=numpy.uint8).tobytes()
        pixels, numbers = self.picture(data, 30000, 0, 64, 64)
        self.assertGreater(numbers[3], 0)
        self.assertGreater(len(numpy.unique(pixels)), 1)

    def test_jet_is_matplotlibs(self):
        """The sum is of matplotlib 3.6.3's own 256 colours."""
        self.assertEqual(hashlib.sha256(jet().astype(numpy.uint8).tobytes()).hexdigest(),
                         "c1b7b97444ebebfc30a590ce3eada7cffefb868960c6c39fd4ed1ff7a40712e9")


class Videos(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="rfuav-video-")
        self.addCleanup(shutil.rmtree, self.folder)
        os.makedirs(self.folder + "/bin")
        self.program = shutil.copy(f"{BUILD}/tests/formats/video", self.folder + "/bin")

    def install(self, place):
        os.makedirs(f"{self.folder}/{place}", exist_ok=True)
        shutil.copy(f"{BUILD}/librfuav_video.so", f"{self.folder}/{place}")

    def encode(self, path, frames, rate=5):
        height, width = frames[0].shape[:2]
        done = subprocess.run([self.program, path, str(width), str(height), str(rate)], stderr=subprocess.PIPE,
                              input=b"".join(frame.tobytes() for frame in frames))
        return done.returncode, done.stderr.decode()

    def decode(self, path):
        subprocess.run(["ffmpeg", "-v", "error", "-i", "file:" + path, f"{self.folder}/%d.png"], check=True)
        names = sorted((n for n in os.listdir(self.folder) if n.endswith(".png")), key=lambda n: int(n[:-4]))
        return [numpy.asarray(Image.open(f"{self.folder}/{n}").convert("RGB")).astype(int) for n in names]

    def test_frames_come_back(self):
        self.install("lib/rfuav")
        y, x = numpy.mgrid[0:96, 0:160]
        frames = [numpy.stack([x + 20 * i, 2 * y, 255 - x], 2).astype(numpy.uint8) for i in range(4)]
        path = self.folder + "/a b:c 无人机.mp4"
        self.assertEqual(self.encode(path, frames), (0, ""))
        self.assertFalse(os.path.exists(path + ".tmp"))
        found = self.decode(path)
        self.assertEqual(len(found), 4)
        for frame, back in zip(frames, found):
            self.assertLess(numpy.abs(frame.astype(int) - back).mean(), 4)

    def test_one_frame(self):
        self.install("bin")
        self.assertEqual(self.encode(self.folder + "/a.mp4", [numpy.full((48, 64, 3), 99, numpy.uint8)]), (0, ""))
        self.assertEqual(len(self.decode(self.folder + "/a.mp4")), 1)

    def test_the_object_is_missing_or_another(self):
        frames = [numpy.zeros((48, 64, 3), numpy.uint8)]
        self.assertIn("librfuav_video.so is not beside", self.encode(self.folder + "/a.mp4", frames)[1])
        with open(self.folder + "/bin/librfuav_video.so", "w", encoding="utf-8") as file:
            file.write("nothing")
        status, error = self.encode(self.folder + "/a.mp4", frames)
        self.assertEqual(status, 1)
        self.assertIn("cannot be loaded", error)

    def test_no_folder(self):
        self.install("lib")
        path = self.folder + "/no/a.mp4"
        status, error = self.encode(path, [numpy.zeros((48, 64, 3), numpy.uint8)])
        self.assertEqual(status, 1)
        self.assertIn(path, error)
        self.assertFalse(os.path.exists(path) or os.path.exists(path + ".tmp"))

    def test_full_disk(self):
        self.install("lib")
        os.symlink("/dev/full", self.folder + "/a.mp4.tmp")
        random = numpy.random.default_rng(1)
        frames = [random.integers(0, 256, (480, 640, 3), dtype=numpy.uint8) for _ in range(6)]
        status, error = self.encode(self.folder + "/a.mp4", frames)
        self.assertEqual(status, 1)
        self.assertIn("disk full: cannot write", error)
        self.assertFalse(os.path.exists(self.folder + "/a.mp4"))


if __name__ == "__main__":
    unittest.main()
