"""Operators that anyolo does not call, at least not so: users' own blocks and losses do, and other programs
stumble over them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from anyolo.audit.cases import Case, Draw, Outputs, cube, group, rows, wide_map

_PYTORCH = "https://github.com/pytorch/pytorch/issues/"
_DIRECTML = "https://github.com/microsoft/DirectML/issues/"


def foreign_cases() -> Iterator[Case]:
    yield from _reductions()
    yield from _ordering()
    yield from _copies()
    yield from _types()
    yield from _indexing()
    yield from _products()
    yield from _layers()
    yield from _making()


def _reductions() -> Iterator[Case]:
    def positive(draw: Draw) -> tuple[Tensor, ...]:
        return (draw.uniform(5, 7) + 0.05,)

    yield from group(
        "other",
        ("sqrt, log, exp", "", positive, lambda x: (x.sqrt(), x.log(), x.exp())),
        ("sin, tanh, erf", "", rows, lambda x: (x.sin(), x.tanh(), x.erf())),
        ("floor, round", "", rows, lambda x: (x.floor(), x.round(), x.remainder(0.7))),
    )
    yield from group(
        "other",
        ("amax", "with its gradient", cube, lambda x: x.amax(1)),
        ("cumsum", "with its gradient", cube, lambda x: x.cumsum(1)),
        ("cumsum", "of a strided view", cube, lambda x: x.transpose(0, 1)[1::2].cumsum(0)),
        ("max over an axis", "", cube, lambda x: x.max(1).values),
        ("min over an axis", "of a transposed view", cube, lambda x: x.transpose(1, 2).min(2).values),
        ("amin", "", cube, lambda x: x.amin(1)),
        ("prod", "", cube, lambda x: x.prod(2)),
        ("cumprod", "", cube, lambda x: x.cumprod(2)),
        ("std, var", "", cube, lambda x: (x.std(1), x.var(2))),
        ("norm", "", cube, lambda x: x.norm(dim=2)),
        ("logsumexp", "", cube, lambda x: x.logsumexp(1)),
    )
    yield from group(
        "other",
        ("argmax", "", cube, lambda x: (x.argmax(1), x.argmax())),
        ("argmax", "of a strided view", cube, lambda x: x[:, ::2, ::2].argmax(2), f"{_PYTORCH}160740"),
        (
            "sum",
            "of truth values",
            lambda d: (d.flags(5, 70),),
            lambda x: (x.sum(), x.sum(1), x.any(1), x.all()),
        ),
        ("sum", "of nothing", lambda d: (d.normal(0, 4),), lambda x: (x.sum(), x.sum(0), torch.cat((x, x)))),
        has_gradient=False,
    )


def _ordering() -> Iterator[Case]:
    yield from group(
        "other",
        ("sort", "", rows, _sorted),
        ("sort", "with ties", lambda d: (d.ties(3, 50),), _sorted),
        ("sort", "of a transposed view", rows, lambda x: _sorted(x.t()), f"{_PYTORCH}175187"),
        ("argsort", "stable", lambda d: (d.ties(3, 50),), lambda x: x.argsort(stable=True, dim=-1)),
        has_gradient=False,
    )


def _sorted(x: Tensor) -> Outputs:
    values, places = x.sort(-1, descending=True)
    return values, x.gather(-1, places)


def _copies() -> Iterator[Case]:
    yield from group(
        "other",
        ("write into slices", "", rows, _written_into),
        ("flip, roll", "", rows, lambda x: (x.flip(1), x.roll(3, 1))),
        ("neg", "into a transposed tensor", rows, _negated_into, f"{_PYTORCH}100764"),
        ("repeat, tile", "", rows, lambda x: (x.repeat(2, 1, 3), x.repeat_interleave(2, dim=0))),
        ("select", "of a slice of a slice", rows, lambda x: x[1:][:, 2:][::2, 1::3][0] * 1),
        has_gradient=False,
    )


def _written_into(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 1:9:2] = x[:, :4]
    y[1:3, 20:].copy_(x[:2, 20:])
    y[..., -1] += 2
    return y


def _negated_into(x: Tensor) -> Tensor:
    y = torch.empty(33, 4, device=x.device, dtype=x.dtype).t()
    return torch.neg(x, out=y)


def _types() -> Iterator[Case]:
    def numbers(draw: Draw) -> tuple[Tensor, ...]:
        return draw.whole(-(2**40), 2**40, 5, 6), draw.whole(1, 1000, 5, 6)

    def with_flags(draw: Draw) -> tuple[Tensor, ...]:
        return draw.normal(5, 6), draw.flags(5, 6)

    yield from group(
        "other",
        ("int64 arithmetic", "beyond 32 bits", numbers, lambda a, b: (a + b, a * b, a - 3 * b, a > b)),
        ("int64 division", "negative numbers", numbers, lambda a, b: (a // b, a % b)),
        ("float times bool", "", with_flags, lambda x, m: x * m, f"{_DIRECTML}737"),
        ("float plus bool", "", with_flags, lambda x, m: x + m),
        ("bool logic", "", with_flags, lambda x, m: (m & (x > 0), m | (x < 0), ~m, m ^ (x > 1))),
        ("bool to numbers", "", with_flags, lambda x, m: (m.float(), m.long(), m.to(torch.uint8))),
        has_gradient=False,
    )


def _indexing() -> Iterator[Case]:
    def with_index(draw: Draw) -> tuple[Tensor, ...]:
        return draw.normal(4, 8), draw.whole(0, 8, 4, 6), draw.normal(4, 6)

    yield from group(
        "other",
        (
            "scatter",
            "part of the columns",
            with_index,
            lambda x, i, s: x.scatter(1, _distinct(i), s),
            f"{_DIRECTML}420",
        ),
        (
            "scatter",
            "negative axis",
            with_index,
            lambda x, i, s: x.scatter(-1, _distinct(i), s),
            f"{_DIRECTML}420",
        ),
        ("gather", "with its gradient", with_index, lambda x, i, s: x.gather(1, i)),
        ("index_select", "with its gradient", with_index, lambda x, i, s: x.index_select(1, i[0])),
        ("scatter_add", "repeated places", with_index, lambda x, i, s: x.scatter_add(1, i, s)),
        (
            "index_add",
            "repeated places",
            with_index,
            lambda x, i, s: x.index_add(0, i[0] % 4, x[[0, 1, 2, 3, 0, 1]]),
        ),
        ("index", "rows by a list", with_index, lambda x, i, s: x[i[:, 0] % 4] * 2),
        ("index", "by truth values", with_index, lambda x, i, s: x[i[:, 0] > 3] * 2),
    )
    yield from group(
        "other",
        ("index_put_", "adding up", with_index, _accumulated),
        ("assign by truth values", "", with_index, _assigned),
        ("nonzero", "", with_index, lambda x, i, s: (x > 0.5).nonzero()),
        ("one_hot", "", with_index, lambda x, i, s: F.one_hot(i, 8)),
        (
            "unique",
            "with counts",
            with_index,
            lambda x, i, s: i.unique(return_counts=True),
            f"{_DIRECTML}410",
        ),
        ("bincount", "", with_index, lambda x, i, s: i.flatten().bincount(minlength=8)),
        has_gradient=False,
    )


def _distinct(index: Tensor) -> Tensor:
    """(4, 6) places of 8 without repetition in a row: what a repeated place would hold is undefined."""
    row = torch.tensor([5, 0, 7, 2, 6, 1], device=index.device)
    return torch.stack([(row + shift) % 8 for shift in range(4)])


def _accumulated(x: Tensor, index: Tensor, values: Tensor) -> Tensor:
    rows = torch.arange(4, device=x.device).unsqueeze(1).expand(-1, 6)
    return x.clone().index_put_((rows, index), values, accumulate=True)


def _assigned(x: Tensor, index: Tensor, values: Tensor) -> Tensor:
    y = x.clone()
    y[y > 0.5] = -1
    y[:, 2:][index > 3] = 0
    return y


def _products() -> Iterator[Case]:
    def three(draw: Draw) -> tuple[Tensor, ...]:
        return draw.normal(2, 5, 7), draw.normal(2, 7, 6), draw.normal(2, 6, 7)

    def products(draw: Draw) -> tuple[Tensor, ...]:
        return draw.normal(6, 9), draw.normal(9, 5), draw.normal(9)

    for operator, form, make, run in (
        ("bmm", "", three, lambda a, b, _: a @ b),
        ("bmm", "transposed", three, lambda a, _, c: a @ c.transpose(1, 2)),
        ("matmul", "", products, lambda a, b, v: (a @ b, a @ v)),
        ("addmv", "", products, lambda a, b, v: torch.addmv(a[:, 0], a, v)),
        ("linear", "", products, lambda a, b, v: F.linear(a, b.t(), b[0])),
        ("attention softmax", "", three, lambda a, *_: (a @ a.transpose(1, 2)).softmax(-1)),
    ):
        yield Case(operator=operator, form=form, make=make, run=run, multiplies=True)


def _layers() -> Iterator[Case]:
    yield from group(
        "other",
        (
            "binary_cross_entropy_with_logits",
            "",
            rows,
            lambda a: F.binary_cross_entropy_with_logits(a, a.sigmoid().detach()),
        ),
        (
            "binary_cross_entropy",
            "",
            rows,
            lambda a: F.binary_cross_entropy(a.sigmoid(), (a > 0).to(a.dtype)),
        ),
        ("cross_entropy", "", rows, lambda a: F.cross_entropy(a, a.argmax(1))),
        ("smooth_l1_loss", "", rows, lambda a: F.smooth_l1_loss(a, a.detach().flip(1))),
        ("mish, gelu, elu", "", rows, lambda a: (F.mish(a), F.gelu(a), F.elu(a))),
        ("group_norm", "", wide_map, lambda x: F.group_norm(x, 4)),
        ("layer_norm", "", wide_map, lambda x: F.layer_norm(x, (6, 5))),
        (
            "upsample bilinear",
            "",
            wide_map,
            lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False),
        ),
    )


def _making() -> Iterator[Case]:
    yield from group(
        "other",
        ("eye", "", rows, lambda x: torch.eye(4, device=x.device) + x[:, :4].float() * 0, f"{_DIRECTML}431"),
        ("linspace, meshgrid", "", rows, _grid),
        (
            "full, ones, fill_",
            "",
            rows,
            lambda x: (torch.full((3,), 2.5, device=x.device), torch.ones_like(x).fill_(3)),
        ),
        ("tril", "", rows, lambda x: x.tril()),
        ("lerp", "", cube, lambda x: (x.clone().lerp_(x.flip(0), 0.1), torch.lerp(x, x.flip(1), 0.9))),
        has_gradient=False,
    )


def _grid(x: Tensor) -> Outputs:
    steps = torch.linspace(0.5, 6.5, 7, device=x.device)
    return torch.meshgrid(steps, steps[:4], indexing="ij")
