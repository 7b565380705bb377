"""The operators of networks, each in the memory layouts that networks meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from anyolo.audit.cases import Case, Draw, Outputs

CHANNELS = 8
Layout = Callable[[Tensor], Tensor]
Layer = tuple[str, str, tuple[int, ...], Callable[..., Outputs]]
_PYTORCH = "https://github.com/pytorch/pytorch/issues/"


def _plain(x: Tensor) -> Tensor:
    return x[:, :CHANNELS].contiguous()


def _channels_last(x: Tensor) -> Tensor:
    return x[:, :CHANNELS].contiguous(memory_format=torch.channels_last)


def _half_of_the_channels(x: Tensor) -> Tensor:
    """What a split block reads: a view that starts inside a larger tensor."""
    return x[:, CHANNELS:]


def _channels_last_half(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)[:, CHANNELS:]


LAYOUTS: dict[str, Layout] = {
    "plain": _plain,
    "channels last": _channels_last,
    "second half of the channels": _half_of_the_channels,
    "channels last, second half": _channels_last_half,
}
SEEN = {
    ("batch_norm, training", "channels last"): f"{_PYTORCH}175189",
    ("batch_norm, evaluation", "channels last, second half"): f"{_PYTORCH}174345",
}


def _convolution(name: str, out: int, kernel: tuple[int, int], groups: int = 1, **geometry: int) -> Layer:
    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, groups=groups, **geometry)

    return "conv2d", name, (out, CHANNELS // groups, *kernel), run


CONVOLUTIONS: tuple[Layer, ...] = (
    _convolution("3x3", 6, (3, 3), padding=1),
    _convolution("3x3, stride 2", 6, (3, 3), padding=1, stride=2),
    _convolution("1x1", 12, (1, 1)),
    _convolution("6x6, stride 2", 4, (6, 6), padding=2, stride=2),
    _convolution("depthwise 5x5", 8, (5, 5), groups=8, padding=2),
    _convolution("2 groups, stride 2", 6, (3, 3), groups=2, padding=1, stride=2),
    _convolution("dilated", 6, (3, 3), padding=2, dilation=2),
)


def _trained_norm(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Outputs:
    """The result and the running statistics that it leaves behind."""
    mean, variance = mean.detach().clone(), variance.detach().abs() + 0.5
    y = F.batch_norm(x, mean, variance, weight, bias, training=True, momentum=0.03, eps=1e-3)
    return y, mean, variance


def _fixed_norm(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    fixed = mean.detach(), variance.detach().abs() + 0.5
    return F.batch_norm(x, *fixed, weight, bias, training=False, eps=1e-3)


NORMS: dict[str, Callable[..., Outputs]] = {
    "batch_norm, training": _trained_norm,
    "batch_norm, evaluation": _fixed_norm,
}
PLAIN_LAYERS: dict[str, Callable[[Tensor], Outputs]] = {
    "silu": F.silu,
    "silu, spelled out": lambda x: x * x.sigmoid(),
    "sigmoid": torch.sigmoid,
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "hardswish": F.hardswish,
    "max_pool2d 5x5": lambda x: F.max_pool2d(x, 5, stride=1, padding=2),
    "max_pool2d 2x2, stride 2": lambda x: F.max_pool2d(x, 2, 2),
    "avg_pool2d 2x2": lambda x: F.avg_pool2d(x, 2, 1, 0, False, True),
    "upsample nearest": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "cat of channels": lambda x: torch.cat((x, x * 0.5, x[:, :3]), 1),
    "split of channels": lambda x: [part * 2 for part in torch.split(x, [3, 5], 1)],
    "sum of two maps": lambda x: x + x.transpose(2, 3),
    "focus (strided slices)": lambda x: torch.cat(
        (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]), 1
    ),
    "shuffle of channels": lambda x: x.view(2, 2, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
    "mean over the map": lambda x: x.mean((2, 3)),
}
UNUSED = {
    *("relu", "leaky_relu", "hardswish", "avg_pool2d 2x2", "mean over the map"),
    *("focus (strided slices)", "shuffle of channels"),
}
"""Of families still to come, and of users' own blocks."""


def layer_cases() -> Iterator[Case]:
    """Every layer in every layout."""
    for (name, form, shape, run), layout in product(CONVOLUTIONS, LAYOUTS):
        yield Case(
            operator=name,
            form=f"{form}, {layout}",
            make=_drawn(shape, (shape[0],)),
            run=_laid_out(LAYOUTS[layout], run),
            part="network",
            in_half=True,
            multiplies=True,
        )
    for name, layout in product(NORMS, LAYOUTS):
        yield Case(
            operator=name,
            form=layout,
            make=_drawn(*((CHANNELS,),) * 4),
            run=_laid_out(LAYOUTS[layout], NORMS[name]),
            part="network",
            in_half=True,
            seen=SEEN.get((name, layout), ""),
        )
    for name, layout in product(PLAIN_LAYERS, LAYOUTS):
        yield Case(
            operator=name,
            form=layout,
            make=_distinct if name.startswith("max_pool") else _drawn(),
            run=_laid_out(LAYOUTS[layout], PLAIN_LAYERS[name]),
            part="other" if name in UNUSED else "network",
            in_half=True,
            unless_lacking="silu" if name == "silu" else "",
        )


def _drawn(*shapes: tuple[int, ...]) -> Callable[[Draw], tuple[Tensor, ...]]:
    """A map of twice the channels, from which the layouts take half, and what else the layer needs."""

    def make(draw: Draw) -> tuple[Tensor, ...]:
        return draw.normal(2, 2 * CHANNELS, 10, 10), *(draw.normal(*shape) for shape in shapes)

    return make


def _distinct(draw: Draw) -> tuple[Tensor, ...]:
    """No two numbers of a map are equal, also in 8 bits: which of equals is largest is anybody's choice."""
    ranks = draw.uniform(2, 2 * CHANNELS, 100).argsort(-1)
    return (ranks.view(2, 2 * CHANNELS, 10, 10).float() / 32 - 1.5,)


def _laid_out(layout: Layout, run: Callable[..., Outputs]) -> Callable[..., Outputs]:
    return lambda x, *rest: run(layout(x), *rest)
