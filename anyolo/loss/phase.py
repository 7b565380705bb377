"""Losses that change in the last epochs of a run."""

from __future__ import annotations

from torch import nn


class Phased(nn.Module):
    """A criterion with another loss in the last phase of a run: the epochs without mosaic and mixup.

    Whoever trains sets ``is_last_phase`` before every epoch; it is no state to be saved.
    """

    is_last_phase: bool = False


def set_phase(criterion: object, *, is_last: bool) -> None:
    """Tell every ``Phased`` part of a criterion."""
    for part in criterion.modules() if isinstance(criterion, nn.Module) else ():
        if isinstance(part, Phased):
            part.is_last_phase = is_last
