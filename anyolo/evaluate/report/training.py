"""results.png: how a run went, epoch by epoch."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyolo.errors import DataError
from anyolo.evaluate.report import style
from anyolo.types import PathLike


def draw_training(results_csv: PathLike, folder: PathLike) -> None:
    """One small chart per loss and metric of results.csv, with a running mean from 10 epochs on.

    Raises:
        DataError: the file has no epoch.
    """
    from matplotlib.ticker import MaxNLocator

    columns = _read(Path(results_csv))
    epochs = columns["epoch"]
    drawn = _in_rows(columns)
    across = max(len(row) for row in drawn)
    figure, axes = style.new_figure(2.9 * across, 2.5 * len(drawn), len(drawn), across)
    for place, own in enumerate(axes):
        row, column = divmod(place, across)
        if column >= len(drawn[row]):
            own.set_visible(False)
            continue
        name, values = drawn[row][column]
        style.name_axes(own, name, "epoch" if row == len(drawn) - 1 else "")
        own.grid(color=style.FAINT, linewidth=0.6)
        known = np.isfinite(values)
        marker = "o" if known.sum() <= 60 else ""
        own.plot(
            epochs[known], values[known], color=style.ACCENT, linewidth=1.3, marker=marker, markersize=2.6
        )
        if known.sum() >= 10:
            own.plot(epochs[known], _smooth(values[known]), color="#e07b00", linewidth=1.6, alpha=0.9)
        if name.startswith("metrics/") and known.any():
            best = int(np.nanargmax(values))
            own.plot(epochs[best], values[best], marker="o", markersize=4, color=style.INK)
            own.annotate(
                f"{values[best]:.3f}", (epochs[best], values[best]), (0, 4), textcoords="offset points",
                ha="center", fontsize=8, color=style.INK,
            )  # fmt: skip
            own.set_ylim(0, max(0.05, 1.15 * values[best]))
        own.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))
    style.save(figure, Path(folder) / "results.png")


def _in_rows(columns: dict[str, NDArray[np.float64]]) -> list[list[tuple[str, NDArray[np.float64]]]]:
    """Training losses, precision and recall; below them validation losses and average precisions."""
    prefixes = {name: name.partition("/")[0] for name in columns}
    metrics = [name for name in columns if prefixes[name] == "metrics"]
    rows = [
        [name for name in columns if prefixes[name] == "train"] + metrics[:2],
        [name for name in columns if prefixes[name] == "val"] + metrics[2:],
    ]
    return [[(name, columns[name]) for name in row] for row in rows if row]


def _read(path: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of the table; a cell that is empty, as after an epoch without validation, becomes NaN."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "epoch" not in {name.strip() for name in rows[0]}:
        raise DataError("there is no epoch to draw", where=str(path), hint="Train for one epoch at least.")
    columns = {}
    for name in rows[0]:
        cells = [float(row[name]) if (row[name] or "").strip() else math.nan for row in rows]
        columns[name.strip()] = np.array(cells)
    return columns


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian running mean, a twentieth of the run wide, ends repeated."""
    sigma = max(1.0, len(values) / 20)
    reach = round(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), weights / weights.sum(), "valid")
