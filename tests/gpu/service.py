#!/usr/bin/env python3
"""service.py [PART...]: the whole service on a real NVIDIA GPU, end to end, through its HTTP API. Prints every figure and
whether it is what it should be; ends with 1 when one is not. Without a GPU it says so and ends with 0.

    make bundle && tests/gpu/service.py                 what is in build/bundle, or $RFUAV_BIN
    tests/gpu/service.py cancel kill                    these parts alone

Nothing else should use the card meanwhile: its memory is looked at."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from card import MIB, Holder
from parts import Parts, check, gib, memory_back, tell
from running import ENDED, RFUAVError, Service, seconds_between, until, without

part = Parts()


def in_order(patterns, messages):
    """The first of the patterns that is not found after the one before it; None when all are there."""
    at = 0
    for pattern in patterns:
        found = next((i for i in range(at, len(messages)) if re.search(pattern, messages[i])), None)
        if found is None:
            return pattern
        at = found + 1
    return None


TRAINING_LINES = ["waiting for CUDA resources", "resources allocated, using device: cuda:0", "training starts",
                  "model: resnet18", "device: cuda:0", "batch size: 32", "epochs: 2", "output folder: ",
                  "Loading model: resnet18", "resnet18 loaded onto device: cuda:0", "Loading dataset from: ",
                  r"Epoch \[1/2\] started", r"Epoch \[1/2\], Train Loss: [0-9.]+, Train Accuracy: ",
                  "Starting validation", "Validation Loss: [0-9.]+, Validation Accuracy: ", "Validation macro_F1: ",
                  "Model saved at ", "New best model saved", r"Epoch \[2/2\] started", "training completed!"]
TRAINING_FILES = {"ResNet_epoch_2.pth", "best_model.pth", "config.yaml", "metrics.csv", "train.log"}


@part
def train(service, card):
    """A training from JPEG files: its lines, its files, and how long the first step takes."""
    data, out = service.synth(), service.new_folder("out")
    task = service.train(data, save_path=out)
    record = service.wait(task, "completed")
    check("training on a GPU", record["device"] == "cuda:0" and record["progress"] == 100, record["message"])
    check("its log", in_order(TRAINING_LINES, service.messages(task)) is None,
          in_order(TRAINING_LINES, service.messages(task)) or f"{len(service.messages(task))} lines")
    warnings = [line["message"] for line in service.lines(task) if line["level"] != "INFO"]
    check("without a warning", not warnings, "; ".join(warnings))
    check("its files", TRAINING_FILES <= set(os.listdir(out)), " ".join(sorted(os.listdir(out))))
    tell("validation accuracy", f"{record['latest_metrics']['val_acc']} %")
    few = service.synth(train=2, val=2)
    for name in ("first", "warm"):  # an epoch of one step: its loss is logged when the step is done
        task = service.train(few, batch_size=8, num_epochs=1)
        record = service.wait(task, "completed")
        took = seconds_between(record["created_at"], service.said(task, "Train Loss")["timestamp"])
        check(f"POST to first step done, {name}", name == "first" or took <= 2, f"{took:.2f} s")


def cancelled(service, card, task, free, what):
    service.wait(task, "running")
    pids = service.workers()
    until(lambda: (service.client.get_task(task)["progress"] or 0) > 0, 60, f"progress of {what}")
    held = sum(card.used_by(pid) for pid in pids)
    check(f"{what} holds memory of the card", held > 300 * MIB, gib(held))
    begun = time.monotonic()
    service.client.cancel_task(task)
    state = service.client.get_task(task)["status"]
    memory_back(card, pids, free)
    took = time.monotonic() - begun
    check(f"cancel of {what}: memory back", state == "cancelled" and took <= 1, f"{took:.2f} s")
    check(f"{what} stays cancelled, its process gone", service.client.get_task(task)["status"] == "cancelled" and
          not service.workers())


@part
def cancel(service, card):
    """Cancelled work gives the card's memory back within a second."""
    free, data = card.free(), service.synth(train=20, val=5)
    model = service.new_folder("model")
    service.wait(service.train(data, save_path=model), "completed")
    many = service.multiplied(data, 20000)
    for precision in ("fp32", "bf16"):
        cancelled(service, card, service.train(many, num_epochs=100, precision=precision), free,
                  f"a training in {precision}")
    cancelled(service, card, service.infer(model, f"{many}/train/{os.listdir(f'{many}/train')[0]}", batch_size=32),
              free, "an inference")


def predictions(folder):
    with open(f"{folder}/predictions.csv", encoding="utf-8") as file:
        return [(row["file"], row["class"]) for row in csv.DictReader(file)]


def same_share(a, b):
    return sum(x == y for x, y in zip(a, b)) / max(len(a), len(b), 1)


@part
def together(service, card):
    """Two trainings and three inferences at once on one card, and each does what it does alone."""
    data, model = service.synth(train=40, val=10), service.new_folder("model")
    alone = service.wait(service.train(data, save_path=model, num_epochs=3), "completed")["latest_metrics"]
    many = service.multiplied(data, 2000)
    source, results = f"{many}/train/{sorted(os.listdir(f'{many}/train'))[0]}", service.new_folder("alone")
    service.wait(service.infer(model, source, save_path=results), "completed")
    service.client.update_resource_config({"cuda": {"training": 2, "inference": 3}})
    free, outs = card.free(), [service.new_folder("res") for _ in range(3)]
    tasks = [service.train(data, num_epochs=3), service.train(many, num_epochs=2, precision="bf16")]
    tasks += [service.infer(model, source, save_path=out) for out in outs]
    most, least = 0, free
    while not all(service.client.get_task(task)["status"] in ENDED for task in tasks):
        running = service.client.get_all_tasks(status="running")
        most = max(most, len(running["training_tasks"]) + len(running["inference_tasks"]))
        least = min(least, card.free())
    records = [service.wait(task, "completed") for task in tasks]
    check("five tasks at once", most == 5, f"{most} at once, {gib(free - least)} of the card")
    check("all on cuda:0", all(record["device"] == "cuda:0" for record in records))
    metrics = records[0]["latest_metrics"]
    check("the training ends as it does alone", metrics == alone, f"validation loss {metrics['val_loss']}, alone "
          f"{alone['val_loss']}")
    check("the inferences say what one alone says", all(predictions(out) == predictions(results) for out in outs),
          f"{len(predictions(results))} pictures each")
    check("nothing is held afterwards", memory_back(card, set(), free) <= 1)
    service.client.update_resource_config({"cuda": {"training": 1, "inference": 3}})


def refusal(service, data, **fields):
    """What the service says when a training cannot fit: (sentence, largest batch); None: it was accepted."""
    try:
        task = service.train(data, **fields)
    except RFUAVError as error:
        found = re.search(r"largest batch_size that fits is (\d+)", str(error))
        return str(error), int(found.group(1)) if found else 0
    service.client.cancel_task(task)
    until(lambda: not service.workers(), 5, "the end of the cancelled worker")
    return None


@part
def largest(service, card):
    """The largest batch that the refusal of a larger one names is one that trains, and right: the same pictures over and
    over have the loss that they have once."""
    data, free = service.synth(train=8, val=2), card.free()
    for model, precision in (("resnet18", "bf16"), ("resnet50", "fp32"), ("resnet50", "bf16")):
        fields = {"model": model, "precision": precision, "num_epochs": 1}
        said, batch = refusal(service, data, batch_size=65536, **fields)
        check(f"{model} {precision}, batch 65536 is refused", batch > 1, said)
        check("1 % more is refused too", refusal(service, data, batch_size=batch + batch // 100 + 1, **fields))
        once = service.train(data, batch_size=32, **fields)
        service.wait(once, "completed")
        many = service.multiplied(data, batch // 32 * 32)
        least, task = free, service.train(many, batch_size=batch, **fields)
        while (record := service.client.get_task(task))["status"] not in ENDED:
            least = min(least, card.free())
        losses = [service.said(one, "Train Loss") for one in (once, task)]
        check(f"one step with {batch // 32 * 32} pictures of at most {batch}", record["status"] == "completed",
              losses[1]["message"] if losses[1] else record["message"])
        tell("of the card", f"{gib(free - least)} taken at most, {gib(least)} left")
        if losses[1]:
            values = [line["metrics"]["train_loss"] for line in losses]
            check("its loss is that of the pictures alone", abs(values[0] - values[1]) < 0.02, f"{values[1]}, {values[0]}")


@part
def taken(service, card):
    """Another program takes the card's memory: who needs it waits or fails with a sentence, others go on."""
    data = service.synth(train=40, val=10)
    many = service.multiplied(data, 4000)
    service.client.update_resource_config({"cuda": {"training": 3}})
    other = service.train(many, num_epochs=1000, save_path=service.new_folder("other"))
    until(lambda: (service.client.get_task(other)["current_epoch"] or 0) >= 1, 60, "the other task's first epoch")
    needy = {"model": "resnet50", "batch_size": 128, "num_epochs": 1}
    with Holder() as holder:
        holder.take(2 << 30)
        time.sleep(1.5)  # a sample of the driver's figures later
        task = service.train(data, **needy)
        record = until(lambda: (lambda r: r if "held by other" in (r["message"] or "") else None)(
            service.client.get_task(task)), 10, "a waiting reason")
        check("a task that does not fit now waits and says why", record["status"] == "queued", record["message"])
        said = float(re.search(r"([\d.]+) GB free", record["message"]).group(1)) * (1 << 30)
        check("what is free is what the driver says", abs(said - card.free()) < 200 * MIB, gib(card.free()))
    begun = time.monotonic()
    service.wait(task, ("running", "completed"), 10)
    check("it starts when the memory is back", True, f"{time.monotonic() - begun:.2f} s later")
    service.wait(task, "completed")
    for attempt in range(5):  # the daemon's figures are up to a second old: it lets the task in most of the time
        with Holder() as holder:
            time.sleep(1.2)
            holder.take(700 * MIB)
            task = service.train(data, **needy)
            record = until(lambda: (lambda r: r if r["status"] in ENDED or "held by" in r["message"] else None)(
                service.client.get_task(task)), 20, "an end or a reason")
            if record["status"] == "failed":
                break
            service.client.cancel_task(task)
    message = record["message"]
    check("memory gone between admission and start: the task fails with a sentence", record["status"] == "failed",
          message)
    check("it names what is needed, what is free and what would fit", all(
        re.search(pattern, message) for pattern in (r"[\d.]+ GB", "free", "batch_size|cpu")))
    epoch = service.client.get_task(other)["current_epoch"]
    until(lambda: service.client.get_task(other)["current_epoch"] > epoch, 30, "another epoch of the other task")
    check("the other task goes on, the service is healthy", service.healthy(), f"epoch {epoch + 1}")
    service.client.cancel_task(other)
    until(lambda: not service.workers(), 5, "the end of the cancelled worker")


@part
def kill(service, card):
    """A worker that is killed costs one task and no memory."""
    free, data = card.free(), service.synth(train=20, val=5)
    many = service.multiplied(data, 20000)
    first, second = service.train(many, num_epochs=100), service.train(data)
    until(lambda: (service.client.get_task(first)["progress"] or 0) > 0, 60, "progress")
    pid, = service.workers()
    service.client.update_resource_config({"cuda": {"training": 0}})  # the next one waits until the memory was seen
    os.kill(pid, signal.SIGKILL)
    took = memory_back(card, {pid}, free)
    record = service.wait(first, "failed", 5)
    check("kill -9 of a worker: its task fails", "SIGKILL" in record["message"], record["message"])
    check("its memory is back", took <= 1, f"{took:.2f} s")
    check("the next one waits", service.client.get_task(second)["status"] == "queued")
    service.client.update_resource_config({"cuda": {"training": 1}})
    service.wait(second, "completed")
    check("and runs", True)


@part
def precision(service, card):
    """fp32 and bf16 in trainings, inferences and batches of inferences."""
    data, models = service.synth(train=60, val=20), {}
    for word in ("fp32", "bf16"):
        out, free, least = service.new_folder("model"), card.free(), card.free()
        task = service.train(data, save_path=out, precision=word, num_epochs=6, learning_rate=0.001)
        while service.client.get_task(task)["status"] not in ENDED:
            least = min(least, card.free())
        record = service.wait(task, "completed")
        check(f"training in {word}", record["latest_metrics"]["best_acc"] > 50,
              f"{record['latest_metrics']['best_acc']} % of 4 classes, {gib(free - least)} of the card")
        models[word] = out
    source, said = f"{data}/valid/{sorted(os.listdir(f'{data}/valid'))[0]}", {}
    for word in ("fp32", "bf16"):
        out = service.new_folder("single")
        service.wait(service.infer(models["fp32"], source, save_path=out, precision=word), "completed")
        said[word] = predictions(out)
        base = service.new_folder("batch")
        answer = service.client.start_batch_inference(f"{models['fp32']}/config.yaml",
                                                      f"{models['fp32']}/best_model.pth", [source, source],
                                                      save_base_path=base, device="cuda", precision=word)
        for task in answer["task_ids"]:
            service.wait(task, "completed")
        check(f"batch inference in {word} as the single one", all(predictions(f"{base}/{i}") == said[word]
                                                                  for i in range(2)), f"{len(said[word])} pictures")
    share = same_share(said["fp32"], said["bf16"])
    check("bf16 says what fp32 says", share >= 0.9, f"{100 * share:.0f} % of the pictures")
    try:
        service.infer(models["fp32"], source, precision="fp8")
        check("an unknown precision is refused", False)
    except RFUAVError as error:
        check("an unknown precision is refused", error.status == 400, error)


OLD_CUDNN = "unsigned long cudnnGetVersion(void) { return 90000; }\n"


def fails(program, data, name, words, **options):
    """On a service with these options a training on the GPU fails with a sentence that has the words; one on the CPU
    runs."""
    with Service(program, **options) as service:
        task = service.train(data, num_epochs=1)
        message = service.wait(task, "failed", 20)["message"]
        check(name, all(word in message for word in words), message)
        other = service.train(data, num_epochs=1, device="cpu", image_size=64)
        check("  the CPU computes, the service is healthy", service.wait(other, "completed") and service.healthy())


@part
def errors(service, card):
    """What a task says where CUDA's libraries, the driver or the GPU are not as they should be."""
    data = service.synth(train=4, val=2, size=64)
    if os.geteuid() == 0:
        fails(service.program, data, "no cuDNN", ("cuDNN 9 was not found", "RFUAV_CUDA_LIBRARIES", "pip install",
                                                  "/usr/local/cuda", "cpu"), wrap=without("libcudnn.so.9"))
        fails(service.program, data, "no cuDNN, in Chinese", ("训练失败: 没有找到 cuDNN 9", "请安装", "cpu"), lang="zh",
              wrap=without("libcudnn.so.9"))
        fails(service.program, data, "no cuBLASLt", ("cuBLASLt", "was not found", "pip install", "cpu"),
              wrap=without("libcublasLt.so.13", "libcublasLt.so.12"))
        fails(service.program, data, "no libcuda.so.1", ("no NVIDIA driver was found (libcuda.so.1)", "cpu"),
              wrap=without("libcuda.so.1"))
    else:
        print("        skipped: hiding libraries needs root")
    fake = service.new_folder("old")
    os.mkdir(fake)
    built = subprocess.run(["cc", "-shared", "-fPIC", "-o", f"{fake}/libcudnn.so.9", "-x", "c", "-"], input=OLD_CUDNN,
                           encoding="utf-8", check=False) if shutil.which("cc") else None
    if built and built.returncode == 0:
        fails(service.program, data, "a cuDNN that lacks functions", ("too old", "cuDNN 9", "cpu"),
              env={"RFUAV_CUDA_LIBRARIES": fake})
    else:
        print("        skipped: no compiler for a library that is too old")
    for name, env, said in (("no GPU visible", {"CUDA_VISIBLE_DEVICES": ""}, "hides all"),
                            ("no CUDA object", {"RFUAV_CUDA_OBJECT": "/nonexistent/x.so"}, "CUDA")):
        with Service(service.program, env=env) as other:
            task = other.train(data, num_epochs=1, image_size=64)
            record = other.wait(task)
            lines = [line["message"] for line in other.lines(task) if line["level"] == "WARNING"]
            check(name, record["status"] == "completed" and any(said in line for line in lines) or
                  said in record["message"], "; ".join(lines) or record["message"])


@part
def tools(service, card):
    """`rfuav devices` and `rfuav bench` as a user sees them."""
    text = service.run("devices")
    print(text)
    check("rfuav devices names the card and the engine's libraries", card.name() in text and "cuDNN" in text)
    text = service.run("bench", "--model", "resnet18", "--batch", "1,32", "--seconds", "0.1")
    print(text)
    rows = [line.split() for line in text.splitlines() if line.startswith("resnet18")]
    check("rfuav bench prints a row for each case", len(rows) == 8 and all(float(row[4]) > 0 for row in rows))
    fast = {(row[1], row[2], row[3]): float(row[5]) for row in rows}
    check("bf16 is faster at batch 32", fast["train", "bf16", "32"] > fast["train", "fp32", "32"],
          f"{fast['train', 'bf16', '32']:.0f} and {fast['train', 'fp32', '32']:.0f} images/s")


if __name__ == "__main__":
    sys.exit(part.main())
