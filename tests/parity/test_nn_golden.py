"""Network, decoding and loss against what upstream computed from random and from released weights."""

from __future__ import annotations

import copy
import json
import lzma
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from anyolo.families.checkpoints import load_model
from anyolo.nn.fuse import fuse
from anyolo.structures import HeadOutput
from tests.parity.formula_weights import pad_targets
from tests.parity.layouts import LAYOUTS, criterion_of

MODELS = {  # golden folder: family, size, loss configurations
    "yolov8/yolov8n": ("yolov8", "n", ("main", "classic_assigner")),
    "yolov9/gelan-t": ("yolov9", "gelan-t", ("main",)),
    "yolov9/yolov9-t": ("yolov9", "t", ("dual", "dual_LH")),
    "yolov5/yolov5n": ("yolov5", "n", ("main", "scaled_ls", "focal")),
    "yolov7/yolov7-tiny": ("yolov7", "tiny", ("ota", "plain")),
    "v5lite/v5lite-e": ("yolov5lite", "e", ("main",)),
    "v5lite/v5lite-s": ("yolov5lite", "s", ("main",)),
    "fastestv2/yolo-fastestv2": ("fastestv2", "", ("main",)),
    "yolox/yolox-nano": ("yolox", "nano", ("main", "l1")),
    "yolox/yolox-tiny": ("yolox", "tiny", ("main", "l1")),
}
CASES = [(model, config) for model, (_, _, configs) in MODELS.items() for config in configs]
TARGETS = ("a", "b_img1_empty", "c_all_empty")
RELEASED = {
    "yolov8n": ("yolov8n.pt", "x_u8"),
    "yolov5n": ("yolov5n.pt", "x_u8"),
    "yolo-fastestv2": ("yolo-fastestv2-coco2017-0.241078ap.pth", "x_u8_bgr"),
}


@cache
def golden_of(folder: Path):
    file = next(folder.glob("random.p*"))
    meta = json.loads((folder / "meta.json").read_text())
    arrays = dict(np.load(folder / "golden.npz"))
    if file.suffix != ".xz":
        return load_model(file), arrays, meta
    with TemporaryDirectory() as temporary:
        unpacked = Path(temporary) / file.stem
        unpacked.write_bytes(lzma.decompress(file.read_bytes()))
        return load_model(unpacked), arrays, meta


@pytest.fixture
def golden(shared):
    """``golden("yolov8/yolov8n")``: checkpoint, arrays, facts."""
    return lambda model: golden_of(shared(f"golden/{model}"))


def as_input(pixels, spec):
    """Divided as upstream does: a product's last bit shows in gradients through batch statistics."""
    return torch.from_numpy(pixels.astype(np.float32)) / round(1 / spec.preprocess.scale)


def decoded_of(layout, found):
    """Rows of boxes and scores, whichever way upstream turns them."""
    rows = layout.decoded(found).numpy()
    return rows.transpose(0, 2, 1) if rows.shape[1] < rows.shape[2] else rows


def check_inference(checkpoint, images, arrays, raw_atol):
    layout = LAYOUTS[checkpoint.spec.name]
    with torch.no_grad():
        output = checkpoint.model.eval()(images)
        found = checkpoint.model.decode(output)
    maps = layout.raw((*output.aux, *output.levels))
    assert f"raw_{len(maps)}" not in arrays
    for name, raw in zip(layout.raw_names[: len(maps)], maps, strict=True):
        if name in arrays:
            assert np.abs(raw.numpy() - arrays[name]).max() < raw_atol
    if output.aux:
        auxiliary = decoded_of(layout, checkpoint.model.decode(HeadOutput(output.aux)))
        check_decoded(auxiliary, arrays["decoded_0"], layout, raw_atol)
    rows = decoded_of(layout, found)
    check_decoded(rows, arrays["decoded_1" if output.aux else "decoded"], layout, raw_atol)
    return rows


def check_decoded(rows, expected, layout, raw_atol):
    expected = expected.transpose(0, 2, 1) if expected.shape[1] < expected.shape[2] else expected
    assert np.abs(rows[..., :4] - expected[..., :4]).max() < layout.growth(expected) * raw_atol
    assert np.abs(rows[..., 4:] - expected[..., 4:]).max() < raw_atol


@pytest.mark.parametrize("model", MODELS)
def test_random_weights_inference(golden, model):
    checkpoint, arrays, meta = golden(model)
    assert (checkpoint.spec.name, checkpoint.size, checkpoint.model.nc) == (*MODELS[model][:2], 80)
    images = as_input(arrays["x_u8"], checkpoint.spec)
    rows = check_inference(checkpoint, images, arrays, 10 * np.max(meta["fp32_vs_fp64_raw_maxabs"]))
    with torch.no_grad():
        fused = fuse(copy.deepcopy(checkpoint.model)).predict(images)
    layout = LAYOUTS[checkpoint.spec.name]
    noise = meta.get("fused_vs_unfused_decoded_maxabs", layout.growth(rows) * meta["fp32_vs_fp64_raw_maxabs"])
    assert np.abs(decoded_of(layout, fused) - rows).max() < 10 * noise


@pytest.mark.parametrize("which", TARGETS)
@pytest.mark.parametrize(("model", "config"), CASES)
def test_random_weights_training_step(golden, model, config, which):
    checkpoint, arrays, meta = golden(model)
    layout = LAYOUTS[checkpoint.spec.name]
    network = copy.deepcopy(checkpoint.model).train()
    criterion = criterion_of(checkpoint.spec, network, config)
    output = network(as_input(arrays["t_x_u8"], checkpoint.spec))
    maps = (*output.aux, *output.levels)
    for level in maps:
        level.retain_grad()
    own = criterion(output, pad_targets(arrays[f"t_targets/{which}"], 2, (128, 128)))
    own.total.backward()

    key = f"loss/{config}/{which}"
    if not np.isfinite(arrays[f"{key}/total"]).all():  # upstream divides by no score at all, here by 1
        assert which == "c_all_empty" and torch.isfinite(own.total.detach())
        return
    assert float(own.total.detach()) == pytest.approx(float(arrays[f"{key}/total"].item()), rel=1e-3)
    assert tuple(own.items) == layout.items
    items = [float(item) for item in own.items.values()]
    assert items == pytest.approx(arrays[f"{key}/items"][: len(items)].tolist(), rel=1e-3, abs=1e-6)
    parts = layout.graw([level.grad for level in maps])
    norms = [float(part.norm()) for part in parts]
    assert norms == pytest.approx(arrays[f"graw_norm/{config}/{which}"].tolist(), rel=1e-2, abs=1e-6)
    if which == "a":
        check_gradients(checkpoint.spec, network, parts, arrays, config, meta)


def check_gradients(spec, network, parts, arrays, config, meta):
    assert f"graw/{config}/{len(parts)}" not in arrays
    for part, name in zip(parts, LAYOUTS[spec.name].graw_names[: len(parts)], strict=True):
        theirs = arrays.get(f"graw/{config}/{name}")
        if theirs is not None:  # of the first configuration only
            assert np.abs(part.numpy() - theirs).max() < 1e-2 * np.abs(theirs).max()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    named = spec.export_weights(gradients)
    assert list(named) == meta["gradnorm_params"]
    norms = [float(gradient.norm()) for gradient in named.values()]
    theirs = arrays[f"gradnorm/{config}"]
    # a shift right before a normalisation has no influence: what is left of its gradient is rounding
    assert norms == pytest.approx(theirs.tolist(), rel=1e-2, abs=1e-6 * theirs.max())
    compared = 0
    for name, value in spec.export_weights(network.state_dict()).items():
        if f"t_bn_after/{name}" in arrays:
            assert np.allclose(value.numpy(), arrays[f"t_bn_after/{name}"], rtol=1e-4, atol=1e-5)
            compared += 1
    assert compared == 4


def test_every_configuration_of_the_golden_files_is_compared(golden):
    for model, (_, _, configs) in MODELS.items():
        assert set(golden(model)[2]["loss"]) == set(configs)


@pytest.mark.parametrize("name", RELEASED)
def test_released_weights(shared, name):
    file, images = RELEASED[name]
    arrays = dict(np.load(shared(f"golden/real_weights/{name}_raw.npz")))
    checkpoint = load_model(shared(f"weights/{file}"))
    check_inference(checkpoint, as_input(arrays[images], checkpoint.spec), arrays, 5e-4)
