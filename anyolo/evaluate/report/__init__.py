"""Pictures of a run and of an evaluation, drawn without a display and without global state."""

from __future__ import annotations

from pathlib import Path

from anyolo.evaluate.evaluator import Evaluation
from anyolo.evaluate.report.anchors import draw_anchors
from anyolo.evaluate.report.batches import draw_batches
from anyolo.evaluate.report.benchmark import draw_benchmark
from anyolo.evaluate.report.curves import draw_curves
from anyolo.evaluate.report.labels import draw_labels
from anyolo.evaluate.report.matrix import draw_confusion
from anyolo.evaluate.report.mosaics import draw_batch, draw_pairs
from anyolo.evaluate.report.training import draw_training
from anyolo.types import PathLike

__all__ = [
    "draw_anchors",
    "draw_batch",
    "draw_batches",
    "draw_benchmark",
    "draw_labels",
    "draw_report",
    "draw_training",
]


def draw_report(evaluation: Evaluation, folder: PathLike) -> None:
    """Curves, both confusion matrices, and up to 48 pictures: the truth beside what was found."""
    folder = Path(folder)
    draw_curves(evaluation.curves, evaluation.names, folder)
    draw_confusion(evaluation.confusion, evaluation.names, folder)
    draw_pairs(evaluation.items, evaluation.found, evaluation.names, folder)
