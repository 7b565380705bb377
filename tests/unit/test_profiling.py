"""Counts and times: figures known from arithmetic, and times of something that takes a known time."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

import anyolo
from anyolo.deploy.augmented import Augmented
from anyolo.families import FAMILIES, build_model
from anyolo.nn.count import count
from anyolo.postprocess import postprocess
from anyolo.structures import Predictions, Preprocess


def test_figures_of_ones_own_modules():
    conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    linear = nn.Linear(4, 5)
    result = anyolo.profile([torch.zeros(2, 3, 16, 16), torch.zeros(1, 3, 8, 8)], [conv], n=2, device="cpu")
    first, second = result.rows
    assert (first.name, first.input, first.output, first.parameters) == (
        "Conv2d", "2x3x16x16", "2x8x16x16", 216,
    )  # fmt: skip
    assert first.gflops == pytest.approx(2 * 2 * 16 * 16 * 8 * 27 / 1e9)
    assert second.gflops == pytest.approx(first.gflops / 8)
    # kept for the way back: the input, the weights, and the output itself
    assert first.memory_mb == pytest.approx((2 * 3 * 256 + 216 + 2 * 8 * 256) * 4 / 1e6)
    assert first.backward_ms > 0
    (row,) = anyolo.profile(torch.zeros(7, 4), linear, n=1, device="cpu").rows
    assert (row.parameters, row.gflops) == (25, pytest.approx(2 * 7 * 4 * 5 / 1e9))


def test_times_are_times():
    def slow(x):
        time.sleep(0.02)
        return x.detach() * 2

    (row,) = anyolo.profile(torch.zeros(3), slow, n=3, device="cpu").rows
    assert row.name == "slow" and 20 <= row.forward_ms < 200 and row.backward_ms is None


@pytest.mark.parametrize("family", list(FAMILIES))
def test_rows_add_up_to_the_model(family):
    spec = FAMILIES.get(family)
    _, model = build_model(next(iter(spec.models)), nc=4)
    totals = count(model, (96, 64))
    assert sum(row.parameters for row in totals.rows) == totals.parameters
    assert sum(row.gflops for row in totals.rows) == pytest.approx(totals.gflops, rel=1e-12)
    assert totals.gflops == pytest.approx(count(model, (192, 128)).gflops / 4, rel=0.02)
    assert next(model.parameters()).device == torch.device("cpu")


def test_the_verbs(tmp_path):
    found = anyolo.info(model="yolov8n", imgsz=64, detailed=True)
    assert found.to_json()["rows"][0] == {
        "index": 0, "block": "Conv", "sources": (-1,), "parameters": 464,
        "gflops": pytest.approx(2 * 32 * 32 * 16 * 27 / 1e9), "outputs": ((1, 16, 32, 32),),
    }  # fmt: skip
    from anyolo.api import run

    layers = run("profile", {"model": "yolov8n", "imgsz": "64", "n": "1", "device": "cpu"}).to_json()["rows"]
    assert len(layers) == 23 and layers[0]["name"] == "0 Conv"
    assert sum(row["gflops"] for row in layers) == pytest.approx(found.gflops, abs=5e-4)
    operators = run(
        "profile", {"model": "yolov8n", "imgsz": "64", "n": "1", "device": "cpu", "by": "operators"}
    ).to_json()["rows"]
    calls = {row["name"]: row["calls"] for row in operators}
    assert calls["aten.convolution.default"] == calls["aten.convolution_backward.default"] == 63
    assert sum(row["share"] for row in operators) == pytest.approx(1)


def test_figures_for_loggers(tmp_path):
    artifact = anyolo.export(
        model="yolov8n", format="torchscript", imgsz=64, verify=False, output=str(tmp_path)
    ).artifact
    figures = anyolo.logger_info("yolov8n", artifact, imgsz=64, n=1)
    assert list(figures) == [
        "model/parameters", "model/GFLOPs", "model/speed_PyTorch(ms)", "model/speed_torchscript(ms)",
    ]  # fmt: skip
    assert figures["model/parameters"] == 3_157_200 and min(figures.values()) > 0


class Squares:
    """A predictor that finds the white square of a black picture, exactly; objectness a half."""

    def __init__(self, *, has_objectness: bool) -> None:
        self.has_objectness, self.sizes = has_objectness, []

    def __call__(self, images):
        self.sizes.append(tuple(images.shape[2:]))
        boxes = []
        for image in images:
            ys, xs = np.nonzero(image[0].numpy() > 128)
            boxes.append([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]])
        scores = torch.full((len(images), 1, 2), 0.5)
        objectness = torch.full((len(images), 1), 0.5) if self.has_objectness else None
        return Predictions(torch.tensor(boxes, dtype=torch.float32), scores, objectness)


@pytest.mark.parametrize("has_objectness", [True, False])
@pytest.mark.parametrize("is_fixed", [True, False])
def test_every_look_finds_the_same_place(has_objectness, is_fixed):
    images = torch.zeros(1, 3, 128, 192, dtype=torch.uint8)
    images[:, :, 20:60, 100:180] = 255
    predict = Squares(has_objectness=has_objectness)
    found = Augmented(predict, Preprocess(pad_value=0), is_fixed=is_fixed)(images)
    assert predict.sizes == [(128, 192)] * 3 if is_fixed else [(128, 192), (128, 160), (96, 160)]
    assert found.boxes_xyxy.shape == (1, 3, 4)
    expected = torch.tensor([100.0, 20, 180, 60]).expand(3, 4)
    torch.testing.assert_close(found.boxes_xyxy[0], expected, rtol=0, atol=1.0)
    assert (found.objectness is not None) == has_objectness
    kept = postprocess(found, conf=0.3, iou=0.7, max_det=10, multi_label=False)[0]
    assert len(kept) == (0 if has_objectness else 1)  # 0.5 x 0.5 is below the limit, 0.5 is above


def test_predict_takes_augment(shared, tmp_path):
    """Other boxes than one look gives; what they are worth is measured on coco_val128 (docs/results.md)."""
    options = {"model": str(shared("weights/yolov5n.pt")), "imgsz": 320, "device": "cpu", "save": False}
    source = sorted(shared("data/coco_val128").rglob("*.jpg"))[:2]
    plain = anyolo.predict(source=[str(p) for p in source], **options)
    more = anyolo.predict(source=[str(p) for p in source], augment=True, **options)
    assert len(plain.results) == len(more.results) == 2
    assert any(len(a.boxes) != len(b.boxes) or not torch.equal(a.boxes.conf, b.boxes.conf)
               for a, b in zip(plain.results, more.results, strict=True))  # fmt: skip
