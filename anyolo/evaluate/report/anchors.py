"""anchors.png: boxes by width and height, sets of anchors among them, and how close these come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from anyolo.data.anchorfit import Sizes, closeness, score_anchors
from anyolo.evaluate.report import style
from anyolo.types import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 20_000
_LOOKS = (("D", "#d9480f"), ("o", style.ACCENT))  # marker and colour of the first and of the second set


def draw_anchors(sizes: Sizes, sets: Mapping[str, Sizes], threshold: float, path: PathLike) -> None:
    """``sizes`` (N, 2) in input pixels; ``sets`` names one or two sets of anchors, the last one in blue."""
    figure, axes = style.new_figure(12, 5.6, 1, 2)
    looks = dict(zip(sets, _LOOKS[-len(sets) :], strict=True))
    _scatter(axes[0], sizes, sets, looks)
    _histogram(axes[1], sizes, sets, looks, threshold)
    style.save(figure, path)


def _scatter(
    axes: Axes, sizes: Sizes, sets: Mapping[str, Sizes], looks: Mapping[str, tuple[str, str]]
) -> None:
    shown = sizes[np.linspace(0, len(sizes) - 1, min(len(sizes), _POINTS)).astype(int)]
    axes.scatter(shown[:, 0], shown[:, 1], s=7, color="#8895a3", alpha=0.35, linewidths=0, label="boxes")
    for name, anchors in sets.items():
        marker, colour = looks[name]
        axes.scatter(
            anchors[:, 0], anchors[:, 1], s=62, marker=marker, color=colour, edgecolors="white",
            linewidths=1.1, zorder=3, label=f"{name} anchors",
        )  # fmt: skip
    everything = np.concatenate([sizes, *sets.values()])
    low, high = everything.min() / 1.25, everything.max() * 1.25
    axes.plot((low, high), (low, high), color=style.FAINT, linewidth=0.8, zorder=0)
    ticks = [2.0**k for k in range(int(np.floor(np.log2(low))), int(np.ceil(np.log2(high))) + 1)]
    inside = [tick for tick in ticks if low <= tick <= high]
    axes.loglog(base=2)
    axes.set(xlim=(low, high), ylim=(low, high))
    axes.set_xticks(inside, [f"{tick:g}" for tick in inside])
    axes.set_yticks(inside, [f"{tick:g}" for tick in inside])
    axes.set_aspect("equal", adjustable="box", anchor="W")
    axes.grid(color=style.FAINT, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9, loc="upper left", labelcolor=style.INK)
    style.name_axes(axes, f"{len(sizes)} boxes by shape", "width, input pixels", "height, input pixels")


def _histogram(
    axes: Axes,
    sizes: Sizes,
    sets: Mapping[str, Sizes],
    looks: Mapping[str, tuple[str, str]],
    threshold: float,
) -> None:
    from matplotlib.ticker import MaxNLocator

    edges = np.linspace(0, 1, 51)
    for name, anchors in sets.items():
        score, colour = score_anchors(sizes, anchors, threshold), looks[name][1]
        label = f"{name}: {score.recall:.1%} within reach, fitness {score.fitness:.3f}"
        shares = 100 * np.histogram(closeness(sizes, anchors), edges)[0] / len(sizes)
        axes.stairs(shares, edges, fill=True, color=colour, alpha=0.16)
        axes.stairs(shares, edges, color=colour, linewidth=1.4, label=label)
    axes.axvspan(0, 1 / threshold, color="#8895a3", alpha=0.12, linewidth=0)
    axes.axvline(1 / threshold, color="#8895a3", linewidth=0.9)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.28 * axes.dataLim.ymax)
    axes.text(
        0.5 / threshold, 0.5, f"out of reach\n(anchor_t={threshold:g})", rotation=90, ha="center",
        va="center", transform=axes.get_xaxis_transform(), color="#5c6b7a", fontsize=9,
    )  # fmt: skip
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="y", color=style.FAINT, linewidth=0.6)
    # on white, over the line of the threshold
    axes.legend(framealpha=1, edgecolor="white", fontsize=9, loc="upper left", labelcolor=style.INK)
    across = "closeness: smaller through larger side, the worse of width and height"
    style.name_axes(axes, "How well the nearest anchor fits", across, "% of the boxes")
