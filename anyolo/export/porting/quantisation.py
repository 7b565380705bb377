"""Symmetric integer scales of a network's convolutions, from pictures, and what they cost.

A number x becomes round(x / step), cut off at plus or minus 127 (int8) or 32767 (int16), times step. Inputs
have one step per convolution, from the largest absolute value met on the pictures; weights have one per
convolution or one per output channel. Biases, sums and activations stay float32. This is a simulation in
float32: a vendor's tools quantise with calls of their own, and their kernels round in their own places.
PyTorch 1.3 or later.
"""
# ruff: noqa: UP006, UP035, B905

import copy
import json
from typing import Any, Callable, Dict, Iterable, List, Sequence

import numpy as np
import torch
import torch.nn as nn


def calibrate(network: nn.Module, batches: Iterable[np.ndarray]) -> Dict[str, float]:
    """The largest absolute input of every convolution, over normalised pictures (B, 3, H, W)."""
    largest = {}  # type: Dict[str, float]
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_pre_hook(_watch(largest, name)))
    for batch in batches:
        run(network, batch)
    for hook in hooks:
        hook.remove()
    return largest


def _watch(largest: Dict[str, float], name: str) -> Callable[..., None]:
    def look(module: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
        largest[name] = max(largest.get(name, 0.0), float(inputs[0].abs().max()))

    return look


def scales(network: nn.Module, largest: Dict[str, float], bits: int) -> Dict[str, Any]:
    """Steps for ``bits`` 8 or 16, as plain numbers for a JSON file."""
    top = 2 ** (bits - 1) - 1
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            channels = module.weight.detach().abs().reshape(module.out_channels, -1).max(1)[0]
            found[name] = {
                "input": _step(largest[name], top),
                "weight": _step(float(channels.max()), top),
                "weight_channels": [_step(float(channel), top) for channel in channels],
            }
    return {"bits": bits, "method": "largest absolute value", "steps": found}


def _step(largest: float, top: int) -> float:
    return largest / top if largest > 0 else 1.0


def save(found: Dict[str, Any], path: str) -> None:
    with open(path, "w") as file:
        json.dump(found, file, indent=1)


def load(path: str) -> Dict[str, Any]:
    with open(path) as file:
        found = json.load(file)  # type: Dict[str, Any]
    return found


def simulate(network: nn.Module, found: Dict[str, Any], per_channel: bool) -> nn.Module:
    """A copy of the network whose convolutions read and hold rounded numbers."""
    rounded = copy.deepcopy(network)
    top = 2 ** (found["bits"] - 1) - 1
    for name, module in rounded.named_modules():
        if isinstance(module, nn.Conv2d):
            own = found["steps"][name]
            steps = own["weight_channels"] if per_channel else [own["weight"]]
            weight_step = torch.tensor(steps, dtype=torch.float32).reshape(-1, 1, 1, 1)
            module.weight.data = _rounded(module.weight.data, weight_step, top)
            module.register_forward_pre_hook(_round_input(own["input"], top))
    return rounded


def _round_input(step: float, top: int) -> Callable[..., Any]:
    def change(module: nn.Module, inputs: Sequence[torch.Tensor]) -> Any:
        return (_rounded(inputs[0], torch.tensor(step, dtype=torch.float32), top),)

    return change


def _rounded(x: torch.Tensor, step: torch.Tensor, top: int) -> torch.Tensor:
    return torch.clamp(torch.round(x / step), -top, top) * step


def run(network: nn.Module, images: np.ndarray) -> List[np.ndarray]:
    """The raw maps for normalised pictures."""
    with torch.no_grad():
        return [level.numpy() for level in network(torch.from_numpy(images))]


def compare(
    network: nn.Module,
    rounded: nn.Module,
    batches: Iterable[np.ndarray],
    boxes: Callable[[List[np.ndarray]], np.ndarray],
) -> Dict[str, Any]:
    """How far ``rounded`` is from ``network``: raw maps, and the final rows that ``boxes`` makes of them.

    ``found`` of the network's ``boxes`` have a partner of their class with an IoU of at least 0.5; ``extra``
    are boxes of the rounded one alone. ``raw_error`` is the mean absolute error as a share of the mean
    absolute value.
    """
    size, error, largest, pairs = 0.0, 0.0, 0.0, []  # type: float, float, float, List[Any]
    count, extra = 0, 0
    for batch in batches:
        exact, other = run(network, batch), run(rounded, batch)
        for ours, theirs in zip(exact, other):
            size, error = size + float(np.abs(ours).sum()), error + float(np.abs(ours - theirs).sum())
            largest = max(largest, float(np.abs(ours - theirs).max()))
        for ours, theirs in zip(boxes(exact), boxes(other)):
            ours, theirs = ours[ours[:, 4] > 0], theirs[theirs[:, 4] > 0]
            own = _pairs(ours, theirs)
            pairs, count, extra = pairs + own, count + len(ours), extra + len(theirs) - len(own)
    errors = np.array([[np.abs(a[:4] - b[:4]).max(), abs(a[4] - b[4])] for a, b in pairs]).reshape(-1, 2)
    return {
        "raw_error": error / size if size else 0.0,
        "max_raw_error": largest,
        "boxes": count,
        "found": len(pairs),
        "extra": extra,
        "mean_box_error_px": float(errors[:, 0].mean()) if pairs else 0.0,
        "max_box_error_px": float(errors[:, 0].max()) if pairs else 0.0,
        "max_score_error": float(errors[:, 1].max()) if pairs else 0.0,
    }


def _pairs(ours: np.ndarray, theirs: np.ndarray) -> List[Any]:
    """Rows x1 y1 x2 y2 score class, best first, each with its best free partner."""
    free = list(range(len(theirs)))
    pairs = []
    for row in ours:
        likely = [(_iou(row, theirs[k]), k) for k in free if theirs[k][5] == row[5]]
        overlap, partner = max(likely) if likely else (0.0, -1)
        if overlap >= 0.5:
            free.remove(partner)
            pairs.append((row, theirs[partner]))
    return pairs


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return float(inter / union) if union > 0 else 0.0
