"""The convolutions of a network in an order that follows from its wiring alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anyolo.nn.measure import PROBE
from anyolo.nn.model import Detector


def order_of_demand(model: Detector) -> list[str]:
    """Names of the convolutions as the outputs, level by level, ask for them: what one reads comes before it.

    A graph of the same network in another program gives the same order, whatever order it computes in. The
    model may be a skeleton; it is read in eval mode.
    """
    names = {id(m.weight): name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    sample = next(model.parameters())
    was_training = model.training
    with torch.enable_grad():
        output = model.eval()(torch.zeros(1, model.channels, PROBE, PROBE, device=sample.device))
    model.train(was_training)
    found: dict[str, None] = {}
    seen: set[Any] = set()
    # depth first without recursion: deep networks are deeper than Python's stack
    waiting = [(level.grad_fn, False) for level in reversed(output.levels)]
    while waiting:
        node, is_done = waiting.pop()
        if is_done:
            name = next((names[id(w)] for w in _leaves(node) if id(w) in names), "")
            found.setdefault(name)
        elif node is not None and node not in seen:
            seen.add(node)
            if "Convolution" in node.name():
                waiting.append((node, True))
            waiting += [(before, False) for before, _ in reversed(node.next_functions)]
    return [name for name in found if name]


def _leaves(convolution: Any) -> list[Tensor]:
    """The weight that a convolution was called with, through whatever it was reshaped by."""
    node = convolution.next_functions[1][0]
    while node is not None and not hasattr(node, "variable"):
        node = node.next_functions[0][0]
    return [] if node is None else [node.variable]
