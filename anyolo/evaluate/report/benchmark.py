"""benchmark.png: how long each exported format takes, stage upon stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anyolo.evaluate.report import style
from anyolo.types import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Bar = tuple[str, Sequence[float], tuple[float, float], str]
_COLOURS = ("#74889c", "#4a90cf", style.ACCENT, "#d06f00")
_SMALL = 0.045
"""Share of the axis below which a number does not fit into its piece."""
_LONGEST = 92


def draw_benchmark(bars: Sequence[Bar], stages: Sequence[str], title: str, path: PathLike) -> None:
    """``bars``: name, milliseconds of each stage (none where nothing was measured), median and 95% limit
    of the whole, and why there is nothing.
    """
    figure, (axes,) = style.new_figure(10, 1.35 + 0.46 * len(bars))
    reach = max((max(sum(own), whole[1]) for _, own, whole, _ in bars if own), default=1.0)
    limit = 1.24 * reach  # room for the words behind the longest bar
    for place, (_, own, whole, reason) in enumerate(bars):
        if own:
            _draw_bar(axes, place, own, whole, limit)
        else:
            words = style.shorten(f"not measured: {reason}", _LONGEST)
            text = axes.text(0.008 * limit, place, words, va="center", color="#5c6b7a", fontsize=8.5)
            text.set_backgroundcolor("white")
    pieces = [
        axes.barh([0], [0], color=colour, label=stage) for stage, colour in zip(stages, _COLOURS, strict=True)
    ]
    axes.set_yticks(range(len(bars)), [style.shorten(name, 34) for name, *_ in bars], fontsize=9.5)
    axes.set(xlim=(0, limit), ylim=(len(bars) - 0.45, -0.55))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=style.FAINT, linewidth=0.6)
    style.name_axes(
        axes, title, "milliseconds from file to boxes: median, and what 95% of the passes stay below"
    )
    figure.legend(
        handles=pieces, loc="outside lower center", ncols=len(stages), frameon=False, fontsize=9,
        labelcolor=style.INK,
    )  # fmt: skip
    style.save(figure, path)


def _draw_bar(axes: Axes, place: int, own: Sequence[float], whole: tuple[float, float], limit: float) -> None:
    left, (median, p95) = 0.0, whole
    for width, colour in zip(own, _COLOURS, strict=True):
        axes.barh([place], [width], left=left, height=0.62, color=colour)
        if width > _SMALL * limit:
            axes.text(
                left + width / 2, place, f"{width:.1f}", ha="center", va="center", color="white", fontsize=8.5
            )
        left += width
    if p95 > left:
        axes.plot([left, p95], [place, place], color=style.INK, linewidth=0.9)
        axes.plot([p95], [place], color=style.INK, marker="|", markersize=9, linestyle="")
    words = f"{median:.1f}  (95%: {p95:.1f})"
    axes.text(max(left, p95) + 0.01 * limit, place, words, va="center", fontsize=9, color=style.INK)
