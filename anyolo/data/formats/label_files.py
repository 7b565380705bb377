"""One text file of boxes per picture, as several formats have it.

``images/`` in a picture's path becomes ``labels/``; otherwise the labels lie beside the picture.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from anyolo import console
from anyolo.data.formats.base import copy_pictures
from anyolo.data.formats.data_yaml import DataFile, list_split
from anyolo.data.index import AnnotationIndex, Item, Problem
from anyolo.data.index_cache import cached_index
from anyolo.data.labels import read_label_file
from anyolo.data.pictures import read_many
from anyolo.errors import DataError
from anyolo.ops.image import read_size


def read_split(config: DataFile, split: str) -> AnnotationIndex:
    """The pictures that ``config`` lists for a split, with their boxes; DataError when it lists none."""
    pictures, missing = list_split(config, split)
    if not pictures and not missing:
        raise DataError(
            f"the {split} split is empty",
            where=config.path,
            hint=f"No picture in {', '.join(config.splits[split])} (below {config.folders[0]}).",
        )
    labels = [label_path(picture) for picture in pictures]
    index = cached_index(
        lambda: _scan(config, split, pictures, labels, missing),
        root=config.path,
        name=f"yolo-{split}",
        files=lambda _: [*pictures, *labels],
        facts=[*config.names, *missing],
    )
    _refuse_short_names(index, config, labels)
    return index


def write_split(index: AnnotationIndex, root: str) -> str:
    """Copy pictures to ``images/<split>`` and write ``labels/<split>`` below ``root``; returns the split."""
    split = index.split or "train"
    pictures = copy_pictures(index.items, os.path.join(root, "images", split))
    folder = os.path.join(root, "labels", split)
    os.makedirs(folder, exist_ok=True)
    for item, picture in zip(index.items, pictures, strict=True):
        stem = os.path.splitext(os.path.basename(picture))[0]
        rows = item.labels[~item.crowd]  # the format has no word for crowds
        # nine digits bring a float32 back exactly
        text = "".join(f"{int(row[0])} {' '.join(f'{value:.9g}' for value in row[1:])}\n" for row in rows)
        with open(os.path.join(folder, f"{stem}.txt"), "w", encoding="utf-8") as file:
            file.write(text)
    crowds = sum(int(item.crowd.sum()) for item in index.items)
    if crowds:
        console.current().warn(f"{crowds} crowd boxes left out: YOLO label files cannot mark them")
    return split


def label_path(picture: str) -> str:
    """Where the labels of a picture are; beside it where the ``labels/`` folder has none for it."""
    stem = os.path.splitext(picture)[0]
    beside = f"{stem}.txt"
    before, mark, after = stem.replace("\\", "/").rpartition("/images/")
    if not mark:
        return beside
    apart = os.path.normpath(f"{before}/labels/{after}.txt")
    return beside if not os.path.exists(apart) and os.path.exists(beside) else apart


def _scan(
    config: DataFile, split: str, pictures: Sequence[str], labels: Sequence[str], missing: Sequence[str]
) -> AnnotationIndex:
    problems = [Problem(where, "no such file", "missing picture") for where in missing]
    if config.is_written and labels and not any(map(os.path.exists, labels)):
        problems.append(Problem(labels[0], "and likewise for all others", "no label file at all"))
    items = []
    pairs = list(zip(pictures, labels, strict=True))
    for item, own in read_many(
        lambda pair: _read_pair(*pair, nc=len(config.names)), pairs, f"reading {split}"
    ):
        problems += own
        items += [item] if item else []
    return AnnotationIndex(
        names=config.names,
        items=tuple(items),
        problems=tuple(problems),
        root=config.folders[0],
        split=split,
        category_ids=tuple(range(len(config.names))),
    )


def _read_pair(picture: str, label: str, *, nc: int) -> tuple[Item | None, list[Problem]]:
    try:
        height, width = read_size(picture)
    except DataError as error:
        return None, [Problem(picture, error.message, "unusable picture")]
    rows, problems = read_label_file(label, nc)
    stem = os.path.splitext(os.path.basename(picture))[0]
    item = Item(
        path=picture,
        size_hw=(height, width),
        labels=rows,
        crowd=np.zeros(len(rows), np.bool_),
        area=rows[:, 3] * rows[:, 4] * np.float32(height * width),
        image_id=int(stem) if stem.isdigit() else stem,
    )
    return item, problems


def _refuse_short_names(index: AnnotationIndex, config: DataFile, labels: Sequence[str]) -> None:
    """A wrong class in one file is a slip; in many files the names are wrong, and training would learn
    nonsense.
    """
    wrong = [problem for problem in index.problems if problem.kind == "class out of range"]
    files = {problem.where.rpartition(":")[0] for problem in wrong}
    if len(files) > 1 and len(files) > 0.1 * len(labels):
        raise DataError(
            f"{len(wrong)} labels in {len(files)} files have a class that names: does not list",
            where=wrong[0].where,
            hint=f"{config.path} names {len(config.names)} classes; {wrong[0].message}.",
        )
