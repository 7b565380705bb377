"""Decoded pictures at the size the network uses. What a caller gets never depends on what is kept."""

from __future__ import annotations

import os
import shutil
import threading
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from anyolo import console
from anyolo.data.index_cache import cache_folder, fingerprint
from anyolo.data.shared_bytes import SharedBytes
from anyolo.ops.image import Pixels, read_image
from anyolo.types import SizeHW

Cache = Literal[False, "ram", "disk"]

_MEMORY_SHARE = 0.8
"""Of what is free; the rest is for everybody else."""


class PictureStore:
    """Decodes, and keeps what it may: the last ``recent`` pictures, or all of them in ``shelf``."""

    def __init__(self, *, recent: int = 0, shelf: Shelf | None = None) -> None:
        self.recent = recent if shelf is None else 0
        self.shelf = shelf
        self._kept: OrderedDict[tuple[int, SizeHW], Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, position: int, path: str, inner_hw: SizeHW) -> Pixels:
        """Picture ``position`` resized to ``inner_hw``, BGR, read-only. DataError if it cannot be decoded."""
        if self.shelf is not None:
            found = self.shelf.get(position)
            return self.shelf.put(position, _decode(path, inner_hw)) if found is None else found
        key = (position, inner_hw)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        pixels = _decode(path, inner_hw)
        if self.recent:
            with self._lock:
                self._kept[key] = pixels
                if len(self._kept) > self.recent:
                    self._kept.popitem(last=False)
        return pixels

    def __getstate__(self) -> dict[str, Any]:
        return {"recent": self.recent, "shelf": self.shelf}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class Shelf:
    """A place per picture in shared memory or in a file: pixels, and a checksum that is 0 while it is empty.

    The checksum is looked at once per process and picture, so that what a crash left half written is decoded
    anew. Two workers may fill a place at once; they write the same bytes.
    """

    def __init__(self, sizes_hw: Sequence[SizeHW], memory: SharedBytes | Path) -> None:
        self.sizes_hw = sizes_hw
        self.memory = memory
        self._starts = 4 * len(sizes_hw) + np.cumsum([0, *(h * w * 3 for h, w in sizes_hw)])
        if isinstance(memory, SharedBytes):
            self._bytes: Pixels = memory.array
        else:
            self._bytes = np.memmap(memory, np.uint8, mode="r+")
        self._sums: NDArray[np.uint32] = self._bytes[: 4 * len(sizes_hw)].view(np.uint32)
        self._trusted: set[int] = set()

    def get(self, position: int) -> Pixels | None:
        expected = int(self._sums[position])
        if not expected:
            return None
        pixels = self._place(position)
        if position not in self._trusted:
            if _checksum(pixels) != expected:
                return None
            self._trusted.add(position)
        pixels.flags.writeable = False
        return pixels

    def put(self, position: int, pixels: Pixels) -> Pixels:
        self._place(position)[:] = pixels
        self._sums[position] = _checksum(pixels)
        self._trusted.add(position)
        return pixels

    def _place(self, position: int) -> Pixels:
        start, stop = self._starts[position : position + 2]
        return self._bytes[start:stop].reshape(*self.sizes_hw[position], 3)

    def __getstate__(self) -> dict[str, Any]:
        return {"sizes_hw": self.sizes_hw, "memory": self.memory}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def make_shelf(cache: Cache, paths: Sequence[str], sizes_hw: Sequence[SizeHW]) -> Shelf | None:
    """Room for all pictures in memory or on disk; None, with the reason told, where there is not enough."""
    need = sum(4 + h * w * 3 for h, w in sizes_hw)
    if cache == "ram":
        free = free_memory()
        if free is not None and need > free * _MEMORY_SHARE:
            _refuse(f"cache=ram needs {_gib(need)}, {_gib(free)} of memory is free", 'cache="disk"')
            return None
        return Shelf(sizes_hw, SharedBytes(need))
    if cache == "disk":
        folder = cache_folder()
        if folder is None:
            _refuse("cache=disk found no folder it can write", "XDG_CACHE_HOME")
            return None
        path = folder / f"pictures-{fingerprint(paths, [str(size) for size in sizes_hw])[:24]}.raw"
        if not path.exists() or path.stat().st_size != need:
            free = shutil.disk_usage(folder).free
            if need > free:
                _refuse(f"cache=disk needs {_gib(need)}, {folder} has {_gib(free)}", "XDG_CACHE_HOME")
                return None
            _reserve(path, need)
        console.current().line(f"pictures are kept in {path} ({_gib(need)})")
        return Shelf(sizes_hw, path)
    return None


def free_memory() -> int | None:
    """Bytes this process may still use, container limits included; None where the system does not say."""
    from anyolo.devices.host_memory import read_memory  # its room imports torch, which a worker must not

    memory = read_memory()
    return memory.free_bytes if memory else None


def _decode(path: str, inner_hw: SizeHW) -> Pixels:
    pixels = read_image(path, at_least=max(inner_hw)).pixels
    if pixels.shape[:2] != inner_hw:
        pixels = np.asarray(cv2.resize(pixels, inner_hw[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    pixels.flags.writeable = False
    return pixels


def _checksum(pixels: Pixels) -> int:
    return zlib.crc32(np.ascontiguousarray(pixels).data) or 1


def _reserve(path: Path, size: int) -> None:
    """An empty file whose room on the disk is already taken: a full disk shows here, not as a crash later."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with open(partial, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    os.replace(partial, path)


def _refuse(reason: str, remedy: str) -> None:
    console.current().warn(f"{reason}: pictures are decoded every time; consider {remedy}")


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
