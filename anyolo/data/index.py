"""What a data set says: pictures, their boxes, and what was wrong with either. No pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anyolo.errors import ConfigError, DataError
from anyolo.types import SizeHW


@dataclass(frozen=True, slots=True)
class Problem:
    """Something left out or mended while reading. ``where`` is a file, with ``:line`` where there is one."""

    where: str
    message: str
    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One picture. ``labels`` (n, 5) float32 ``class, cx, cy, w, h``, normalised to the upright picture.

    ``crowd`` (n,) marks boxes around groups: evaluation ignores what falls into them, training never sees
    them. ``area`` (n,) is the object's area in pixels (of its outline where the format knows one).
    """

    path: str
    size_hw: SizeHW
    labels: NDArray[np.float32]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float32]
    image_id: int | str

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """(n, 4) in pixels of the upright picture, computed in float64."""
        height, width = self.size_hw
        boxes = self.labels[:, 1:].astype(np.float64) * (width, height, width, height)
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        return np.concatenate((centre - half, centre + half), 1).astype(np.float32)

    def keep(self, rows: NDArray[np.bool_]) -> Item:
        """The same picture with the labels where ``rows`` (n,) is true."""
        return replace(self, labels=self.labels[rows], crowd=self.crowd[rows], area=self.area[rows])


@dataclass(frozen=True, slots=True, eq=False)
class AnnotationIndex:
    """One split. ``category_ids`` are the format's own class numbers in the order of ``names``."""

    names: tuple[str, ...]
    items: tuple[Item, ...]
    problems: tuple[Problem, ...] = ()
    root: str = ""
    split: str = ""
    category_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    @property
    def nc(self) -> int:
        return len(self.names)

    @property
    def boxes(self) -> int:
        return sum(len(item.labels) for item in self.items)

    def share(self, fraction: float) -> AnnotationIndex:
        """Evenly spaced pictures, at least one; always the same ones."""
        count = max(1, round(len(self.items) * fraction))
        chosen = (np.arange(count) * len(self.items)) // count
        return replace(self, items=tuple(self.items[int(k)] for k in chosen))

    def only(self, classes: Sequence[int]) -> AnnotationIndex:
        """Boxes of these classes; pictures that lose all of theirs stay, as background."""
        wrong = [c for c in classes if not 0 <= c < self.nc]
        if wrong:
            raise ConfigError(
                f"there is no class {wrong[0]}",
                where="classes",
                hint=f"The data set has classes 0 to {self.nc - 1}.",
            )
        kept = np.asarray(tuple(classes), np.float32)
        return replace(self, items=tuple(item.keep(np.isin(item.labels[:, 0], kept)) for item in self.items))

    def as_single_class(self) -> AnnotationIndex:
        """Every box becomes class 0, called "item" unless the set has one class already."""
        if self.nc == 1:
            return self
        items = []
        for item in self.items:
            labels = item.labels.copy()
            labels[:, 0] = 0
            items.append(replace(item, labels=labels))
        return replace(self, names=("item",), category_ids=self.category_ids[:1], items=tuple(items))


def summarise(problems: Iterable[Problem], *, named: int = 3) -> list[str]:
    """One line per kind of problem: how many, and where the first ``named`` are."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    lines = []
    for kind, own in kinds.items():
        places = "; ".join(f"{p.where} ({p.message})" for p in own[:named])
        lines.append(f"{len(own)} x {kind}: {places}{' ...' if len(own) > named else ''}")
    return lines


def require_items(index: AnnotationIndex, where: str) -> AnnotationIndex:
    """The index itself, or DataError when no picture of the split can be used."""
    if index.items:
        return index
    said = summarise(index.problems, named=1)
    raise DataError(
        f"the {index.split} split has no usable picture" if index.split else "there is no usable picture",
        where=where,
        hint=("Found " + " | ".join(said)) if said else "Check the path of the split and the picture files.",
    )
