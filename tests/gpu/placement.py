#!/usr/bin/env python3
"""placement.py [PART...]: which card a task is on, on a machine with two NVIDIA GPUs, as the driver sees it: the service
says cuda:1, NVML must list the task's process on GPU 1 and nowhere else. Prints every figure and whether it is what it
should be; ends with 1 when one is not. With one GPU or none it says so and ends with 0.

    make bundle && tests/gpu/placement.py              what is in build/bundle, or $RFUAV_BIN

Nothing else should use the first two cards meanwhile."""

import os
import re
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from card import MIB, Holder
from parts import Parts, check, gib
from running import RFUAVError, Service, until

part = Parts(cards=2)
LONG = {"num_epochs": 100000}


def pid_of(service, task):
    """Process id of the task's latest worker; 0: none has been started yet."""
    return int((["0"] + re.findall(rf"{re.escape(task)} worker started pid=(\d+)", service.log()))[-1])


def seen_on(cards, pid):
    """Indices of the cards on which the driver lists the process."""
    return [i for i, card in enumerate(cards) if pid in card.processes()]


def placed(service, cards, task):
    """(the device that the service says, the cards that the driver says) of a task that runs."""
    record = service.wait(task, "running")
    until(lambda: seen_on(cards, pid_of(service, task)), 20, f"{task}'s process on a card")
    return record["device"], seen_on(cards, pid_of(service, task))


def stop(service, *tasks):
    for task in tasks:
        service.client.cancel_task(task)
    until(lambda: not service.workers(), 10, "the end of the cancelled workers")


@part
def spread(service, cards):
    """"cuda" takes the card with fewer tasks, then the one that others leave alone, then the lower number; with room."""
    data = service.synth(train=20, val=5)
    tasks = [service.train(data, **LONG) for _ in range(2)]
    check("two trainings take a card each", [placed(service, cards, task) for task in tasks] ==
          [("cuda:0", [0]), ("cuda:1", [1])], [placed(service, cards, task) for task in tasks])
    show(service, cards, tasks)
    stop(service, *tasks)
    with Holder(cards[0].uuid()) as holder:
        holder.take(cards[0].memory()[0] // 2)
        time.sleep(1.5)
        task = service.train(data, **LONG)
        check("with another program on GPU 0 the next one goes to GPU 1", placed(service, cards, task) == ("cuda:1", [1]),
              f"{gib(cards[0].free())} and {gib(cards[1].free())} free")
        stop(service, task)
        holder.take(1 << 30)
        time.sleep(1.5)  # a sample of the driver's figures later
        task = service.train(data, model="resnet50", batch_size=64, **LONG)
        check("with GPU 0 full the next one goes to GPU 1", placed(service, cards, task) == ("cuda:1", [1]),
              f"{gib(cards[0].free())} and {gib(cards[1].free())} free")
        stop(service, task)


def show(service, cards, tasks):
    """What `rfuav devices` and the API show while a training runs on each card."""
    until(lambda: all(gpu["gpu_utilization"] for gpu in service.client.get_gpu_info()["devices"]), 10,
          "load on both cards")
    gpus = service.client.get_gpu_info()["devices"]
    check("the API lists both cards in the driver's order", [gpu["uuid"] for gpu in gpus] == [card.uuid() for card in cards],
          ", ".join(f"{gpu['device_name']} {gpu['name']} {gpu['compute_capability']}" for gpu in gpus))
    apart = [abs(gpu["free_memory_gb"] * (1 << 30) - card.free()) for gpu, card in zip(gpus, cards)]
    check("with the free memory that the driver tells", max(apart) < 300 * MIB,
          ", ".join(f"{gpu['free_memory_gb']:.2f} of {gpu['total_memory_gb']:.2f} GB" for gpu in gpus))
    check("live", all(gpu["gpu_utilization"] > 0 and gpu["temperature_c"] > 0 and gpu["power_w"] > 0 and
                      gpu["current_tasks"]["training"] == 1 for gpu in gpus),
          ", ".join(f"{gpu['gpu_utilization']} %, {gpu['temperature_c']} °C, {gpu['power_w']} W" for gpu in gpus))
    text = service.run("devices")
    print(text)
    check("rfuav devices shows both and who is on them", all(
        re.search(rf"^cuda:{i} .*1/1 .*{re.escape(cards[i].name())}", text, re.M) and f"cuda:{i}: training {task}" in text
        for i, task in enumerate(tasks)))


@part
def pinned(service, cards):
    """"cuda:1" is obeyed, however free the other card is."""
    data = service.synth(train=20, val=5)
    first = service.train(data, device="cuda:1", **LONG)
    check("cuda:1 is GPU 1", placed(service, cards, first) == ("cuda:1", [1]), placed(service, cards, first))
    second = service.train(data, device="cuda:1", **LONG)
    record = until(lambda: (lambda r: r if first in r["message"] else None)(service.client.get_task(second)), 5, "a reason")
    check("a second one waits for it", record["status"] == "queued", record["message"])
    model = service.new_folder("model")
    other = service.train(data, save_path=model, device="cuda:0")
    check("and does not keep GPU 0 from others", placed(service, cards, other)[1] == [0])
    service.wait(other, "completed")
    source = f"{data}/train/{sorted(os.listdir(f'{data}/train'))[0]}"
    task = service.infer(model, source, device="cuda:1")
    check("an inference is pinned too", service.wait(task, "completed")["device"] == "cuda:1")
    pid = pid_of(service, first)
    check("nothing of it is on GPU 0", seen_on(cards, pid) == [1] and not any(
        pid in cards[0].processes() for pid in service.workers()))
    service.client.cancel_task(first)
    check("it goes there when there is room", placed(service, cards, second) == ("cuda:1", [1]))
    stop(service, second)
    try:
        service.train(data, device="cuda:2")
        check("cuda:2 is refused", False)
    except RFUAVError as error:
        check("cuda:2 is refused", "out of range" in str(error), str(error))


class Watch:
    """Counts, from NVML, how many of the service's processes are on each card at a time, until the end of the block."""

    def __init__(self, service, cards):
        self._service, self._cards, self._stop = service, cards, threading.Event()
        self.most, self.samples = [0] * len(cards), 0
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stop.is_set():
            lists = [set(card.processes()) for card in self._cards]  # before the list of workers: a new one is not missed
            ours = self._service.workers()
            self.most = [max(most, len(ours & found)) for most, found in zip(self.most, lists)]
            self.samples += 1
            time.sleep(0.002)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def devices_of(service, tasks):
    records = [service.wait(task, "completed", 60) for task in tasks]
    return [sum(record["device"] == f"cuda:{i}" for record in records) for i in range(2)]


@part
def limits(service, cards):
    """Limits of each card hold when 16 requests arrive at once."""
    data = service.synth(train=20, val=5)
    model = service.new_folder("model")
    service.wait(service.train(data, save_path=model), "completed")
    source = f"{data}/train/{sorted(os.listdir(f'{data}/train'))[0]}"
    few = {"num_epochs": 3, "image_size": 64}
    for wanted, kind, start in (((2, 2), "training", lambda _: service.train(data, **few)),
                                ((1, 3), "training", lambda _: service.train(data, **few)),
                                ((3, 1), "inference", lambda _: service.infer(model, source))):
        service.client.update_resource_config({f"cuda:{i}": {kind: limit} for i, limit in enumerate(wanted)})
        with Watch(service, cards) as watch, ThreadPoolExecutor(16) as pool:
            begun = time.monotonic()
            tasks = list(pool.map(start, range(16)))
            took = devices_of(service, tasks)
        check(f"16 {kind}s at once, limits {wanted[0]} and {wanted[1]}: never more on a card",
              all(most <= limit for most, limit in zip(watch.most, wanted)) and sum(took) == 16 and watch.samples > 20,
              f"at most {watch.most[0]} and {watch.most[1]} processes in {watch.samples} looks; {took[0]} and {took[1]} "
              f"of the tasks; {time.monotonic() - begun:.1f} s")
        if kind == "training":  # inferences are so short that they need not meet
            check("and as many as may", watch.most == list(wanted))
    pinned = [1] * 8 + [0] * 8
    service.client.update_resource_config({f"cuda:{i}": {"training": 2} for i in range(2)})
    with Watch(service, cards) as watch, ThreadPoolExecutor(16) as pool:
        tasks = list(pool.map(lambda i: service.train(data, device=f"cuda:{i}", **few), pinned))
        took = devices_of(service, tasks)
    check("16 pinned ones, 8 to each card", took == [8, 8] and max(watch.most) <= 2, f"{watch.most}")


@part
def neither(service, cards):
    """A task that fits on neither card waits and names both."""
    data = service.synth(train=20, val=5)
    with Holder(cards[0].uuid()) as first:
        with Holder(cards[1].uuid()) as second:
            first.take(2 << 30)
            second.take(3 << 30)
            time.sleep(1.5)
            task = service.train(data, model="resnet50", batch_size=128, **LONG)
            record = until(lambda: (lambda r: r if "held by other" in (r["message"] or "") else None)(
                service.client.get_task(task)), 10, "a waiting reason")
            check("it waits with a reason for each card", record["status"] == "queued" and all(
                re.search(rf"{name}: [\d.]+ GB needed, [\d.]+ GB free", record["message"]) for name in ("cuda:0", "cuda:1")),
                record["message"])
        begun = time.monotonic()
        check("it takes the card that becomes free", placed(service, cards, task) == ("cuda:1", [1]),
              f"{time.monotonic() - begun:.2f} s later")
        stop(service, task)


@part
def restart(service, cards):
    """kill -9 of the service: its workers end, and at the next start a task goes where it was told to be."""
    free, data = [card.free() for card in cards], service.synth(train=20, val=5)
    tasks = [service.train(data, device=device, **LONG) for device in ("cuda:1", "cuda:0", "cuda:1", "cuda")]
    before = [placed(service, cards, task) for task in tasks[:2]]
    pids = service.workers()
    begun = time.monotonic()
    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait()
    until(lambda: all(not seen_on(cards, pid) for pid in pids) and all(
        card.free() >= was - 32 * MIB for card, was in zip(cards, free)), 10, "free cards")
    check("its workers leave both cards", True, f"{time.monotonic() - begun:.2f} s")
    service.start()
    after = [placed(service, cards, task) for task in tasks[:2]]
    check("after the restart each is on its card again", after == before == [("cuda:1", [1]), ("cuda:0", [0])], after)
    messages = [service.client.get_task(task)["message"] for task in tasks[2:]]
    check("those that waited wait, with their devices", "(cuda:1: training 1/1" in messages[0] and
          "(cuda: training 2/2" in messages[1], "; ".join(messages))
    service.client.cancel_task(tasks[0])
    check("the pinned one that waited gets its card", placed(service, cards, tasks[2]) == ("cuda:1", [1]))
    service.client.cancel_task(tasks[1])
    check("and the free one the other", placed(service, cards, tasks[3]) == ("cuda:0", [0]))
    stop(service, *tasks[2:])


def where(program, cards, data, env, device):
    """(cards that a task on this device is on, UUID that the API shows for it, what it says of cuda:1 if that is not
    there) of a service with this environment."""
    with Service(program, env=env) as service:
        task = service.train(data, device=device, image_size=64, **LONG)
        on, uuid = placed(service, cards, task)[1], service.client.get_gpu_info()["devices"][int(device[-1])]["uuid"]
        try:
            service.train(data, device="cuda:1")
            return on, uuid, ""
        except RFUAVError as error:
            return on, uuid, str(error)


@part
def numbers(service, cards):
    """CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER: service, driver and the task's process mean the same card."""
    data, uuids = service.synth(train=8, val=2, size=64), [card.uuid() for card in cards]
    first, second = (str(card.index) for card in cards)
    cases = [({"CUDA_VISIBLE_DEVICES": f"{second},{first}"}, "cuda:0", 1),
             ({"CUDA_VISIBLE_DEVICES": f"{second},{first}"}, "cuda:1", 0), ({"CUDA_VISIBLE_DEVICES": second}, "cuda:0", 1),
             ({"CUDA_VISIBLE_DEVICES": f"{uuids[1]},{uuids[0]}"}, "cuda:1", 0),
             ({"CUDA_VISIBLE_DEVICES": f"{first},{second}", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, "cuda:1", 1),
             ({"CUDA_VISIBLE_DEVICES": f"{first},{second}", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "cuda:1", 1)]
    with ThreadPoolExecutor(len(cases)) as pool:
        found = list(pool.map(lambda case: where(service.program, cards, data, case[0], case[1]), cases))
    for (env, device, card), (on, uuid, refusal) in zip(cases, found):
        text = " ".join(f"{name}={value}" for name, value in env.items())
        check(f"{text}: {device} is GPU {card}", on == [card] and uuid == uuids[card], f"{on}, {uuid}")
        if env == {"CUDA_VISIBLE_DEVICES": second}:
            check("  and there is no cuda:1", "cuda:0 and cpu" in refusal, refusal)


if __name__ == "__main__":
    sys.exit(part.main())
