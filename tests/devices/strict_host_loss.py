"""Loss and gradients of one step: on the CPU, on a strict device, and there with the loss on the host.

python tests/devices/strict_host_loss.py BACKEND
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import strict  # noqa: E402
import torch  # noqa: E402

from anyolo.config.schema import LossConfig  # noqa: E402
from anyolo.devices import open_device  # noqa: E402
from anyolo.families import build_model  # noqa: E402
from anyolo.structures import Targets  # noqa: E402
from anyolo.train.host_loss import HostLoss  # noqa: E402


def step(device, *, on_host):
    torch.manual_seed(0)
    spec, model = build_model("yolov8n", nc=3)
    on_cpu = copy.deepcopy(model.train())
    model = device.prepare(model)
    if on_host:
        criterion = HostLoss(spec.criterion(on_cpu, LossConfig()), device)
    else:
        criterion = device.to(spec.criterion(model, LossConfig()))
    labels = torch.tensor([[[1.0, 8, 8, 40, 40]], [[0.0, 10, 20, 30, 60]]])
    targets = device.to(Targets(labels, torch.ones(2, 1)))
    output = model(device.to(torch.rand(2, 3, 64, 64)))
    strict.State.calls.clear()
    total = criterion(output, targets).total
    calls = dict(strict.State.calls)
    total.backward()
    gradients = [p.grad.cpu().flatten() for p in model.parameters() if p.grad is not None]
    return float(total.detach().cpu()), torch.cat(gradients), calls


def main(backend):
    device = strict.install(backend)()
    wanted, there, on_host = (
        step(open_device("cpu"), on_host=False), step(device, on_host=False), step(device, on_host=True),
    )  # fmt: skip
    answer = {"losses": [wanted[0], there[0], on_host[0]], "calls": [there[2], on_host[2]]}
    answer["cosine"] = float(torch.nn.functional.cosine_similarity(wanted[1], on_host[1], dim=0))
    print(json.dumps(answer))


main(sys.argv[1])
