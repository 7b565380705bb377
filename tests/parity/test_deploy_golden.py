"""Detections of official weights against the numbers of the upstream project, from file to boxes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anyolo.config.schema import ExportConfig, PredictConfig
from anyolo.deploy.predictor import Predictor
from anyolo.devices import open_device
from anyolo.export import EXPORTERS, export_model
from anyolo.families.checkpoints import load_model
from anyolo.nn.inference import Inference


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    low, high = np.maximum(first[:, None, :2], second[:, :2]), np.minimum(first[:, None, 2:4], second[:, 2:4])
    inter = np.maximum(high - low, 0).prod(2)
    areas = [(b[:, 2:4] - b[:, :2]).prod(1) for b in (first, second)]
    return inter / (areas[0][:, None] + areas[1] - inter)


@pytest.mark.parametrize("rect", [False, True])
def test_detections_agree_with_upstream(shared: Callable[[str], Path], rect: bool) -> None:
    golden = json.loads(shared("golden/real_weights/yolov8n.json").read_text())["detections"]
    checkpoint = load_model(shared("weights/yolov8n.pt"))
    predict = Inference(checkpoint.model, open_device("cpu"), checkpoint.preprocess)
    config = PredictConfig(imgsz=640, rect=rect, conf=0.25, iou=0.45)
    predictor = Predictor(predict, checkpoint.preprocess, checkpoint.names, config)
    compared = 0
    for picture, settings in golden.items():
        expected = np.array(settings["rect640" if rect else "square640"]["dets"]).reshape(-1, 6)
        result = predictor(str(shared(f"data/demo/{picture}.jpg")))[0]
        assert list(result.orig_shape) == settings["square640"]["orig_hw"]
        assert (
            list(predictor.placement(result.orig_shape).input_hw)
            == (settings["rect640" if rect else "square640"]["input_hw"])
        )
        found = result.boxes.numpy().data
        same = (_overlap(expected, found) > 0.99) & (expected[:, None, 5] == found[:, 5])
        same &= np.abs(expected[:, None, 4] - found[:, 4]) < 0.01
        assert same.any(1).all(), f"{picture}: missing {expected[~same.any(1)]}"
        extra = found[~same.any(0)]
        assert not (extra[:, 4] > 0.3).any(), f"{picture}: extra {extra}"
        compared += len(expected)
    assert compared >= 10


@pytest.mark.parametrize("format", EXPORTERS.names())
def test_exports_of_official_weights_are_verified_on_the_demo_pictures(
    shared: Callable[[str], Path], format: str, tmp_path: Path
) -> None:
    source = str(shared("data/demo"))  # thirteen pictures, its folder of Yolo-FastestV2 pictures included
    config = ExportConfig(format=format, output=str(tmp_path), source=source, simplify=False)
    result = export_model(load_model(shared("weights/yolov8n.pt")), config)
    assert result.verification is not None and result.verification.matched >= 60
    assert result.verified and result.verification.notes == ()
    assert result.verification.max_box_error_px < 0.02 and result.verification.max_score_error < 1e-4
