"""YOLOv9: its two forms, the way from one to the other, first biases, and blocks that rows can spoil."""

from __future__ import annotations

import copy
import json
import math
from functools import cache

import pytest
import torch
from torch import nn

from anyolo.config.schema import LossConfig
from anyolo.devices import open_device
from anyolo.errors import ModelError
from anyolo.families import FAMILIES, build_model, to_inference_form
from anyolo.families.checkpoints import load_model, model_record, save_atomic
from anyolo.families.shapes import own_rows, skeleton
from anyolo.nn.fuse import fuse
from anyolo.nn.heads.dual import DualDFLHead, GroupedDFLHead
from anyolo.nn.inference import Inference
from anyolo.nn.model import build
from anyolo.nn.reduce import reduce
from anyolo.nn.rows import parse
from anyolo.structures import HeadOutput, Targets

SPEC = FAMILIES.get("yolov9")
SIZES = "tsmce"


def stirred(model):
    """Random statistics and biases, so that nothing is equal by chance."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias)
    return model.eval()


@cache
def small(name):
    torch.manual_seed(0)
    return stirred(build_model(name, nc=3)[1])


@pytest.mark.parametrize("size", SPEC.sizes())
def test_every_form_is_known_by_its_tensors(size):
    tensors = skeleton(own_rows(SPEC, size), nc=11).state_dict()
    identity = SPEC.identify(tensors, {})
    assert (identity.size, identity.nc) == (size, 11)
    others = [FAMILIES.get(name) for name in FAMILIES if name != SPEC.name]
    assert not any(spec.identify(tensors, own_rows(SPEC, size)) for spec in others)


def test_rows_of_a_users_own():
    """Other widths than any size has; the rows come with the file."""
    rows = copy.deepcopy(own_rows(SPEC, "t"))
    rows["backbone"][4] = [-1, 1, "RepNCSPELAN4", [72, 40, 20, 2]]
    tensors = skeleton(rows, nc=2).state_dict()
    identity = SPEC.identify(tensors, rows)
    assert (identity.size, identity.nc) == ("", 2) and identity.rows["backbone"] == rows["backbone"]
    assert SPEC.identify(tensors, {}) is None


@pytest.mark.parametrize("size", SIZES)
def test_the_inference_form_is_gelan(size):
    form = reduce(skeleton(own_rows(SPEC, size), nc=5))
    plan, gelan = parse(form.rows), parse(own_rows(SPEC, f"gelan-{size}"), nc=5)
    assert plan.rows == gelan.rows
    shapes = {name: tuple(t.shape) for name, t in form.state_dict().items()}
    expected = skeleton(own_rows(SPEC, f"gelan-{size}"), nc=5).state_dict()
    assert list(shapes.items()) == [(name, tuple(t.shape)) for name, t in expected.items()]


@pytest.mark.parametrize("size", ["t", "c", "e"])
def test_conversion_gives_equal_boxes(size):
    torch.manual_seed(1)
    model = small("yolov9-t") if size == "t" else stirred(build_model(f"yolov9-{size}", nc=3)[1])
    converted = to_inference_form(SPEC, model)
    assert converted.size == f"gelan-{size}" and not converted.training
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        own, form = model.predict(images), converted.predict(images)
    assert torch.equal(own.boxes_xyxy, form.boxes_xyxy) and torch.equal(own.scores, form.scores)
    again = build(converted.rows, size=converted.size)
    again.load_state_dict(converted.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval().predict(images).boxes_xyxy, own.boxes_xyxy)


def test_a_converted_file_is_a_gelan_file(tmp_path):
    converted = to_inference_form(SPEC, small("yolov9-t"))
    assert to_inference_form(SPEC, converted) is converted
    save_atomic(model_record(converted, SPEC, "abc", imgsz=None, metrics={}), tmp_path / "a.pt")
    torch.save(converted.state_dict(), tmp_path / "b.pt")
    for file in ("a.pt", "b.pt"):
        found = load_model(tmp_path / file)
        assert (found.spec, found.size, found.model.nc) == (SPEC, "gelan-t", 3)
        assert isinstance(found.model.head, GroupedDFLHead) and not isinstance(found.model.head, DualDFLHead)


def test_golden_conversion(shared):
    """Names, shapes and boxes of upstream's own converted yolov9-t."""
    folder = shared("golden/yolov9/yolov9-t")
    facts = json.loads((folder / "meta.json").read_text())["conversion_to_gelan_t"]
    model = load_model(folder / "random.pt").model
    converted = to_inference_form(SPEC, model)
    tensors = converted.state_dict()
    stored = [[name, list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()]
    assert stored == facts["converted_state_dict"]
    assert sum(p.numel() for p in converted.parameters()) == facts["converted_params"]
    images = torch.rand(1, 3, 128, 160)
    with torch.no_grad():
        own, form = model.predict(images), converted.predict(images)
    assert (own.boxes_xyxy - form.boxes_xyxy).abs().max() == (own.scores - form.scores).abs().max() == 0


def test_using_a_training_form_does_no_auxiliary_work():
    model = small("yolov9-t")
    before = {name: t.clone() for name, t in model.state_dict().items()}
    inference = Inference(model, open_device("cpu"), SPEC.preprocess)
    gelan = small("gelan-t")
    assert sum(p.numel() for p in inference.model.parameters()) == sum(
        p.numel() for p in fuse(copy.deepcopy(gelan)).parameters()
    )
    assert len(inference.model.model) == len(gelan.model) == 23
    pixels = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    assert inference.raw(pixels).aux == ()
    with torch.no_grad():
        expected = model.predict(SPEC.preprocess.normalise(pixels))
    found = inference(pixels)
    assert (found.boxes_xyxy - expected.boxes_xyxy).abs().max() < 2e-3
    assert (found.scores - expected.scores).abs().max() < 1e-5
    assert isinstance(model.head, DualDFLHead)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_both_branches_are_given_in_both_modes():
    model = small("yolov9-t")
    for training in (False, True):
        output = copy.deepcopy(model).train(training)(torch.rand(2, 3, 64, 64))
        assert [x.shape for x in output.aux] == [x.shape for x in output.levels]
        assert not torch.equal(output.aux[0], output.levels[0])
    assert model.strides == (8, 16, 32)


@pytest.mark.parametrize("name", ["gelan-t", "yolov9-t"])
def test_first_biases(name):
    """Box 1.0, classes as if five objects lay in a 640 px picture; of every branch."""
    head = build_model(name, nc=20)[1].head
    branches = [(head.cv2, head.cv3)] + ([(head.cv4, head.cv5)] if name == "yolov9-t" else [])
    for boxes, classes in branches:
        for level, stride in enumerate((8, 16, 32)):
            assert (boxes[level][-1].bias == 1).all()
            expected = math.log(5 / 20 / (640 / stride) ** 2)
            assert classes[level][-1].bias.tolist() == pytest.approx([expected] * 20, rel=1e-6)


def test_the_auxiliary_loss_is_a_share_of_its_own():
    """The total is the main branch's and a quarter of what the other gives on its own."""
    model = small("yolov9-t")
    maps = [torch.randn(2, 67, side, side) for side in (8, 4, 2)]
    others = [torch.randn(2, 67, side, side) for side in (8, 4, 2)]
    low = torch.rand(2, 4, 2) * 30
    labels = torch.cat((torch.randint(0, 3, (2, 4, 1)), low, low + 8 + torch.rand(2, 4, 2) * 20), 2)
    targets = Targets(labels, torch.ones(2, 4))

    def total(levels, others, **settings):
        criterion = SPEC.criterion(model, LossConfig(tal_min_side=0, **settings))
        return float(criterion(HeadOutput(tuple(levels), tuple(others)), targets).total)

    alone, other = total(maps, ()), total(others, ())
    assert total(maps, others) == pytest.approx(alone + 0.25 * other, rel=1e-5)
    assert total(maps, others, aux=0) == pytest.approx(alone, rel=1e-6)
    led = total(maps, others, aux_follows=True)
    assert led != pytest.approx(alone + 0.25 * other, rel=1e-5)
    assert total(maps, maps, aux_follows=True) == pytest.approx(1.25 * alone, rel=1e-6)


@pytest.mark.parametrize(
    ("row", "args", "words"),
    [
        (4, [64, 63, 32, 3], "halves its channels, got 63"),
        (4, [64, 64, 33, 3], "halves its channels, got 33"),
        (4, [64, 64, 32, 10**5], "1 to 100"),
        (4, [64, 64, "x", 3], "whole numbers from 1"),
        (2, [32, 32], "not enough values"),
        (9, [128, 0], "whole numbers from 1"),
        (22, [128], "not enough values"),
    ],
)
def test_rows_that_cannot_be_built(row, args, words):
    rows = copy.deepcopy(own_rows(SPEC, "t"))
    written = [*rows["backbone"], *rows["head"]][row]
    written[3] = args
    with pytest.raises(ModelError, match=words) as caught:
        build(rows, where="mine.yaml")
    assert f"row {row}" in caught.value.where


def test_rows_of_too_many_layers():
    rows = copy.deepcopy(own_rows(SPEC, "t"))
    rows["backbone"][4:5] = [[-1, 1, "RepNCSPELAN4", [64, 64, 32, 100]]] * 20
    with pytest.raises(ModelError, match="more than 20000 layers") as caught:
        skeleton(rows)
    assert "row" in caught.value.where


@pytest.mark.parametrize(
    ("row", "change", "words"),
    [
        (23, [5, 1, "CBLinear", [[]]], "list of channels"),
        (30, [[23, 24, 25, -1], 1, "CBFuse", [[0, 1, 0]]], "same channels"),
        (30, [[23, 24, 25, -1], 1, "CBFuse", [[0, 0, -3]]], "same channels"),
        (30, [[23, 24, 25, -1], 1, "CBFuse", [[0, 0]]], "shorter|longer"),
        (0, [-1, 1, "Silence", [3]], "no arguments"),
        (38, [[31, 34, 16, 19, 22], 1, "DualDDetect", ["nc"]], "two features per level"),
        (38, [[31, 34, 37, 19, 16, 22], 1, "DualDDetect", ["nc"]], "same strides"),
    ],
)
def test_second_backbones_that_cannot_be_built(row, change, words):
    rows = copy.deepcopy(own_rows(SPEC, "c"))
    section, index = (
        ("backbone", row) if row < len(rows["backbone"]) else ("head", row - len(rows["backbone"]))
    )
    rows[section][index] = change
    with pytest.raises(ModelError, match=words):
        build(rows)
