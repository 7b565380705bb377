"""Pictures a second from the loader, by kind of worker; and what each kind leaves to the training step.

    python benchmarks/loader.py [--data ../shared/data/wrgb/data.yaml] [--imgsz 416] [--repeats 3]

``beside nothing``: how fast batches come. ``beside small operators``: the main thread runs short operators
as a launch-bound accelerator step does, and needs the interpreter lock for each. ``beside a model``: YOLOv8n
forward and backward on two CPU threads. Trials take turns; the best of each is printed (others only disturb).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from anyolo.config.schema import AugmentConfig
from anyolo.data import DetectionDataset, open_data
from anyolo.data.loader import Loader
from anyolo.data.processes import Processes
from anyolo.data.workers import InCaller, Threads
from anyolo.families import build_model
from anyolo.structures import Batch, Preprocess

BATCH = 16
KINDS: dict[str, Callable[[Any], Any]] = {
    "caller": InCaller,
    "1 thread": lambda maker: Threads(maker, 1),
    "2 threads": lambda maker: Threads(maker, 2),
    "1 process": lambda maker: Processes(maker, 1, in_flight=3 * BATCH),
    "2 processes": lambda maker: Processes(maker, 2, in_flight=3 * BATCH),
}


def nothing(batch: Batch) -> None:
    pass


def small_operators(batch: Batch) -> None:
    tensor = torch.ones(8, 8)
    for _ in range(4000):
        tensor = (tensor * 0.5 + 0.5).relu()


def model_step() -> Callable[[Batch], None]:
    _, model = build_model("yolov8n")
    model.train().to(memory_format=torch.channels_last)

    def step(batch: Batch) -> None:
        images = batch.images.to(memory_format=torch.channels_last).float() / 255
        with torch.autocast("cpu", torch.bfloat16):
            output = model(images)
        sum(level.float().mean() for level in output.levels).backward()

    return step


def trial(index: Any, imgsz: int, kind: str, step: Callable[[Batch], None], batches: int) -> float:
    dataset = DetectionDataset(index, Preprocess(), imgsz=imgsz, augment=AugmentConfig(), batch=BATCH)
    loader = Loader(dataset, batch=BATCH, workers=KINDS[kind](dataset.maker), shuffle=True, seed=0, pin=False)
    stream = (batch for epoch in range(10**6) for batch in loader.epoch(epoch))
    for _ in range(2):
        step(next(stream))
    start = time.perf_counter()
    for _ in range(batches):
        step(next(stream))
    rate = BATCH * batches / (time.perf_counter() - start)
    stream.close()
    loader.close()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(__file__).resolve().parents[2] / "shared"
    parser.add_argument("--data", default=str(shared / "data/wrgb/data.yaml"))
    parser.add_argument("--imgsz", type=int, default=416)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(2)
    index = open_data(options.data, "train")
    steps = {
        "nothing": (nothing, 14),
        "small operators": (small_operators, 8),
        "a model": (model_step(), 4),
    }
    for name, (step, batches) in steps.items():
        rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(options.repeats):
            for kind in KINDS:
                rates[kind].append(trial(index, options.imgsz, kind, step, batches))
        best = "  ".join(f"{kind} {max(own):.1f}" for kind, own in rates.items())
        print(f"beside {name}, pictures/s: {best}", flush=True)


if __name__ == "__main__":
    main()
