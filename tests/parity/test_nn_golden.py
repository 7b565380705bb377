"""Network, decoding and loss against what upstream computed from random and from released weights."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from anyolo.config.schema import LossConfig
from anyolo.families.checkpoints import load_model
from anyolo.nn.fuse import fuse
from anyolo.ops.boxes import xyxy_to_cxcywh
from tests.parity.formula_weights import pad_targets

ASSIGNERS = {"main": 16.0, "classic_assigner": 0.0}
TARGETS = ("a", "b_img1_empty", "c_all_empty")


def as_input(pixels):
    return torch.from_numpy(pixels.astype(np.float32)) / 255


def check_inference(model, arrays, raw_atol):
    with torch.no_grad():
        output = model(as_input(arrays["x_u8"]))
        found = model.decode(output)
    for level, raw in enumerate(output.levels):
        assert np.abs(raw.numpy() - arrays[f"raw_{level}"]).max() < raw_atol
    decoded = arrays["decoded"].transpose(0, 2, 1)
    assert np.abs(xyxy_to_cxcywh(found.boxes_xyxy).numpy() - decoded[..., :4]).max() < 100 * raw_atol
    assert np.abs(found.scores.numpy() - decoded[..., 4:]).max() < raw_atol
    return found


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared("golden/yolov8/yolov8n")
    return load_model(folder / "random.pt"), dict(np.load(folder / "golden.npz")), folder


def test_random_weights_inference(golden):
    checkpoint, arrays, folder = golden
    meta = json.loads((folder / "meta.json").read_text())
    assert (checkpoint.spec.name, checkpoint.size, checkpoint.model.nc) == ("yolov8", "n", 80)
    found = check_inference(checkpoint.model.eval(), arrays, 10 * meta["fp32_vs_fp64_raw_maxabs"])
    with torch.no_grad():
        fused = fuse(copy.deepcopy(checkpoint.model)).predict(as_input(arrays["x_u8"]))
    assert (fused.boxes_xyxy - found.boxes_xyxy).abs().max() < 10 * meta["fused_vs_unfused_decoded_maxabs"]


@pytest.mark.parametrize("assigner", ASSIGNERS)
@pytest.mark.parametrize("which", TARGETS)
def test_random_weights_training_step(golden, which, assigner):
    checkpoint, arrays, folder = golden
    model = copy.deepcopy(checkpoint.model).train()
    criterion = checkpoint.spec.criterion(model, LossConfig(tal_min_side=ASSIGNERS[assigner]))
    output = model(as_input(arrays["t_x_u8"]))
    for raw in output.levels:
        raw.retain_grad()
    own = criterion(output, pad_targets(arrays[f"t_targets/{which}"], 2, (128, 128)))
    own.total.backward()

    key = f"loss/{assigner}/{which}"
    assert float(own.total.detach()) == pytest.approx(float(arrays[f"{key}/total"][0]), rel=1e-3)
    items = [float(item) for item in own.items.values()]
    assert items == pytest.approx(arrays[f"{key}/items"].tolist(), rel=1e-3, abs=1e-6)
    flat = torch.cat([raw.grad.flatten(2) for raw in output.levels], 2)
    norms = [float(part.norm()) for part in flat.split((64, 80), 1)]
    assert norms == pytest.approx(arrays[f"graw_norm/{assigner}/{which}"].tolist(), rel=1e-2, abs=1e-6)
    if which == "a":
        check_gradients(model, flat, arrays, assigner, json.loads((folder / "meta.json").read_text()))


def check_gradients(model, flat, arrays, assigner, meta):
    for part, name in zip(flat.split((64, 80), 1), ("boxes", "scores"), strict=True):
        theirs = arrays[f"graw/{assigner}/{name}"]
        assert np.abs(part.numpy() - theirs).max() < 1e-2 * np.abs(theirs).max()
    parameters = dict(model.named_parameters())
    norms = [float(parameters[name].grad.norm()) for name in meta["gradnorm_params"]]
    assert norms == pytest.approx(arrays[f"gradnorm/{assigner}"].tolist(), rel=1e-2)
    trained = [name for name, p in parameters.items() if p.requires_grad]
    assert trained == meta["gradnorm_params"]
    for name, value in model.state_dict().items():
        if f"t_bn_after/{name}" in arrays:
            assert np.allclose(value.numpy(), arrays[f"t_bn_after/{name}"], rtol=1e-4, atol=1e-5)


def test_released_weights(shared):
    checkpoint = load_model(shared("weights/yolov8n.pt"))
    assert (checkpoint.spec.name, checkpoint.size, checkpoint.names[0]) == ("yolov8", "n", "person")
    check_inference(
        checkpoint.model.eval(), dict(np.load(shared("golden/real_weights/yolov8n_raw.npz"))), 5e-4
    )
