"""What feeds a second backbone from the maps of a first one.

Source: Wang et al. 2024, arXiv:2402.13616, section 4.1 (reversible branches); Liang et al. 2021,
arXiv:2107.00420 (CBNet); topology facts of the official YOLOv9 models.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from anyolo.nn.blocks.base import Block, Inputs
from anyolo.nn.rows import Channels


class Silence(Block):
    """Its input, so that the picture has a row that others can read."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """No arguments."""
        if row.args:
            raise ValueError(f"takes no arguments, got {list(row.args)}")
        return cls(), row.c_in


class CBLinear(Block):
    """A 1x1 convolution with bias, given as several maps of the channels written."""

    def __init__(self, c_in: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = widths
        self.conv = nn.Conv2d(c_in, sum(widths), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.conv(x).split(self.widths, 1)  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: the list of channels."""
        (written,) = row.args
        widths = tuple(int(c) for c in written)
        if not widths or min(widths) < 1:
            raise ValueError(f"its argument is a list of channels, got {written!r}")
        return cls(row.c_in, widths), widths


class CBFuse(Block):
    """One map of each ``CBLinear``, brought to the size of the last input, all on top of that.

    ``picks`` says which map of each.
    """

    def __init__(self, picks: Sequence[int]) -> None:
        super().__init__()
        self.picks = tuple(picks)

    def forward(self, maps: list[tuple[Tensor, ...] | Tensor]) -> Tensor:
        *several, last = maps
        assert isinstance(last, Tensor)
        for one, pick in zip(several, self.picks, strict=True):
            last = last + F.interpolate(one[pick], size=maps[-1].shape[2:], mode="nearest")  # type: ignore[union-attr]
        return last

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: for each input but the last, which of its maps (from 0)."""
        (picks,) = row.args
        *several, last = row.channels
        chosen = [own[pick] for own, pick in zip(several, picks, strict=True) if isinstance(own, tuple)]
        if not isinstance(last, int) or chosen != [last] * len(several) or not several or min(picks) < 0:
            raise ValueError(f"adds maps of the same channels, got maps {picks} of {row.channels}")
        return cls(picks), last
