"""Detections of official weights against the numbers of the upstream project, from file to boxes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anyolo.api.models import open_model
from anyolo.config.schema import ExportConfig, ModelConfig, PredictConfig
from anyolo.deploy.predictor import Predictor
from anyolo.devices import open_device
from anyolo.export import export_model
from anyolo.nn.inference import Inference
from anyolo.ops.image import read_image
from tests.conformance.formats import FORMATS

LEGACY = "yolox_nano-0.1.0-legacy-norm.onnx"
VARIANTS = {LEGACY: "legacy"}
FASTEST = "yolo-fastestv2-coco2017-0.241078ap.pth"


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    low, high = np.maximum(first[:, None, :2], second[:, :2]), np.minimum(first[:, None, 2:4], second[:, 2:4])
    inter = np.maximum(high - low, 0).prod(2)
    areas = [(b[:, 2:4] - b[:, :2]).prod(1) for b in (first, second)]
    return inter / (areas[0][:, None] + areas[1] - inter)


RELEASED = {  # numbers of upstream, weights, their settings: input side, rectangular, conf, iou
    ("yolov8n", "yolov8n.pt", "square640"): (640, False, 0.25, 0.45),
    ("yolov8n", "yolov8n.pt", "rect640"): (640, True, 0.25, 0.45),
    ("yolov5n", "yolov5n.pt", "square640"): (640, False, 0.25, 0.45),
    ("yolov5n", "yolov5n.pt", "rect640"): (640, True, 0.25, 0.45),
    ("yolov5s-v4v5-focus", "yolov5s-v4v5-focus.pt", "square640"): (640, False, 0.25, 0.45),
    ("yolov5s-v4v5-focus", "yolov5s-v4v5-focus.pt", "rect640"): (640, True, 0.25, 0.45),
    ("v5lite-s", "v5lite-s.pt", "square640"): (640, False, 0.25, 0.45),
    ("v5lite-s", "v5lite-s.pt", "rect640"): (640, True, 0.25, 0.45),
    ("v5lite-s", "v5lite-s.pt", "rect320"): (320, True, 0.25, 0.45),
    ("yolo-fastestv2", FASTEST, "stretch352"): (352, False, 0.25, 0.45),
    ("yolo-fastestv2", FASTEST, "stretch352_upstream_c30_i40"): (352, False, 0.3, 0.4),
    ("yolox-nano", "yolox_nano.onnx", "topleft416"): (416, False, 0.25, 0.45),
    ("yolox-nano-0.1.0-legacy", LEGACY, "topleft416"): (416, False, 0.25, 0.45),
}


@pytest.mark.parametrize("case", RELEASED, ids=lambda case: f"{case[0]}-{case[2]}")
def test_detections_agree_with_upstream(shared: Callable[[str], Path], case: tuple[str, str, str]) -> None:
    facts, weights, key = case
    imgsz, rect, conf, iou = RELEASED[case]
    golden = json.loads(shared(f"golden/real_weights/{facts}.json").read_text())["detections"]
    file = str(shared(f"weights/{weights}"))
    checkpoint = open_model(ModelConfig(model=file, preprocess=VARIANTS.get(weights, "")))
    predict = Inference(checkpoint.model, open_device("cpu"), checkpoint.preprocess)
    config = PredictConfig(imgsz=imgsz, rect=rect, conf=conf, iou=iou)
    predictor = Predictor(predict, checkpoint.preprocess, checkpoint.names, config)
    compared = 0
    for picture, settings in golden.items():
        expected = np.array(settings[key]["dets"]).reshape(-1, 6)
        height, width = settings[key]["orig_hw"]
        expected[:, :4] = expected[:, :4].clip(0, [width, height] * 2)  # not all of upstream cut them
        # pixels, as a file of twice the input's size would be decoded smaller, unlike upstream
        result = predictor(read_image(shared(f"data/demo/{picture}.jpg")).pixels)[0]
        assert list(result.orig_shape) == settings[key]["orig_hw"]
        assert list(predictor.placement(result.orig_shape).input_hw) == settings[key]["input_hw"]
        found = result.boxes.numpy().data
        same = (_overlap(expected, found) > 0.99) & (expected[:, None, 5] == found[:, 5])
        same &= np.abs(expected[:, None, 4] - found[:, 4]) < 0.01
        assert same.any(1).all(), f"{picture}: missing {expected[~same.any(1)]}"
        extra = found[~same.any(0)]
        assert not (extra[:, 4] > conf + 0.05).any(), f"{picture}: extra {extra}"
        compared += len(expected)
    assert compared >= 10


EXPORTED = {  # weights: input side, candidates that must be compared
    "yolov8n.pt": (640, 60),
    "yolov5n.pt": (640, 40),
    "v5lite-s.pt": (416, 40),
    FASTEST: (352, 20),
    "yolox_nano.onnx": (416, 20),
}


@pytest.mark.parametrize("weights", EXPORTED)
@pytest.mark.parametrize("format", FORMATS)
def test_exports_of_official_weights_are_verified_on_the_demo_pictures(
    shared: Callable[[str], Path], format: str, weights: str, tmp_path: Path
) -> None:
    source = str(shared("data/demo"))  # thirteen pictures, its folder of Yolo-FastestV2 pictures included
    imgsz, least = EXPORTED[weights]
    config = ExportConfig(format=format, output=str(tmp_path), source=source, simplify=False, imgsz=imgsz)
    checkpoint = open_model(ModelConfig(model=str(shared(f"weights/{weights}"))))
    result = export_model(checkpoint, config)
    assert result.verification is not None and result.verification.matched >= least
    assert result.verified and result.verification.notes == ()
    assert result.verification.max_box_error_px < 0.02 and result.verification.max_score_error < 1e-4
