"""Models from nothing but their convolutions, batch norms folded in, as exported graphs hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from anyolo.errors import CheckpointError
from anyolo.families import FAMILIES
from anyolo.families.base import FamilySpec
from anyolo.families.checkpoints import Checkpoint
from anyolo.families.shapes import own_rows, skeleton
from anyolo.nn.demand import order_of_demand
from anyolo.nn.model import Detector, build

Folded = Sequence[tuple[Tensor, Tensor]]
"""Weight (O, I, kh, kw) and bias (O,) of every convolution, in the order of ``nn.demand.order_of_demand``."""


def load_folded(convolutions: Folded, *, where: str, family: str = "") -> Checkpoint:
    """The model whose convolutions these are; float32, evaluating, on the CPU.

    Its batch norms change nothing: before it is trained on, statistics must be measured anew
    (``meta["folded"]`` says so).

    Raises:
        CheckpointError: no size of any family has such convolutions, or several have.
    """
    shapes = [tuple(weight.shape) for weight, _ in convolutions]
    hits = []
    for name in [family] if family else FAMILIES:
        spec = FAMILIES.get(name)
        hits += [(spec, size, nc) for size in spec.sizes() if (nc := _classes(spec, size, shapes))]
    if len(hits) != 1:
        found = " or ".join(f"{spec.name} {size}".strip() for spec, size, _ in hits)
        raise CheckpointError(
            f"could be {found}" if hits else f"no known model has these {len(shapes)} convolutions",
            where=where,
            hint="Say which: family=..." if hits else f"Tried: {family or ', '.join(FAMILIES)}.",
        )
    spec, size, nc = hits[0]
    model = build(own_rows(spec, size), size=size, nc=nc, batch_norm=spec.batch_norm, where=where)
    _fill(model, convolutions)
    side = spec.side_of(size)
    return Checkpoint(
        model=model.eval(),
        spec=spec,
        size=size,
        names=tuple(f"class{number}" for number in range(nc)),
        preprocess=spec.preprocess,
        imgsz=(side, side),
        meta={"folded": True},
    )


def _classes(spec: FamilySpec, size: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """For how many classes this size has convolutions of these shapes; 0 if it never has.

    Read off the last convolution whose channels grow with the classes, then proved by building.
    """
    blank = skeleton(own_rows(spec, size), size=size, nc=1)
    if sum(isinstance(module, nn.Conv2d) for module in blank.modules()) != len(shapes):
        return 0  # before anything runs: the order takes a second of a large model
    one = _shapes(spec, size, 1)
    if len(one) != len(shapes):
        return 0
    two = _shapes(spec, size, 2)
    slopes = [(own[0], more[0] - own[0], given[0]) for own, more, given in zip(one, two, shapes, strict=True)]
    first, slope, given = next(own for own in reversed(slopes) if own[1] > 0)
    nc = 1 + (given - first) // slope
    return nc if nc > 0 and _shapes(spec, size, nc) == list(shapes) else 0


def _shapes(spec: FamilySpec, size: str, nc: int) -> list[tuple[int, ...]]:
    model = skeleton(own_rows(spec, size), size=size, nc=nc)
    return [tuple(_weight(model, name).shape) for name in order_of_demand(model)]


def _weight(model: Detector, name: str) -> Tensor:
    return model.get_parameter(f"{name}.weight")


@torch.no_grad()
def _fill(model: Detector, convolutions: Folded) -> None:
    norms = _norms(model)
    for name, (weight, bias) in zip(order_of_demand(model), convolutions, strict=True):
        _weight(model, name).copy_(weight)
        norm = norms.get(name)
        if norm is None:
            model.get_parameter(f"{name}.bias").copy_(bias)
        else:  # passes its input through, up to the bias
            assert norm.running_mean is not None and norm.running_var is not None
            norm.weight.fill_(1)
            norm.bias.copy_(bias)
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)


def _norms(model: Detector) -> Mapping[str, nn.BatchNorm2d]:
    """The batch norm behind each convolution: the child registered after it."""
    found = {}
    for prefix, module in model.named_modules():
        children = list(module.named_children())
        for (name, own), (_, after) in pairwise(children):
            if isinstance(own, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                found[f"{prefix}.{name}"] = after
    return found
