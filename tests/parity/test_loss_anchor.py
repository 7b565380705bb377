"""The loss of heads with anchors, for given raw maps: upstream's parts, totals and gradients."""

from __future__ import annotations

import json
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anyolo.config.schema import LossConfig
from anyolo.loss.anchor import AnchorCriterion, AnchorRules
from anyolo.nn.heads.anchor import AnchorHead
from anyolo.nn.heads.shared_anchor import SharedAnchorHead
from anyolo.structures import HeadOutput
from tests.parity.formula_weights import TARGETS_128, Formula, pad_targets, unit

GAINS = {"box": 0.05, "cls": 0.5, "obj": 1.0}
SHARED_GAINS = {"box": 3.2, "cls": 32.0, "obj": 64.0, "anchor_t": 2.0}
SHARED_RULES = AnchorRules(
    balance=(1.0, 0.4), overlap_is_objectness=False, gains_are_relative=False, sums_images=False
)
CONFIGS = {
    "main": {},
    "scaled_ls": {"imgsz": 128, "label_smoothing": 0.1},
    "focal": {"fl_gamma": 1.5},
    "ota": {"loss_ota": True},
    "plain": {},
}
COCO = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]]
SHARED = [[12.64, 19.39, 37.88, 51.48, 55.71, 138.31], [126.91, 78.23, 131.57, 214.55, 279.92, 258.87]]
TARGET_SETS = ("a", "b_img1_empty", "c_all_empty")


def plain(nc, **settings):
    head = AnchorHead([8, 8, 8], nc, COCO)
    head.set_strides((8, 16, 32))
    criterion = AnchorCriterion(SimpleNamespace(head=head), LossConfig(**{**GAINS, **settings}))
    return criterion, lambda raw: [x.permute(0, 1, 4, 2, 3).flatten(1, 2) for x in raw]


def shared_head(nc, **settings):
    head = SharedAnchorHead(72, 2, nc, SHARED)
    head.set_strides((16, 16, 32, 32))
    config = LossConfig(**{**SHARED_GAINS, **settings})
    criterion = AnchorCriterion(SimpleNamespace(head=head), config, SHARED_RULES)
    return criterion, lambda raw: [torch.cat(raw[:3], 1), torch.cat(raw[3:], 1)]


MODELS = {
    "yolov5/yolov5n": plain,
    "yolov7/yolov7-tiny": plain,
    "v5lite/v5lite-e": plain,
    "v5lite/v5lite-s": plain,
    "fastestv2/yolo-fastestv2": shared_head,
}
OTHERS = {"yolov5/yolov5n": ("main", "scaled_ls", "focal"), "yolov7/yolov7-tiny": ("ota", "plain")}
CASES = [(model, config) for model in MODELS for config in OTHERS.get(model, ("main",))]


def run(made, raw, targets):
    criterion, to_levels = made
    report = criterion(HeadOutput(tuple(to_levels(raw))), targets)
    report.total.backward()
    assert list(report.items) == ["box", "obj", "cls"]
    return float(report.total.detach()), [float(item) for item in report.items.values()]


@pytest.mark.parametrize("which", TARGET_SETS)
@pytest.mark.parametrize(("model", "config"), CASES)
def test_golden_loss(shared, model, config, which):
    arrays = np.load(shared(f"golden/{model}/golden.npz"))
    names = [name for name in arrays.files if name.startswith("t_raw_")]
    raw = [torch.from_numpy(arrays[name]).requires_grad_() for name in names]
    targets = pad_targets(arrays[f"t_targets/{which}"], 2, (128, 128))
    total, items = run(MODELS[model](80, **CONFIGS[config]), raw, targets)

    key = f"loss/{config}/{which}"
    assert total == pytest.approx(float(arrays[f"{key}/total"].item()), rel=1e-5)
    assert items == pytest.approx(arrays[f"{key}/items"][:3].tolist(), rel=1e-5, abs=1e-9)
    norms = [float(x.grad.norm()) for x in raw]
    assert norms == pytest.approx(arrays[f"graw_norm/{config}/{which}"].tolist(), rel=1e-5, abs=1e-9)
    if which == "a" and f"graw/{config}/0" in arrays.files:
        for index, x in enumerate(raw):
            theirs = torch.from_numpy(arrays[f"graw/{config}/{index}"])
            assert float((x.grad - theirs).norm() / theirs.norm()) < 1e-5


def test_every_configuration_of_the_golden_files_is_tested(shared):
    for model in MODELS:
        facts = json.loads(shared(f"golden/{model}/meta.json").read_text())["loss"]
        assert {config for name, config in CASES if name == model} == set(facts)
        assert all(set(own["results"]) == set(TARGET_SETS) for own in facts.values())


@pytest.mark.parametrize(
    ("model", "make", "config"),
    [
        ("yolov5n", plain, "main"),
        ("yolov7-tiny", plain, "ota"),
        ("yolov7-tiny", plain, "plain"),
        ("v5lite-e", plain, "main"),
        ("yolo-fastestv2", shared_head, "main"),
    ],
)
def test_formula_loss_alone(model, make, config):
    facts = Formula(model)
    if make is plain:
        shapes = [(2, 3, side, side, 8) for side in (16, 8, 4)]
    else:
        shapes = [(2, channels, side, side) for side in (8, 4) for channels in (12, 3, 3)]
    assert zlib.crc32(b"raw_0") == 2364463926
    values = [2 * unit(f"raw_{index}", shape) for index, shape in enumerate(shapes)]
    raw = [torch.from_numpy(value.astype(np.float32)).requires_grad_() for value in values]
    rows = np.asarray(TARGETS_128, np.float32)
    rows[:, 2:] /= 128
    total, items = run(make(3, **CONFIGS[config]), raw, pad_targets(rows, 2, (128, 128)))

    assert total == pytest.approx(float(facts.arrays[f"lossonly_total/{config}"].item()), rel=1e-4)
    assert items == pytest.approx(facts.arrays[f"lossonly_items/{config}"][:3].tolist(), rel=1e-4)
    norms = [float(x.grad.norm()) for x in raw]
    assert norms == pytest.approx(facts.arrays[f"lossonly_graw_norm/{config}"].tolist(), rel=1e-4)
