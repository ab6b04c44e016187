"""The cache of resized pictures as trainings use it: who decodes, what the log says, and that the weights never differ."""

import hashlib
import os
import shutil
import signal
import unittest

from tests.task.harness import TaskTest, Worker, class_folders, train_request

CLASSES = ["alpha", "beta", "gamma"]
TRAIN, VAL = 3 * 7, 3 * 3  # the pictures of the validation set are among those of the training set
PICTURES = TRAIN + VAL


def pictures_line(worker):
    return [line for line in worker.log if line.startswith("图像: 解码")]


class PictureCache(TaskTest):
    def setUp(self):
        super().setUp()
        self.train = class_folders(self.path("train"), CLASSES, 7)
        self.val = class_folders(self.path("val"), CLASSES, 3)
        self.runs = 0

    def begin(self, cache=None, **changes):
        self.runs += 1
        request = train_request(self.train, self.val, self.path(f"out{self.runs}"), seed=3, num_epochs=1, **changes)
        return Worker("training", request, env={"RFUAV_CACHE": cache or self.path("cache")})

    def weights(self, worker):
        """Runs it to its end; returns what its weights hash to."""
        self.assertEqual(worker.finish()["status"], "completed")
        with open(self.path(f"out{self.runs}", "ResNet_epoch_1.pth"), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()

    def test_second_training_decodes_none(self):
        first = self.begin()
        expected = self.weights(first)
        self.assertEqual(pictures_line(first), [f"图像: 解码 {TRAIN} 张，取自磁盘缓存 {VAL} 张"])
        shutil.copytree(self.path("train"), self.path("copy"))  # other files, the same pictures
        self.train = self.path("copy")
        second = self.begin()
        self.assertEqual(self.weights(second), expected)
        self.assertEqual(pictures_line(second), [f"图像: 解码 0 张，取自磁盘缓存 {PICTURES} 张"])
        larger = self.begin(image_size=40)  # other pictures
        self.weights(larger)
        self.assertEqual(pictures_line(larger), [f"图像: 解码 {TRAIN} 张，取自磁盘缓存 {VAL} 张"])

    def test_killed_and_damaged(self):
        expected = self.weights(self.begin(cache=self.path("other")))
        worker = self.begin()
        worker.until(lambda message: message.get("message", "").startswith("Loading dataset"))
        worker.process.send_signal(signal.SIGKILL)
        worker.close()
        self.assertEqual(self.weights(self.begin()), expected)
        folder = self.path("cache", "pictures")
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), "r+b") as file:
                for at in range(0, os.path.getsize(file.name), 5000):
                    file.seek(at)
                    file.write(b"damage")
        self.assertEqual(self.weights(self.begin()), expected)

    def test_two_at_once(self):
        workers = [self.begin() for _ in range(2)]
        for worker in workers:
            self.assertEqual(worker.finish()["status"], "completed")
        third = self.begin()
        self.weights(third)
        self.assertEqual(pictures_line(third), [f"图像: 解码 0 张，取自磁盘缓存 {PICTURES} 张"])

    def test_no_place_is_told_once(self):
        worker = self.begin(cache="/dev/null/x")
        self.weights(worker)
        told = [line for line in worker.log if line.startswith("图像磁盘缓存不可用: ")]
        self.assertEqual(len(told), 1)
        self.assertIn("/dev/null/x", told[0])


if __name__ == "__main__":
    unittest.main()
