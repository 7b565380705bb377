"""labels.jpg: how many objects of each class there are, where they lie and how large they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anyolo.data.index import AnnotationIndex
from anyolo.evaluate.report import style
from anyolo.types import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OUTLINES = 1000


def draw_labels(index: AnnotationIndex, path: PathLike) -> None:
    """Four charts of the objects to be found; crowd boxes are left out."""
    labels = np.concatenate(
        [*(item.labels[~item.crowd] for item in index.items), np.zeros((0, 5), np.float32)]
    )
    figure, axes = style.new_figure(11, 9, 2, 2)
    _count(axes[0], labels[:, 0].astype(np.int64), index.names)
    largest = min(1.0, 1.1 * float(labels[:, 3:].max())) if len(labels) else 1.0
    _outlines(axes[1], labels, largest)
    _density(axes[2], labels[:, 1:3], 1.0)
    _density(axes[3], labels[:, 3:], largest)
    style.name_axes(axes[2], "Where the centres lie", "x, share of the width", "y, share of the height")
    style.name_axes(axes[3], "How large the boxes are", "share of the width", "share of the height")
    axes[2].invert_yaxis()
    for own in axes:
        if not len(labels):
            style.say_empty(own, "no labelled object")
    style.save(figure, path)


def _count(axes: Axes, classes: NDArray[np.int64], names: tuple[str, ...]) -> None:
    counts = np.bincount(classes, minlength=len(names))
    style.name_axes(axes, f"{len(classes)} objects of {len(names)} classes", "", "objects")
    axes.bar(range(len(names)), counts, color=[style.class_colour(k) for k in range(len(names))], width=0.8)
    axes.grid(axis="y", color=style.FAINT, linewidth=0.6)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_ylim(0, max(1.0, 1.08 * counts.max(initial=0)))
    if len(names) <= 30:
        words = [style.shorten(name, 16) for name in names]
        upright = len(names) > 6 or max(map(len, words), default=0) > 8
        axes.set_xticks(
            range(len(names)), words, rotation=90 if upright else 0, fontsize=8.5, fontfamily=style.fonts()
        )
    else:
        axes.set_xlabel("class")
    if len(names) <= 12:
        for place, count in enumerate(counts.tolist()):
            axes.text(place, count, str(count), ha="center", va="bottom", fontsize=8.5, color=style.INK)


def _outlines(axes: Axes, labels: NDArray[np.float32], largest: float) -> None:
    """Box shapes laid on one centre; an even choice of them where there are many."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    chosen = (
        labels[np.linspace(0, len(labels) - 1, min(len(labels), _OUTLINES)).astype(int)]
        if len(labels)
        else labels
    )
    shapes = [Rectangle((0.5 - w / 2, 0.5 - h / 2), w, h) for w, h in chosen[:, 3:5].tolist()]
    colours = [style.class_colour(int(k)) for k in chosen[:, 0]]
    outlines = PatchCollection(shapes, facecolors="none", edgecolors=colours, linewidths=0.5, alpha=0.5)
    axes.add_collection(outlines)
    style.name_axes(axes, "Shapes, on one centre", "share of the width", "share of the height")
    _make_square(axes, (0.5 - largest / 2, 0.5 + largest / 2))


def _density(axes: Axes, points: NDArray[np.float32], largest: float) -> None:
    side = (0.0, largest)
    counts, across, up = np.histogram2d(points[:, 0], points[:, 1], bins=50, range=(side, side))
    shown = np.where(counts > 0, np.log1p(counts), np.nan).T
    axes.pcolormesh(across, up, shown, cmap="Blues", vmin=-0.5 * np.log1p(counts.max() or 1))
    _make_square(axes, side)


def _make_square(axes: Axes, side: tuple[float, float]) -> None:
    axes.set_xlim(*side)
    axes.set_ylim(*side)
    axes.set_aspect("equal", adjustable="box", anchor="W")
