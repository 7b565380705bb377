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
    style.name_axes(axes[1], "Speed", "batch", "images/s")
    if timed:
        axes[1].plot(*zip(*timed, strict=True), color=style.ACCENT, marker="o", markersize=4, linewidth=1.3)
        best = max(rate for _, rate in timed)
        axes[1].axhline(0.95 * best, color=_WARM, linewidth=1, linestyle="--")
        axes[1].annotate(
            "95% of the best", (1, 0.95 * best), (0, -4), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", va="top", fontsize=8.5, color=_WARM,
        )  # fmt: skip
        axes[1].set_ylim(0, 1.12 * best)
        at = next((rate for batch, rate in timed if batch == chosen), None)
        if at is not None:
            _mark(axes[1], chosen, at, f"batch {chosen}: {at:.3g}/s", below=True)
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
    style.name_axes(axes, "Memory of the whole run", "batch", "GiB")
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
    axes.set_ylim(0, 1.12 * max([budget, need(largest) / _GIB, *(size / _GIB for _, size in needs)]))
    at = need(chosen) / _GIB
    _mark(axes, chosen, at, f"batch {chosen}: {at:.1f} GiB", below=True)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(0, 0.92))


def _mark(axes: Axes, batch: int, height: float, text: str, *, below: bool) -> None:
    axes.plot([batch], [height], marker="o", markersize=9, fillstyle="none", color=style.INK, linewidth=0)
    axes.annotate(
        text, (batch, height), (0, -12 if below else 8), textcoords="offset points", ha="center",
        va="top" if below else "bottom", fontsize=9, color=style.INK,
    )  # fmt: skip


def _number_batches(axes: Sequence[Axes], sizes: Sequence[int]) -> None:
    """Doubling sizes at even distances, each with its number."""
    for own in axes:
        own.set_xscale("log", base=2)
        own.set_xticks(sizes, [str(size) for size in sizes])
        own.set_xticks([], minor=True)
        own.set_xlim(0.8 * sizes[0], 1.25 * sizes[-1])
        own.grid(color=style.FAINT, linewidth=0.6)
