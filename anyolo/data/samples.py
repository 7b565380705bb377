"""One picture of one epoch: the part of the data room that runs in loader workers. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyolo.config.schema import AugmentConfig
from anyolo.data.augment.geometry import Labels
from anyolo.data.augment.pipeline import Picture, Pipeline
from anyolo.data.index import Item
from anyolo.data.store import PictureStore
from anyolo.errors import DataError
from anyolo.ops.image import Pixels, fit_image, to_network
from anyolo.ops.letterbox import Fit, Placement, place
from anyolo.types import SizeHW


class Task(NamedTuple):
    """``pool`` holds the positions that mosaic and mixup may draw from; ``mix`` allows them."""

    epoch: int
    position: int
    pool: NDArray[np.int64]
    mix: bool


class Sample(NamedTuple):
    """``labels`` (n, 5) ``class, x1, y1, x2, y2`` in input pixels; ``bad``: files that failed, and why."""

    labels: Labels
    placement: Placement
    bad: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleMaker:
    """Samples from nothing but (seed, epoch, position): worker count, order and restarts change no byte.

    ``sizes_hw`` is the network input of each position (one entry: the same for all). ``augment`` None:
    evaluation, the picture only fitted. ``longest`` is set for evaluation in batches of similar aspect, where
    the input may be larger than the resized picture.
    """

    items: Sequence[Item]
    sizes_hw: Sequence[SizeHW]
    channels: Literal["rgb", "bgr"]
    fit: Fit
    pad_value: int
    augment: AugmentConfig | None
    seed: int
    longest: int | None
    store: PictureStore

    def make(self, task: Task, out: Pixels) -> Sample:
        """Write the picture into ``out`` (3, H, W), whose size is ``size_of(position)``."""
        bad: dict[str, str] = {}
        item, size_hw = self.items[task.position], self.size_of(task.position)
        placement = self.placement(item, size_hw)
        if self.augment is None:
            pixels, labels = self._fitted(task.position, placement, bad)
        else:
            pipeline = Pipeline(self.augment, size_hw, self.fit, self.pad_value)
            rng = np.random.default_rng((self.seed, task.epoch, task.position))
            pixels, labels = pipeline(
                rng, lambda k: self._resized(k, size_hw, bad), task.position, task.pool, mix=task.mix
            )
        to_network(pixels, self.channels, out=out)
        return Sample(labels, placement, tuple(bad.items()))

    def size_of(self, position: int) -> SizeHW:
        return self.sizes_hw[position if len(self.sizes_hw) > 1 else 0]

    def placement(self, item: Item, size_hw: SizeHW) -> Placement:
        if self.longest is None:
            return place(item.size_hw, size_hw, fit=self.fit)
        gain = self.longest / max(item.size_hw)
        inner = (max(1, round(item.size_hw[0] * gain)), max(1, round(item.size_hw[1] * gain)))
        offset_xy = place(inner, size_hw, fit=self.fit, enlarge=False).offset_xy
        return Placement(size_hw, inner, (gain, gain), offset_xy)

    def _fitted(self, position: int, placement: Placement, bad: dict[str, str]) -> Picture:
        pixels = self._load(position, placement, bad)
        own = self.items[position].keep(~self.items[position].crowd)
        labels = np.concatenate((own.labels[:, :1], placement.forward(own.boxes_xyxy)), 1)
        return fit_image(pixels, placement, pad_value=self.pad_value), labels

    def _resized(self, position: int, size_hw: SizeHW, bad: dict[str, str]) -> Picture:
        """A picture resized to fit, not padded; one that cannot be decoded is grey and empty."""
        item = self.items[position]
        placement = self.placement(item, size_hw)
        pixels = self._load(position, placement, bad)
        rows = item.labels[~item.crowd] if item.crowd.any() else item.labels
        if item.path in bad:
            rows = rows[:0]
        labels = np.empty_like(rows)
        sides = np.array(placement.inner_hw[::-1], np.float32)
        labels[:, 0] = rows[:, 0]
        labels[:, 1:3] = (rows[:, 1:3] - rows[:, 3:] / 2) * sides
        labels[:, 3:] = (rows[:, 1:3] + rows[:, 3:] / 2) * sides
        return pixels, labels

    def _load(self, position: int, placement: Placement, bad: dict[str, str]) -> Pixels:
        try:
            return self.store.load(position, self.items[position].path, placement.inner_hw)
        except DataError as error:
            bad[self.items[position].path] = error.message
            return np.full((*placement.inner_hw, 3), self.pad_value, np.uint8)
