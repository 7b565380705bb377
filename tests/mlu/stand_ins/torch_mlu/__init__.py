"""A stand-in: torch learns that moves to "mlu" are noted and change nothing."""

import torch
from recorded import note


def noted(method):
    def to(self, place, *rest, **named):
        if place == "mlu":
            note("to", place, type(self).__name__)
            return self
        return method(self, place, *rest, **named)

    return to


torch.Tensor.to = noted(torch.Tensor.to)
torch.nn.Module.to = noted(torch.nn.Module.to)
