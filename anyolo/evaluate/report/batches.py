"""autobatch.png: memory and speed of the batch sizes that were tried, and the one that was chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from anyolo.evaluate.report import style
from anyolo.types import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GIB = 2**30
_WARM = "#e07b00"


def draw_batches(
    needs: Sequence[tuple[int, int]],
    rates: Sequence[tuple[int, float]],
    failed: Sequence[int],
    *,
    need: Callable[[int], int],
    budget_bytes: int,
    chosen: int,
    path: PathLike,
) -> None:
    """``needs`` are (batch, bytes) and ``rates`` (batch, images per second) as measured, ``failed`` the sizes
    that ran out of memory; ``need(batch)`` is the fit.
    """
    figure, axes = style.new_figure(10, 4, 1, 2)
    largest = max([chosen, *failed, *(batch for batch, _ in needs)])
    _draw_memory(axes[0], needs, failed, need, budget_bytes, chosen, largest)
    timed = [(batch, rate) for batch, rate in rates if rate > 0]
    at = dict(timed).get(chosen)
    style.name_axes(axes[1], f"Speed: {at:.3g}/s with batch {chosen}" if at else "Speed", "batch", "images/s")
    if timed:
        best = max(rate for _, rate in timed)
        axes[1].plot(*zip(*timed, strict=True), color=style.ACCENT, marker="o", markersize=4, linewidth=1.3)
        axes[1].axhline(0.95 * best, color=_WARM, linewidth=1, linestyle="--", label="95% of the best")
        axes[1].set_ylim(0, 1.12 * best)
        axes[1].legend(frameon=False, fontsize=8.5, loc="lower right")
        if at:
            _mark(axes[1], chosen, at)
    else:
        style.say_empty(axes[1], "nothing was timed")
    _number_batches(axes, sorted({*(batch for batch, _ in needs), *failed, chosen}))
    style.save(figure, path)


def _draw_memory(
    axes: Axes,
    needs: Sequence[tuple[int, int]],
    failed: Sequence[int],
    need: Callable[[int], int],
    budget_bytes: int,
    chosen: int,
    largest: int,
) -> None:
    at = need(chosen) / _GIB
    style.name_axes(axes, f"Memory: {at:.1f} GiB with batch {chosen}", "batch", "GiB, the whole run")
    sizes = range(1, largest + 1)
    axes.plot(sizes, [need(size) / _GIB for size in sizes], color="#8895a3", linewidth=1.3, label="fitted")
    axes.plot(
        [batch for batch, _ in needs], [size / _GIB for _, size in needs], linestyle="", marker="o",
        markersize=4.5, color=style.ACCENT, label="measured",
    )  # fmt: skip
    if failed:
        heights = [need(size) / _GIB for size in failed]
        axes.plot(failed, heights, "x", color="#c0392b", markersize=7, label="out of memory")
    budget = budget_bytes / _GIB
    axes.axhline(budget, color=_WARM, linewidth=1, linestyle="--", label=f"may be used: {budget:.1f} GiB")
    highest = max([need(largest) / _GIB, *(size / _GIB for _, size in needs)])
    # a budget far above all is left to the legend
    axes.set_ylim(0, 1.12 * max(highest, budget if budget < 2.5 * highest else 1.3 * highest))
    _mark(axes, chosen, at)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(0, 0.9))


def _mark(axes: Axes, batch: int, height: float) -> None:
    axes.plot([batch], [height], marker="o", markersize=9, fillstyle="none", color=style.INK, linewidth=0)


def _number_batches(axes: Sequence[Axes], sizes: Sequence[int]) -> None:
    """Doubling sizes at even distances, each with its number."""
    for own in axes:
        own.set_xscale("log", base=2)
        own.set_xticks(sizes, [str(size) for size in sizes])
        own.set_xticks([], minor=True)
        own.set_xlim(0.8 * sizes[0], 1.25 * sizes[-1])
        own.grid(color=style.FAINT, linewidth=0.6)
