"""Convolution, batch norm, activation: the brick of every family."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from anyolo.errors import UnknownName
from anyolo.nn.blocks.base import Block, Inputs
from anyolo.nn.rows import Channels

_ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "SiLU": nn.SiLU,
    "ReLU": nn.ReLU,
    "ReLU6": nn.ReLU6,
    "LeakyReLU": nn.LeakyReLU,
    "Hardswish": nn.Hardswish,
    "Identity": nn.Identity,
}


def activation(name: str) -> nn.Module:
    """The activation a model file writes as ``SiLU``, ``nn.ReLU()`` or ``nn.LeakyReLU(0.1)``.

    Raises:
        UnknownName: none of the known activations.
        ValueError: arguments that are not plain numbers.
    """
    found = re.fullmatch(r"(?:torch\.)?(?:nn\.)?(\w+)(?:\(([^()]*)\))?", name.strip())
    if found is None or found[1] not in _ACTIVATIONS:
        raise UnknownName("activation", name, _ACTIVATIONS)
    numbers = [float(text.partition("=")[2] or text) for text in (found[2] or "").split(",") if text.strip()]
    return _ACTIVATIONS[found[1]](*numbers)


class PlainSiLU(nn.Module):
    """SiLU spelled out, for backends that lack the operator; equal up to rounding."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.sigmoid()


class Chain(nn.Module):
    """Children work in the order they were registered: convolution, batch norm, activation, and so on."""

    def fuse(self) -> None:
        """Fold every batch norm into the convolution before it; eval mode only."""
        children = list(self.named_children())
        for (name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(self, name, fold(conv, norm))
                setattr(self, norm_name, nn.Identity())

    def merge(self, one: Callable[[nn.Conv2d, nn.Module], nn.Module | None]) -> None:
        """Put what ``one`` makes of a folded convolution and its activation in their place, unless None."""
        children = [*self.named_children(), ("", nn.Identity())]
        for (name, conv), (_, norm), (act_name, act) in zip(
            children, children[1:], children[2:], strict=False
        ):
            if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.Identity):
                continue
            if (merged := one(conv, act)) is not None:
                setattr(self, name, merged)
                setattr(self, act_name, nn.Identity())


class ChainOf(Chain, nn.Sequential):
    """A Sequential that folds: tensor names are ``0.weight``, ``1.weight``, ..."""


def unit(
    c_in: int, c_out: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, act: str = ""
) -> list[nn.Module]:
    """Convolution without bias, batch norm and, where named, activation, as links of a ``ChainOf``."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out), *([activation(act)] if act else [])]


class Conv(Block, Chain):
    """Convolution without bias, batch norm, activation; padding keeps the size at stride 1."""

    width_tensor: ClassVar[str] = "conv.weight"

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        padding: int | None = None,
        groups: int = 1,
        act: str = "SiLU",
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv: nn.Module = nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c_out)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, kernel, stride, padding, groups, activation (true, false or its name)."""
        kernel, stride, padding, groups, act = row.options(1, 1, None, 1, True)
        name = {True: row.activation, None: row.activation, False: "Identity"}.get(act, act)
        conv = cls(row.c_in, row.c_out, kernel, stride, padding=padding, groups=groups, act=name)
        return conv, row.c_out


class DWConv(Block):
    """A convolution in as many groups as input and output channels allow."""

    width_tensor: ClassVar[str] = Conv.width_tensor

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        """Arguments: channels, kernel, stride."""
        kernel, stride = row.options(1, 1)
        groups = math.gcd(row.c_in, row.c_out)
        return Conv(row.c_in, row.c_out, kernel, stride, groups=groups, act=row.activation), row.c_out


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution with bias that does what ``norm(conv(x))`` does in eval mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        old_bias = conv.bias if conv.bias is not None else torch.zeros_like(norm.running_mean)
        folded = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        folded.weight.copy_(conv.weight * gain.view(-1, 1, 1, 1))
        assert folded.bias is not None
        folded.bias.copy_((old_bias - norm.running_mean) * gain + norm.bias)
    return folded.requires_grad_(conv.weight.requires_grad).train(conv.training)


def fold_transposed(conv: nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> nn.ConvTranspose2d:
    """One transposed convolution with bias that does what ``norm(conv(x))`` does in eval mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    folded = copy.deepcopy(conv)
    with torch.no_grad():
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        # weights are (in, out / groups, height, width); the outputs of a group share a stretch of inputs
        by_group = conv.weight.view(conv.groups, -1, *conv.weight.shape[1:])
        by_group = by_group * gain.view(conv.groups, 1, -1, 1, 1)
        folded.weight.copy_(by_group.view_as(conv.weight))
        old_bias = conv.bias if conv.bias is not None else torch.zeros_like(norm.running_mean)
        folded.bias = nn.Parameter((old_bias - norm.running_mean) * gain + norm.bias)
    return folded.requires_grad_(conv.weight.requires_grad)
