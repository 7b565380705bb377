"""The operators of decoding, loss and optimizer, and those that other programs stumble over."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from anyolo.audit.cases import Case, Draw, Outputs, group

_PYTORCH = "https://github.com/pytorch/pytorch/issues/"
_DIRECTML = "https://github.com/microsoft/DirectML/issues/"


def tensor_cases() -> Iterator[Case]:
    yield from _decoding()
    yield from _pointwise()
    yield from _reductions()
    yield from _choosing()
    yield from _optimizing()
    yield from _copies()
    yield from _types()
    yield from _indexing()
    yield from _others()


def _map(draw: Draw) -> tuple[Tensor, ...]:
    return (draw.normal(2, 20, 6, 5),)


def _rows(draw: Draw) -> tuple[Tensor, ...]:
    return (draw.normal(4, 33),)


def _flat(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _expected_bin(x: Tensor) -> Tensor:
    bins = torch.arange(16, device=x.device, dtype=x.dtype)
    sides, _ = torch.split(_flat(x), [16, 4], 2)
    return (sides.softmax(-1) * bins).sum(-1)


def _decoding() -> Iterator[Case]:
    yield from group(
        "decode",
        ("permute, flatten", "", _map, lambda x: _flat(x) * 1),
        ("softmax, expectation", "part of a row", _map, _expected_bin),
        ("sigmoid", "permuted part of a map", _map, lambda x: torch.split(_flat(x), [16, 4], 2)[1].sigmoid()),
        ("cat", "levels of different size", _map, lambda x: torch.cat((_flat(x), _flat(x[:, :, :2, ::2])), 1)),
        ("sub, add, cat", "corners of boxes", _rows, lambda x: torch.cat((x - x[:, :1], x + x[:, 1:2]), -1)),
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
        ("softplus", "of a slice", _rows, lambda x: F.softplus(x[..., 5:])),
        ("log_softmax", "", _rows, lambda x: F.log_softmax(x, -1)),
        ("log_softmax", "transposed", _rows, lambda x: F.log_softmax(x.t(), -1)),
        ("atan", "", lambda d: (d.normal(6, 9) * 4,), torch.atan),
        ("overlap of boxes", "", _boxes, _ciou),
        ("overlap of boxes", "one against many", _boxes, lambda a, b: _ciou(a[:, :, None], b[:, None])),
        ("maximum, minimum", "broadcast", two, lambda a, b: (torch.maximum(a, b), torch.minimum(a, b))),
        ("mul, div", "broadcast", two, lambda a, b: (a * b, a / (b.abs() + 1))),
        ("add, sub", "transposed", _rows, lambda x: (x.t() + x.t().flip(0), x.t() - 3 * x.t().flip(1))),
        ("pow", "", positive, lambda x: (x.pow(3), x.pow(0.5), x.pow(2))),
        ("abs, clamp", "", _rows, lambda x: (x.abs(), x.clamp(min=-0.5), x.clamp(max=0.7))),
    )
    yield from group(
        "other",
        ("sqrt, log, exp", "", positive, lambda x: (x.sqrt(), x.log(), x.exp())),
        ("sin, tanh, erf", "", _rows, lambda x: (x.sin(), x.tanh(), x.erf())),
        ("floor, round", "", _rows, lambda x: (x.floor(), x.round(), x.remainder(0.7))),
    )
    yield from group(
        "loss",
        ("sign", "", _rows, torch.sign),
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
    def cube(draw: Draw) -> tuple[Tensor, ...]:
        return (draw.normal(3, 7, 9),)

    yield from group(
        "loss",
        ("sum", "over everything, an axis, two axes", cube, lambda x: (x.sum(), x.sum(1), x.sum((0, 2)))),
        ("sum", "of a strided view", cube, lambda x: (x[:, ::2].sum(1), x.transpose(0, 2)[1:].sum((0, 1)))),
        ("mean", "", cube, lambda x: (x.mean(), x.mean(-1))),
        ("stack, unbind, split", "", cube, lambda x: (torch.stack(torch.unbind(x, 1), 0), *torch.split(x, 4, 1))),
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
    yield from group(
        "other",
        ("amax", "and back", cube, lambda x: x.amax(1)),
        ("cumsum", "and back", cube, lambda x: x.cumsum(1)),
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
        ("sum", "of truth values", lambda d: (d.flags(5, 70),), lambda x: (x.sum(), x.sum(1), x.any(1), x.all())),
        ("sum", "of nothing", lambda d: (d.normal(0, 4),), lambda x: (x.sum(), x.sum(0), torch.cat((x, x)))),
        has_gradient=False,
    )


def _gathered(x: Tensor, index: Tensor) -> Outputs:
    return x.gather(1, index), x.index_select(0, index[:, 0])


def _top(x: Tensor, k: int = 5) -> Outputs:
    """Of equal values any may come first: the places are judged by what lies there."""
    values, places = x.topk(k, dim=-1)
    return values, x.gather(-1, places), places.sort(-1).values.diff(dim=-1) > 0


def _sorted(x: Tensor) -> Outputs:
    values, places = x.sort(-1, descending=True)
    return values, x.gather(-1, places)


def _choosing() -> Iterator[Case]:
    def with_index(draw: Draw) -> tuple[Tensor, ...]:
        return draw.normal(4, 33), draw.whole(0, 4, 6, 3)[:4]

    yield from group(
        "loss",
        ("where", "", with_index, lambda x, i: torch.where(x > 0.2, x * 2, x - 1)),
        ("where", "with a number", _rows, lambda x: torch.where(x > 0, x, 0.5)),
        ("masked_fill", "", _rows, lambda x: x.masked_fill(x > 0.3, 0.0)),
    )
    yield from group(
        "loss",
        ("gather, index_select", "", with_index, _gathered),
        ("gather", "of a transposed view", with_index, lambda x, i: x.t()[:4].gather(1, i)),
        ("topk", "", _rows, _top),
        ("topk", "10 of 400", lambda d: (d.normal(3, 400),), lambda x: _top(x, 10)),
        ("topk", "20 of 400 with ties", lambda d: (d.ties(3, 400),), lambda x: _top(x, 20)),
        ("topk", "of a strided view", _rows, lambda x: _top(x[:, ::2])),
        ("arange", "", _rows, lambda x: [torch.arange(*r, device=x.device) for r in ((7,), (9, 0, -1), (0, 60, 15))]),
        has_gradient=False,
    )
    yield from group(
        "other",
        ("sort", "", _rows, _sorted),
        ("sort", "with ties", lambda d: (d.ties(3, 50),), _sorted),
        ("sort", "of a transposed view", _rows, lambda x: _sorted(x.t()), f"{_PYTORCH}175187"),
        ("argsort", "stable", lambda d: (d.ties(3, 50),), lambda x: x.argsort(stable=True, dim=-1)),
        has_gradient=False,
    )


def _optimizing() -> Iterator[Case]:
    def four(draw: Draw) -> tuple[Tensor, ...]:
        return tuple(draw.normal(6, 8) for _ in range(4))

    def adam(weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> Outputs:
        """One step on tensors whose memory lies transposed, as the weights of channels-last models do."""
        weight, mean, square = (x.t().clone(memory_format=torch.preserve_format) for x in (weight, mean, square))
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
    yield from group(
        "other",
        ("lerp", "", four, lambda a, b, *_: (a.clone().lerp_(b, 0.1), torch.lerp(a, b, 0.9))),
        has_gradient=False,
    )


def _mixed_memory(weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> Tensor:
    weight = weight.clone()
    gradient, mean = (x.reshape(8, 6).t() for x in (gradient, mean))
    return weight.addcmul_(gradient, mean, value=0.5).addcdiv_(gradient, square.abs() + 1, value=-0.1)


def _written_into(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 1:9:2] = x[:, :4]
    y[1:3, 20:].copy_(x[:2, 20:])
    y[..., -1] += 2
    return y


def _copies() -> Iterator[Case]:
    yield from group(
        "network",
        ("copy to the device", "transposed", lambda d: (d.normal(5, 7).t(),), lambda x: x * 1),
        ("copy to the device", "every other column", lambda d: (d.normal(5, 8)[:, ::2],), lambda x: x * 1),
        ("copy to the host", "every other column", _rows, lambda x: (x[:, ::2], x[1:, 3:]), f"{_PYTORCH}189961"),
        ("copy to the host", "transposed, permuted", _map, lambda x: (x.permute(0, 2, 3, 1), x.transpose(1, 3))),
        ("contiguous", "of a slice", _map, lambda x: (x[:, 3:, 1:, ::2].contiguous(), x.transpose(1, 2).contiguous())),
        ("reshape", "of a view", _map, lambda x: (x[:, 4:].reshape(2, -1), x.transpose(1, 2).reshape(-1, 5))),
        has_gradient=False,
    )
    yield from group(
        "other",
        ("write into slices", "", _rows, _written_into),
        ("flip, roll", "", _rows, lambda x: (x.flip(1), x.roll(3, 1))),
        ("neg", "into a transposed tensor", _rows, _negated_into, f"{_PYTORCH}100764"),
        ("repeat, tile", "", _rows, lambda x: (x.repeat(2, 1, 3), x.repeat_interleave(2, dim=0))),
        ("select", "of a slice of a slice", _rows, lambda x: x[1:][:, 2:][::2, 1::3][0] * 1),
        has_gradient=False,
    )


def _negated_into(x: Tensor) -> Tensor:
    y = torch.empty(33, 4, device=x.device, dtype=x.dtype).t()
    return torch.neg(x, out=y)


def _types() -> Iterator[Case]:
    def bytes_(draw: Draw) -> tuple[Tensor, ...]:
        return (draw.whole(0, 256, 2, 3, 6, 10).to(torch.uint8),)

    def numbers(draw: Draw) -> tuple[Tensor, ...]:
        return draw.whole(-(2**40), 2**40, 5, 6), draw.whole(1, 1000, 5, 6)

    def with_flags(draw: Draw) -> tuple[Tensor, ...]:
        return draw.normal(5, 6), draw.flags(5, 6)

    yield from group(
        "network",
        ("uint8 to float", "", bytes_, lambda x: x.float() / 255),
        ("uint8 to float", "channels last", bytes_, lambda x: x.contiguous(memory_format=torch.channels_last).float()),
        ("uint8 to float", "of a slice", bytes_, lambda x: x[:, 1:, ::2, 3:].float()),
        has_gradient=False,
    )
    yield from group(
        "loss",
        ("float to int64", "", lambda d: (d.normal(5, 6) * 9,), lambda x: x.long()),
        ("int64 arithmetic", "small", lambda d: (d.whole(0, 900, 5, 6),), lambda x: x + x[:, :1] * 8400),
        has_gradient=False,
    )
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
        ("scatter", "part of the columns", with_index, lambda x, i, s: x.scatter(1, _distinct(i), s), f"{_DIRECTML}420"),
        ("scatter", "negative axis", with_index, lambda x, i, s: x.scatter(-1, _distinct(i), s), f"{_DIRECTML}420"),
        ("gather", "and back", with_index, lambda x, i, s: x.gather(1, i)),
        ("index_select", "and back", with_index, lambda x, i, s: x.index_select(1, i[0])),
        ("scatter_add", "repeated places", with_index, lambda x, i, s: x.scatter_add(1, i, s)),
        ("index_add", "repeated places", with_index, lambda x, i, s: x.index_add(0, i[0] % 4, x[[0, 1, 2, 3, 0, 1]])),
        ("index", "rows by a list", with_index, lambda x, i, s: x[i[:, 0] % 4] * 2),
        ("index", "by truth values", with_index, lambda x, i, s: x[i[:, 0] > 3] * 2),
    )
    yield from group(
        "other",
        ("index_put_", "adding up", with_index, _accumulated),
        ("assign by truth values", "", with_index, _assigned),
        ("nonzero", "", with_index, lambda x, i, s: (x > 0.5).nonzero()),
        ("one_hot", "", with_index, lambda x, i, s: F.one_hot(i, 8)),
        ("unique", "with counts", with_index, lambda x, i, s: i.unique(return_counts=True), f"{_DIRECTML}410"),
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


def _others() -> Iterator[Case]:
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
    ):
        yield Case(operator=operator, form=form, make=make, run=run, multiplies=True)
    yield from group(
        "other",
        ("binary_cross_entropy_with_logits", "", products, lambda a, *_: F.binary_cross_entropy_with_logits(a, a.sigmoid().detach())),
        ("binary_cross_entropy", "", products, lambda a, *_: F.binary_cross_entropy(a.sigmoid(), (a > 0).to(a.dtype))),
        ("cross_entropy", "", products, lambda a, *_: F.cross_entropy(a, a.argmax(1))),
        ("smooth_l1_loss", "", products, lambda a, *_: F.smooth_l1_loss(a, a.detach().flip(1))),
        ("mish, gelu, elu", "", products, lambda a, *_: (F.mish(a), F.gelu(a), F.elu(a))),
        ("group_norm", "", _map, lambda x: F.group_norm(x, 4)),
        ("layer_norm", "", _map, lambda x: F.layer_norm(x, (6, 5))),
        ("upsample bilinear", "", _map, lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)),
        ("attention softmax", "", three, lambda a, *_: (a @ a.transpose(1, 2)).softmax(-1)),
    )
    yield from group(
        "other",
        ("eye", "", _rows, lambda x: torch.eye(4, device=x.device) + x[:, :4].float() * 0, f"{_DIRECTML}431"),
        ("linspace, meshgrid", "", _rows, _grid),
        ("full, ones, fill_", "", _rows, lambda x: (torch.full((3,), 2.5, device=x.device), torch.ones_like(x).fill_(3))),
        ("tril", "", _rows, lambda x: x.tril()),
        has_gradient=False,
    )


def _grid(x: Tensor) -> Outputs:
    steps = torch.linspace(0.5, 6.5, 7, device=x.device)
    return torch.meshgrid(steps, steps[:4], indexing="ij")
