"""Loss terms in operators that every backend has, gradients included."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def bce_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of logits against targets in 0..1, summed.

    Softplus form: exact gradient everywhere, and no log-sigmoid, which some backends lack.
    """
    return F.softplus(logits).sum() - (logits * targets).sum()


def dfl(logits_B4RA: Tensor, distances_B4A: Tensor) -> Tensor:
    """Distribution focal loss per side, (B, 4, A): cross entropy against the two bins around the true distance.

    Args:
        logits_B4RA: logits over the bins 0..R-1.
        distances_B4A: true distances in strides; clamped to 0..R-1.01.

    The triangle ``1 - |bin - distance|`` is the weight of both bins at once, with no gather.

    Source: Li et al. 2020, arXiv:2006.04388, equation 6.
    """
    bins = logits_B4RA.shape[2]
    ids = torch.arange(bins, device=logits_B4RA.device, dtype=logits_B4RA.dtype).view(1, 1, -1, 1)
    distances = distances_B4A.clamp(0, bins - 1.01).unsqueeze(2)
    weights = (1 - (ids - distances).abs()).clamp(min=0)
    return -(weights * logits_B4RA.log_softmax(2)).sum(2)
