"""Several pictures in one."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from anyolo.data.augment.geometry import Labels, Tile
from anyolo.ops.image import Pixels
from anyolo.types import SizeHW


def mosaic_tiles(
    rng: np.random.Generator, pictures: Sequence[tuple[Pixels, Labels]], size_hw: SizeHW
) -> tuple[list[Tile], SizeHW]:
    """Four pictures around a random point of a canvas twice as wide and high; they are cut off at its edges.

    Source: Bochkovskiy et al. 2020, arXiv 2004.10934, 3.3.
    """
    rows, columns = size_hw
    x, y = int(rng.uniform(columns / 2, columns * 3 / 2)), int(rng.uniform(rows / 2, rows * 3 / 2))
    tiles = []
    for corner, (pixels, labels) in enumerate(pictures):
        height, width = pixels.shape[:2]
        left = x - width if corner in (0, 2) else x
        top = y - height if corner in (0, 1) else y
        tiles.append(Tile(pixels, labels, left, top))
    return tiles, (rows * 2, columns * 2)


def blend(
    rng: np.random.Generator, one: tuple[Pixels, Labels], other: tuple[Pixels, Labels]
) -> tuple[Pixels, Labels]:
    """Two pictures of equal size shining through each other, with the boxes of both.

    Source: Zhang et al. 2018, arXiv 1710.09412; Beta(32, 32) as the field does for detection.
    """
    share = float(rng.beta(32.0, 32.0))
    pixels = np.asarray(cv2.addWeighted(one[0], share, other[0], 1 - share, 0), np.uint8)
    return pixels, np.concatenate((one[1], other[1]))
