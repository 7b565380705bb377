"""Backward passes of a small network with every hook: what each says that it sent, update by update.

    traffic_job.py OUT

writes to OUT, for each hook, the bytes of an update in the warm-up, of the first after it and of the last.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from anyolo.devices import open_device
from anyolo.devices.distributed import Group, join
from anyolo.train.communication import HOOKS, WHOLE_UPDATES, compress

SIDE = 8
WARMTHS = [0.0, 0.4, 0.7, *[1.0] * (WHOLE_UPDATES + 1)]
"""An update in each third of the warm-up, then until the last hook has begun."""


def network() -> nn.Module:
    """Kernels that pay in low rank, others that do not, and vectors."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(16, 40, 3), nn.Conv2d(40, 2, 1)
    )


def sent(hook: str, group: Group) -> list[int]:
    """Bytes of each update."""
    now = [0.0]
    forward = group.spread(network(), open_device("cpu"), sync_bn=False)
    traffic = compress(forward, hook, lambda: now[0])
    bytes_sent = []
    for now[0] in WARMTHS:
        forward.zero_grad()
        forward(pictures(group)).square().mean().backward()
        bytes_sent.append(int(traffic.take()))
    return bytes_sent


def pictures(group: Group) -> Tensor:
    return group.own(torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))  # type: ignore[no-any-return]


if __name__ == "__main__":
    group = join(open_device("cpu"))
    found = {hook: sent(hook, group) for hook in HOOKS}
    assert all(other == found for other in group.gather(found))
    if group.is_first:
        Path(sys.argv[1]).write_text(json.dumps(found))
    group.leave()
