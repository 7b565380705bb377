"""What flows between the rooms: validated once at the border, plain inside.

``Batch -> HeadOutput -> Predictions -> Detections``, with ``Targets`` beside them for training.
Layouts and units are stated here and hold everywhere (legend in ``anyolo.types``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyolo.errors import ModelError
from anyolo.ops.letterbox import Placement
from anyolo.types import SizeHW


@dataclass(frozen=True, slots=True)
class Targets:
    """True boxes of a batch, padded per image so that every shape is static.

    ``labels`` is (B, T, 5) float32: class index, x1, y1, x2, y2 in input pixels. ``mask`` is (B, T) float32:
    1 for a real box, 0 for padding (whose labels are 0). T >= 1, also for a batch without any box.
    ``counts``, where the host knows them, are the real boxes per image, which then come first: a bound that
    spares work on padding without a look at the device.
    """

    labels: Tensor
    mask: Tensor
    counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.labels.ndim != 3 or self.labels.shape[2] != 5 or self.labels.shape[:2] != self.mask.shape:
            raise ModelError(
                f"targets need (B,T,5) and (B,T), got {tuple(self.labels.shape)} {tuple(self.mask.shape)}"
            )

    @staticmethod
    def pad(boxes: list[NDArray[np.float32]], *, bucket: int = 8) -> Targets:
        """Stack per-image (n, 5) arrays ``class, x1, y1, x2, y2``; T is a multiple of ``bucket``."""
        most = max((len(b) for b in boxes), default=0)
        slots = max(1, -(-most // bucket)) * bucket
        labels = np.zeros((len(boxes), slots, 5), np.float32)
        mask = np.zeros((len(boxes), slots), np.float32)
        for row, own in enumerate(boxes):
            labels[row, : len(own)] = own
            mask[row, : len(own)] = 1
        return Targets(torch.from_numpy(labels), torch.from_numpy(mask), tuple(len(own) for own in boxes))

    def to(self, device: torch.device, non_blocking: bool = False) -> Targets:
        return Targets(
            self.labels.to(device, non_blocking=non_blocking),
            self.mask.to(device, non_blocking=non_blocking),
            self.counts,
        )

    def of(self, images: slice) -> Targets:
        """Of some images only."""
        return Targets(self.labels[images], self.mask[images], self.counts[images])

    def most(self, images: slice = slice(None)) -> int:
        """No image of these has more boxes: at least 1, at most T."""
        return max(1, *self.counts[images]) if self.counts else self.mask.shape[1]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """Where a network input came from: enough to bring its boxes back to the original picture."""

    path: str
    size_hw: SizeHW
    placement: Placement
    index: int = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """``images`` is (B, C, H, W) uint8 on the host, channel order as the family's Preprocess says."""

    images: Tensor
    targets: Targets
    records: tuple[ImageRecord, ...]

    def split(self, most: int) -> list[Batch]:
        """Batches of at most ``most`` pictures, views of this one."""
        parts = [slice(start, start + most) for start in range(0, len(self.images), most)]
        return [Batch(self.images[part], self.targets.of(part), self.records[part]) for part in parts]


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """Raw maps of the head, (B, C, H, W) per level from the finest stride up; ``aux`` in training."""

    levels: tuple[Tensor, ...]
    aux: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Predictions:
    """Decoded, not yet filtered. ``boxes_xyxy`` (B, A, 4) in input pixels, ``scores`` (B, A, K) in 0..1.

    ``objectness`` (B, A) stays apart where the family has one: filter on it first, multiply afterwards.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    objectness: Tensor | None = None

    @staticmethod
    def joined(parts: Sequence[Predictions]) -> Predictions:
        """One batch of several."""
        return Predictions._cat(parts, 0)

    @staticmethod
    def merged(parts: Sequence[Predictions]) -> Predictions:
        """All boxes that several looks at one batch found."""
        return Predictions._cat(parts, 1)

    @staticmethod
    def _cat(parts: Sequence[Predictions], side: int) -> Predictions:
        if len(parts) == 1:
            return parts[0]
        objectness = [part.objectness for part in parts if part.objectness is not None]
        return Predictions(
            torch.cat([part.boxes_xyxy for part in parts], side),
            torch.cat([part.scores for part in parts], side),
            torch.cat(objectness, side) if objectness else None,
        )


@dataclass(frozen=True, slots=True)
class Detections:
    """Final boxes of one picture, best first: (N, 4) float32 xyxy, (N,) float32, (N,) int64, on the host."""

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]

    @staticmethod
    def empty() -> Detections:
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """How a picture becomes a network input. Travels in every checkpoint and export manifest."""

    channels: Literal["rgb", "bgr"] = "rgb"
    fit: Literal["letterbox", "letterbox_topleft", "stretch"] = "letterbox"
    pad_value: int = 114
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    stride: int = 32

    def normalise(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 or float 0..255 to what the network expects, float32, on the images' device."""
        x = images.to(torch.float32)
        if self.scale != 1:  # a converted copy is ours to change
            x = x * self.scale if x is images else x.mul_(self.scale)
        if self.mean:
            x = x - x.new_tensor(self.mean).view(1, -1, 1, 1)
        if self.std:
            x = x / x.new_tensor(self.std).view(1, -1, 1, 1)
        return x

    def to_json(self) -> dict[str, Any]:
        return {
            "channels": self.channels,
            "fit": self.fit,
            "pad_value": self.pad_value,
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "stride": self.stride,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Preprocess:
        return Preprocess(**{**data, "mean": tuple(data["mean"]), "std": tuple(data["std"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class LossReport:
    """``total`` is what backward is called on; ``items`` are named detached scalars for people."""

    total: Tensor
    items: Mapping[str, Tensor] = field(default_factory=dict)
