"""How good a predictor is: COCO figures, curves, pictures. The names below are loaded when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Evaluation": "anyolo.evaluate.evaluator",
    "draw_anchors": "anyolo.evaluate.report",
    "draw_batch": "anyolo.evaluate.report",
    "draw_batches": "anyolo.evaluate.report",
    "draw_labels": "anyolo.evaluate.report",
    "draw_report": "anyolo.evaluate.report",
    "draw_training": "anyolo.evaluate.report",
    "evaluate": "anyolo.evaluate.evaluator",
    "judge": "anyolo.evaluate.evaluator",
}

if TYPE_CHECKING:
    from anyolo.evaluate.evaluator import Evaluation, evaluate, judge
    from anyolo.evaluate.report import (
        draw_anchors,
        draw_batch,
        draw_batches,
        draw_labels,
        draw_report,
        draw_training,
    )

__all__ = [
    "Evaluation",
    "draw_anchors",
    "draw_batch",
    "draw_batches",
    "draw_labels",
    "draw_report",
    "draw_training",
    "evaluate",
    "judge",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'anyolo.evaluate' has no attribute {name!r}")
