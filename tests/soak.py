"""Random use of the service for as long as you like, checked against what must always hold.

    RFUAV_BIN=build/rfuav /usr/bin/python3 tests/soak.py --seconds 600 [--chaos] [--seed 1]

Trainings and inferences are started, cancelled, deleted, read, streamed, and limits are changed, over four GPUs of a
device file. With --chaos workers and the daemon itself are killed with SIGKILL in between. Always:
  - no device runs more tasks of a kind than the largest limit it had;
  - a task that was answered is there until it is deleted, also after a crash of the daemon, and its final state stays;
  - at the end everything ends, no worker is left, and the daemon's memory and descriptors have not grown."""

import argparse
import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tests.api.harness import ENDED, Daemon, dataset, device_file, scratch  # noqa: E402

GPUS = 4
MOST_WAITING = 20  # new tasks are started up to this many
LARGEST_LIMIT = 3


class Soak:
    def __init__(self, seed, chaos):
        self.random = random.Random(seed)
        self.daemon = Daemon(devices=device_file(GPUS))
        self.set = dataset(images=6)
        self.out = scratch("soak")
        self.known = {}  # id -> final state, or None while it is not known to be over
        self.counts = {}
        self.actions = [(30, self.start), (15, self.read), (10, self.cancel), (10, self.delete), (5, self.limits),
                        (5, self.stream), (3, self.leave_stream)]
        if chaos:
            self.actions += [(4, self.kill_worker), (1, self.kill_daemon)]

    # -- what users do --

    def start(self):
        if sum(state is None for state in self.known.values()) >= MOST_WAITING:
            return
        device = self.random.choice(["cuda", "cuda", "cpu"] + [f"cuda:{i}" for i in range(GPUS)])
        fields = {"device": device, "priority": self.random.randint(1, 10)}
        if self.random.random() < 0.4:
            task = self.daemon.train(train_path=self.set, val_path=self.set, save_path=f"{self.out}/{len(self.known)}",
                                     num_epochs=self.random.randint(1, 4), keep_checkpoints=1, **fields)
        else:
            task = self.daemon.infer(source_path=f"{self.set}/A", save_path=f"{self.out}/{len(self.known)}", **fields)
        self.known[task] = None

    def any(self):
        return self.random.choice(list(self.known)) if self.known else None

    def read(self):
        task = self.any()
        if task:
            self.see(self.daemon.task(task))

    def cancel(self):
        task = self.any()
        if task:
            answer = self.daemon.cancel(task)
            assert answer.status_code in (200, 404), answer.text
            if answer.status_code == 200:
                assert self.daemon.task(task)["status"] == "cancelled"

    def delete(self):
        task = self.any()
        if task:
            answer = self.daemon.request("DELETE", f"/api/v2/tasks/{task}")
            assert answer.status_code in (200, 404), answer.text
            if answer.status_code == 200:
                assert self.daemon.get(f"/api/v2/tasks/{task}").status_code == 404
                del self.known[task]

    def limits(self):
        device = self.random.choice(["cuda", "cpu"] + [f"cuda:{i}" for i in range(GPUS)])
        kind = self.random.choice(["training", "inference"])
        body = {"max_concurrent": {device: {kind: self.random.randint(0, LARGEST_LIMIT)}}}
        answer = self.daemon.post("/api/v2/resources/config", body)
        assert answer.status_code == 200, answer.text

    def stream(self):
        over = [task for task, state in self.known.items() if state]
        if over:
            lines = self.daemon.lines(self.random.choice(over))
            assert [line for line in lines if line.get("message")], lines

    def leave_stream(self):
        task = self.any()
        if task:
            with self.daemon.connect() as connection:
                connection.sendall(f"GET /api/v2/tasks/{task}/logs HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                connection.recv(self.random.choice([1, 100, 10000]))

    def kill_worker(self):
        workers = self.daemon.workers()
        if workers:
            try:
                os.kill(self.random.choice(workers), signal.SIGKILL)
            except ProcessLookupError:
                pass

    def kill_daemon(self):
        self.daemon.kill(signal.SIGKILL)
        self.daemon.start()

    # -- what must hold --

    def see(self, record):
        """A final state never changes."""
        task, state = record["task_id"], record["status"]
        before = self.known.get(task)
        assert before in (None, state), f"{task} went from {before} to {state}"
        if state in ENDED:
            self.known[task] = state

    def check(self):
        answer = self.daemon.json("/api/v2/tasks?limit=1000000")
        listed = {task["task_id"]: task for task in answer["training_tasks"] + answer["inference_tasks"]}
        missing = set(self.known) - set(listed)
        assert not missing, f"lost: {missing}"
        for record in listed.values():
            self.see(record)
        usage = self.daemon.json("/api/v2/resources")["device_usage"]
        for device, kinds in usage.items():
            for kind, used in kinds.items():
                assert used <= max(LARGEST_LIMIT, 4), f"{device} runs {used} of {kind}"

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.daemon.process.pid}/fd"))

    def run(self, seconds):
        weights = [weight for weight, _ in self.actions]
        end, checked, steady = time.monotonic() + seconds, 0.0, None
        while time.monotonic() < end:
            _, action = self.random.choices(self.actions, weights)[0]
            action()
            self.counts[action.__name__] = self.counts.get(action.__name__, 0) + 1
            if time.monotonic() - checked > 1:
                self.check()
                checked = time.monotonic()
                if steady is None and time.monotonic() > end - 0.8 * seconds:
                    steady = self.daemon.memory_mb()
            time.sleep(self.random.random() * 0.1)
        opened = {"max_concurrent": {device: {"training": 2, "inference": 3}
                                     for device in ["cuda", "cpu"] + [f"cuda:{i}" for i in range(GPUS)]}}
        self.daemon.post("/api/v2/resources/config", opened)
        self.daemon.wait_all_over(180)
        self.check()
        memory, descriptors = self.daemon.memory_mb(), self.descriptors()
        assert memory < (steady or memory) + 8, f"the daemon grew from {steady:.1f} to {memory:.1f} MB"
        assert descriptors < 60, f"{descriptors} descriptors are open"
        self.daemon.stop()
        states = {state: list(self.known.values()).count(state) for state in ENDED}
        print(f"{sum(self.counts.values())} actions {self.counts}; tasks {states}; daemon {memory:.1f} MB, "
              f"{descriptors} descriptors")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--chaos", action="store_true")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    Soak(options.seed, options.chaos).run(options.seconds)


if __name__ == "__main__":
    main()
