"""The operators of decoding, loss and optimizer, in the forms in which anyolo calls them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from anyolo.audit.cases import Case, Draw, Outputs, cube, group, rows, wide_map

_PYTORCH = "https://github.com/pytorch/pytorch/issues/"


def tensor_cases() -> Iterator[Case]:
    yield from _decoding()
    yield from _pointwise()
    yield from _reductions()
    yield from _choosing()
    yield from _optimizing()
    yield from _copies()
    yield from _types()


def _flat(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _expected_bin(x: Tensor, bins: Tensor) -> Tensor:
    sides, _ = torch.split(_flat(x), [16, 4], 2)
    return (sides.softmax(-1) * bins).sum(-1)


def _decoding() -> Iterator[Case]:
    yield from group(
        "decode",
        ("permute, flatten", "", wide_map, lambda x: _flat(x) * 1),
        ("softmax, expectation", "part of a row", lambda d: (*wide_map(d), d.normal(16)), _expected_bin),
        (
            "sigmoid",
            "permuted part of a map",
            wide_map,
            lambda x: torch.split(_flat(x), [16, 4], 2)[1].sigmoid(),
        ),
        (
            "cat",
            "levels of different size",
            wide_map,
            lambda x: torch.cat((_flat(x), _flat(x[:, :, :2, ::2])), 1),
        ),
        ("sub, add, cat", "corners of boxes", rows, lambda x: torch.cat((x - x[:, :1], x + x[:, 1:2]), -1)),
    )


def _ciou(a: Tensor, b: Tensor) -> Tensor:
    """The operators of an IoU with distance and aspect terms, as one."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    sides = (high - low).clamp(min=0)
    cross = sides[..., 0] * sides[..., 1]
    (w1, h1), (w2, h2) = (torch.unbind(x[..., 2:] - x[..., :2], -1) for x in (a, b))
    iou = cross / (w1 * h1 + w2 * h2 - cross + 1e-7)
    return iou - 0.4 * (torch.atan(w1 / h1) - torch.atan(w2 / h2)).pow(2)


def _boxes(draw: Draw) -> tuple[Tensor, ...]:
    return draw.boxes(3, 7), draw.boxes(3, 7)


def _pointwise() -> Iterator[Case]:
    def two(draw: Draw) -> tuple[Tensor, ...]:
        return draw.normal(3, 8, 5), draw.normal(3, 1, 5)

    def positive(draw: Draw) -> tuple[Tensor, ...]:
        return (draw.uniform(5, 7) + 0.05,)

    yield from group(
        "loss",
        ("softplus", "from -40 to 40", lambda d: (d.normal(5, 60) * 15,), F.softplus),
        ("softplus", "of a slice", rows, lambda x: F.softplus(x[..., 5:])),
        ("log_softmax", "", rows, lambda x: F.log_softmax(x, -1)),
        ("log_softmax", "transposed", rows, lambda x: F.log_softmax(x.t(), -1)),
        ("atan", "", lambda d: (d.normal(6, 9) * 4,), torch.atan),
        ("overlap of boxes", "", _boxes, _ciou),
        ("overlap of boxes", "one against many", _boxes, lambda a, b: _ciou(a[:, :, None], b[:, None])),
        ("maximum, minimum", "broadcast", two, lambda a, b: (torch.maximum(a, b), torch.minimum(a, b))),
        ("mul, div", "broadcast", two, lambda a, b: (a * b, a / (b.abs() + 1))),
        ("add, sub", "transposed", rows, lambda x: (x.t() + x.t().contiguous(), x.t() - 3 * x.t())),
        ("pow", "", positive, lambda x: (x.pow(3), x.pow(0.5), x.pow(2))),
        ("abs, clamp", "", rows, lambda x: (x.abs(), x.clamp(min=-0.5), x.clamp(max=0.7))),
    )
    yield from group(
        "loss",
        ("sign", "", rows, torch.sign),
        ("compare, to float", "", two, lambda a, b: (a > b).float() * (a < 1).float() + (a >= b).float()),
        ("equal, to float", "class numbers", lambda d: (d.whole(0, 5, 3, 6).float(),), _one_hot),
        ("add_, mul_, sub_, div_ in place", "", two, _in_place),
        ("number minus tensor", "", two, lambda a, b: (1 - a, 3.5 - b)),
        has_gradient=False,
    )


def _in_place(a: Tensor, b: Tensor) -> Tensor:
    changed = a.clone().mul_(b).add_(a, alpha=0.3).clamp_(max=1).sub_(b).div_(b.abs() + 1)
    return changed.add_(b.clone().sign_()).add_(a.sigmoid().pow_(0.5))


def _one_hot(numbers: Tensor) -> Tensor:
    return (numbers.unsqueeze(-1) == torch.arange(5, device=numbers.device)).float()


def _reductions() -> Iterator[Case]:
    yield from group(
        "loss",
        ("sum", "over everything, an axis, two axes", cube, lambda x: (x.sum(), x.sum(1), x.sum((0, 2)))),
        ("sum", "of a strided view", cube, lambda x: (x[:, ::2].sum(1), x.transpose(0, 2)[1:].sum((0, 1)))),
        ("mean", "", cube, lambda x: (x.mean(), x.mean(-1))),
        (
            "stack, unbind, split",
            "",
            cube,
            lambda x: (torch.stack(torch.unbind(x, 1), 0), *torch.split(x, 4, 1)),
        ),
        ("pad", "by a row", cube, lambda x: F.pad(x, (0, 0, 0, 1))),
        ("expand", "", cube, lambda x: x[:, :1].expand(-1, 4, -1) * 2),
    )
    yield from group(
        "loss",
        ("amax", "", cube, lambda x: (x.amax(1), x.amax(2, keepdim=True))),
        ("amax", "of a strided view", cube, lambda x: x.transpose(1, 2)[:, ::2].amax(1)),
        ("cumsum", "", cube, lambda x: x.cumsum(1)),
        ("cumsum", "last axis", cube, lambda x: x.cumsum(-1), f"{_PYTORCH}92329"),
        ("cumsum", "of 0 and 1", lambda d: (d.flags(3, 400).float(),), lambda x: x.cumsum(1)),
        has_gradient=False,
    )


def _gathered(x: Tensor, index: Tensor) -> Outputs:
    return x.gather(1, index), x.index_select(0, index[:, 0])


def _top(x: Tensor, k: int = 5) -> Outputs:
    """Of equal values any may come first: the places are judged by what lies there."""
    values, places = x.topk(k, dim=-1)
    return values, x.gather(-1, places), places.sort(-1).values.diff(dim=-1) > 0


def _choosing() -> Iterator[Case]:
    def with_index(draw: Draw) -> tuple[Tensor, ...]:
        return draw.normal(4, 33), draw.whole(0, 4, 6, 3)[:4]

    yield from group(
        "loss",
        ("where", "", with_index, lambda x, i: torch.where(x > 0.2, x * 2, x - 1)),
        ("where", "with a number", rows, lambda x: torch.where(x > 0, x, 0.5)),
        ("masked_fill", "", rows, lambda x: x.masked_fill(x > 0.3, 0.0)),
    )
    yield from group(
        "loss",
        ("gather, index_select", "", with_index, _gathered),
        ("gather", "of a transposed view", with_index, lambda x, i: x.t()[:4].gather(1, i)),
        ("topk", "", rows, _top),
        ("topk", "10 of 400", lambda d: (d.normal(3, 400),), lambda x: _top(x, 10)),
        ("topk", "20 of 400 with ties", lambda d: (d.ties(3, 400),), lambda x: _top(x, 20)),
        ("topk", "of a strided view", rows, lambda x: _top(x[:, ::2])),
        (
            "arange",
            "",
            rows,
            lambda x: [torch.arange(*r, device=x.device) for r in ((7,), (9, 0, -1), (0, 60, 15))],
        ),
        has_gradient=False,
    )


def _optimizing() -> Iterator[Case]:
    def four(draw: Draw) -> tuple[Tensor, ...]:
        return tuple(draw.normal(6, 8) for _ in range(4))

    def adam(weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> Outputs:
        """One step on tensors whose memory lies transposed, as the weights of channels-last models do."""
        weight, mean, square = (
            x.t().clone(memory_format=torch.preserve_format) for x in (weight, mean, square)
        )
        gradient = gradient.t()
        mean.mul_(0.9).add_(gradient, alpha=0.1)
        square.square_().mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        weight.addcdiv_(mean, square.sqrt().add_(1e-3), value=-0.01)
        return weight, mean, square

    yield from group(
        "optimizer",
        ("addcmul_, addcdiv_", "transposed memory", four, adam, f"{_PYTORCH}118115"),
        ("addcmul_, addcdiv_", "mixed memory", four, _mixed_memory, f"{_PYTORCH}118115"),
        ("momentum", "", four, lambda w, g, m, _: w - 0.1 * (g + 0.9 * (m * 0.9 + g))),
        ("vector_norm", "", four, lambda w, *_: torch.linalg.vector_norm(w, 2.0)),
        ("zeros_like, reciprocal", "", four, lambda w, *_: torch.zeros_like(w) + (w.abs() + 1).reciprocal()),
        has_gradient=False,
    )


def _mixed_memory(weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> Tensor:
    weight = weight.clone()
    gradient, mean = (x.reshape(8, 6).t() for x in (gradient, mean))
    return weight.addcmul_(gradient, mean, value=0.5).addcdiv_(gradient, square.abs() + 1, value=-0.1)


def _copies() -> Iterator[Case]:
    yield from group(
        "network",
        ("copy to the device", "transposed", lambda d: (d.normal(5, 7).t(),), lambda x: x * 1),
        ("copy to the device", "every other column", lambda d: (d.normal(5, 8)[:, ::2],), lambda x: x * 1),
        (
            "copy to the host",
            "every other column",
            rows,
            lambda x: (x[:, ::2], x[1:, 3:]),
            f"{_PYTORCH}189961",
        ),
        (
            "copy to the host",
            "transposed, permuted",
            wide_map,
            lambda x: (x.permute(0, 2, 3, 1), x.transpose(1, 3)),
        ),
        (
            "contiguous",
            "of a slice",
            wide_map,
            lambda x: (x[:, 3:, 1:, ::2].contiguous(), x.transpose(1, 2).contiguous()),
        ),
        (
            "reshape",
            "of a view",
            wide_map,
            lambda x: (x[:, 4:].reshape(2, -1), x.transpose(1, 2).reshape(-1, 5)),
        ),
        has_gradient=False,
    )


def _types() -> Iterator[Case]:
    def bytes_(draw: Draw) -> tuple[Tensor, ...]:
        return (draw.whole(0, 256, 2, 3, 6, 10).to(torch.uint8),)

    yield from group(
        "network",
        ("uint8 to float", "", bytes_, lambda x: x.float() / 255),
        (
            "uint8 to float",
            "channels last",
            bytes_,
            lambda x: x.contiguous(memory_format=torch.channels_last).float(),
        ),
        ("uint8 to float", "of a slice", bytes_, lambda x: x[:, 1:, ::2, 3:].float()),
        has_gradient=False,
    )
    yield from group(
        "loss",
        ("float to int64", "", lambda d: (d.normal(5, 6) * 9,), lambda x: x.long()),
        ("int64 arithmetic", "small", lambda d: (d.whole(0, 900, 5, 6),), lambda x: x + x[:, :1] * 8400),
        has_gradient=False,
    )
