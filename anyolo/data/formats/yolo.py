"""YOLO: pictures in folders or list files, one text file of boxes per picture."""

from __future__ import annotations

import os
from collections.abc import Sequence

import yaml

from anyolo.data.formats.base import DatasetFormat
from anyolo.data.formats.data_yaml import SPLITS, DataFile, read_data_yaml, read_list
from anyolo.data.formats.label_files import label_path, read_split, write_split
from anyolo.data.index import AnnotationIndex
from anyolo.data.labels import read_label_file
from anyolo.data.pictures import list_pictures


class YoloFormat(DatasetFormat):
    name = "yolo"

    def matches(self, root: str) -> bool:
        return _is_yaml(root) or root.lower().endswith(".txt") or os.path.isdir(root)

    def read(self, root: str, split: str) -> AnnotationIndex:
        return read_split(_open(root), split)

    def write(self, index: AnnotationIndex, root: str) -> str:
        split = write_split(index, root)
        path = os.path.join(root, "data.yaml")
        splits = {}
        if os.path.exists(path):
            splits = {key: list(entries) for key, entries in read_data_yaml(path).splits.items()}
        content = {"path": ".", **splits, split: f"images/{split}", "names": dict(enumerate(index.names))}
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump(content, file, sort_keys=False, allow_unicode=True)
        return path


YOLO = YoloFormat()


def _is_yaml(path: str) -> bool:
    return path.lower().endswith((".yaml", ".yml"))


def _open(root: str) -> DataFile:
    """A data.yaml as it is; a folder or a list file as if it had a simple one."""
    if _is_yaml(root):
        return read_data_yaml(root)
    if not os.path.isdir(root):
        pictures, _ = read_list(root, ())
        own = os.path.dirname(os.path.abspath(root))
        everywhere = dict.fromkeys(SPLITS, (os.path.basename(root),))
        return DataFile(root, (own,), everywhere, _names_for(own, pictures), is_written=False)
    inside = [os.path.join(root, name) for name in ("data.yaml", "data.yml", "dataset.yaml")]
    written = next((path for path in inside if os.path.exists(path)), None)
    if written:
        return read_data_yaml(written)
    splits = {}
    for split, words in SPLITS.items():
        places = [place for word in words for place in (f"images/{word}", f"{word}/images", word)]
        splits[split] = next(((p,) for p in places if os.path.isdir(os.path.join(root, p))), None)
    # a plain folder of pictures is every split
    named = {split: place for split, place in splits.items() if place} or dict.fromkeys(SPLITS, (".",))
    names = _names_for(root, list_pictures(root))
    return DataFile(root, (os.path.abspath(root),), named, names, is_written=False)


def _names_for(folder: str, pictures: Sequence[str]) -> tuple[str, ...]:
    """From classes.txt or obj.names, else numbered after the largest class in the labels."""
    for name in ("classes.txt", "obj.names"):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8-sig") as file:
                return tuple(line.strip() for line in file if line.strip())
    largest = 0
    for picture in pictures:
        labels, _ = read_label_file(label_path(picture), nc=1 << 16)
        largest = max(largest, int(labels[:, 0].max(initial=0)))
    return tuple(f"class{number}" for number in range(largest + 1))
