"""When two devices gave the same: one measure of difference, one table of what is allowed."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Tolerance(NamedTuple):
    """Largest difference, as a share of the largest expected value, that rounding explains.

    ``operator``: of one operator's result or gradient. ``network``: of a whole forward or backward pass,
    where the CPU itself is not exacter. ``gradient``: of a training step's gradients, where rounding also
    changes which points answer for an object, a tenth of a gradient at a time. ``spread``: how many times
    further from the truth than the CPU's own arithmetic in this type a device may be: much in float32, where
    the order of sums makes the error, one bit in half precision, where rounding itself does. ``reason`` says
    where the numbers come from.
    """

    operator: float
    network: float
    gradient: float
    spread: float
    reason: str


TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float32: Tolerance(
        2e-5,
        1e-3,
        1e-3,
        4,
        "24 bits of mantissa: half a step is 6e-8; sums of a few hundred products in another order, and exp, "
        "log, atan by short polynomials, stay below 300 of these; some 60 layers stay below 20,000",
    ),
    torch.float16: Tolerance(
        4e-3,
        3e-2,
        0.3,
        2,
        "11 bits: half a step is 5e-4; eight roundings of intermediate results; 60 layers",
    ),
    torch.bfloat16: Tolerance(
        3e-2,
        1e-1,
        0.3,
        2,
        "8 bits: half a step is 4e-3; eight roundings of intermediate results; 60 layers",
    ),
}
SHORT_MANTISSA = 2e-3
"""Products of float32 numbers whose factors were first rounded to 11 bits (TF32, HF32): half a step is 5e-4,
and each product has two factors. The default of several accelerators, and enough for training."""


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the largest expected value; 0 for empty tensors.

    Infinite where shapes differ, where something other than a finite number stands on one side only, and
    where whole numbers or truth values differ at all. Both on the host, any type.
    """
    if found.shape != expected.shape:
        return math.inf
    if found.numel() == 0:
        return 0.0
    if not (found.is_floating_point() and expected.is_floating_point()):
        return 0.0 if bool((found == expected).all()) else math.inf
    a, b = found.double(), expected.double()
    usable = b.isfinite()
    if not torch.equal(a.isfinite(), usable) or not torch.equal(
        a[~usable].nan_to_num(), b[~usable].nan_to_num()
    ):
        return math.inf
    if not usable.any():
        return 0.0
    return float((a - b)[usable].abs().max()) / (float(b[usable].abs().max()) or 1.0)


def distance(found: Tensor, expected: Tensor, *, least: float = 0.0) -> float:
    """Norm of the difference as a share of the expected norm (of ``least``, where that is more).

    The measure for gradients: single small entries do not decide. Infinite as in ``difference``.
    """
    if found.shape != expected.shape or not found.isfinite().all():
        return math.inf
    a, b = found.double(), expected.double()
    size = max(float(b.norm()), least)
    return float((a - b).norm()) / size if size else float(a.norm())


def describe(found: Tensor, expected: Tensor) -> str:
    """What differs, in words: shapes, types, numbers that are none, or the worst element."""
    if found.shape != expected.shape:
        return f"shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
    if found.is_floating_point() != expected.is_floating_point():
        return f"{type_name(found.dtype)} instead of {type_name(expected.dtype)}"
    if found.is_floating_point():
        strangers = int((~found.isfinite() & expected.isfinite()).sum())
        if strangers:
            return f"{strangers} of {found.numel()} elements are not finite"
    gap = (found.double() - expected.double()).abs().nan_to_num(0.0)
    place = int(gap.argmax())
    differing = int((gap > 0).sum()) if not found.is_floating_point() else 0
    count = f"{differing} of {found.numel()} elements differ; " if differing else ""
    values = (float(tensor.double().flatten()[place]) for tensor in (found, expected))
    return count + "worst element {:.7g} instead of {:.7g}".format(*values)


def type_name(dtype: torch.dtype) -> str:
    """``float32``."""
    return str(dtype).removeprefix("torch.")
