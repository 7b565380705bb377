"""``data=`` to an index: which format it is, and what the user asked of it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from anyolo import console
from anyolo.data.formats import FORMATS
from anyolo.data.formats.base import DatasetFormat, FileSettings
from anyolo.data.index import AnnotationIndex, require_items, summarise
from anyolo.errors import DataError


def open_data(
    data: str,
    split: str,
    *,
    single_cls: bool = False,
    classes: Sequence[int] | None = None,
    fraction: float = 1.0,
) -> AnnotationIndex:
    """Read one split (train, val or test) of a data.yaml, a folder, a COCO json or a Darknet .data.

    What was left out is told to the console, one line per kind, and kept in ``problems``.

    Raises:
        DataError: no such file or split, a broken file, or not one usable picture.
    """
    index = require_items(_format(data).read(data, split), data)
    for line in summarise(index.problems):
        console.current().warn(f"{split}: {line}")
    index = index.only(classes) if classes is not None else index
    index = index.as_single_class() if single_cls else index
    return index.share(fraction) if fraction < 1 else index


def data_settings(data: str) -> FileSettings:
    """What the data file says beside the data; nothing where it is no such file, or there is none."""
    return _format(data).settings(data) if data and os.path.exists(data) else FileSettings()


def _format(data: str) -> DatasetFormat:
    """The format that reads ``data``."""
    if not data:
        raise DataError(
            "no data set given", where="data", hint="Type data=my/data.yaml, a folder or a COCO json."
        )
    if not os.path.exists(data):
        raise DataError("there is no such file or folder", where=data, hint=_nearby(data))
    for name in FORMATS.names():
        if FORMATS.get(name).matches(data):
            return FORMATS.get(name)
    raise DataError(
        "this is no data set any format knows", where=data, hint=f"Formats: {', '.join(FORMATS.names())}."
    )


def _nearby(path: str) -> str:
    """What does exist in the folder that was meant."""
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    files = [
        name for name in sorted(os.listdir(folder)) if name.endswith((".yaml", ".yml", ".json", ".data"))
    ]
    here = ", ".join(files[:8]) or "no data.yaml and no json"
    return f"The working directory is {os.getcwd()}; {folder} holds {here}."
