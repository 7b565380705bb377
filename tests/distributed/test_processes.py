"""Several processes of this machine train as one: real processes, gloo between them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from anyolo.data.synth import write_dataset
from anyolo.devices.distributed import Group

ROOT = Path(__file__).parents[2]
EQUAL, JUDGE = (Path(__file__).with_name(f"{name}_job.py") for name in ("equal", "judge"))


def job(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torchrun(*words: str, processes: int = 2, limit_s: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *words], env=environment, capture_output=True, text=True, timeout=limit_s
    )


@pytest.mark.parametrize(
    "model, images",
    [
        pytest.param("yolov8n", 4, marks=pytest.mark.slow),
        ("yolov8n", 5),  # 3 and 2 pictures
        pytest.param("yolov9-t", 4, marks=pytest.mark.slow),
        pytest.param("yolov5n", 4, marks=pytest.mark.slow),
        ("yolov5n", 5),
        pytest.param("yolov7-tiny", 4, marks=pytest.mark.slow),
        ("yolo-fastestv2", 4),
        ("yolox-nano", 5),
    ],
)
def test_two_processes_move_the_weights_as_one_does(model: str, images: int, tmp_path: Path) -> None:
    """Five updates, batch norms frozen; the weights and the loss agree within 1e-5."""
    done = torchrun(str(EQUAL), model, str(images), str(tmp_path / "two.pt"))
    assert done.returncode == 0, done.stderr[-3000:]
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    one = job(EQUAL).train(model, images, Group())
    assert one.keys() == two.keys()
    worst = max(float((two[name] - own).norm() / own.norm().clamp(min=1e-3)) for name, own in one.items())
    assert worst < 1e-5


def test_two_processes_judge_as_one_does(tmp_path: Path) -> None:
    """Seven pictures in batches of four: the last batch gives two to one process and one to the other."""
    data = write_dataset(tmp_path / "data", train=1, val=7, size=160)
    done = torchrun(str(JUDGE), str(data), str(tmp_path / "two.json"))
    assert done.returncode == 0, done.stderr[-3000:]
    one = job(JUDGE).judged(str(data), Group())
    assert json.loads((tmp_path / "two.json").read_text()) == one
    assert 0.1 < one["mAP50-95"] < 0.9
