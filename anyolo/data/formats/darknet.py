"""Darknet's ``.data``: ``key = value`` lines that name list files, and a file of class names.

Yolo-FastestV2 trains from such a file too, with sections, where it also says which network, at which size,
with which anchors and for how long. These become settings (``settings``); what is typed wins over them.

Source: the layouts are facts of Darknet (Redmon, pjreddie.com/darknet) and of Yolo-FastestV2.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from anyolo.data.formats.base import DatasetFormat, FileSettings
from anyolo.data.formats.data_yaml import SPLITS, DataFile, find_entry
from anyolo.data.formats.label_files import read_split, write_split
from anyolo.data.index import AnnotationIndex
from anyolo.errors import DataError, UnknownName

NETWORK = "yolo-fastestv2"
"""The one network that such files describe, where they describe one at all."""

_PLAIN = {
    "epochs": "epochs",
    "steps": "steps",
    "learning_rate": "lr0",
    "model_name": "name",
    "anchors": "anchors",
}
"""Keys whose value is that of a setting."""
_OF_NETWORK = ("pre_weights", "anchors", "anchor_num")
_KNOWN = {
    *(word for words in SPLITS.values() for word in words), *_PLAIN, *_OF_NETWORK,
    "batch_size", "subdivisions", "width", "height", "classes", "names",
}  # fmt: skip


class _Entry(NamedTuple):
    value: str
    where: str


@dataclass(frozen=True, slots=True)
class _DataLines:
    path: str
    entries: Mapping[str, _Entry]
    unused: tuple[str, ...]

    @property
    def folders(self) -> tuple[str, ...]:
        """Paths are relative to the file, the working directory, or the folder above (``cfg/coco.data``)."""
        own = os.path.dirname(os.path.abspath(self.path))
        return own, os.getcwd(), os.path.dirname(own)

    def text(self, key: str) -> str:
        """Empty where the key is absent or None."""
        value = self.entries[key].value if key in self.entries else ""
        return "" if value.lower() == "none" else value

    def where(self, *keys: str) -> str:
        return next((self.entries[key].where for key in keys if key in self.entries), self.path)

    def number(self, key: str) -> int:
        """A whole number from 1; 0 where the key is absent."""
        text = self.text(key)
        if text and not (text.isascii() and text.isdigit() and int(text)):
            raise DataError(
                f"{key}={text} is not allowed", where=self.where(key), hint="It takes a whole number from 1."
            )
        return int(text or 0)


class DarknetFormat(DatasetFormat):
    name = "darknet"

    def matches(self, root: str) -> bool:
        """A ``.data`` file, or a folder with one and no YAML."""
        return root.lower().endswith(".data") if not os.path.isdir(root) else bool(_data_file(root))

    def read(self, root: str, split: str) -> AnnotationIndex:
        lines = _read_lines(_data_file(root))
        splits = {
            split: (value,)
            for split, words in SPLITS.items()
            if (value := next(filter(None, map(lines.text, words)), ""))
        }
        return read_split(DataFile(lines.path, lines.folders, splits, _class_names(lines)), split)

    def settings(self, root: str) -> FileSettings:
        lines = _read_lines(_data_file(root))
        values = {
            key: (lines.text(word), lines.where(word)) for word, key in _PLAIN.items() if lines.text(word)
        }
        if any(key in lines.entries for key in _OF_NETWORK):
            values["model"] = (_weights(lines) or NETWORK, lines.where(*_OF_NETWORK))
            _check_anchors(lines)
        width, height = lines.number("width"), lines.number("height")
        if width or height:
            size = f"{height or width},{width or height}" if width != height else f"{width}"
            values["imgsz"] = (size, lines.where("width", "height"))
        if batch := lines.number("batch_size"):
            # as in Darknet: the pictures of one update, in so many parts
            parts = lines.number("subdivisions") or 1
            if batch % parts:
                raise DataError(
                    f"batch_size={batch} cannot be split into subdivisions={parts}",
                    where=lines.where("subdivisions"),
                    hint="Make it a multiple.",
                )
            values["batch"] = (str(batch // parts), lines.where("batch_size"))
            values["nbs"] = (str(batch), lines.where("batch_size"))
        return FileSettings(
            values={key: value for key, (value, _) in values.items()},
            places={key: where for key, (_, where) in values.items()},
            unused=lines.unused,
        )

    def write(self, index: AnnotationIndex, root: str) -> str:
        split = write_split(index, root)
        listed = os.listdir(os.path.join(root, "images", split))
        _write(os.path.join(root, f"{split}.txt"), (f"images/{split}/{name}" for name in sorted(listed)))
        _write(os.path.join(root, "obj.names"), index.names)
        path = os.path.join(root, "obj.data")
        words = {"train": "train", "val": "valid", "test": "test"}
        there = [s for s in words if s == split or os.path.exists(os.path.join(root, f"{s}.txt"))]
        lines = [f"{words[s]} = {s}.txt" for s in there]
        _write(path, (f"classes = {len(index.names)}", *lines, "names = obj.names", "backup = backup/"))
        return path


DARKNET = DarknetFormat()


def _data_file(root: str) -> str:
    """The file itself, or the only one of a folder without YAML; empty where there is none."""
    if not os.path.isdir(root):
        return root
    names = os.listdir(root)
    files = [name for name in names if name.lower().endswith(".data")]
    is_plain = len(files) == 1 and not any(name.endswith((".yaml", ".yml")) for name in names)
    return os.path.join(root, files[0]) if is_plain else ""


def _read_lines(path: str) -> _DataLines:
    """DataError or UnknownName with the line of what is no ``key = value``, given twice, or misspelt."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            rows = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the file: {error}", where=path, hint="It must be a text file in UTF-8."
        ) from error
    entries: dict[str, _Entry] = {}
    unused: list[str] = []
    for number, row in enumerate(rows, 1):
        line, where = row.strip(), f"{path}:{number}"
        if not line or line[0] in "#;[":
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key:
            raise DataError(
                f"{line[:60]!r} is no key = value", where=where, hint="For example: train = train.txt"
            )
        if key in entries and entries[key].value != value:
            raise DataError(f"{key} is given twice", where=where, hint=f"Also in {entries[key].where}.")
        if key not in _KNOWN:
            if difflib.get_close_matches(key.lower(), _KNOWN, n=1, cutoff=0.8):
                raise UnknownName("key", key, _KNOWN, where=where)
            unused.append(key)
        entries[key] = _Entry(value, where)
    return _DataLines(path, entries, tuple(unused))


def _class_names(lines: _DataLines) -> tuple[str, ...]:
    """From the file of names, else numbered; both must agree with ``classes``."""
    classes = lines.number("classes")
    if not lines.text("names"):
        if classes:
            return tuple(f"class{number}" for number in range(classes))
        raise DataError("names is missing", where=lines.path, hint="Add names = obj.names, one name a line.")
    path = find_entry(lines.text("names"), lines.folders, where=lines.where("names"), key="names")
    with open(path, encoding="utf-8-sig") as file:
        names = tuple(line.strip() for line in file if line.strip())
    if not names or (classes and classes != len(names)):
        raise DataError(
            f"classes = {classes}, but {path} has {len(names)} names",
            where=lines.where("classes", "names"),
            hint="Make both the same.",
        )
    return names


def _weights(lines: _DataLines) -> str:
    """The file that ``pre_weights`` means, as written where there is none; empty for none."""
    entry = lines.text("pre_weights").replace("\\", "/")
    places = (os.path.normpath(os.path.join(folder, entry)) for folder in lines.folders)
    return next(filter(os.path.isfile, places), entry) if entry else ""


def _check_anchors(lines: _DataLines) -> None:
    count, sides = (
        lines.number("anchor_num"),
        [side for side in lines.text("anchors").split(",") if side.strip()],
    )
    if count and sides and len(sides) % (2 * count):
        raise DataError(
            f"{len(sides)} numbers are no width and height for anchor_num={count} anchors per level",
            where=lines.where("anchors"),
            hint="Write w,h for every anchor, finest level first.",
        )


def _write(path: str, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
