"""One look for all charts. Figures are made directly, never through pyplot: no display, no global state."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from anyolo.ops.draw import COLOURS
from anyolo.types import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, ACCENT = "#1f2933", "#d5dbe1", "#0b5cad"
DPI = 160
MANY_CLASSES = 20  # above this, classes get no colour and no legend entry of their own

# matplotlib's own font has no Chinese, Japanese or Korean: the first of these that is installed helps out.
_WIDE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "PingFang SC",
    "SimHei",
    "WenQuanYi Micro Hei",
)


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure in inches and its axes, row by row."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.08)
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    axes: list[Axes] = list(grid.ravel())
    for own in axes:
        for side in ("top", "right"):
            own.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            own.spines[side].set_color("#8895a3")
        own.tick_params(colors=INK, labelsize=8.5, length=3)
        own.set_axisbelow(True)
    return figure, axes


def name_axes(axes: Axes, title: str, across: str = "", up: str = "") -> None:
    axes.set_title(title, fontsize=11, color=INK, loc="left", fontfamily=fonts())
    axes.set_xlabel(across, fontsize=9.5, color=INK)
    axes.set_ylabel(up, fontsize=9.5, color=INK)


def say_empty(axes: Axes, text: str) -> None:
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#8895a3", fontsize=13
    )


def save(figure: Figure, path: PathLike) -> None:
    with warnings.catch_warnings():  # a name in a script no installed font has is drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=DPI)


def class_colour(index: int) -> tuple[float, float, float]:
    """The colour of the class on pictures, darkened where it would vanish on white."""
    red, green, blue = COLOURS[index % len(COLOURS)]
    light = (0.299 * red + 0.587 * green + 0.114 * blue) / 255
    share = min(1.0, 0.62 / light) / 255
    return red * share, green * share, blue * share


def shorten(name: str, longest: int = 22) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


@cache
def fonts() -> Sequence[str]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *[name for name in _WIDE_FONTS if name in installed][:1]]
