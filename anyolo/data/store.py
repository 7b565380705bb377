"""Decoded pictures at the size the network uses. What a caller gets never depends on what happens to be kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import cv2
import numpy as np

from anyolo.data.index import Item
from anyolo.ops.image import Pixels, read_image
from anyolo.types import SizeHW


class PictureStore:
    """Keeps the last ``recent`` pictures: mosaics of one neighbourhood use each picture about four times."""

    def __init__(self, *, recent: int = 0) -> None:
        self.recent = recent
        self._kept: OrderedDict[tuple[str, SizeHW], Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, item: Item, inner_hw: SizeHW) -> Pixels:
        """The whole picture resized to ``inner_hw``, BGR; read-only. DataError when the file cannot be decoded."""
        key = (item.path, inner_hw)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        pixels = _decode(item, inner_hw)
        if self.recent:
            with self._lock:
                self._kept[key] = pixels
                if len(self._kept) > self.recent:
                    self._kept.popitem(last=False)
        return pixels

    def __getstate__(self) -> dict[str, Any]:
        return {"recent": self.recent}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _decode(item: Item, inner_hw: SizeHW) -> Pixels:
    pixels = read_image(item.path, at_least=max(inner_hw)).pixels
    if pixels.shape[:2] != inner_hw:
        pixels = np.asarray(cv2.resize(pixels, inner_hw[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    pixels.flags.writeable = False
    return pixels
