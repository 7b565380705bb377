"""Adam and AdamW in operators that every backend has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch


class PlainAdam(torch.optim.Optimizer):
    """torch's Adam without ``lerp``, one tensor at a time; the same numbers up to rounding.

    ``is_decoupled``: weight decay acts on the weights (AdamW) instead of on the gradient.

    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        is_decoupled: bool = False,
    ) -> None:
        super().__init__(list(groups), {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.is_decoupled = is_decoupled

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        assert parameter.grad is not None
        (beta1, beta2), rate, decay = group["betas"], group["lr"], group["weight_decay"]
        gradient = parameter.grad
        if decay and self.is_decoupled:
            parameter.mul_(1 - rate * decay)
        elif decay:
            gradient = gradient.add(parameter, alpha=decay)
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
        square.mul_(beta2).add_(gradient * gradient, alpha=1 - beta2)
        scale = square.sqrt().div_(math.sqrt(1 - beta2 ** state["step"])).add_(group["eps"])
        parameter.sub_(mean / scale, alpha=rate / (1 - beta1 ** state["step"]))
