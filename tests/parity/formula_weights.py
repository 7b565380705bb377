"""Weights, pictures and raw maps that follow from their names, so that parity needs no weights file.

``tests/parity/formula/<model>.json`` and ``.npz`` hold what the upstream program computed from the same
numbers.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyolo.structures import Targets

FOLDER = Path(__file__).parent / "formula"
WORD = np.uint64(0xFFFFFFFF)
PICTURE_SEED = 12345
BOX_LOGITS = 64
"""Channels of a distribution head's boxes, which fall along their 16 bins."""
TARGETS_128 = (  # image, class, cx, cy, w, h in pixels of 128x128
    (0, 0, 50.5, 61.25, 70.5, 58.25),
    (0, 2, 58.25, 66.5, 60.75, 66.0),
    (0, 1, 107.25, 21.5, 8.0, 8.0),
    (1, 1, 37.75, 85.5, 43.25, 77.25),
    (1, 2, 94.5, 34.25, 30.25, 21.5),
)


class Formula:
    """The facts of one model: ``facts`` the json, ``arrays`` the npz."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.facts: dict[str, Any] = json.loads((FOLDER / f"{model}.json").read_text())
        self.arrays: Mapping[str, NDArray[np.float32]] = dict(np.load(FOLDER / f"{model}.npz"))

    def weights(self) -> dict[str, Tensor]:
        """Every tensor of the upstream state_dict, by the upstream names."""
        shapes = {name: tuple(shape) for name, shape in self.facts["state_dict"]}
        return {name: self._weight(name, shape, shapes) for name, shape in shapes.items()}

    def _weight(self, name: str, shape: Sequence[int], shapes: Mapping[str, Sequence[int]]) -> Tensor:
        kept = self.facts["upstream_buffers_kept"].get(name)
        if kept is not None:
            return torch.tensor(kept, dtype=torch.float32).view(*shape)
        if name.endswith("num_batches_tracked"):
            return torch.zeros((), dtype=torch.int64)
        value = unit(name, shape)
        prefix, _, kind = name.rpartition(".")
        is_prediction = len(shapes.get(f"{prefix}.weight", ())) == 4 and f"{prefix}.bias" in shapes
        if kind == "running_mean":
            value = 0.1 * value
        elif kind == "running_var":
            value = 1 + 0.3 * value
        elif kind == "implicit":
            value = 0.1 * value + (".im." in name)
        elif kind == "weight" and len(shape) == 1:
            value = 1 + 0.2 * value
        elif kind == "weight":
            value = value * math.sqrt(self.facts["formula"]["c"] / math.prod(shape[1:]))
            value = value * (self.facts["formula"]["g"] if is_prediction else 1)
            if name == "backbone.backbone.stem.conv.conv.weight":
                value = value / self.facts["formula"]["stem_divisor"]["value"]
        else:
            value = 0.1 * value
            if is_prediction and tuple(shape) == (BOX_LOGITS,):
                value = value - 0.4 * (np.arange(BOX_LOGITS) % 16)
            if ".reg_preds." in name:
                value = value + 1.2 * np.isin(np.arange(4), (2, 3))
        return torch.from_numpy(value.astype(np.float32))

    def images(self, which: str) -> Tensor:
        """The ``eval`` or ``train`` input as the network takes it."""
        shape = self.facts["input"][which]
        pixels = (hashes(PICTURE_SEED, math.prod(shape)) >> np.uint64(24)).astype(np.float32).reshape(shape)
        return torch.from_numpy(pixels / np.float32(255 if self.facts["input"]["divide_by_255"] else 1))

    def raw_maps(self, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Raw outputs (B, C, H, W) of a head without anchors, independent of any network."""
        maps = []
        for level, shape in enumerate(shapes):
            value = 2 * unit(f"raw_{level}", shape)
            if shape[1] > BOX_LOGITS:
                value[:, :BOX_LOGITS] -= 0.4 * (np.arange(BOX_LOGITS) % 16).reshape(1, -1, 1, 1)
            else:
                value[:, 2:4] += 1.2
            maps.append(torch.from_numpy(value.astype(np.float32)).requires_grad_())
        return maps


def pad_targets(rows: NDArray[np.float32], images: int, size_hw: tuple[int, int]) -> Targets:
    """(n, 6) image, class, cx, cy, w, h normalised, to padded boxes in pixels."""
    scale = np.asarray(size_hw[::-1], np.float32)
    centre, half = rows[:, 2:4] * scale, rows[:, 4:6] * scale / 2
    boxes = np.concatenate((rows[:, 1:2], centre - half, centre + half), 1).astype(np.float32)
    return Targets.pad([boxes[rows[:, 0] == image] for image in range(images)])


def unit(name: str, shape: Sequence[int]) -> NDArray[np.float64]:
    """float64 in [-1, 1), from the name and the flat index."""
    numbers = hashes(zlib.crc32(name.encode()), math.prod(shape)).astype(np.float64)
    return (numbers / 2**31 - 1).reshape(shape)


def hashes(seed: int, count: int) -> NDArray[np.uint64]:
    index = np.arange(count, dtype=np.uint64)
    z = (np.uint64(seed) + index * np.uint64(2654435769)) & WORD
    z ^= z >> np.uint64(16)
    z = (z * np.uint64(2146121005)) & WORD
    z ^= z >> np.uint64(15)
    z = (z * np.uint64(2221713035)) & WORD
    return z ^ (z >> np.uint64(16))
