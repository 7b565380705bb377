"""Network, decoding and loss against upstream's numbers for weights that follow from a formula."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from anyolo.config.schema import LossConfig
from anyolo.families import FAMILIES, build_model
from anyolo.nn.fuse import fuse
from anyolo.ops.boxes import xyxy_to_cxcywh
from anyolo.structures import HeadOutput
from tests.parity.formula_weights import TARGETS_128, Formula, hashes, pad_targets, unit

MODELS = ["yolov8n"]
ASSIGNERS = {"main": 16.0, "classic_assigner": 0.0}
CASES = [(model, assigner) for model in MODELS for assigner in ASSIGNERS]


@cache
def formula(model):
    return Formula(model)


def build_with_formula(model):
    facts = formula(model)
    spec, network = build_model(model, nc=facts.facts["nc"])
    network.load_state_dict(spec.import_weights(facts.weights()))
    return spec, network


def targets():
    rows = np.asarray(TARGETS_128, np.float32)
    rows[:, 2:] /= 128
    return pad_targets(rows, 2, (128, 128))


def test_the_hash_itself():
    assert hashes(3904355907, 4).tolist() == [537083488, 3222422167, 1329467998, 3388158344]
    assert unit("a", (2,)).tolist() == [-0.7499010115861893, 0.5005572545342147]


@pytest.mark.parametrize("model", MODELS)
def test_formula_weights(model):
    facts = formula(model)
    weights = facts.weights()
    kept = facts.facts["upstream_buffers_kept"]
    counted = [w.double() for n, w in weights.items() if n not in kept and "num_batches" not in n]
    checksum = facts.facts["weight_checksum"]
    assert sum(w.numel() for w in counted) == checksum["count"]
    assert float(sum(w.sum() for w in counted)) == pytest.approx(checksum["sum"], abs=1e-6)
    assert float(sum(w.square().sum() for w in counted)) == pytest.approx(checksum["sumsq"], rel=1e-9)
    for name, first in facts.facts["probe"].items():
        assert weights[name].flatten()[:4].tolist() == pytest.approx(first, rel=1e-6)
    images = facts.images("eval")
    assert int((images * 255).round().sum()) == 4697097


@pytest.mark.parametrize("model", MODELS)
def test_names_and_order_of_tensors(model):
    spec, network = build_with_formula(model)
    ours = spec.export_weights(network.state_dict())
    assert [[name, list(t.shape)] for name, t in ours.items()] == formula(model).facts["state_dict"]


@pytest.mark.parametrize("model", MODELS)
def test_inference(model):
    facts = formula(model)
    _, network = build_with_formula(model)
    network.eval()
    with torch.no_grad():
        output = network(facts.images("eval"))
        found = network.decode(output)
        fused = fuse(network).predict(facts.images("eval"))
    for level, raw in enumerate(output.levels):
        assert np.abs(raw.numpy() - facts.arrays[f"raw_{level}"]).max() < 1e-4
    decoded = facts.arrays["decoded"].transpose(0, 2, 1)
    assert np.abs(xyxy_to_cxcywh(found.boxes_xyxy).numpy() - decoded[..., :4]).max() < 5e-3
    assert np.abs(found.scores.numpy() - decoded[..., 4:]).max() < 1e-5
    assert (fused.boxes_xyxy - found.boxes_xyxy).abs().max() < 5e-3
    assert (fused.scores - found.scores).abs().max() < 1e-5


@pytest.mark.parametrize(("model", "assigner"), CASES)
def test_training_step(model, assigner):
    facts = formula(model)
    spec, network = build_with_formula(model)
    criterion = spec.criterion(network, LossConfig(tal_min_side=ASSIGNERS[assigner]))
    output = network.train()(facts.images("train"))
    for level, raw in enumerate(output.levels):
        raw.retain_grad()
        assert float(raw.detach().norm()) == pytest.approx(facts.arrays["t_raw_norm"][level], rel=1e-4)
    check_loss(criterion(output, targets()), output.levels, facts.arrays, assigner, "", 1e-3)


@pytest.mark.parametrize(("model", "assigner"), CASES)
def test_loss_alone(model, assigner):
    facts = formula(model)
    network = build_with_formula(model)[1]
    criterion = FAMILIES.get("yolov8").criterion(network, LossConfig(tal_min_side=ASSIGNERS[assigner]))
    channels = facts.arrays["raw_0"].shape[1]
    maps = facts.raw_maps([(2, channels, side, side) for side in (16, 8, 4)])
    check_loss(criterion(HeadOutput(tuple(maps)), targets()), maps, facts.arrays, assigner, "lossonly_", 1e-4)


def check_loss(report, maps, arrays, assigner, prefix, rel):
    key = "lossonly" if prefix else "loss"
    report.total.backward()
    assert float(report.total.detach()) == pytest.approx(float(arrays[f"{key}_total/{assigner}"][0]), rel=rel)
    assert list(report.items) == ["box", "cls", "dfl"]
    items = [float(item) for item in report.items.values()]
    assert items == pytest.approx(arrays[f"{key}_items/{assigner}"].tolist(), rel=rel)
    norms = [float(raw.grad.norm()) for raw in maps]
    assert norms == pytest.approx(arrays[f"{prefix}graw_norm/{assigner}"].tolist(), rel=rel)
