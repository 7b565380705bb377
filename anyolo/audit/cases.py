"""What an operator test is: small inputs, one call, what of anyolo stands on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from anyolo.devices.base import Phase

Part = Literal["network", "decode", "loss", "optimizer", "other"]
Outputs = Tensor | Sequence[Tensor]
PHASES: dict[Part, Phase] = {
    "network": "forward",
    "decode": "decode",
    "loss": "loss",
    "optimizer": "optimizer",
    "other": "other",
}


class Draw:
    """Numbers at random, the same ones for the same seed, on the CPU."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator)

    def whole(self, low: int, high: int, *shape: int) -> Tensor:
        """int64, ``low`` included, ``high`` not."""
        return torch.randint(low, high, shape, generator=self._generator)

    def flags(self, *shape: int) -> Tensor:
        return self.uniform(*shape) < 0.5

    def ties(self, *shape: int) -> Tensor:
        """Few different values, so that equal ones meet."""
        return self.whole(0, 4, *shape).float()

    def boxes(self, *shape: int) -> Tensor:
        """(..., 4) xyxy in pixels."""
        low = self.uniform(*shape, 2) * 50
        return torch.cat((low, low + 2 + self.uniform(*shape, 2) * 40), -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """``run(*inputs)`` on the device shall equal ``run(*inputs)`` in float64 on the CPU.

    ``part`` is what of anyolo calls the operator in this form, ``other`` where nothing does (but users' code
    may). The way back is tested too unless ``has_gradient`` is False, and half precision where ``in_half``.
    ``multiplies``: sums of products, which some hardware rounds to 11 bits by default. ``unless_lacking``
    names an operator that anyolo avoids where a backend lacks it. ``seen``: where this very fault was met.
    """

    operator: str
    form: str
    make: Callable[[Draw], tuple[Tensor, ...]]
    run: Callable[..., Outputs]
    part: Part = "other"
    has_gradient: bool = True
    in_half: bool = False
    multiplies: bool = False
    unless_lacking: str = ""
    seen: str = ""

    @property
    def name(self) -> str:
        return f"{self.operator} ({self.form})" if self.form else self.operator

    @property
    def is_used(self) -> bool:
        return self.part != "other"


def group(part: Part, *rows: tuple[Any, ...], has_gradient: bool = True) -> Iterator[Case]:
    """Cases from rows ``operator, form, make, run[, seen]``."""
    for operator, form, make, run, *seen in rows:
        yield Case(
            operator=operator,
            form=form,
            make=make,
            run=run,
            part=part,
            has_gradient=has_gradient,
            seen=seen[0] if seen else "",
        )


def rows(draw: Draw) -> tuple[Tensor, ...]:
    return (draw.normal(4, 33),)


def cube(draw: Draw) -> tuple[Tensor, ...]:
    return (draw.normal(3, 7, 9),)


def wide_map(draw: Draw) -> tuple[Tensor, ...]:
    """(B, C, H, W)."""
    return (draw.normal(2, 20, 6, 5),)
