"""The order in which a training picture is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anyolo.config.schema import AugmentConfig
from anyolo.data.augment.colour import jitter_hsv
from anyolo.data.augment.geometry import Labels, Tile, random_window, render
from anyolo.data.augment.mix import blend, mosaic_tiles
from anyolo.ops.image import Pixels
from anyolo.ops.letterbox import Fit, place
from anyolo.types import SizeHW

Picture = tuple[Pixels, Labels]
"""Pixels at the size that fits the network input, and labels in those pixels."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Mosaic or letterbox, random window, mixup, colour, flips. Pixels in and out are BGR."""

    config: AugmentConfig
    size_hw: SizeHW
    fit: Fit
    pad_value: int

    def __call__(
        self,
        rng: np.random.Generator,
        load: Callable[[int], Picture],
        position: int,
        pool: NDArray[np.int64],
        *,
        mix: bool,
    ) -> Picture:
        """``load(k)`` gives picture ``k``; partners come from ``pool``; ``mix`` allows mosaic and mixup."""
        config = self.config
        pixels, labels = self._scene(rng, load, position, pool, mix=mix)
        if mix and config.mixup and rng.random() < config.mixup:
            other = self._scene(rng, load, int(rng.choice(pool)), pool, mix=mix)
            pixels, labels = blend(rng, (pixels, labels), other)
        jitter_hsv(rng, pixels, config)
        rows, columns = self.size_hw
        if config.flipud and rng.random() < config.flipud:
            pixels, labels = _flip(pixels, 0), _mirror(labels, 2, rows)
        if config.fliplr and rng.random() < config.fliplr:
            pixels, labels = _flip(pixels, 1), _mirror(labels, 1, columns)
        if config.bgr and rng.random() < config.bgr:
            pixels = np.ascontiguousarray(pixels[..., ::-1])
        return pixels, labels

    def _scene(
        self,
        rng: np.random.Generator,
        load: Callable[[int], Picture],
        position: int,
        pool: NDArray[np.int64],
        *,
        mix: bool,
    ) -> Picture:
        if mix and self.config.mosaic and rng.random() < self.config.mosaic:
            chosen = [position, *(int(k) for k in rng.choice(pool, 3))]
            tiles, canvas_hw = mosaic_tiles(rng, [load(k) for k in chosen], self.size_hw)
        else:
            pixels, labels = load(position)
            laid = place((pixels.shape[0], pixels.shape[1]), self.size_hw, fit=self.fit, enlarge=False)
            tiles = [Tile(pixels, labels, int(laid.offset_xy[0]), int(laid.offset_xy[1]))]
            canvas_hw = self.size_hw
        return render(
            tiles,
            random_window(rng, self.config, canvas_hw, self.size_hw),
            canvas_hw,
            self.size_hw,
            self.pad_value,
        )


def _flip(pixels: Pixels, axis: int) -> Pixels:
    return np.asarray(cv2.flip(pixels, axis), np.uint8)


def _mirror(labels: Labels, column: int, length: int) -> Labels:
    """Mirror x (column 1) or y (column 2) of the boxes about the middle of ``length``."""
    mirrored = labels.copy()
    mirrored[:, column], mirrored[:, column + 2] = length - labels[:, column + 2], length - labels[:, column]
    return mirrored
