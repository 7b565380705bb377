"""Loss scaling where the first steps overflow, as they do in float16."""

from __future__ import annotations

import pytest
import torch

from anyolo.devices.scaling import PlainScaler, Scaler, TorchScaler


def train(scaler: Scaler, losses: list[float], **options: bool) -> tuple[float, float]:
    """Smallest and largest weight after steps whose gradients are these."""
    # what the allocator will hand out next is not zero by chance
    junk = [torch.full((1000,), float("nan")) for _ in range(50)]
    del junk
    weight = torch.nn.Parameter(torch.ones(1000))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, nesterov=True, **options)
    for loss in losses:
        scaler.backward((weight * loss).sum())
        scaler.step(optimizer)
    return float(weight.min().detach()), float(weight.max().detach())


@pytest.mark.parametrize("make", [lambda: TorchScaler("cpu"), PlainScaler], ids=["torch's", "ours"])
@pytest.mark.parametrize("is_fused", [False, True])
def test_a_step_that_overflows_leaves_no_trace(make, is_fused):
    inf = float("inf")
    expected = train(Scaler(), [1.0, 2.0])
    assert train(make(), [inf, inf, 1.0, inf, 2.0], fused=is_fused) == pytest.approx(expected, abs=1e-6)
