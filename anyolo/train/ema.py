"""The running average of the weights: what is evaluated and saved."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class WeightAverage(Generic[Model]):
    """Exponential moving average of every floating tensor of a model, batch norm statistics included.

    ``decay`` rises as ``decay * (1 - exp(-updates / tau))``, so that the first updates count.

    Source: the field's ModelEMA constants (YOLOv5 v7, YOLOv8); Polyak and Juditsky 1992.
    """

    def __init__(self, model: Model, *, decay: float = 0.9999, tau: float = 2000.0, updates: int = 0) -> None:
        self.model: Model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.tau, self.updates = decay, tau, updates

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        keep = self.decay * (1 - math.exp(-self.updates / self.tau))
        fresh = model.state_dict()
        for name, own in self.model.state_dict().items():
            if own.dtype.is_floating_point:
                # mul_ and add_ rather than lerp_, which restricted backends lack
                own.mul_(keep).add_(fresh[name].detach(), alpha=1 - keep)
            else:
                own.copy_(fresh[name])
