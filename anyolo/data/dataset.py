"""Pictures and boxes of one split as network inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anyolo import console
from anyolo.config.schema import AugmentConfig
from anyolo.data.augment.geometry import Labels
from anyolo.data.index import AnnotationIndex
from anyolo.data.samples import Sample, SampleMaker, Task
from anyolo.data.store import Cache, PictureStore, make_shelf
from anyolo.ops.image import Pixels
from anyolo.ops.letterbox import input_size
from anyolo.structures import ImageRecord, Preprocess
from anyolo.types import SizeHW

_POOL_BYTES = 128 << 20
"""Decoded pictures that mosaics choose partners from. A constant: partners must be the same on every machine.
"""


class DetectionDataset:
    """``augment`` None: pictures only fitted, for evaluation. ``batch`` matters for ``rect`` and the pool.

    ``rect`` sorts pictures by aspect and gives each batch the smallest input that holds it; no mosaic then.
    ``mosaic_until_epoch``: from that epoch on no mosaic and no mixup (None: always as configured).
    ``bad_files``: pictures that failed to decode, with the reason; each once, also if met in every epoch.
    """

    def __init__(
        self,
        index: AnnotationIndex,
        preprocess: Preprocess,
        *,
        imgsz: int | SizeHW,
        augment: AugmentConfig | None,
        rect: bool = False,
        batch: int = 16,
        cache: bool | Cache = False,
        seed: int = 0,
    ) -> None:
        self.index = index
        self.preprocess = preprocess
        self.batch = batch
        self.rect = rect
        self.mosaic_until_epoch: int | None = None
        self.bad_files: dict[str, str] = {}
        size_hw = input_size(imgsz, preprocess.stride)
        numbers = np.arange(len(index))
        sizes: list[SizeHW] = [size_hw]
        if rect:
            numbers = np.argsort([h / w for h, w in (item.size_hw for item in index.items)], kind="stable")
            aspects = [index.items[k].size_hw[0] / index.items[k].size_hw[1] for k in numbers]
            sizes = _rect_sizes(aspects, batch, max(size_hw), preprocess.stride)
        self.numbers: NDArray[np.int64] = numbers
        self.pool_size, kept = pool_sizes(size_hw, batch)
        mixes = augment is not None and not rect and bool(augment.mosaic or augment.mixup)
        recent = kept if mixes else 0
        items = [index.items[k] for k in numbers]
        self.maker = SampleMaker(
            items=items,
            sizes_hw=sizes,
            channels=preprocess.channels,
            fit=preprocess.fit,
            pad_value=preprocess.pad_value,
            augment=augment,
            seed=seed,
            longest=max(size_hw) if rect and preprocess.fit != "stretch" else None,
            store=PictureStore(recent=recent),
        )
        if cache:
            inner = [
                self.maker.placement(item, self.maker.size_of(k)).inner_hw for k, item in enumerate(items)
            ]
            self.maker.store.shelf = make_shelf(
                "ram" if cache is True else cache, [i.path for i in items], inner
            )

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def is_training(self) -> bool:
        return self.maker.augment is not None

    def sample(
        self, epoch: int, position: int, pool: NDArray[np.int64] | None = None
    ) -> tuple[Pixels, Labels, ImageRecord]:
        """(3, H, W) uint8, (n, 5) ``class, x1, y1, x2, y2`` in its pixels, and where it came from.

        ``pool``: positions that mosaic and mixup may draw from; all if not given.
        """
        image = np.empty((3, *self.maker.size_of(position)), np.uint8)
        made = self.maker.make(self.task(epoch, position, pool), image)
        return image, made.labels, self.record(position, made)

    def task(self, epoch: int, position: int, pool: NDArray[np.int64] | None = None) -> Task:
        until = self.mosaic_until_epoch
        mix = not self.rect and (until is None or epoch < until)
        return Task(epoch, position, np.arange(len(self)) if pool is None else pool, mix)

    def record(self, position: int, made: Sample) -> ImageRecord:
        for path, reason in made.bad:
            if path not in self.bad_files:
                self.bad_files[path] = reason
                fate = "used as an empty grey picture" if self.is_training else "left out"
                console.current().warn(f"{path}: {reason}; {fate}")
        item = self.maker.items[position]
        return ImageRecord(item.path, item.size_hw, made.placement, int(self.numbers[position]))


def pool_sizes(size_hw: SizeHW, batch: int) -> tuple[int, int]:
    """How many pictures mosaics choose from, and how many are kept: these, and those of the batches being
    made while the choice moves on.
    """
    fitting = _POOL_BYTES // (size_hw[0] * size_hw[1] * 3)
    pool = max(32, min(8 * batch, fitting))
    return pool, pool + min(3 * batch, fitting)


def _rect_sizes(aspects: list[float], batch: int, longest: int, stride: int) -> list[SizeHW]:
    """One input size a batch of pictures sorted by aspect (height / width), half a stride of room added.

    Source: the field's rectangular validation (Ultralytics 8.4, YOLOv5 v7: pad 0.5).
    """
    sizes: list[SizeHW] = []
    for start in range(0, len(aspects), batch):
        own = aspects[start : start + batch]
        height, width = 1.0, 1.0
        if max(own) < 1:
            height = max(own)
        elif min(own) > 1:
            width = 1 / min(own)
        rows, columns = (int(np.ceil(side * longest / stride + 0.5)) * stride for side in (height, width))
        sizes += [(rows, columns)] * len(own)
    return sizes
