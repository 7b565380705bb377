"""COCO json: ``images``, ``annotations`` and ``categories`` in one file.

Category ids may have gaps; classes are numbered in the order of the ids (for the 80 classes of COCO that is
the field's order) and the ids are kept for ``save_json``. Crowds are kept and marked.

Source: Lin et al. 2014, arXiv 1405.0312; format at cocodataset.org/#format-data.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anyolo.data.formats.base import DatasetFormat, copy_pictures
from anyolo.data.index import AnnotationIndex, Item, Problem
from anyolo.data.index_cache import cached_index
from anyolo.data.labels import clip_labels
from anyolo.data.pictures import list_pictures, read_many
from anyolo.errors import DataError
from anyolo.ops.image import read_size
from anyolo.types import SizeHW

_WORDS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_ASPECT_SLACK = 0.02
"""A picture may have another size than its json says (resized), but not another shape (rotated)."""


class CocoFormat(DatasetFormat):
    name = "coco"

    def matches(self, root: str) -> bool:
        if not os.path.isdir(root):
            return root.lower().endswith(".json")
        has_yaml = any(name.endswith((".yaml", ".yml")) for name in os.listdir(root))
        return not has_yaml and bool(_jsons(root))

    def read(self, root: str, split: str) -> AnnotationIndex:
        path = root if root.lower().endswith(".json") else _choose(_jsons(root), split, root)
        return cached_index(
            lambda: _build(path, split),
            root=os.path.abspath(path),
            name=f"coco-{split}",
            files=lambda folder: [path, *list_pictures(folder)],
        )

    def write(self, index: AnnotationIndex, root: str) -> str:
        split = index.split or "train"
        pictures = copy_pictures(index.items, os.path.join(root, "images", split))
        ids = _image_numbers(index.items)
        categories = index.category_ids or tuple(range(len(index.names)))
        annotations = [
            {
                "image_id": number,
                "category_id": categories[int(row[0])],
                "bbox": _bbox(row, item.size_hw),
                "area": float(area),
                "iscrowd": int(crowd),
            }
            for item, number in zip(index.items, ids, strict=True)
            for row, area, crowd in zip(item.labels, item.area, item.crowd, strict=True)
        ]
        content = {
            "images": [
                {
                    "id": n,
                    "file_name": os.path.basename(p),
                    "width": item.size_hw[1],
                    "height": item.size_hw[0],
                }
                for item, n, p in zip(index.items, ids, pictures, strict=True)
            ],
            "annotations": [{"id": number, **own} for number, own in enumerate(annotations, 1)],
            "categories": [{"id": c, "name": name} for c, name in zip(categories, index.names, strict=True)],
        }
        path = os.path.join(root, "annotations", f"instances_{split}.json")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file)
        return path


COCO = CocoFormat()


def _jsons(folder: str) -> list[str]:
    """Annotation files of a folder: in ``annotations/``, in itself, or beside the pictures of each split."""
    if not os.path.isdir(folder):
        return []
    splits = [word for words in _WORDS.values() for word in words]
    found = []
    for place in ("annotations", "", *splits):
        inside = os.path.join(folder, place)
        names = sorted(os.listdir(inside)) if os.path.isdir(inside) else []
        marked = [n for n in names if place == "annotations" or "instances" in n or "annotations" in n]
        found += [os.path.join(inside, name) for name in marked if name.endswith(".json")]
    return found


def _choose(paths: Sequence[str], split: str, root: str) -> str:
    """The file of the split by its name; the only file is every split."""
    if len(paths) == 1:
        return paths[0]
    named = [p for p in paths if any(word in os.path.relpath(p, root).lower() for word in _WORDS[split])]
    boxes = [p for p in named if os.path.basename(p).startswith("instances")] or named
    if len(boxes) == 1:
        return boxes[0]
    names = ", ".join(os.path.relpath(p, root) for p in paths)
    raise DataError(
        f"{len(boxes)} json files could be the {split} split" if boxes else f"no json is named after {split}",
        where=root,
        hint=f"Give the file itself as data=. Here are {names}.",
    )


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content: dict[str, Any] = json.load(file)
    except json.JSONDecodeError as error:
        raise DataError(
            f"this is not valid JSON: {error.msg}",
            where=f"{path}:{error.lineno}",
            hint="The file may be cut off.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the file: {error}", where=path, hint="Check the path and its rights."
        ) from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(
                f"this COCO file has no list {key!r}", where=path, hint="Detection needs an instances_*.json."
            )
    return content


def _find_folder(path: str, images: Sequence[Mapping[str, Any]], split: str) -> str:
    """Where the ``file_name`` entries lie: beside the json, in ``images/``, one level up, or below."""
    own = os.path.dirname(os.path.abspath(path))
    year = os.path.splitext(os.path.basename(path))[0].rpartition("_")[2]  # instances_val2017 -> val2017
    inner = ["", "images", year, split, f"images/{year}", f"images/{split}"]
    names = [str(image["file_name"]) for image in images[:50] if image.get("file_name")]
    places = [os.path.join(base, word) for word in inner for base in (own, os.path.dirname(own))]
    below = (parent for parent, _, _ in os.walk(own))
    for folder in itertools.chain(places, below):
        if any(os.path.isfile(os.path.join(folder, name)) for name in names):
            return os.path.normpath(folder)
    raise DataError(
        f"the pictures of this file were not found (for example {names[0] if names else 'none is listed'})",
        where=path,
        hint=f"Put them into {os.path.join(own, 'images')} or beside the json.",
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """Annotations of one picture as read: (class, x, y, w, h, area, crowd)."""

    image: Mapping[str, Any]
    rows: list[tuple[float, ...]]


def _build(path: str, split: str) -> AnnotationIndex:
    content = _load(path)
    folder = _find_folder(path, content["images"], split)
    categories = sorted(content["categories"], key=lambda category: int(category["id"]))
    number = {int(category["id"]): k for k, category in enumerate(categories)}
    problems: list[Problem] = []
    by_image: dict[Any, _Rows] = {image["id"]: _Rows(image, []) for image in content["images"]}
    for annotation in content["annotations"]:
        where = f"{path} annotation {annotation.get('id', '?')}"
        row, problem = _read_annotation(annotation, number, where)
        if annotation.get("image_id") not in by_image:
            row, problem = (
                None,
                Problem(where, f"image {annotation.get('image_id')} is not listed", "unknown image"),
            )
        if row is not None:
            by_image[annotation["image_id"]].rows.append(row)
        problems += [problem] if problem else []
    sources = list(by_image.values())
    items = []
    for item, own in read_many(lambda source: _read_image(source, folder), sources, f"reading {split}"):
        items += [item] if item else []
        problems += own
    return AnnotationIndex(
        names=tuple(str(category["name"]) for category in categories),
        items=tuple(items),
        problems=tuple(problems),
        root=folder,
        split=split,
        category_ids=tuple(number),
    )


def _read_annotation(
    annotation: Mapping[str, Any], number: Mapping[int, int], where: str
) -> tuple[tuple[float, ...] | None, Problem | None]:
    box = annotation.get("bbox")
    try:
        x, y, width, height = (float(value) for value in box)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        return None, Problem(where, f"bbox is {str(box)[:40]}", "unreadable label")
    if not np.isfinite((x, y, width, height)).all():
        return None, Problem(where, "NaN or infinite value", "NaN label")
    if annotation.get("category_id") not in number:
        return None, Problem(
            where, f"category {annotation.get('category_id')} is not listed", "class out of range"
        )
    if width <= 0 or height <= 0:
        return None, Problem(where, "box without area", "empty box")
    area = float(annotation.get("area") or width * height)
    crowd = bool(annotation.get("iscrowd", 0))
    return (number[annotation["category_id"]], x, y, width, height, area, crowd), None


def _read_image(source: _Rows, folder: str) -> tuple[Item | None, list[Problem]]:
    name = str(source.image.get("file_name"))
    path = os.path.join(folder, name)
    try:
        actual = read_size(path)
    except DataError as error:
        kind = "unusable picture" if os.path.exists(path) else "missing picture"
        return None, [Problem(path, error.message, kind)]
    said = (int(source.image.get("height") or actual[0]), int(source.image.get("width") or actual[1]))
    if abs(said[0] * actual[1] / (said[1] * actual[0]) - 1) > _ASPECT_SLACK:
        message = (
            f"{actual[1]}x{actual[0]} upright, but the json says {said[1]}x{said[0]}: its boxes do not fit"
        )
        return None, [Problem(path, message, "picture of another shape")]
    table = np.asarray(source.rows, np.float64).reshape(-1, 7)
    labels = np.empty((len(table), 5))
    labels[:, 0] = table[:, 0]
    labels[:, 1:3] = (table[:, 1:3] + table[:, 3:5] / 2) / (said[1], said[0])
    labels[:, 3:5] = table[:, 3:5] / (said[1], said[0])
    problems = []
    inside = (labels[:, 1:3] - labels[:, 3:5] / 2 < 1).all(1) & (labels[:, 1:3] + labels[:, 3:5] / 2 > 0).all(
        1
    )
    if not inside.all():
        problems.append(
            Problem(path, f"{int((~inside).sum())} outside the picture", "coordinates out of range")
        )
    ratio = actual[0] * actual[1] / (said[0] * said[1])
    item = Item(
        path=path,
        size_hw=actual,
        labels=clip_labels(labels[inside]),
        crowd=table[inside, 6] > 0,
        area=(table[inside, 5] * ratio).astype(np.float32),
        image_id=source.image["id"],
    )
    return item, problems


def _image_numbers(items: Sequence[Item]) -> list[int]:
    """The pictures' own numbers where they all have different ones, else 1, 2, 3, ..."""
    own = [item.image_id for item in items if isinstance(item.image_id, int)]
    return own if len(set(own)) == len(items) else list(range(1, len(items) + 1))


def _bbox(row: Any, size_hw: SizeHW) -> list[float]:
    height, width = size_hw
    _, x, y, w, h = (float(value) for value in row)
    return [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
