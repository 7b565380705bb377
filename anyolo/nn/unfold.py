"""Batch norms of a model that was found with them folded into its convolutions, brought back to work."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from anyolo.nn.model import Detector


@torch.no_grad()
def measure_norms(model: Detector, batches: Iterable[Tensor]) -> None:
    """Give every batch norm that only adds its bias the statistics of what it is fed, and their inverse.

    In eval mode the model computes what it did. In training mode, where a batch norm divides by the deviation
    of the batch, it now does nearly the same; before, it would have been another function altogether.
    ``batches``: normalised pictures (B, C, H, W), some dozens in all.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double()
        count = torch.full_like(x[0, :, 0, 0], x[:, 0].numel())
        sums[norm] += torch.stack((count, x.sum((0, 2, 3)), (x * x).sum((0, 2, 3))))  # type: ignore[index]

    was_training = model.training
    model.eval()
    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    for images in batches:
        model(images)
    for hook in hooks:
        hook.remove()
    model.train(was_training)
    for norm, (count, total, squares) in sums.items():
        assert norm.running_mean is not None and norm.running_var is not None
        mean = total / count
        variance = (squares / count - mean * mean).clamp(min=0)
        norm.bias.add_(mean - norm.running_mean)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
