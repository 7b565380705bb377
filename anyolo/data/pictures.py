"""Finding picture files, and reading something from many of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from anyolo import console

Source = TypeVar("Source")
Result = TypeVar("Result")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"})
"""What OpenCV decodes everywhere."""

_READERS = 8  # threads: a network drive answers late but answers many at once
_MANY = 2000


def is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES and not os.path.basename(name).startswith(".")


def list_pictures(folder: str) -> list[str]:
    """All pictures below ``folder``, hidden files and folders left out, in an order that is the same
    everywhere.
    """
    found: list[str] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        # a link to a folder above would be followed for ever
        folders[:] = [] if real in seen else [f for f in folders if not f.startswith(".")]
        if real not in seen:
            found += [os.path.join(parent, name) for name in files if is_picture(name)]
        seen.add(real)
    return sorted(found)


def read_many(read: Callable[[Source], Result], sources: Sequence[Source], text: str) -> Iterator[Result]:
    """``read`` of every source, in order, with a progress bar where there are enough to wait for."""
    if len(sources) < _MANY:
        yield from map(read, sources)
        return
    with (
        ThreadPoolExecutor(_READERS) as readers,
        console.current().progress(text, len(sources), "files") as bar,
    ):
        for result in readers.map(read, sources, chunksize=64):
            yield result
            bar.advance()
