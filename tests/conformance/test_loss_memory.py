"""What the loss of every family needs for a crowded batch, above the forward."""

from __future__ import annotations

import subprocess
import sys

import pytest

from anyolo.families import FAMILIES

SMALLEST = [next(iter(FAMILIES.get(name).models)) for name in FAMILIES]
CROWD = """
import dataclasses, sys, torch
from anyolo.config.schema import LossConfig
from anyolo.families import build_model
from anyolo.structures import Targets
spec, model = build_model(sys.argv[1], nc=80)
with torch.no_grad():
    output = model.train()(torch.rand(2, 3, 640, 640))
# the maps of two pictures, eight times: leaves, as if the network had been behind them
spread = {f.name: tuple(m.repeat(8, 1, 1, 1).requires_grad_() for m in getattr(output, f.name))
          for f in dataclasses.fields(output)}
low = torch.rand(16, 300, 2) * 500
boxes = torch.cat((torch.randint(80, (16, 300, 1)), low, low + 8 + torch.rand(16, 300, 2) * 130), 2)
criterion = spec.criterion(model, LossConfig(loss_ota=len(sys.argv) > 2))
def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 2**20
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
before = status("VmRSS")
criterion(type(output)(**spread), Targets(boxes, torch.ones(16, 300))).total.backward()
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads and resets /proc/self/status")
@pytest.mark.parametrize("words", [*SMALLEST, pytest.param("yolov7-tiny ota", marks=pytest.mark.slow)])
def test_a_crowded_batch_stays_small(words: str) -> None:
    """16 pictures of 640 px, 300 boxes, 80 classes: 2 GiB are allowed; (B, T, A, K) would take 13."""
    done = subprocess.run(
        [sys.executable, "-c", CROWD, *words.split()], capture_output=True, text=True, timeout=300, check=True
    )
    print(f"{words}: {float(done.stdout):.2f} GiB")
    assert float(done.stdout) < 1.2
