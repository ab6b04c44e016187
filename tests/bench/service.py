"""Measures the service against its targets: start-up, memory, request rates, latencies under load, and whole tasks
against the same work in PyTorch. Prints one line a figure: measured, target, and whether it was reached.

    PYTHONPATH=. /usr/bin/python3 tests/bench/service.py [--only WORD] [--json FILE]

Needs wrk, python3-torch and python3-torchvision. Takes about five minutes on two cores; let nothing else run."""

import argparse
import json
import os
import re
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from datetime import datetime

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.api.harness import BINARY, Daemon, scratch  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS = []  # (name, function)
QUICK = {"MAX_TRAINING_CONCURRENT_CPU": "0", "TASK_QUEUE_SIZE": "1000000"}


def row(name):
    def enter(function):
        ROWS.append((name, function))
        return function
    return enter


class Figure:
    """One measured value. better: "less" or "more"; target None: for information."""

    def __init__(self, name, value, unit, target=None, better="less", note=""):
        self.name, self.value, self.unit, self.target, self.better, self.note = name, value, unit, target, better, note

    def reached(self):
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "less" else self.value >= self.target

    def line(self):
        word = {None: "", True: "reached", False: "MISSED"}[self.reached()]
        target = "" if self.target is None else f"{'≤' if self.better == 'less' else '≥'} {self.target:g} {self.unit}"
        return f"{self.name:<66} {self.value:>10.4g} {self.unit:<8} {target:<16} {word:<8} {self.note}".rstrip()


# ---- helpers ----

def wrk(daemon, path, seconds=3, runs=5, body=None, connections=16):
    """(requests a second, p99 in ms) of one thread and 16 connections: medians of several runs. body: of a POST."""
    rates, lates, script = [], [], []
    if body is not None:
        script = ["-s", scratch("wrk") + "/post.lua"]
        with open(script[1], "w", encoding="utf-8") as file:
            file.write(f"wrk.method = 'POST'\nwrk.body = [[{json.dumps(body)}]]\n"
                       "wrk.headers['Content-Type'] = 'application/json'\n")
    for _ in range(runs):
        output = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"] + script +
                                [daemon.url + path], capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in output:
            raise RuntimeError(output)
        found = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", output)
        lates.append(float(found.group(1)) * {"us": 1e-3, "ms": 1, "s": 1e3}[found.group(2)])
        rates.append(float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1)))
    return statistics.median(rates), statistics.median(lates)


def poll_health(daemon, seconds, interval=0.01):
    """Latencies in ms of health requests on one kept connection, one each `interval`."""
    request = b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n"
    times = []
    with daemon.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            started = time.monotonic()
            connection.sendall(request)
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65536)
            length = int(re.search(rb"(?i)content-length: (\d+)", data).group(1))
            while len(data) - data.index(b"\r\n\r\n") - 4 < length:
                data += connection.recv(65536)
            times.append((time.monotonic() - started) * 1000)
            time.sleep(max(0, interval - (time.monotonic() - started)))
    return sorted(times)


def p99(times):
    return times[min(len(times) - 1, int(len(times) * 0.99))]


def pictures(folder, count, size=224, classes=2):
    """Noisy PNG pictures, a folder for each class."""
    from PIL import Image
    for i in range(count):
        name = f"{folder}/c{i % classes}"
        os.makedirs(name, exist_ok=True)
        Image.effect_noise((size, size), 40 + 20 * (i % classes)).convert("RGB").save(f"{name}/{i:04}.png")
    return folder


_train_set = None


def train_set():
    global _train_set
    if _train_set is None:
        _train_set = pictures(scratch("bench"), 160)
    return _train_set


def training(daemon, **fields):
    base = {"train_path": train_set(), "val_path": train_set(), "image_size": 224, "batch_size": 8, "num_epochs": 5,
            "keep_checkpoints": 1}
    base.update(fields)
    return daemon.train(**base)


def stored(count):
    """A daemon that has `count` ended trainings in its store: one real record, copied."""
    daemon = Daemon(env=QUICK)
    task = daemon.train(num_epochs=1)
    daemon.cancel(task)
    daemon.stop()
    with sqlite3.connect(daemon.env["DATA_DIR"] + "/rfuav.db") as database:
        names = [entry[1] for entry in database.execute("pragma table_info(tasks)") if entry[1] != "seq"]
        values = dict(zip(names, database.execute(f"select {','.join(names)} from tasks").fetchone()))
        metrics = {"epoch": 1, "total_epochs": 1, "train_loss": 0.6931, "train_acc": 50.0, "val_loss": 0.7, "val_acc":
                   50.0, "macro_f1": 0.5, "micro_f1": 0.5, "mAP": 0.5, "learning_rate": 0.0001, "best_acc": 50.0}
        values.update(status="completed", progress=100, metrics=json.dumps(metrics), current_epoch=1)
        rows = ([f"bench-{i:08}" if name == "id" else values[name] for name in names] for i in range(count - 1))
        database.executemany(f"insert into tasks ({','.join(names)}) values ({','.join('?' * len(names))})", rows)
    daemon.start()
    return daemon


# ---- the figures ----

@row("start")
def start():
    times = []
    for _ in range(9):
        folder = scratch("start")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = dict(os.environ, DATA_DIR=folder + "/data", CUDA_VISIBLE_DEVICES="")
        begun = time.monotonic()
        process = subprocess.Popen([BINARY, "serve", "--port", str(port)], cwd=folder, env=env,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as connection:
                    connection.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
                    if b'"healthy"' in connection.recv(65536):
                        break
            except OSError:
                time.sleep(0.0005)
        times.append((time.monotonic() - begun) * 1000)
        process.terminate()
        process.wait()
    yield Figure("exec to first healthy answer (median of 9)", statistics.median(times), "ms", 50)


@row("memory")
def memory():
    daemon = Daemon()
    time.sleep(1)
    yield Figure("resident memory of the idle service", daemon.memory_mb(), "MB", 20)
    task = training(daemon, num_epochs=2)
    peak = 0
    while daemon.task(task)["status"] not in ("completed", "failed"):
        total = daemon.memory_mb()
        for pid in daemon.workers():
            try:
                total += daemon.memory_mb(pid)
            except (OSError, AttributeError):
                pass
        peak = max(peak, total)
        time.sleep(0.02)
    yield Figure("resident memory, service and worker, of a resnet18 training at batch 8", peak, "MB", 571)
    yield Figure("resident memory of the service afterwards", daemon.memory_mb(), "MB")
    daemon.stop()


@row("health")
def health():
    daemon = Daemon()
    rate, late = wrk(daemon, "/api/v1/health")
    yield Figure("GET health", rate, "/s", 60000, "more")
    yield Figure("GET health, p99", late, "ms", 1)
    daemon.stop()
    fresh = rate
    daemon = stored(1000)
    rate, _ = wrk(daemon, "/api/v1/health")
    yield Figure("GET health with 1 000 tasks stored", rate, "/s", 0.9 * fresh, "more", "(0.9 × with none)")
    daemon.stop()


@row("starts")
def starts():
    daemon = Daemon(env=QUICK)
    for connections in (1, 16):
        rate, late = wrk(daemon, "/api/v2/training/start", 2, 3, daemon.train_fields(), connections)
        yield Figure(f"POST of starts, {connections} at a time, each on disk when answered", rate, "/s")
        yield Figure(f"POST of starts, {connections} at a time, p99", late, "ms", 50)
    known = daemon.json("/api/v1/health")["training_tasks"]
    daemon.kill(signal.SIGKILL)
    daemon.start()
    yield Figure("kill -9 then: starts that were answered and are lost",
                 known - daemon.json("/api/v1/health")["training_tasks"], "", 0)
    daemon.stop()


@row("list")
def lists():
    for count in (1000, 100000):
        daemon = stored(count)
        answer = daemon.json("/api/v2/tasks")
        assert len(answer["training_tasks"]) == 100 and answer["total_training"] == count, answer["total_training"]
        rate, late = wrk(daemon, "/api/v2/tasks")
        yield Figure(f"GET tasks with {count:,} stored, 100 returned", rate, "/s", 6000, "more")
        yield Figure(f"GET tasks with {count:,} stored, p99", late, "ms", 10)
        if count > 1000:
            begun = time.monotonic()
            daemon.stop()
            daemon.start()
            yield Figure(f"stop and start with {count:,} stored", (time.monotonic() - begun) * 1000, "ms")
        daemon.stop()


@row("load")
def load():
    daemon = Daemon()
    task = training(daemon, num_epochs=1000)
    daemon.until(lambda: daemon.task(task)["current_epoch"], 60)
    yield Figure("health while a training uses all cores, p99", p99(poll_health(daemon, 10)), "ms", 5)
    streams = [daemon.connect(60) for _ in range(200)]
    read, stop = [0] * 200, threading.Event()

    def drain():
        import select
        while not stop.is_set():
            for ready in select.select(streams, [], [], 0.1)[0]:
                read[streams.index(ready)] += len(ready.recv(65536))
    for stream in streams:
        stream.sendall(f"GET /api/v2/tasks/{task}/logs HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    reader = threading.Thread(target=drain)
    reader.start()
    daemon.until(lambda: daemon.json("/api/v1/health")["active_log_streams"] == 200, 20)
    times = poll_health(daemon, 10)
    stop.set()
    reader.join()
    assert min(read) > 0
    for stream in streams:
        stream.close()
    yield Figure("the same with 200 open log streams, p99", p99(times), "ms", 5)
    begun = time.monotonic()
    daemon.cancel(task)
    daemon.until(lambda: not daemon.workers(), 10)
    yield Figure("cancel a running training: until its process is gone", time.monotonic() - begun, "s", 2)
    daemon.stop()


def weights():
    """cfg and weights of a resnet18 at 224, trained for one epoch by the service."""
    daemon, out = Daemon(), scratch("weights")
    daemon.wait(training(daemon, num_epochs=1, save_path=out), "completed", 120)
    daemon.stop()
    return out + "/config.yaml", out + "/best_model.pth"


@row("inference")
def inference():
    cfg, weight = weights()
    daemon = Daemon()
    source = pictures(scratch("hundred"), 100, classes=1) + "/c0"
    times = []
    for _ in range(5):
        begun = time.monotonic()
        daemon.wait(daemon.infer(cfg_path=cfg, weight_path=weight, source_path=source), "completed")
        times.append(time.monotonic() - begun)
    yield Figure("inference of 100 PNG 224×224, resnet18, CPU, POST to completed", statistics.median(times), "s", 1.5)
    begun = time.monotonic()
    daemon.wait(daemon.infer(cfg_path=cfg, weight_path=weight, source_path=source + "/0000.png"), "completed")
    yield Figure("the same for one picture", time.monotonic() - begun, "s")
    daemon.stop()


def epoch_rates(daemon, task, images):
    """Images a second of the training part of each epoch, from the log's times."""
    begun, rates = None, []
    for line in daemon.lines(task):
        now = datetime.fromisoformat(line["timestamp"]) if "timestamp" in line else None
        if line.get("stage") == "epoch_start":
            begun = now
        elif line.get("stage") == "training" and begun and "train_loss" in line["metrics"]:
            rates.append(images / (now - begun).total_seconds())
            begun = None
    return rates


def torch_rates(threads, loader_workers=0, channels_last=False):
    done = subprocess.run([sys.executable, os.path.join(HERE, "torch_loop.py"), train_set(), str(threads),
                           str(loader_workers), str(int(channels_last))], capture_output=True, text=True, check=True,
                          env=dict(os.environ, OMP_NUM_THREADS=str(threads)))
    return json.loads(done.stdout)


@row("training")
def train():
    daemon, cores = Daemon(), os.cpu_count()
    train_set()
    begun = time.monotonic()
    task = training(daemon)
    daemon.until(lambda: [line for line in daemon.lines(task) if line.get("stage") == "epoch_start"], 60)
    yield Figure("POST of a training until its first epoch begins", time.monotonic() - begun, "s", 2)
    daemon.wait(task, "completed", 300)
    rates = epoch_rates(daemon, task, 160)
    daemon.stop()
    peers = {
        "as shipped (cores − 1 threads)": torch_rates(max(cores - 1, 1)),
        "all cores": torch_rates(cores),
        "all cores, channels_last": torch_rates(cores, 0, True),
        "all cores, channels_last, loader processes": torch_rates(cores, cores, True),
    }
    best = 0
    for name, values in peers.items():
        best = max(best, statistics.median(values))
        yield Figure(f"PyTorch, {name}", statistics.median(values), "images/s")
    yield Figure("training resnet18, batch 8, 224, 160 PNG an epoch, first epoch", rates[0], "images/s")
    yield Figure("training resnet18, batch 8, 224, 160 PNG an epoch, median", statistics.median(rates), "images/s",
                 1.3 * best, "more", "(1.3 × the best PyTorch loop)")


@row("end")
def end():
    daemon = Daemon()
    done = training(daemon, num_epochs=1)
    record = daemon.wait(done, "completed", 120)
    lines = daemon.lines(done)
    task = training(daemon, num_epochs=1000)
    daemon.until(lambda: (daemon.task(task)["current_epoch"] or 0) >= 2, 120)
    begun = time.monotonic()
    daemon.kill(signal.SIGTERM)
    yield Figure("SIGTERM during a training, until the service has ended", time.monotonic() - begun, "s", 5)
    daemon.start()
    daemon.wait(task, "running")
    daemon.kill(signal.SIGKILL)
    begun = time.monotonic()
    daemon.start()
    ready = time.monotonic() - begun
    lost = (daemon.task(done) != record) + (daemon.lines(done) != lines) + \
        (daemon.task(task)["status"] not in ("pending", "queued", "running"))
    yield Figure("kill -9, restart: records, logs and running tasks lost", lost, "", 0)
    yield Figure("kill -9, restart: until it answers", ready * 1000, "ms")
    daemon.cancel_all()
    daemon.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="measure only rows with this word: " +
                        ", ".join(name for name, _ in ROWS))
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    figures = []
    for name, function in ROWS:
        if options.only not in name:
            continue
        for figure in function():
            print(figure.line(), flush=True)
            figures.append(figure)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump([vars(figure) for figure in figures], file, indent=1, ensure_ascii=False)
    return 1 if any(figure.reached() is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
