#!/usr/bin/env python3
"""peer.py OUT.jsonl SECONDS MODELS BATCHES MODES [SIZES [KINDS]]: what PyTorch does on this GPU, tensors already on the device.

Modes: fp32 (PyTorch's defaults: TF32 in convolutions), bf16 (autocast, channels_last, fused Adam; in inference all of
the model in bf16), compile (the same through torch.compile), graph (bf16 with the whole step captured in one CUDA
graph) and graph32. cudnn.benchmark is on unless PEER_BENCHMARK=0 (for depthwise convolutions it searches for half a
minute). After SECONDS no new case is begun. PEER_LOCK names a file to lock while timing, so that many processes may
compile at once and still be timed one by one (tests/gpu/compile.sh); each leaves a file PEER_LOCK.PID when it is ready."""

import contextlib
import fcntl
import gc
import itertools
import json
import os
import sys
import time

import torch
import torch.nn.functional as F
import torchvision

BENCHMARK = os.environ.get("PEER_BENCHMARK") != "0"
LOCK = os.environ.get("PEER_LOCK")
torch.backends.cudnn.benchmark = BENCHMARK


@contextlib.contextmanager
def alone():
    if not LOCK:
        yield
        return
    torch.cuda.empty_cache()
    with open(f"{LOCK}.{os.getpid()}", "w"):
        pass
    with open(LOCK, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        torch.backends.cudnn.benchmark = BENCHMARK
        torch.cuda.reset_peak_memory_stats()
        yield
        torch.cuda.empty_cache()


def timed(step, rounds=3, seconds=0.12):
    times, took = 3, 0
    while took < seconds / 4:  # warms up, too
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(times):
            step()
        torch.cuda.synchronize()
        took = time.perf_counter() - begin
        times = times * 2 if took < seconds / 4 else int(times * seconds / took) + 1
    result = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(times):
            step()
        torch.cuda.synchronize()
        result.append(1e3 * (time.perf_counter() - begin) / times)
    return sorted(result)[rounds // 2]


def captured(step):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def train(model, x, y, mode):
    half = mode not in ("fp32", "graph32")
    graph = mode.startswith("graph")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=half or None, capturable=graph)
    forward = torch.compile(model) if mode == "compile" else model

    def step():
        optimizer.zero_grad(set_to_none=not graph)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half, cache_enabled=not graph):
            loss = F.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()

    return captured(step) if graph else step


def infer(model, x, y, mode):
    forward = torch.compile(model) if mode == "compile" else model

    def step():
        with torch.inference_mode():
            forward(x)

    return captured(step) if mode.startswith("graph") else step


def run(kind, name, batch, mode, size):
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    half = mode not in ("fp32", "graph32")
    with torch.device("cuda"):  # initial weights are drawn there
        model = getattr(torchvision.models, name)(weights=None, num_classes=37)
    x = torch.rand(batch, 3, size, size, device="cuda")
    y = torch.randint(0, 37, (batch,), device="cuda")
    if half or mode == "graph32":
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    if kind == "infer":
        model.eval()
        if half:
            model, x = model.bfloat16(), x.bfloat16()
    begin = time.perf_counter()
    step = (train if kind == "train" else infer)(model, x, y, mode)
    torch.backends.cudnn.benchmark = BENCHMARK and not LOCK  # beside others its search would be misled
    step()
    torch.cuda.synchronize()
    first = time.perf_counter() - begin
    with alone():
        if LOCK:
            step()  # cuDNN's search
        ms = timed(step)
    return dict(model=name, mode=kind, how=mode, batch=batch, size=size, ms=round(ms, 4),
                images_per_s=round(1e3 * batch / ms, 1), first_s=round(first, 2),
                peak=torch.cuda.max_memory_allocated(), reserved=torch.cuda.max_memory_reserved())


def main():
    out, seconds, models, batches, modes = sys.argv[1], float(sys.argv[2]), *(a.split(",") for a in sys.argv[3:6])
    sizes = sys.argv[6].split(",") if len(sys.argv) > 6 else ["224"]
    kinds = sys.argv[7].split(",") if len(sys.argv) > 7 else ["train", "infer"]
    begin = time.time()
    print("PyTorch", torch.__version__, "cuDNN", torch.backends.cudnn.version(), torch.cuda.get_device_name(),
          flush=True)
    cases = itertools.product(modes, models, kinds, map(int, sizes), map(int, batches))
    for mode, name, kind, size, batch in cases:
        if time.time() - begin > seconds:
            print("peer: no time for", kind, name, size, batch, mode)
            continue
        for _ in range(8 if LOCK else 1):  # those that compile beside it may have taken all memory
            try:
                row = run(kind, name, batch, mode, size)
                break
            except Exception as error:  # one case must not take the others with it
                row = dict(model=name, mode=kind, how=mode, batch=batch, size=size, error=str(error)[:120])
            time.sleep(4 if LOCK else 0)
        torch._dynamo.reset()
        with open(out, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    print("peer took", round(time.time() - begin), "s", flush=True)


main()
