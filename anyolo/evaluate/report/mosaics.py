"""Several pictures in one file, with their boxes and names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anyolo.data.index import Item
from anyolo.errors import DataError
from anyolo.ops.draw import draw_boxes
from anyolo.ops.image import Pixels, fit_image, read_image
from anyolo.ops.letterbox import place
from anyolo.structures import Detections
from anyolo.types import PathLike

MOST_PICTURES = 16
_LONGEST = 1920  # pixels of the whole mosaic
_TILE = 640
_GAP = 4
_SHOWN_FROM = 0.25  # confidence


def draw_batch(
    images: Tensor, boxes: Sequence[NDArray[np.float32]], names: Sequence[str], path: PathLike
) -> None:
    """The first 16 pictures of a batch. ``images`` (B, 3, H, W) uint8 in RGB.

    ``boxes[k]`` is (n, 5) ``class, x1, y1, x2, y2`` in pixels of picture ``k``, or (n, 6) with a score.
    """
    pictures = [
        np.ascontiguousarray(own.numpy().transpose(1, 2, 0)[..., ::-1]) for own in images[:MOST_PICTURES]
    ]
    _draw(pictures, boxes[: len(pictures)], names, path)


def draw_pairs(
    items: Sequence[Item], found: Sequence[Detections], names: Sequence[str], folder: Path, *, most: int = 3
) -> None:
    """val_batch{k}_labels.jpg beside val_batch{k}_pred.jpg: the truth, and what was found above 0.25."""
    for number in range(min(most, math.ceil(len(items) / MOST_PICTURES))):
        own = slice(number * MOST_PICTURES, (number + 1) * MOST_PICTURES)
        pictures, truth, guesses = [], [], []
        for item, detections in zip(items[own], found[own], strict=True):
            placement = place(item.size_hw, (_TILE, _TILE))
            try:
                pictures.append(fit_image(read_image(item.path, at_least=_TILE).pixels, placement))
            except DataError:  # moved away since it was judged
                pictures.append(np.full((_TILE, _TILE, 3), 114, np.uint8))
            sure = detections.scores > _SHOWN_FROM
            boxes = placement.forward(item.boxes_xyxy)
            truth.append(np.concatenate((item.labels[:, :1], boxes), 1)[~item.crowd])
            boxes = placement.forward(detections.boxes_xyxy)
            columns = (detections.classes[:, None], boxes, detections.scores[:, None])
            guesses.append(np.concatenate(columns, 1)[sure].astype(np.float32))
        _draw(pictures, truth, names, folder / f"val_batch{number}_labels.jpg")
        _draw(pictures, guesses, names, folder / f"val_batch{number}_pred.jpg")


def _draw(
    pictures: Sequence[Pixels], boxes: Sequence[NDArray[np.float32]], names: Sequence[str], path: PathLike
) -> None:
    across = math.ceil(math.sqrt(len(pictures)))
    down = math.ceil(len(pictures) / across)
    height, width = pictures[0].shape[:2]
    gain = min(1.0, _LONGEST / (across * width), _LONGEST / (down * height))
    rows, columns = round(height * gain), round(width * gain)
    canvas = np.full((down * (rows + _GAP) - _GAP, across * (columns + _GAP) - _GAP, 3), 255, np.uint8)
    for number, (picture, own) in enumerate(zip(pictures, boxes, strict=True)):
        tile = picture
        if gain < 1:
            tile = cast(Pixels, cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA))
        classes = own[:, 0].astype(np.int64).tolist()
        scores = own[:, 5].tolist() if own.shape[1] > 5 else [None] * len(own)
        words = [_label(names, index, score) for index, score in zip(classes, scores, strict=True)]
        tile = draw_boxes(tile, own[:, 1:5] * np.float32(gain), classes, words)
        top, left = number // across * (rows + _GAP), number % across * (columns + _GAP)
        canvas[top : top + rows, left : left + columns] = tile
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
    Path(path).write_bytes(cv2.imencode(Path(path).suffix, canvas, quality)[1].tobytes())


def _label(names: Sequence[str], index: int, score: float | None) -> str:
    """OpenCV's letters are ASCII only; a name in another script is given by its number."""
    name = names[index] if names[index].isascii() else f"class {index}"
    return name if score is None else f"{name} {score:.2f}"
