"""The contract of a data set format."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from anyolo.data.index import AnnotationIndex, Item


@dataclass(frozen=True, slots=True)
class FileSettings:
    """What a data file says beside the data. ``values``: settings under their own keys, as words.

    ``places``: the ``file:line`` of each. ``unused``: keys of the file that mean nothing here.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


class DatasetFormat(Protocol):
    """``root`` is what the user typed after ``data=``: a file or a folder. Occupants inherit from it."""

    name: str

    def matches(self, root: str) -> bool:
        """Whether this format should read ``root``; decided from names, not from contents."""

    def read(self, root: str, split: str) -> AnnotationIndex:
        """The split, with everything unusable named in ``problems``. DataError when nothing can be read."""

    def settings(self, root: str) -> FileSettings:
        """What the file asks for beside naming the data: input size, epochs, ... DataError with its line."""
        return FileSettings()

    def write(self, index: AnnotationIndex, root: str) -> str:
        """Write ``index.split`` below the folder ``root``, pictures copied, beside splits already there.

        Returns what to type after ``data=``; reading it gives an equal index.
        """


def copy_pictures(items: tuple[Item, ...], folder: str) -> list[str]:
    """Copy the pictures into one folder under names that differ in their stems; returns the new paths."""
    os.makedirs(folder, exist_ok=True)
    taken: set[str] = set()
    paths = []
    for item in items:
        stem, suffix = os.path.splitext(os.path.basename(item.path))
        name, number = stem, 1
        while name.lower() in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name.lower())
        paths.append(os.path.join(folder, name + suffix))
        if os.path.abspath(paths[-1]) != os.path.abspath(item.path):
            shutil.copyfile(item.path, paths[-1])
    return paths
