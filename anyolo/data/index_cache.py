"""The index of a split, kept in one ``.npz`` so that the next start need not open every file.

Plain arrays and JSON, no pickle. Valid for exactly the files it was made from (path, size, time of change).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from anyolo import console
from anyolo.data.index import AnnotationIndex, Item, Problem

_VERSION = 1


def cached_index(
    build: Callable[[], AnnotationIndex],
    *,
    root: str,
    name: str,
    files: Callable[[str], Sequence[str]],
    facts: Sequence[str] = (),
) -> AnnotationIndex:
    """``build()`` for the data set ``root``, or what it gave for the same files and ``facts`` before.

    ``files(folder)`` lists what the index depends on, given the ``root`` that the index names.
    Kept in ``cache_folder()``; where nothing can be written, that is said and the work repeated.
    """
    folder = cache_folder()
    if folder is None:
        console.current().warn(
            "no cache folder can be written; set XDG_CACHE_HOME, or every start reads all label files"
        )
        return build()
    path = folder / f"{name}-{hashlib.sha256(os.path.abspath(root).encode()).hexdigest()[:8]}.npz"
    key, found = _load(path)
    if found is not None and key == fingerprint(files(found.root), facts):
        return found
    built = build()
    _save(built, path, fingerprint(files(built.root), facts))
    return built


def cache_folder() -> Path | None:
    """The user's own cache folder, made if need be; None where it cannot be written.

    Data sets are never written into: they are often shared, mounted or under version control.
    ``XDG_CACHE_HOME`` moves it, on every system.
    """
    folder = _user_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def fingerprint(files: Sequence[str], facts: Sequence[str] = ()) -> str:
    """Changes when a file of the list is added, removed, moved, resized or rewritten."""
    digest = hashlib.sha256(json.dumps([_VERSION, *facts]).encode())
    for path in files:
        try:
            status = os.stat(path)
            digest.update(
                f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
            )
        except OSError:
            digest.update(f"{path}\0absent\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _user_cache() -> Path:
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "anyolo"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", tempfile.gettempdir())) / "anyolo"
    home = Path(os.path.expanduser("~"))
    return (home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache") / "anyolo"


def _save(index: AnnotationIndex, path: Path, key: str) -> None:
    """Written beside and renamed: a reader never sees half of it. A full disk costs the cache only."""
    items = index.items
    text = {
        "key": key,
        "names": index.names,
        "root": index.root,
        "split": index.split,
        "category_ids": index.category_ids,
        "paths": [item.path for item in items],
        "image_ids": [item.image_id for item in items],
        "problems": [(p.where, p.message, p.kind) for p in index.problems],
    }
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            np.savez(
                file,
                text=np.frombuffer(json.dumps(text).encode(), np.uint8),
                sizes=np.asarray([item.size_hw for item in items], np.int64).reshape(-1, 2),
                counts=np.asarray([len(item.labels) for item in items], np.int64),
                labels=np.concatenate([np.zeros((0, 5), np.float32), *(item.labels for item in items)]),
                crowd=np.concatenate([np.zeros(0, np.bool_), *(item.crowd for item in items)]),
                area=np.concatenate([np.zeros(0, np.float32), *(item.area for item in items)]),
            )
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        console.current().warn(
            f"{path}: the index could not be kept ({error.strerror}); the next start reads again"
        )


def _load(path: Path) -> tuple[str, AnnotationIndex | None]:
    """(key, index); None when there is none or it is damaged."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            text = json.loads(bytes(stored["text"]))
            sizes, counts = stored["sizes"].tolist(), stored["counts"]
            ends = np.cumsum(counts)[:-1]
            labels, crowd, area = (np.split(stored[name], ends) for name in ("labels", "crowd", "area"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return "", None
    items = tuple(
        Item(path=p, size_hw=(size[0], size[1]), labels=rows, crowd=c, area=a, image_id=image_id)
        for p, size, rows, c, a, image_id in zip(
            text["paths"], sizes, labels, crowd, area, text["image_ids"], strict=False
        )
    )
    return text["key"], AnnotationIndex(
        names=tuple(text["names"]),
        items=items,
        problems=tuple(Problem(*problem) for problem in text["problems"]),
        root=text["root"],
        split=text["split"],
        category_ids=tuple(text["category_ids"]),
    )
