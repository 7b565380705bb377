"""Network, decoding and loss against upstream's numbers for weights that follow from a formula."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from anyolo.families import build_model, find_model
from anyolo.nn.fuse import fuse
from anyolo.structures import HeadOutput
from tests.parity.formula_weights import FOLDER, TARGETS_128, Formula, hashes, pad_targets, unit
from tests.parity.layouts import LAYOUTS, criterion_of

MODELS = sorted(path.stem for path in FOLDER.glob("*.json"))
CASES = [
    (model, config)
    for model in MODELS
    for config in LAYOUTS[find_model(model)[0].name].loss
    if f"loss_total/{config}" in np.load(FOLDER / f"{model}.npz").files
]


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
    images = facts.images("eval") * (255 if facts.facts["input"]["divide_by_255"] else 1)
    assert int(images.round().sum()) == 4697097


@pytest.mark.parametrize("model", MODELS)
def test_names_and_order_of_tensors(model):
    spec, network = build_with_formula(model)
    ours = spec.export_weights(network.state_dict())
    assert [[name, list(t.shape)] for name, t in ours.items()] == formula(model).facts["state_dict"]


@pytest.mark.parametrize("model", MODELS)
def test_inference(model):
    facts = formula(model)
    spec, network = build_with_formula(model)
    layout = LAYOUTS[spec.name]
    network.eval()
    with torch.no_grad():
        output = network(facts.images("eval"))
        found = network.decode(output)
        fused = fuse(network).predict(facts.images("eval"))
    arrays = layout.raw((*output.aux, *output.levels))
    assert len(arrays) == len([name for name in facts.arrays if name.startswith("raw_")])
    for name, raw in zip(layout.raw_names[: len(arrays)], arrays, strict=True):
        assert np.abs(raw.numpy() - facts.arrays[name]).max() < 1e-4
    decoded, folded = layout.decoded(found).numpy(), layout.decoded(fused).numpy()
    check_decoded(decoded, facts.arrays["decoded_1" if output.aux else "decoded"])
    if output.aux:
        auxiliary = network.decode(HeadOutput(output.aux))
        check_decoded(layout.decoded(auxiliary).detach().numpy(), facts.arrays["decoded_0"])
    check_decoded(folded, decoded)


def check_decoded(found, expected):
    """Boxes are the first four of the axis that is not the rows."""
    if found.shape[1] < found.shape[2]:
        found, expected = found.transpose(0, 2, 1), expected.transpose(0, 2, 1)
    assert np.abs(found[..., :4] - expected[..., :4]).max() < 5e-3
    assert np.abs(found[..., 4:] - expected[..., 4:]).max() < 1e-5


@pytest.mark.parametrize(("model", "config"), CASES)
def test_training_step(model, config):
    facts = formula(model)
    spec, network = build_with_formula(model)
    layout = LAYOUTS[spec.name]
    criterion = criterion_of(spec, network, config)
    output = network.train()(facts.images("train"))
    maps = (*output.aux, *output.levels)
    for level in maps:
        level.retain_grad()
    raw = [part.detach() for part in layout.raw(maps)]
    norms = [float(part.norm()) for part in raw]
    assert norms == pytest.approx(facts.arrays["t_raw_norm"].tolist(), rel=1e-3)
    means = [float(part.abs().mean()) for part in raw]
    assert means == pytest.approx(facts.arrays["t_raw_abs_mean"].tolist(), rel=1e-3)
    sums = zip(
        raw, facts.arrays["t_raw_sum"], facts.facts["tolerance"]["t_raw_fp32_vs_fp64_maxabs"], strict=True
    )
    assert all(abs(float(part.sum()) - total) < part.numel() * noise for part, total, noise in sums)
    check_loss(criterion(output, targets()), maps, layout, facts.arrays, config, "", 1e-3)


ALONE = ("yolov8n", "gelan-t", "yolov9-t", "yolox-nano")


@pytest.mark.parametrize(("model", "config"), [case for case in CASES if case[0] in ALONE])
def test_loss_alone(model, config):
    """Of the heads without anchors; those with have a file of their own."""
    facts = formula(model)
    spec, network = build_with_formula(model)
    layout = LAYOUTS[spec.name]
    criterion = criterion_of(spec, network, config)
    channels = facts.arrays["raw_0"].shape[1]
    branches = 2 if "raw_3" in facts.arrays else 1
    maps = facts.raw_maps([(2, channels, side, side) for side in (16, 8, 4)] * branches)
    report = criterion(HeadOutput(tuple(maps[-3:]), tuple(maps[:-3])), targets())
    check_loss(report, maps, layout, facts.arrays, config, "lossonly_", 1e-4)


def check_loss(report, maps, layout, arrays, config, prefix, rel):
    key = "lossonly" if prefix else "loss"
    report.total.backward()
    assert float(report.total.detach()) == pytest.approx(float(arrays[f"{key}_total/{config}"][0]), rel=rel)
    assert tuple(report.items) == layout.items
    items = [float(item) for item in report.items.values()]
    assert items == pytest.approx(arrays[f"{key}_items/{config}"][: len(items)].tolist(), rel=rel)
    norms = [float(part.norm()) for part in layout.raw([raw.grad for raw in maps])]
    assert norms == pytest.approx(arrays[f"{prefix}graw_norm/{config}"].tolist(), rel=rel)
