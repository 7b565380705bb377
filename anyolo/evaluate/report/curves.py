"""Precision against recall, and precision, recall and F1 over the confidence: each class and the mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyolo.evaluate.metrics import Curves
from anyolo.evaluate.report import style


def draw_curves(curves: Curves, names: Sequence[str], folder: Path) -> None:
    """PR_curve.png, F1_curve.png, P_curve.png and R_curve.png."""
    average = curves.precision_at_recall.mean(1)
    mean = float(average.mean()) if len(average) else 0.0
    _draw(
        folder / "PR_curve.png",
        ("Precision and recall at IoU 0.5", "Recall", "Precision"),
        curves.recalls,
        curves.precision_at_recall,
        [f"{names[k]}  {value:.3f}" for k, value in zip(curves.classes, average, strict=True)],
        f"all classes  {mean:.3f} mAP50",
        curves.classes,
    )
    charts = (("F1", curves.f1, "F1"), ("P", curves.precision, "Precision"), ("R", curves.recall, "Recall"))
    for letter, values, word in charts:
        best = int(values.mean(0).argmax()) if len(values) else 0
        if letter == "F1":
            best = curves.best
        height = float(values[:, best].mean()) if len(values) else 0.0
        _draw(
            folder / f"{letter}_curve.png",
            (f"{word} over confidence at IoU 0.5", "Confidence", word),
            curves.confidence,
            values,
            [names[k] for k in curves.classes],
            f"all classes  {height:.2f} at {curves.confidence[best]:.3f}",
            curves.classes,
            mark=(float(curves.confidence[best]), height) if len(values) else None,
        )


def _draw(
    path: Path,
    words: tuple[str, str, str],
    across: NDArray[np.float64],
    lines: NDArray[np.float64],
    labels: Sequence[str],
    mean_label: str,
    classes: NDArray[np.int64],
    mark: tuple[float, float] | None = None,
) -> None:
    figure, (axes,) = style.new_figure(9, 5.6)
    style.name_axes(axes, *words)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.grid(color=style.FAINT, linewidth=0.6)
    few = 1 < len(lines) <= style.MANY_CLASSES
    for line, label, index in zip(lines, labels, classes.tolist(), strict=True):
        colour = style.class_colour(index) if few else "#9fb0c0"
        width, alpha = (1.1, 1.0) if few else (0.5, 0.55)
        axes.plot(across, line, linewidth=width, alpha=alpha, color=colour, label=style.shorten(label, 30))
    if few:
        figure.legend(loc="outside right upper", frameon=False, prop={"family": style.fonts(), "size": 8.5})
    if len(lines):
        axes.plot(across, lines.mean(0), linewidth=2.6, color=style.INK)
        axes.set_title(mean_label, loc="right", fontsize=10, color=style.INK)
    if not lines.any():
        style.say_empty(axes, "nothing was found" if len(lines) else "no labelled object")
    if mark is not None:
        axes.plot(*mark, marker="o", markersize=6, color=style.INK, markeredgecolor="white", clip_on=False)
    style.save(figure, path)
