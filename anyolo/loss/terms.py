"""Loss terms in operators that every backend has, gradients included."""

from __future__ import annotations

import torch
from torch import Tensor


def distribution_focal(logits: Tensor, distances: Tensor) -> Tensor:
    """Cross entropy of each side against the two bins around its true distance: (..., R), (...) to (...).

    Args:
        logits: over the bins 0..R-1.
        distances: true distances in bins; clamped to 0..R-1.01.

    The triangle ``1 - |bin - distance|`` holds the weights of both bins at once, with no gather.

    Source: Li et al. 2020, arXiv:2006.04388, equation 6.
    """
    bins = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
    distances = distances.clamp(0, logits.shape[-1] - 1.01).unsqueeze(-1)
    # neg and add: a number minus a tensor goes through float64 on some cards
    weights = (bins - distances).abs().neg().add(1).clamp(min=0)
    return -(weights * logits.log_softmax(-1)).sum(-1)
