"""Folding for inference."""

from __future__ import annotations

from anyolo.nn.model import Detector
from anyolo.nn.reduce import reduce


def fuse(model: Detector) -> Detector:
    """Leave out what only training needs, fold every batch norm into its convolution, in place, and return
    the model, in eval mode; one with an auxiliary branch as a model of its own, of the same modules.

    Every module with a method ``fuse`` folds itself. Outputs stay equal up to rounding; training afterwards
    is not possible in the old form. Folding twice changes nothing.
    """
    model = reduce(model.eval()) if isinstance(model, Detector) else model.eval()
    for module in list(model.modules()):
        fold = getattr(module, "fuse", None)
        if callable(fold):
            fold()
    return model
