"""anyolo: train, evaluate and deploy YOLO detectors on any device, and prove it.

``import anyolo`` costs nothing: the names below are loaded when first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "YOLO": "anyolo.api",
    "train": "anyolo.api",
    "val": "anyolo.api",
    "predict": "anyolo.api",
    "export": "anyolo.api",
    "benchmark": "anyolo.api",
    "info": "anyolo.api",
    "profile": "anyolo.api",
    "logger_info": "anyolo.api",
    "convert": "anyolo.api",
    "strip": "anyolo.api",
    "demo": "anyolo.api",
    "audit": "anyolo.audit",
    "AnyoloError": "anyolo.errors",
}

if TYPE_CHECKING:
    from anyolo.api import (
        YOLO,
        benchmark,
        convert,
        demo,
        export,
        info,
        logger_info,
        predict,
        profile,
        strip,
        train,
        val,
    )
    from anyolo.audit import audit
    from anyolo.errors import AnyoloError

__all__ = [
    "YOLO",
    "AnyoloError",
    "__version__",
    "audit",
    "benchmark",
    "convert",
    "demo",
    "export",
    "info",
    "logger_info",
    "predict",
    "profile",
    "strip",
    "train",
    "val",
]


def _verb(name: str) -> property:
    """The public function, whatever was imported: importing a room sets an attribute of its name."""
    return property(lambda module: getattr(import_module(_PUBLIC[name]), name), lambda module, room: None)


class _Package(ModuleType):
    """``anyolo.train(...)`` is a verb, ``anyolo/train/`` a room: the verb wins (docs/adr/0004)."""

    train = _verb("train")
    export = _verb("export")
    audit = _verb("audit")


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'anyolo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
