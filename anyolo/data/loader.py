"""Batches of a data set, epoch after epoch, made ahead of the training step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyolo.data.dataset import DetectionDataset, pool_sizes
from anyolo.data.workers import Pending, Workers, plan_workers, start_workers
from anyolo.devices.distributed import Group
from anyolo.structures import Batch, Targets
from anyolo.types import SizeHW

_BATCHES_AHEAD = 2
_WORKER_BYTES = 64 << 20
"""What a worker holds beside its kept pictures: 22 MiB once numpy and OpenCV are imported, and what it works
on, of which a photograph of 12 million pixels takes 36.
"""


def make_loader(
    dataset: DetectionDataset,
    *,
    batch: int,
    workers: int,
    shuffle: bool,
    seed: int,
    pin: bool = False,
    group: Group | None = None,
) -> Loader:
    """``workers`` is an upper bound; 0 makes every picture in the calling thread when it is needed.

    ``pin`` puts batches into page-locked memory for an accelerator, and its workers into processes. ``batch``
    is that of all processes of ``group`` together.
    """
    if dataset.rect and batch != dataset.batch:
        raise ValueError(
            f"a rect data set made for batches of {dataset.batch} cannot give batches of {batch}"
        )
    in_flight = (_BATCHES_AHEAD + 1) * -(-batch // (group or Group()).world)
    started = start_workers(workers, dataset.maker, in_flight=in_flight, apart=pin)
    return Loader(dataset, batch=batch, workers=started, shuffle=shuffle, seed=seed, pin=pin, group=group)


def host_bytes(size_hw: SizeHW, *, batch: int, workers: int, mixes: bool, pin: bool, pictures: int) -> int:
    """The most that a loader of so many ``pictures`` and its workers hold, its caches apart.

    ``mixes``: mosaic or mixup take part, so that pictures are kept.
    """
    picture = 3 * size_hw[0] * size_hw[1]
    count, are_processes = plan_workers(workers, apart=pin)
    kept = min(pool_sizes(size_hw, batch)[1], pictures) * picture if mixes else 0
    ahead = (_BATCHES_AHEAD + 2) * batch * picture  # with the batch in use
    if not are_processes:
        return ahead + kept + count * _WORKER_BYTES
    return 2 * ahead + count * (kept + _WORKER_BYTES)


class Loader:
    """``epoch(n)`` gives the batches of epoch ``n``, the same on every machine and with any number of
    workers; of each, the share of this process of ``group``.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        *,
        batch: int,
        workers: Workers,
        shuffle: bool,
        seed: int,
        pin: bool,
        group: Group | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch, self.group = batch, group or Group()
        self._workers = workers
        self._shuffle, self._seed, self._pin = shuffle, seed, pin

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch)

    def epoch(self, n: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches of epoch ``n`` from ``start_batch`` on; the skipped ones are not made.

        In evaluation a picture that cannot be decoded is missing from its batch (and a batch without any is
        left out); in training it is grey and empty.
        """
        order = self._order(n)
        starts = iter(range(start_batch * self.batch, len(order), self.batch))
        ahead: deque[_Making] = deque()
        try:
            while True:
                while len(ahead) <= _BATCHES_AHEAD and (start := next(starts, None)) is not None:
                    rows = self._own_rows(min(self.batch, len(order) - start))
                    if rows:
                        ahead.append(self._start(n, order, [start + row for row in rows]))
                if not ahead:
                    return
                batch = self._collect(ahead.popleft())
                if batch is not None:
                    yield batch
        finally:
            for making in ahead:
                for pending in making.samples:
                    pending.cancel()

    def close(self) -> None:
        """Stop the workers. The loader cannot be used afterwards."""
        self._workers.close()

    def _order(self, epoch: int) -> NDArray[np.int64]:
        count = len(self.dataset)
        if not self._shuffle:
            return np.arange(count)
        rng = np.random.default_rng((self._seed, epoch))
        if not self.dataset.rect:
            return rng.permutation(count)
        batches = [np.arange(start, min(start + self.batch, count)) for start in range(0, count, self.batch)]
        return np.concatenate([batches[k] for k in rng.permutation(len(batches))])

    def _pool(self, order: NDArray[np.int64], at: int) -> NDArray[np.int64]:
        """The neighbours of a picture in the epoch's order: few enough that each is decoded about once."""
        size = min(self.dataset.pool_size, len(order))
        low = max(0, min(at - size // 2, len(order) - size))
        return order[low : low + size]

    def _own_rows(self, count: int) -> list[int]:
        """This process's share of a batch. In training each has one: too few pictures are used again, for a
        batch norm needs some and the others wait; in evaluation each picture counts once.
        """
        rows = list(range(count))
        if self.dataset.is_training:
            rows += [row % count for row in range(count, self.group.world)]
        own: list[int] = self.group.own(rows)
        return own

    def _start(self, epoch: int, order: NDArray[np.int64], places: list[int]) -> _Making:
        positions = order[places]
        size_hw = self.dataset.maker.size_of(int(positions[0]))
        images = torch.empty((len(positions), 3, *size_hw), dtype=torch.uint8, pin_memory=self._pin)
        rows = images.numpy()
        samples = []
        for row, (place, position) in enumerate(zip(places, positions, strict=True)):
            task = self.dataset.task(epoch, int(position), self._pool(order, place))
            samples.append(self._workers.start(task, rows[row]))
        return _Making(positions, images, samples)

    def _collect(self, making: _Making) -> Batch | None:
        samples = [pending.result() for pending in making.samples]
        records = [self.dataset.record(int(p), s) for p, s in zip(making.positions, samples, strict=True)]
        labels = [sample.labels for sample in samples]
        good = [k for k, sample in enumerate(samples) if self.dataset.is_training or not sample.bad]
        if len(good) == len(samples):
            return Batch(making.images, Targets.pad(labels), tuple(records))
        if not good:
            return None
        return Batch(
            making.images[good], Targets.pad([labels[k] for k in good]), tuple(records[k] for k in good)
        )


@dataclass(frozen=True, slots=True)
class _Making:
    """A batch on its way: its pictures are written into ``images`` while the samples are pending."""

    positions: NDArray[np.int64]
    images: Tensor
    samples: list[Pending]
