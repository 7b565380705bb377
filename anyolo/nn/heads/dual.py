"""YOLOv9's heads: sides from groups of channels, and a second branch that only training needs.

Source: Wang et al. 2024, arXiv:2402.13616, section 4.1 (programmable gradient information); topology facts of
the official YOLOv9 models.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from anyolo.nn.heads.base import Reduced
from anyolo.nn.heads.dfl import SIDES, DFLHead, Expectation, branch, raw_maps
from anyolo.structures import HeadOutput

GROUPS = 4
"""One for each side of a box."""


class GroupedDFLHead(DFLHead):
    """``DFLHead`` whose side logits come from convolutions of 4 groups, in other widths."""

    first_side: ClassVar[float] = 1.0

    def branches(self, channels: tuple[int, ...], nc: int, act: str) -> tuple[nn.ModuleList, nn.ModuleList]:
        box = -(-max(channels[0] // 4, SIDES) // GROUPS) * GROUPS
        cls = max(channels[0], min(2 * nc, 128))
        sides = (branch(c, box, SIDES, act, groups=GROUPS) for c in channels)
        return nn.ModuleList(sides), nn.ModuleList(branch(c, cls, nc, act) for c in channels)


class DualDFLHead(GroupedDFLHead):
    """Two such heads side by side: the first half of the features is the auxiliary branch's, ``cv2`` and
    ``cv3``, which gives ``HeadOutput.aux``; the second half the main one's, ``cv4`` and ``cv5``.
    """

    def __init__(self, channels: tuple[int, ...], nc: int, *, act: str = "SiLU") -> None:
        auxiliary, main = channels[: len(channels) // 2], channels[len(channels) // 2 :]
        if len(auxiliary) != len(main):
            raise ValueError(f"takes two features per level, got {len(channels)}")
        nn.Module.__init__(self)
        self.nc = nc
        self.cv2, self.cv3 = self.branches(auxiliary, nc, act)
        self.cv4, self.cv5 = self.branches(main, nc, act)
        self.dfl, self.dfl2 = Expectation(), Expectation()
        self.set_strides(tuple(8 * 2**level for level in range(len(main))) * 2)

    def forward(self, features: list[Tensor]) -> HeadOutput:
        levels = len(self.strides)
        auxiliary = raw_maps(self.cv2, self.cv3, features[:levels])
        return HeadOutput(raw_maps(self.cv4, self.cv5, features[levels:]), auxiliary)

    def set_strides(self, strides: tuple[int, ...]) -> None:
        """``strides`` of the features; both branches have the same."""
        half = len(strides) // 2
        if strides[:half] != strides[half:]:
            raise ValueError(f"its two branches need the same strides, got {strides}")
        super().set_strides(strides[half:])
        self.set_biases(self.cv4, self.cv5)

    def reduce(self) -> Reduced:
        """The main branch alone, its modules shared with this head."""
        with torch.device("meta"):
            head = GroupedDFLHead((GROUPS,) * len(self.strides), self.nc)
        head.cv2, head.cv3, head.dfl = self.cv4, self.cv5, self.dfl2
        head.strides, head.centres = self.strides, self.centres
        head.train(self.training)
        first = len(self.strides)
        return Reduced(head=head, block="DDetect", inputs=tuple(range(first, 2 * first)))
