"""What a module must offer to stand in a model row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from anyolo.nn.rows import Channels, Scale


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a block learns about its row: channels of every input, arguments as written, and the model's
    settings.
    """

    channels: tuple[Channels, ...]
    args: tuple[Any, ...]
    repeats: int
    scale: Scale
    nc: int
    activation: str

    @property
    def c_in(self) -> int:
        """Channels of the only input; ValueError where there are several."""
        if len(self.channels) != 1 or not isinstance(self.channels[0], int):
            raise ValueError(f"takes one map, got channels {self.channels}")
        return self.channels[0]

    @property
    def c_out(self) -> int:
        """The first argument, output channels, at the model's width."""
        return self.scale.channels(_whole(self.args[0]))

    def options(self, *defaults: Any, after: int = 1) -> list[Any]:
        """The arguments ``after`` the first ones, those not written from ``defaults``; ValueError for too
        many.
        """
        written = self.args[after:]
        if len(written) > len(defaults):
            raise ValueError(f"takes {after + len(defaults)} arguments at most")
        return [*written, *defaults[len(written) :]]


class Block(nn.Module):
    """A module a row can name: one class, one line in the table.

    ``from_row`` returns the module and the channels of its output. Wrong arguments raise TypeError,
    ValueError or IndexError; the builder adds file and row. A block that takes the row's number as its own
    depth sets ``repeats_inside`` (its links are then ``m.0``, ``m.1``, ...); otherwise a number above 1 gives
    that many copies in sequence. ``width_tensor`` names the tensor whose first side is the first argument, if
    any.
    """

    repeats_inside: ClassVar[bool] = False
    width_tensor: ClassVar[str] = ""

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        raise NotImplementedError


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"output channels must be a whole number from 1, got {value!r}")
    return value
