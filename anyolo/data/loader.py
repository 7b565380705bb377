"""Batches of a data set, epoch after epoch, made ahead of the training step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from anyolo.data.dataset import DetectionDataset
from anyolo.data.samples import Sample
from anyolo.data.workers import Pending, Workers, start_workers
from anyolo.structures import Batch, Targets

_BATCHES_AHEAD = 2


def make_loader(
    dataset: DetectionDataset, *, batch: int, workers: int, shuffle: bool, seed: int, pin: bool = False
) -> Loader:
    """``workers`` is an upper bound; 0 makes every picture in the calling thread when it is needed."""
    if dataset.rect and batch != dataset.batch:
        raise ValueError(f"a rect data set made for batches of {dataset.batch} cannot give batches of {batch}")
    started = start_workers(workers, dataset.maker)
    return Loader(dataset, batch=batch, workers=started, shuffle=shuffle, seed=seed, pin=pin)


class Loader:
    """``epoch(n)`` gives the batches of epoch ``n``, the same on every machine and with any number of workers."""

    def __init__(
        self, dataset: DetectionDataset, *, batch: int, workers: Workers, shuffle: bool, seed: int, pin: bool
    ) -> None:
        self.dataset = dataset
        self.batch = batch
        self._workers = workers
        self._shuffle, self._seed, self._pin = shuffle, seed, pin

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch)

    def epoch(self, n: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches of epoch ``n`` from ``start_batch`` on; the skipped ones are not made.

        In evaluation a picture that cannot be decoded is missing from its batch (and a batch without any is left
        out); in training it is grey and empty.
        """
        order = self._order(n)
        ahead: deque[tuple[NDArray[np.int64], list[Pending]]] = deque()
        starts = iter(range(start_batch * self.batch, len(order), self.batch))
        try:
            while True:
                while len(ahead) <= _BATCHES_AHEAD and (start := next(starts, None)) is not None:
                    positions = order[start : start + self.batch]
                    pools = (self._pool(order, start + k) for k in range(len(positions)))
                    tasks = [self.dataset.task(n, int(p), pool) for p, pool in zip(positions, pools, strict=True)]
                    ahead.append((positions, [self._workers.start(task) for task in tasks]))
                if not ahead:
                    return
                positions, pending = ahead.popleft()
                batch = self._collect(positions, [one.result() for one in pending])
                if batch is not None:
                    yield batch
        finally:
            for _, pending in ahead:
                for one in pending:
                    one.cancel()

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

    def _collect(self, positions: NDArray[np.int64], samples: Sequence[Sample]) -> Batch | None:
        records = [self.dataset.record(int(p), sample) for p, sample in zip(positions, samples, strict=True)]
        kept = range(len(samples))
        if not self.dataset.is_training:
            kept = [k for k in kept if not samples[k].bad]
        if not kept:
            return None
        images = torch.empty((len(kept), *samples[0].image.shape), dtype=torch.uint8, pin_memory=self._pin)
        rows = images.numpy()
        for row, k in enumerate(kept):
            rows[row] = samples[k].image
        return Batch(images, Targets.pad([samples[k].labels for k in kept]), tuple(records[k] for k in kept))
