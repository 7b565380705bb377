"""What the last row of a model offers beyond a block."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anyolo.nn.blocks.base import Block
from anyolo.structures import HeadOutput, Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """A head without what only training needs: ``block`` is its row's name, ``inputs`` are the positions of
    the features it still reads.
    """

    head: Head
    block: str
    inputs: tuple[int, ...]


class Head(Block):
    """Features of every level, finest first, to raw maps; and raw maps to boxes in input pixels.

    The builder measures the strides and calls ``set_strides`` once, which also sets the biases that depend on
    them.
    """

    nc: int
    strides: tuple[int, ...]

    def forward(self, features: list[Tensor]) -> HeadOutput:
        raise NotImplementedError

    def decode(self, output: HeadOutput) -> Predictions:
        raise NotImplementedError

    def set_strides(self, strides: tuple[int, ...]) -> None:
        raise NotImplementedError

    def read_anchors(self) -> Tensor | None:
        """(L, N, 2) widths and heights of the anchors in input pixels; None for a head without any."""
        return None

    def write_anchors(self, anchors_px_LN2: Tensor) -> None:
        """Other anchors of the same number, in input pixels; they live in the state_dict."""
        raise NotImplementedError

    def reduce(self) -> Reduced | None:
        """This head for inference, modules shared; None where it has nothing that only training needs."""
        return None

    def adopt(self, other: Head) -> tuple[str, ...]:
        """Copy from a head for other classes the part of its tensors that has nothing to do with them.

        Returns the names of these tensors. For heads that keep boxes and classes in one tensor; tensors that
        fit whole are copied anyway.
        """
        return ()

    def fix_size(self, size_hw: tuple[int, int] | None) -> None:
        """Decode inputs of this size only, without computing the grid from the maps (for static graphs)."""
        raise NotImplementedError
