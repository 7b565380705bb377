"""The strides of a network, measured with a blank picture, in memory that no rows can make large."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from anyolo.nn.blocks.joints import Concat, Upsample

PROBE = 64
"""Side of the blank picture; coarse enough for stride 64."""

MOST_NUMBERS = 1 << 22  # of one map, and of all rows together, which are 440,000 in YOLOv8x
"""Rows can enlarge maps or join one with itself again and again, and need no tensors for it."""


def measure_strides(
    run: Callable[[Tensor], list[Tensor]], blocks: nn.ModuleList, channels: int
) -> tuple[int, ...]:
    """Pixels per cell of every map that ``run`` gives for a picture of ``channels``.

    Raises:
        ValueError: maps larger than any detector has; names the block. Before it is computed.
    """
    watch = _Watch()
    hooks = [m.register_forward_pre_hook(watch.expect) for m in blocks.modules()]
    hooks += [block.register_forward_hook(watch.add) for block in blocks]
    try:
        with torch.no_grad():
            maps = run(torch.zeros(1, channels, PROBE, PROBE))
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(PROBE // x.shape[-1] for x in maps)


class _Watch:
    def __init__(self) -> None:
        self._numbers = 0

    def expect(self, block: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Of the few kinds of layers that can give more than they take."""
        (x,) = inputs
        if isinstance(block, nn.Conv2d):
            pads = (0, 0) if isinstance(block.padding, str) else block.padding
            sides = zip(x.shape[2:], pads, block.stride, strict=True)
            height, width = (1 + (side + 2 * pad) // step for side, pad, step in sides)
            self._check(block, block.out_channels * height * width)
        elif isinstance(block, Upsample):
            self._check(block, int(x.numel() * block.factor**2))
        elif isinstance(block, Concat):
            self._check(block, sum(own.numel() for own in x))

    def add(self, block: nn.Module, inputs: object, output: Any) -> None:
        self._numbers += sum(x.numel() for x in (output if isinstance(output, tuple | list) else [output]))
        self._check(block, self._numbers)

    def _check(self, block: nn.Module, numbers: int) -> None:
        if numbers > MOST_NUMBERS:
            raise ValueError(
                f"maps of {numbers} numbers for {PROBE}x{PROBE} pixels, at {type(block).__name__}"
            )
