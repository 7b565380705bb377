"""Things a backend cannot do, done on its strict emulated device; one JSON line with the errors.

python tests/devices/strict_controls.py BACKEND
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import strict  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402


def parameter(device):
    return torch.nn.Parameter(torch.ones(3).to(device))


def adamw(device):
    weight = parameter(device)
    weight.sum().backward()
    torch.optim.AdamW([weight], lr=0.1, foreach=False).step()


def controls(device):
    numbers = torch.tensor([1, 2, 2]).to(device)
    map_ = torch.zeros(2, 4).to(device)
    few = torch.zeros(2, 2, dtype=torch.long).to(device)
    return {
        "unique counts": lambda: numbers.unique(return_counts=True),
        "scatter with a negative dim": lambda: map_.scatter(-1, few, map_[:, :2]),
        "float64": lambda: torch.ones(2, dtype=torch.float64).to(device),
        "float64 made there": lambda: map_.double(),
        "host and device mixed": lambda: map_ + torch.ones(2, 4),
        "float times bool": lambda: map_ * (map_ > 0),
        "BCE with logits": lambda: F.binary_cross_entropy_with_logits(map_, map_),
        "AdamW": lambda: adamw(device),
        "matrix times vector": lambda: map_.matmul(torch.ones(4).to(device)),
        "one-hot": lambda: F.one_hot(numbers, 4),
        "numpy of a device tensor": lambda: map_.numpy(),
        "a clean update": lambda: (map_ * 2 + 1).sigmoid().sum().item(),
    }


def main(backend):
    device = strict.install(backend)().torch_device
    answer = {}
    for name, control in controls(device).items():
        try:
            control()
            answer[name] = ""
        except Exception as error:
            answer[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
