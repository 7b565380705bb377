"""Learning rate, momentum and accumulation as pure functions of the position in the run.

Nothing here has state, so that a resumed run needs no more than its epoch and batch number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from anyolo.config.schema import OptimConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """``epochs`` and ``batches`` (per epoch) span the run; ``config`` is the resolved OptimConfig."""

    config: OptimConfig
    epochs: int
    batches: int
    batch: int

    @property
    def warmup_batches(self) -> int:
        return round(min(self.config.warmup_epochs, self.epochs - 1) * self.batches)

    def factor(self, epoch: int) -> float:
        """Share of lr0 in this epoch, from 1 down to lrf, linear or cosine; a tenth at each of ``steps``."""
        if self.config.steps is not None:
            return float(0.1 ** sum(epoch >= step for step in self.config.steps))
        done = min(epoch / self.epochs, 1.0)
        lrf = self.config.lrf
        if self.config.cos_lr:
            return (1 - math.cos(math.pi * done)) / 2 * (lrf - 1) + 1
        return (1 - done) * (1 - lrf) + lrf

    def accumulate(self, epoch: int, index: int) -> int:
        """How many batches make one update, rising to nbs / batch during the warm-up."""
        full = max(self.config.nbs / self.batch, 1.0)
        return max(1, round(1 + (full - 1) * self.warmth(epoch, index)))

    def apply(self, optimizer: torch.optim.Optimizer, epoch: int, index: int) -> None:
        """Set rate and momentum of every group for batch ``index`` of ``epoch``."""
        warmth, target = self.warmth(epoch, index), self.config.lr0 * self.factor(epoch)
        momentum = self.config.warmup_momentum + (self.config.momentum - self.config.warmup_momentum) * warmth
        for group in optimizer.param_groups:
            start = self.config.warmup_bias_lr if group["name"] == "biases" else 0.0
            group["lr"] = start + (target - start) * warmth
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            elif self.config.momentum > 0:
                group["momentum"] = momentum

    def warmth(self, epoch: int, index: int) -> float:
        """0 at the first batch, 1 from the end of the warm-up on."""
        length = self.warmup_batches
        return min(1.0, (epoch * self.batches + index) / length) if length > 0 else 1.0
