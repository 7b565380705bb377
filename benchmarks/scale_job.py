"""One process of ``scale.py``: reads, trains and exchanges; writes the seconds of each to a JSON file.

    scale_job.py OUT RANK WORLD MEETING DATA SETTINGS

MEETING is where the processes find each other (file:// or tcp://). With WORLD 1 nothing crosses a wire: the
updates cost what the computing and a hook's own arithmetic cost. With 2 they also read their pictures, and
wait for each other and for the wire.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.nn  # before the group exists: it would hold it for ever
from torch import nn

from anyolo.config.schema import AugmentConfig, LossConfig
from anyolo.data import DetectionDataset, open_data
from anyolo.data.loader import Loader
from anyolo.data.workers import InCaller
from anyolo.devices import open_device
from anyolo.devices.distributed import Group
from anyolo.families import build_model
from anyolo.structures import Batch
from anyolo.train.communication import HOOKS, WHOLE_UPDATES, compress
from anyolo.train.step import StepConfig, train_step

LINK_BYTES = (1 << 12, 1 << 18, 1 << 20, 1 << 22, 12 << 20)


def seconds(work: Callable[[], object], count: int, *, warm: int = 1) -> list[float]:
    for _ in range(warm):
        work()
    found = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found


def batches(data: str, settings: dict[str, int], seed: int) -> Iterator[Batch]:
    """Read in the process itself: reading and computing take turns."""
    spec, _ = build_model("yolov8n")
    index = open_data(data, "train")
    dataset = DetectionDataset(
        index, spec.preprocess, imgsz=settings["imgsz"], augment=AugmentConfig(), batch=settings["batch"]
    )
    loader = Loader(
        dataset, batch=settings["batch"], workers=InCaller(dataset.maker), shuffle=True, seed=seed, pin=False
    )
    return (batch for epoch in range(10**6) for batch in loader.epoch(epoch))


class Updates:
    """A model that trains; ``hook`` None: on its own, without torch's wrapper."""

    def __init__(self, hook: str | None, group: Group) -> None:
        self.device = open_device("cpu")
        self.spec, self.model = build_model("yolov8n", nc=5)
        self.model = self.device.prepare(self.model).train()
        self.criterion = self.spec.criterion(self.model, LossConfig())
        self.forward: nn.Module = self.model
        self.traffic = None
        if hook is not None:
            self.forward = nn.parallel.DistributedDataParallel(self.model, gradient_as_bucket_view=True)
            self.traffic = compress(self.forward, hook, lambda: 1.0)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9)
        self.config = StepConfig(
            preprocess=self.spec.preprocess, reduction=self.spec.loss_reduction, clip_norm=10.0, group=group
        )

    def __call__(self, batch: Batch) -> None:
        scaler = self.device.scaler(None)
        train_step(self.forward, self.criterion, [batch], self.optimizer, self.device, scaler, self.config)

    def sent_bytes(self) -> float:
        assert self.traffic is not None
        return self.traffic.take()


def link(world: int) -> dict[str, list[tuple[int, float]]]:
    """Bytes of each process, and seconds of summing them over all, and of handing them to all."""
    found: dict[str, list[tuple[int, float]]] = {"all_reduce": [], "all_gather": []}
    for size in LINK_BYTES:
        own = torch.zeros(size // 4)
        others = [torch.empty_like(own) for _ in range(world)]
        works = {"all_reduce": lambda own=own: dist.all_reduce(own)}
        works["all_gather"] = lambda own=own, others=others: dist.all_gather(others, own)
        for name, work in works.items():
            dist.barrier()
            found[name].append((size, sorted(seconds(work, 7, warm=2))[3]))
    return found


def main() -> None:
    out, rank, world, meeting, data, text = sys.argv[1:]
    settings = json.loads(text)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo", init_method=meeting, rank=int(rank), world_size=int(world))
    group = Group(rank=int(rank), world=int(world), local_rank=int(rank))
    stream = batches(data, settings, seed=int(rank))
    one, count = next(stream), settings["updates"]
    found: dict[str, object] = {}
    if group.is_alone:
        found["read_s"] = seconds(lambda: next(stream), count)
        alone = Updates(None, group)
        found["compute_s"] = seconds(lambda: alone(copy.deepcopy(one)), count, warm=2)
    else:
        found["link"] = link(group.world)
    running = {hook: Updates(hook, group) for hook in HOOKS}
    times: dict[str, list[float]] = {hook: [] for hook in HOOKS}
    for number in range(1 + count):  # in turns: whatever slows the machine for a while slows all of them
        for hook, updates in running.items():
            work = (lambda u=updates: u(one)) if group.is_alone else (lambda u=updates: u(next(stream)))
            # the first round is for warming up, until the last of the hooks has begun as well
            times[hook] += seconds(work, 1, warm=0 if number else WHOLE_UPDATES + 2)[: bool(number)]
            updates.sent_bytes()
    for updates in running.values():
        updates(one)
    found["hooks"] = {
        hook: {"update_s": times[hook], "sent_bytes": updates.sent_bytes()}
        for hook, updates in running.items()
    }
    Path(out).write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
