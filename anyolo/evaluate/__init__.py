"""How good a predictor is: COCO figures, curves, pictures. The names below are loaded when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Evaluation": "anyolo.evaluate.evaluator",
    "evaluate": "anyolo.evaluate.evaluator",
    "judge": "anyolo.evaluate.evaluator",
}

if TYPE_CHECKING:
    from anyolo.evaluate.evaluator import Evaluation, evaluate, judge

__all__ = ["Evaluation", "evaluate", "judge"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'anyolo.evaluate' has no attribute {name!r}")
