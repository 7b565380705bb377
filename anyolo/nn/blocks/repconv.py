"""A 3x3 and a 1x1 convolution side by side in training, one 3x3 convolution in use.

Source: Ding et al. 2021, arXiv:2101.03697 (RepVGG); Wang et al. 2022, arXiv:2207.02696, section 4.1 (where
the identity branch may stand); topology facts of YOLOv7.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyolo.nn.blocks.base import Block, Inputs
from anyolo.nn.blocks.conv import activation, fold, unit
from anyolo.nn.rows import Channels


class RepConv(Block):
    """Sum of a 3x3, a 1x1 and, where asked for and shapes allow, an identity branch, each with its batch
    norm, then the activation.
    """

    width_tensor: ClassVar[str] = "rbr_dense.0.weight"

    def __init__(
        self, c_in: int, c_out: int, stride: int = 1, *, identity: bool = True, act: str = "SiLU"
    ) -> None:
        super().__init__()
        self.act = activation(act)
        passes = identity and c_in == c_out and stride == 1
        self.rbr_identity = nn.BatchNorm2d(c_in) if passes else None
        self.rbr_dense: nn.Module = nn.Sequential(*unit(c_in, c_out, 3, stride))
        self.rbr_1x1: nn.Module | None = nn.Sequential(*unit(c_in, c_out, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        y = self.rbr_dense(x)
        if self.rbr_1x1 is not None:
            y = y + self.rbr_1x1(x)
        if self.rbr_identity is not None:
            y = y + self.rbr_identity(x)
        return self.act(y)  # type: ignore[no-any-return]

    def fuse(self) -> None:
        """One 3x3 convolution of all branches; eval mode only."""
        if self.rbr_1x1 is not None:
            self.rbr_dense = join_branches(self.rbr_dense, self.rbr_1x1, self.rbr_identity)
            self.rbr_1x1 = self.rbr_identity = None

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, kernel (always 3), stride."""
        kernel, stride = row.options(3, 1)
        if kernel != 3:
            raise ValueError(f"its kernel is 3, got {kernel!r}")
        return cls(row.c_in, row.c_out, stride, act=row.activation), row.c_out


@torch.no_grad()
def join_branches(whole: nn.Module, point: nn.Module, passing: nn.Module | None = None) -> nn.Conv2d:
    """The 3x3 convolution that does what the sum of the branches does in eval mode.

    Args:
        whole, point: a 3x3 and a 1x1 convolution, each with its batch norm behind it.
        passing: the batch norm of an identity branch.
    """
    joined, second = _folded(whole), _folded(point)
    _add(joined, F.pad(second.weight, (1, 1, 1, 1)), second.bias)
    if isinstance(passing, nn.BatchNorm2d):
        straight = nn.Conv2d(joined.in_channels, joined.out_channels, 1, bias=False).to(joined.weight)
        straight.weight.copy_(torch.eye(joined.in_channels).view(straight.weight.shape))
        third = fold(straight, passing)
        _add(joined, F.pad(third.weight, (1, 1, 1, 1)), third.bias)
    return joined


def _folded(branch: nn.Module) -> nn.Conv2d:
    conv, norm = branch.children()
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return fold(conv, norm)


def _add(joined: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> None:
    assert joined.bias is not None and bias is not None
    joined.weight.add_(weight)
    joined.bias.add_(bias)
