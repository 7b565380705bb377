"""Which class was taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyolo.evaluate.report import style

_NUMBERS_UP_TO = 30  # classes; more cells than that leave no room for a number


def draw_confusion(matrix: NDArray[np.int64], names: Sequence[str], folder: Path) -> None:
    """confusion_matrix.png in objects, confusion_matrix_normalized.png in shares of the true class."""
    words = [*(style.shorten(name) for name in names), "background"]
    totals = matrix.sum(0, keepdims=True)
    _draw(
        matrix.astype(np.float64),
        words,
        "Confusion matrix: objects",
        "{:.0f}",
        folder / "confusion_matrix.png",
    )
    _draw(
        matrix / np.maximum(totals, 1),
        words,
        "Confusion matrix: share of the true class",
        "{:.2f}",
        folder / "confusion_matrix_normalized.png",
        top=1.0,
    )


def _draw(
    values: NDArray[np.float64],
    words: Sequence[str],
    title: str,
    pattern: str,
    path: Path,
    top: float | None = None,
) -> None:
    from matplotlib.colors import PowerNorm

    count = len(words)
    side = min(14.0, max(5.5, 3 + 0.42 * count))
    figure, (axes,) = style.new_figure(side + 1, side)
    style.name_axes(axes, title, "True", "Predicted")
    top = top or max(1.0, float(values.max()))
    shown = np.where(values > 0, values, np.nan)
    scale = PowerNorm(0.5, vmin=0, vmax=top)  # few objects of a rare class must not look like none
    picture = axes.pcolormesh(shown, cmap="Blues", norm=scale, edgecolors=style.FAINT, linewidth=0.4)
    axes.invert_yaxis()
    small = max(5.0, min(9.5, 38 * side / count))  # points: half of a cell
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(np.arange(count) + 0.5, words, fontsize=small, fontfamily=style.fonts())
    axes.tick_params(axis="x", rotation=0 if count * max(map(len, words)) <= 60 else 90)
    bar = figure.colorbar(picture, ax=axes, fraction=0.03, aspect=40, pad=0.01)
    bar.ax.tick_params(labelsize=8.5, length=3, colors=style.INK)
    bar.outline.set_visible(False)
    if count <= _NUMBERS_UP_TO + 1:
        for row, column in zip(*np.nonzero(values), strict=True):
            value = values[row, column]
            ink = "white" if scale(value) > 0.6 else style.INK
            text = axes.text(
                column + 0.5, row + 0.5, pattern.format(value), ha="center", va="center", color=ink
            )
            text.set_fontsize(max(5.0, min(11.0, 150 / count)))
    style.save(figure, path)
