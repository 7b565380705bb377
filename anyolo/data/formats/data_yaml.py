"""``data.yaml``: where the pictures of each split are and what the classes are called.

Rules of the field: ``path`` is relative to the yaml's own folder, then to the working directory; a split is a
folder, a list file, or several of them; ``names`` is a list or ``{0: name}``; ``nc`` is optional.
``download`` is never executed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from anyolo.data.pictures import SUFFIXES, list_pictures
from anyolo.errors import DataError

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""Names a split goes by, in files and as folders."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """``splits`` maps train, val, test to the paths as written; ``folders`` is where they are looked for.

    ``is_written``: there is such a file; else it was made up from the contents of a folder.
    """

    path: str
    folders: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]]
    names: tuple[str, ...]
    is_written: bool = True


def read_data_yaml(path: str) -> DataFile:
    """DataError: the line of a broken file, missing keys, an ``nc`` that contradicts ``names``."""
    content = _load(path)
    own = os.path.dirname(os.path.abspath(path))
    base = str(content.get("path") or ".")
    candidates = [os.path.join(own, base), os.path.abspath(base)]
    folders = tuple(os.path.normpath(folder) for folder in candidates if os.path.isdir(folder))
    if not folders:
        raise DataError(
            f"path: {base} does not exist",
            where=path,
            hint=f"Looked for {candidates[0]} and {candidates[1]}. Nothing is downloaded: correct it.",
        )
    splits = {}
    for split, keys in SPLITS.items():
        entry = next((content[key] for key in keys if content.get(key)), None)
        if entry is not None:
            splits[split] = tuple(map(str, entry)) if isinstance(entry, list) else (str(entry),)
    return DataFile(path, (*folders, own), splits, _class_names(content, path))


def list_split(config: DataFile, split: str) -> tuple[list[str], list[str]]:
    """The picture files of a split, in order and each once, and the listed ones that do not exist."""
    if split not in config.splits:
        known = ", ".join(config.splits) or "none"
        raise DataError(
            f"there is no {split} split", where=config.path, hint=f"Splits in this file: {known}."
        )
    pictures: list[str] = []
    missing: list[str] = []
    for entry in config.splits[split]:
        place = find_entry(entry, config.folders, where=config.path, key=split)
        if os.path.isdir(place):
            pictures += list_pictures(place)
        elif os.path.splitext(place)[1].lower() in SUFFIXES:
            pictures.append(place)
        else:
            found, lost = read_list(place, config.folders)
            pictures += found
            missing += lost
    return list(dict.fromkeys(pictures)), missing


def read_list(path: str, folders: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """One picture a line, relative to the list's own folder or to ``folders``: (found, ``path:line (entry)``
    lost).
    """
    places = (os.path.dirname(os.path.abspath(path)), *folders)
    found, lost = [], []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            entry = line.strip().replace("\\", "/")
            if entry:
                candidates = (os.path.normpath(os.path.join(place, entry)) for place in places)
                picture = next((p for p in candidates if os.path.isfile(p)), None)
                if picture:
                    found.append(picture)
                else:
                    lost.append(f"{path}:{number} ({entry})")
    return found, lost


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = yaml.safe_load(file)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise DataError(
            f"this is not valid YAML: {getattr(error, 'problem', None) or error}",
            where=where,
            hint="Check the indentation and the quotes around names with special characters.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the file: {error}", where=path, hint="It must be a text file in UTF-8."
        ) from error
    if not isinstance(content, dict):
        raise DataError("this file holds no keys", where=path, hint="It needs train:, val: and names:.")
    return content


def _class_names(content: Mapping[str, Any], path: str) -> tuple[str, ...]:
    names, nc = content.get("names"), content.get("nc")
    if nc is not None and (not isinstance(nc, int) or nc < 1):
        raise DataError(
            f"nc: {nc} is not a number of classes", where=path, hint="Remove nc:, names: is enough."
        )
    if names is None:
        if nc is None:
            raise DataError(
                "names: is missing", where=path, hint="Add the class names, for example names: [cat, dog]."
            )
        return tuple(f"class{number}" for number in range(nc))
    if isinstance(names, dict):
        by_number = {int(key): name for key, name in names.items() if str(key).isdigit()}
        if sorted(by_number) != list(range(len(names))):
            raise DataError(
                f"names: must be numbered 0 to {len(names) - 1} without gaps",
                where=path,
                hint=f"It has {list(names)}.",
            )
        names = [by_number[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(
            "names: must be a list or {0: name}", where=path, hint="For example names: [cat, dog]."
        )
    if nc is not None and nc != len(names):
        raise DataError(
            f"nc: {nc}, but names: has {len(names)} entries", where=path, hint="Remove nc:, names: is enough."
        )
    return tuple(map(str, names))


def find_entry(entry: str, folders: Sequence[str], *, where: str, key: str) -> str:
    """What is written as ``key: entry``, in the first of ``folders`` that has it; else DataError."""
    entry = entry.replace("\\", "/")
    # "../train/images" beside the yaml is how one popular exporter writes "train/images"
    spellings = (entry, entry.removeprefix("../")) if entry.startswith("../") else (entry,)
    tried = [os.path.normpath(os.path.join(folder, spelling)) for spelling in spellings for folder in folders]
    for place in tried:
        if os.path.exists(place):
            return place
    raise DataError(
        f"{key}: {entry} does not exist",
        where=where,
        hint=f"Looked for {', '.join(dict.fromkeys(tried))}. Correct the path; nothing is downloaded.",
    )
