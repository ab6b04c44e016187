"""Full and read-only disks, and folders that are none: the task fails and says why, or the request is refused; what is
there stays whole."""

import os
import shutil
import signal
import subprocess
import unittest

from tests.api.harness import ENDED, Daemon, DaemonCase, dataset, scratch, write


@unittest.skipUnless(os.geteuid() == 0, "mounting a small disk needs root")
class Disks(unittest.TestCase):
    def mount(self, size):
        folder = scratch("disk")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True,
                              text=True)
        if done.returncode != 0:
            self.skipTest("no tmpfs can be mounted here: " + done.stderr.strip())
        self.addCleanup(subprocess.run, ["umount", "-l", folder])
        return folder

    def test_checkpoints_on_a_full_disk(self):
        disk = self.mount("100m")  # room for two files of 45 MB
        daemon = Daemon()
        record = daemon.wait(daemon.train(save_path=disk + "/out", num_epochs=6), "failed")
        self.assertIn(disk + "/out", record["message"])
        self.assertRegex(record["message"], "No space left|disk full|disk space|空间")
        left = os.listdir(disk + "/out")
        self.assertFalse([name for name in left if "tmp" in name], left)
        import torch
        for name in left:
            if name.endswith(".pth"):
                torch.load(f"{disk}/out/{name}", map_location="cpu")
        self.assertEqual(daemon.json("/api/v1/health")["status"], "healthy")
        daemon.wait(daemon.train(), "completed")
        daemon.stop()

    def test_database_on_a_full_disk(self):
        disk = self.mount("8m")
        daemon = Daemon(env={"DATA_DIR": disk + "/data", "MAX_TRAINING_CONCURRENT_CPU": "0", "TASK_QUEUE_SIZE": "10000"})
        kept = daemon.train()
        ballast = disk + "/ballast"
        with open(ballast, "wb", buffering=0) as file, self.assertRaises(OSError):
            while True:
                file.write(bytes(4096))
        codes = {daemon.post("/api/v2/training/start", daemon.train_fields()).status_code for _ in range(300)}
        self.assertLessEqual(codes, {200, 500, 503})
        self.assertTrue(codes & {500, 503}, "the disk never filled")
        self.assertEqual(daemon.get("/api/v1/health").status_code, 200)
        self.assertEqual(daemon.task(kept)["task_id"], kept)
        os.remove(ballast)
        task = daemon.until(lambda: daemon.post("/api/v2/training/start", daemon.train_fields()).json().get("task_id"),
                            10, "room again")
        known = daemon.json("/api/v1/health")["training_tasks"]
        daemon.kill(signal.SIGKILL)
        daemon.start()
        self.assertEqual(daemon.json("/api/v1/health")["training_tasks"], known)
        daemon.wait(task, "queued")
        daemon.stop()

    def test_read_only_save_path(self):
        disk = self.mount("10m")
        os.makedirs(disk + "/out")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        daemon = Daemon()
        for task in (daemon.train(save_path=disk + "/out"), daemon.infer(save_path=disk + "/out"),
                     daemon.train(save_path=disk + "/new")):
            self.assertIn(disk, daemon.wait(task, "failed")["message"])
        daemon.stop()

    def test_results_on_a_full_disk(self):
        disk = self.mount("64k")
        daemon = Daemon()
        source = scratch("many")
        from PIL import Image
        for i in range(20):
            Image.effect_noise((300, 200), 90).convert("RGB").save(f"{source}/{i}.png")
        record = daemon.wait(daemon.infer(source_path=source, save_path=disk + "/r"), "failed")
        self.assertRegex(record["message"], "No space left|disk full|disk space|空间")
        daemon.stop()


class Folders(DaemonCase):
    def test_a_file_where_a_folder_should_be(self):
        path = write(scratch("file") + "/x", b"")
        for task in (self.daemon.train(save_path=path + "/sub"), self.daemon.infer(save_path=path + "/sub")):
            self.assertIn(path, self.daemon.wait(task, "failed")["message"])

    def test_data_that_disappears(self):
        root = dataset()
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 0, "inference": 0}}})
        tasks = [self.daemon.train(train_path=root), self.daemon.infer(source_path=root + "/A")]
        for task in tasks:
            self.daemon.wait(task, "queued")
        shutil.rmtree(root)
        self.daemon.post("/api/v2/resources/config", {"max_concurrent": {"cpu": {"training": 2, "inference": 4}}})
        for task in tasks:
            self.assertIn(root, self.daemon.wait(task, "failed")["message"])

    def test_odd_things_in_a_data_set(self):
        root = dataset(images=6)
        os.mkfifo(root + "/A/pipe.png")
        os.symlink("/nowhere", root + "/A/dangling.png")
        os.symlink(".", root + "/A/loop")
        os.makedirs(root + "/B/folder.png")
        write(root + "/B/empty.png", b"")
        record = self.daemon.wait(self.daemon.train(train_path=root), ENDED, 20)
        if record["status"] == "failed":
            self.assertRegex(record["message"], "pipe|dangling|loop|folder|empty")

    def test_unreadable_folders(self):
        if os.geteuid() == 0:
            self.skipTest("root may read everything")
        root = dataset()
        os.chmod(root + "/A", 0)
        try:
            self.assertIn(root, self.daemon.wait(self.daemon.train(train_path=root), "failed")["message"])
        finally:
            os.chmod(root + "/A", 0o755)

    def test_devices_as_paths(self):
        for fields in ({"train_path": "/dev/null"}, {"weight_path": "/dev/zero"}, {"val_path": "/dev/null"}):
            self.daemon.wait(self.daemon.train(**fields), "failed", 20)
        for fields in ({"weight_path": "/dev/zero"}, {"cfg_path": "/dev/zero"}, {"cfg_path": "/dev/null"},
                       {"weight_path": "/tmp"}, {"cfg_path": "/tmp"}):
            response = self.daemon.post("/api/v2/inference/start", self.daemon.infer_fields(**fields))
            if response.status_code == 200:
                self.daemon.wait(response.json()["task_id"], "failed", 20)


if __name__ == "__main__":
    unittest.main()
