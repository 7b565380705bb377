"""From files to batches. The names below are loaded when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "data_settings": "anyolo.data.reader",
    "open_data": "anyolo.data.reader",
    "AnnotationIndex": "anyolo.data.index",
    "Item": "anyolo.data.index",
    "Problem": "anyolo.data.index",
    "DetectionDataset": "anyolo.data.dataset",
    "make_loader": "anyolo.data.loader",
}

if TYPE_CHECKING:
    from anyolo.data.dataset import DetectionDataset
    from anyolo.data.index import AnnotationIndex, Item, Problem
    from anyolo.data.loader import make_loader
    from anyolo.data.reader import data_settings, open_data

__all__ = [
    "AnnotationIndex",
    "DetectionDataset",
    "Item",
    "Problem",
    "data_settings",
    "make_loader",
    "open_data",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'anyolo.data' has no attribute {name!r}")
