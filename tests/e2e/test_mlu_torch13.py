"""The folder for the MLU270 in the real PyTorch 1.3.1, on which Cambricon's is built (without its parts)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anyolo.config.schema import ExportConfig
from anyolo.export import export_model, open_artifact
from anyolo.export.pictures import network_inputs, pictures_for
from anyolo.families.checkpoints import load_model

STAND_INS = Path(__file__).resolve().parents[1] / "mlu" / "stand_ins"
PROGRAM = """
import re
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import torch
import detect, postprocess, quantisation
assert torch.__version__.startswith("1.3."), torch.__version__
torch.set_grad_enabled(False)
images = np.load("images.npy")
net = detect.load_network()
inputs = postprocess.normalised(images)
levels = detect.raw_maps(net, inputs)
traced = torch.jit.trace(net, torch.from_numpy(inputs), check_trace=False)
graph = str(traced.inlined_graph if hasattr(traced, "inlined_graph") else traced.graph)
operators = sorted(set(re.findall(r"aten::(\\w+)", graph)))
again = [level.numpy() for level in traced(torch.from_numpy(inputs))]
rounded = quantisation.simulate(net, quantisation.load(sys.argv[1] + "/scales_int8.json"), True)
cost = quantisation.compare(net, rounded, [inputs], postprocess.boxes)
boxes = postprocess.boxes(levels)
np.savez("found.npz", *levels, boxes=boxes, traced=again[0], cost=cost["raw_error"], operators=operators)
"""


@pytest.mark.slow
def test_the_network_in_pytorch_13(shared: Callable[[str], Path], tmp_path: Path) -> None:
    python = os.environ.get("ANYOLO_TORCH13", "")
    if not python:
        pytest.skip("needs ANYOLO_TORCH13=.../python of tests/mlu/torch13.sh")
    checkpoint = load_model(shared("weights/yolov8n.pt"))
    source = str(shared("data/demo") / "*.jpg")
    config = ExportConfig(format="mlu270", imgsz=416, source=source, int8=True, output=str(tmp_path))
    result = export_model(checkpoint, config)
    taken = pictures_for(source, "", {})[:1]
    (images,) = network_inputs(taken, checkpoint.preprocess, (416, 416), batch=1, is_dynamic=False)
    np.save(tmp_path / "images.npy", images)
    run([python, "-c", PROGRAM, str(result.artifact)], tmp_path)
    found = np.load(tmp_path / "found.npz")
    runner = open_artifact(result.artifact).runner
    for number, level in enumerate(runner._levels(images)):  # type: ignore[attr-defined]
        np.testing.assert_allclose(found[f"arr_{number}"], level, atol=2e-4)
    np.testing.assert_allclose(found["traced"], found["arr_0"], atol=1e-5)
    np.testing.assert_allclose(found["boxes"], runner.run(images)[0], atol=0.01)
    assert (found["boxes"][0, :, 4] > 0).sum() >= 3 and 0 < float(found["cost"]) < 0.2
    assert found["operators"].tolist() == [
        *("_convolution", "add", "cat", "max_pool2d", "mul", "sigmoid", "slice", "upsample_nearest2d"),
    ]
    script = [python, str(result.artifact / "port_mlu270.py"), "--pictures", str(shared("data/demo"))]
    said = run([*script, "--output", str(tmp_path)], tmp_path)
    assert said.count("mean error 0 of the mean value") == 9, "three pictures, three levels, no card"
    calls = [json.loads(line)[0] for line in (tmp_path / "calls").read_text().splitlines()]
    assert calls[:4] == ["quantize_dynamic_mlu", "calibrate", "calibrate", "calibrate"]
    assert calls.count("save_as_cambricon") == 2


def run(command: list[str], folder: Path) -> str:
    environment = {"PYTHONPATH": str(STAND_INS), "RECORDED": str(folder / "calls"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
