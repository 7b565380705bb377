"""Another activation in a finished network, for devices that lack the one it was trained with."""

from __future__ import annotations

from torch import nn

from anyolo.nn.blocks.conv import activation

SWAPS = {"relu": "ReLU", "leaky_relu": "LeakyReLU(0.1)", "hardswish": "Hardswish"}
SMOOTH = (nn.SiLU, nn.Mish, nn.GELU)
"""What small devices lack or are slow at."""


def swap_activations(model: nn.Module, name: str) -> int:
    """Replace every smooth activation, in place, by one of ``SWAPS``; returns how many there were."""
    count = 0
    for parent in list(model.modules()):
        for key, child in parent.named_children():
            if isinstance(child, SMOOTH):
                setattr(parent, key, activation(SWAPS[name]))
                count += 1
    return count
