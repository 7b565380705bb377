"""``loss_device=cpu`` on a device of its own: nothing of the loss reaches it, all else is as before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

NEW_ENOUGH = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 9)


@pytest.mark.skipif(not NEW_ENOUGH, reason="a device made in Python needs torch 2.9")
def test_the_loss_can_leave_the_device():
    script = Path(__file__).with_name("strict_host_loss.py")
    done = subprocess.run(
        [sys.executable, str(script), "directml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["losses"][1:] == pytest.approx([answer["losses"][0]] * 2, rel=1e-5)
    assert answer["cosine"] > 0.99999
    there, on_host = answer["calls"]
    assert sum(there.values()) > 200
    assert set(on_host) == {"aten::_copy_from", "aten::detach"} and sum(on_host.values()) < 20
