"""The lines the tool prints: run as they are, in a folder with nothing but the artefact and a picture."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from anyolo.config.schema import ExportConfig, PredictConfig
from anyolo.deploy.predictor import Predictor
from anyolo.devices import open_device
from anyolo.export import EXPORTERS, export_model
from anyolo.families.checkpoints import Checkpoint, load_model
from anyolo.nn.inference import Inference
from anyolo.structures import Preprocess
from tests.conformance.formats import runnable
from tests.conformance.small_model import pictures, small_checkpoint


def printed_boxes(lines: str, artifact: Path, picture: Path, folder: Path) -> np.ndarray:
    """What the printed program finds, in a process that knows neither anyolo nor the manifest."""
    copy = shutil.copytree if artifact.is_dir() else shutil.copy
    copy(artifact, folder / artifact.name)
    shutil.copy(picture, folder / f"picture{picture.suffix}")
    program = lines.replace("picture.jpg", f"picture{picture.suffix}") + "\nnumpy.save('boxes.npy', boxes)"
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "anyolo" not in lines and done.stdout.strip()
    return np.load(folder / "boxes.npy")


def torch_boxes(checkpoint: Checkpoint, picture: Path, config: PredictConfig) -> np.ndarray:
    predict = Inference(checkpoint.model, open_device("cpu"), checkpoint.preprocess)
    predictor = Predictor(predict, checkpoint.preprocess, checkpoint.names, config)
    return predictor(str(picture))[0].boxes.numpy().data


CASES = [
    *(runnable(format, Preprocess()) for format in EXPORTERS),
    ("onnx", Preprocess(channels="bgr", fit="letterbox_topleft", scale=1 / 250, mean=(0.02, 0.01, 0.03))),
    ("onnx", Preprocess(fit="stretch", pad_value=0, std=(1.1, 1.0, 0.9))),
]


@pytest.mark.parametrize(("format", "preprocess"), CASES, ids=lambda c: getattr(c, "fit", c))
def test_every_kind_of_preprocessing(format: str, preprocess: Preprocess, tmp_path: Path) -> None:
    checkpoint = dataclasses.replace(small_checkpoint(), preprocess=preprocess)
    picture = tmp_path / "scene.png"
    cv2.imwrite(str(picture), pictures(1, height=90, width=170)[0])
    config = ExportConfig(
        format=format, imgsz=(96, 128), batch=2, conf=0.3, output=str(tmp_path), verify=False, simplify=False
    )
    result = export_model(checkpoint, config)
    alone = tmp_path / "alone"
    alone.mkdir()
    found = printed_boxes(result.lines, result.artifact, picture, alone)
    expected = torch_boxes(checkpoint, picture, PredictConfig(imgsz=(96, 128), rect=False, conf=0.3))
    assert len(expected) > 5
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_official_weights_alone(shared: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = load_model(shared("weights/yolov8n.pt"))
    picture = shared("data/demo/bus.jpg")
    config = ExportConfig(
        format="onnx", output=str(tmp_path / "best.onnx"), source=str(shared("data/demo") / "*.jpg")
    )
    result = export_model(checkpoint, config)
    assert result.verified and len(result.lines.splitlines()) <= 11
    (tmp_path / "alone").mkdir()
    found = printed_boxes(result.lines, result.artifact, picture, tmp_path / "alone")
    expected = torch_boxes(checkpoint, picture, PredictConfig(imgsz=640, rect=False))
    assert len(expected) >= 5
    np.testing.assert_allclose(found, expected, atol=0.05)
