"""On a device of its own every family trains, is judged and finds boxes under a backend's rules."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from anyolo.families import FAMILIES

HERE = Path(__file__).resolve().parent
MOST = 50
"""max_det of strict_job.py."""
NEW_ENOUGH = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 9)
pytestmark = pytest.mark.skipif(not NEW_ENOUGH, reason="a device made in Python needs torch 2.9")

DIRECTML = {
    "unique counts": "RuntimeError: Return counts not implemented for unique operator for DirectML.",
    "scatter with a negative dim": "RuntimeError: DirectML scatter doesn't allow partially",
    "float64": "TypeError: The GPU device does not support Double (Float64) operations!",
    "float64 made there": "TypeError: The GPU device does not support Double (Float64) operations!",
    "host and device mixed": "RuntimeError: Expected all tensors to be on the same device",
    "float times bool": "RuntimeError: float * bool silently becomes bool",
    "BCE with logits": "NotImplementedError: The operator 'aten::log_sigmoid_forward",
    "AdamW": "NotImplementedError: The operator 'aten::lerp",
    "matrix times vector": "NotImplementedError: The operator 'aten::addmv",
    "one-hot": "",
    "numpy of a device tensor": "TypeError: can't convert",
    "a clean update": "",
}


@functools.cache
def answer_of(script, *arguments):
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments], capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# the slowest two of the matrix (40 s each); DirectML refuses most
LONG = {("yolov9", "mlu"), ("yolov9", "npu")}
MATRIX = [
    pytest.param(family, backend, marks=[pytest.mark.slow] * ((family, backend) in LONG))
    for family in FAMILIES
    for backend in ("directml", "mlu", "npu")
]


@pytest.mark.parametrize("family, backend", MATRIX)
def test_family_on_backend(family, backend):
    answer = answer_of("strict_job.py", backend, next(iter(FAMILIES.get(family).models)))
    assert answer["unsupported"] == {} and answer["fallback"] == {}
    assert answer["kinds"] > 40, "the work did not reach the device"
    # Adam's first steps are the signs of gradients: those near zero turn with the last bit
    for optimizer, most in (("SGD", 1e-5), ("AdamW", 1e-4)):
        assert len(answer[optimizer]["losses"]) == 3
        assert answer[optimizer]["difference"] < most, answer[optimizer]
    (metrics, boxes, own_boxes), (judged, found, own_found) = answer["cpu"], answer["strict"]
    assert judged == pytest.approx(metrics, abs=1e-4)
    assert sum(map(len, boxes)) > 0 and sum(map(len, own_boxes)) > 0
    assert_same_boxes(own_found, own_boxes)
    assert_same_boxes(found, boxes)


def assert_same_boxes(found, wanted):
    """Rows x1, y1, x2, y2, score, class of every picture. Of scores 1e-5 apart either may come first, and
    either may be the one that ``max_det`` leaves out.
    """
    for pair in zip(found, wanted, strict=True):
        one, other = (torch.tensor(rows).reshape(-1, 6) for rows in pair)
        assert len(one) == len(other)
        for rows, others in ((one, other), (other, one)):
            certain = rows[rows[:, 4] > rows[:, 4].min() + 1e-5] if len(rows) == MOST else rows
            apart = (certain.unsqueeze(1) - others).abs().amax(2).amin(1)
            assert (apart < 1e-2).all(), f"{certain[apart >= 1e-2]} not among {others}"


def test_controls_of_directml():
    answer = answer_of("strict_controls.py", "directml")
    for name, text in DIRECTML.items():
        if text:
            assert answer[name].startswith(text), (name, answer[name])
    assert answer["a clean update"] == ""


@pytest.mark.parametrize("backend", ["mlu", "npu"])
def test_controls_elsewhere(backend):
    answer = answer_of("strict_controls.py", backend)
    assert answer["host and device mixed"].startswith("RuntimeError: Expected all tensors to be on the same")
    assert answer["unique counts"] == "" and answer["AdamW"] == "", answer
