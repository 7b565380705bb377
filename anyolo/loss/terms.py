"""Loss terms in operators that every backend has, gradients included."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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


def binary_cross_entropy(
    logits: Tensor, wanted: Tensor, *, positive_weight: float = 1.0, gamma: float = 0.0, alpha: float = 0.25
) -> Tensor:
    """Cross entropy of ``sigmoid(logits)`` with ``wanted`` in 0..1, element by element.

    Args:
        logits, wanted: broadcastable.
        positive_weight: of the part that ``wanted`` asks for.
        gamma: above 0, easy elements count less: each is weighted by its error to this power, and by
            ``alpha`` or 1 - ``alpha`` as it is wanted or not.

    Source: Lin et al. 2017, arXiv:1708.02002, section 3.
    """
    # of softplus and a product the gradient is exact everywhere, and every backend has both
    if positive_weight == 1:
        loss = F.softplus(logits) - logits * wanted
    else:
        loss = F.softplus(logits) * (wanted * (positive_weight - 1) + 1) - logits * (wanted * positive_weight)
    if not gamma:
        return loss
    unwanted = wanted.neg().add(1)
    error = wanted * (-logits).sigmoid() + unwanted * logits.sigmoid()
    return loss * error.clamp(min=1e-12).pow(gamma) * (wanted * alpha + unwanted * (1 - alpha))
