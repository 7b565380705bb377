"""The Detector: counts, layouts, folding, copying, tracing."""

from __future__ import annotations

import copy
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from anyolo.families import build_model
from anyolo.nn.blocks.conv import Conv, fold
from anyolo.nn.count import count
from anyolo.nn.fuse import fuse
from anyolo.structures import HeadOutput

FACTS = {  # parameters, trained, GFLOPs at 640, parameters folded (of the lite ones upstream folds less)
    "yolov5n": (1872157, 1872157, 4.4681, 1867405),
    "yolov5s": (7235389, 7235389, 16.4336, 7225885),
    "yolov5m": (21190557, 21190557, 48.8724, 21172173),
    "yolov5l": (46563709, 46563709, 108.9937, 46533693),
    "yolov5x": (86749405, 86749405, 205.4482, 86705005),
    "yolov5s-focus": (7276605, 7276605, 16.9578, 7266973),
    "yolov7-tiny": (6228762, 6228762, 13.7007, 6219709),
    "yolov7": (37622682, 37622682, 105.7694, 36905341),
    "v5lite-e": (787085, 787085, 2.8595, 779669),
    "v5lite-s": (1649853, 1649853, 3.8898, 1640629),
    "v5lite-c": (4591901, 4591901, 8.8392, 4579293),
    "v5lite-g": (5574845, 5574845, 16.0345, 5390365),
    "yolo-fastestv2": (243095, 243095, 0.70335, 238847),
    "yolox-nano": (912159, 912159, 2.4736, 904463),
    "yolox-tiny": (5055855, 5055855, 15.1776, 5047191),
    "yolox-s": (8968255, 8968255, 26.6855, 8956703),
    "yolox-m": (25326495, 25326495, 73.5303, 25304847),
    "yolox-l": (54208895, 54208895, 155.2927, 54174271),
    "yolox-x": (99071455, 99071455, 281.4098, 99020975),
    "yolov8n": (3157200, 3157184, 8.744, 3151904),
    "yolov8s": (11166560, 11166544, 28.6026, 11156544),
    "yolov8m": (25902640, 25902624, 78.9367, 25886080),
    "yolov8l": (43691520, 43691504, 165.1485, 43668288),
    "yolov8x": (68229648, 68229632, 257.8043, 68200608),
    # folded, YOLOv9 is its inference form: GELAN without batch norms
    "yolov9-t": (3717680, 3717648, 16.2764, 2407632),
    "yolov9-s": (9804512, 9804480, 39.5007, 7105888),
    "yolov9-m": (32878432, 32878400, 132.0835, 19978672),
    "yolov9-c": (51182080, 51182048, 238.6548, 25288768),
    "yolov9-e": (69529664, 69529632, 243.9632, 57345920),
    "gelan-t": (2442640, 2442624, 9.8999, 2407632),
    "gelan-s": (7226208, 7226192, 26.7086, 7105888),
    "gelan-m": (20124000, 20123984, 76.8003, 19978672),
    "gelan-c": (25498752, 25498736, 102.8189, 25288768),
    "gelan-e": (58114432, 58114416, 191.1483, 57345920),
}


@pytest.fixture(scope="module")
def small():
    """Random weights and random statistics, so that nothing is folded for nothing."""
    torch.manual_seed(0)
    _, model = build_model("yolov8n", nc=5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", FACTS)
def test_counts(name):
    parameters, gradients, gflops, folded = FACTS[name]
    model = build_model(name)[1]
    counted = count(model, (640, 640))
    assert (counted.parameters, counted.gradients) == (parameters, gradients)
    # a channel weight of v5lite-c is computed once a picture, whatever its size: 1% of slack
    assert counted.gflops == pytest.approx(gflops, rel=1e-2 if name == "v5lite-c" else 1e-3)
    assert model.training
    assert sum(p.numel() for p in fuse(model).parameters()) == folded


TOPOLOGY = [
    *(f"yolov8/yolov8{size}" for size in "nsmlx"),
    *(f"yolov5/yolov5{size}" for size in "nsmlx"),
    *(f"yolov5/yolov5s-focus-v{era}" for era in ("4.0", "5.0")),
    "yolov7/yolov7-tiny",
    "yolov7/yolov7",
    *(f"v5lite/v5lite-{size}" for size in "escg"),
    "fastestv2/yolo-fastestv2",
    *(f"yolov9/{form}-{size}" for form in ("yolov9", "gelan") for size in "tsmce"),
    *(f"yolox/yolox-{size}" for size in ("nano", "tiny", "s", "m", "l", "x")),
]


@pytest.mark.parametrize("name", TOPOLOGY)
def test_tensors_are_upstreams(shared, name):
    """Every convolution and batch norm in upstream's order, with its geometry and activation."""
    facts = json.loads(shared(f"reference/topology/{name}.json").read_text())
    spec, model = build_model(name.partition("/")[2])
    modules = {
        layer: module
        for layer, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    }
    named = spec.export_weights({f"{layer}.weight": module.weight for layer, module in modules.items()})
    owners = {id(module.weight): layer for layer, module in modules.items()}
    layers = {key.removesuffix(".weight"): owners[id(weight)] for key, weight in named.items()}
    leaves = [leaf for leaf in facts["leaves"] if leaf["type"] in ("Conv2d", "BatchNorm2d")]
    assert list(layers) == [leaf["name"] for leaf in leaves]
    acts = activations_after(model)
    for leaf in leaves:
        own = modules[layers[leaf["name"]]]
        if leaf["type"] == "Conv2d":
            got = own.in_channels, own.out_channels, *own.kernel_size, *own.stride, *own.padding, own.groups
            k, s, p = leaf["k"], leaf["s"], leaf["p"]
            assert got == (leaf["in"], leaf["out"], k, k, s, s, p, p, leaf["g"])
            assert (own.bias is not None) == leaf["bias"]
            assert own.weight.requires_grad == leaf.get("trainable", True)
        else:
            assert (own.num_features, own.eps, own.momentum) == (leaf["out"], leaf["eps"], leaf["momentum"])
            assert acts[id(own)] == re.split(r"[ (]", leaf.get("act", "none"))[0], leaf["name"]


def activations_after(model):
    """What follows each batch norm among its siblings: the name of an activation, or "none"."""
    found = {}
    for parent in model.modules():
        children = [*parent.children(), nn.Identity()]
        for norm, act in pairwise(children):
            if isinstance(norm, nn.BatchNorm2d):
                found[id(norm)] = (
                    type(act).__name__ if type(act).__module__.endswith("activation") else "none"
                )
    return found


def test_count_follows_the_size():
    model = build_model("yolov8n", nc=3)[1].eval()
    square, wide = count(model, (320, 320)), count(model, (320, 640))
    assert wide.gflops == pytest.approx(2 * square.gflops)
    assert not model.training and not any(m._forward_hooks for m in model.modules())


def test_first_biases():
    """8.4.190: box 2.0, classes as if five objects lay in a 640 px picture."""
    head = build_model("yolov8n", nc=20)[1].head
    for level, stride in enumerate((8, 16, 32)):
        assert (head.cv2[level][-1].bias == 2).all()
        expected = np.log(5 / 20 / (640 / stride) ** 2)
        assert head.cv3[level][-1].bias.tolist() == pytest.approx([expected] * 20, rel=1e-6)


def test_shapes_and_strides(small):
    assert small.strides == (8, 16, 32)
    output = small(images(2, 3, 96, 160))
    assert [tuple(x.shape) for x in output.levels] == [(2, 69, 12, 20), (2, 69, 6, 10), (2, 69, 3, 5)]
    found = small.decode(output)
    assert found.boxes_xyxy.shape == (2, 315, 4) and found.scores.shape == (2, 315, 5)
    assert found.objectness is None
    assert (found.boxes_xyxy[..., 2:] >= found.boxes_xyxy[..., :2]).all()
    assert found.scores.min() > 0 and found.scores.max() < 1


def test_decoding_by_hand():
    """All weight on one bin gives that distance: bins 1, 2, 3, 4 around the point (20, 12) of the fine
    level.
    """
    model = build_model("yolov8n", nc=2)[1]
    levels = [torch.zeros(1, 66, 4 * 2**k, 4 * 2**k) for k in (2, 1, 0)]
    for side, bin_ in enumerate((1, 2, 3, 4)):
        levels[0][0, side * 16 + bin_, 1, 2] = 100
    levels[0][0, 65, 1, 2] = np.log(3)
    found = model.decode(HeadOutput(tuple(levels)))
    assert found.boxes_xyxy[0, 18].tolist() == pytest.approx([20 - 8, 12 - 16, 20 + 24, 12 + 32], abs=1e-4)
    assert found.scores[0, 18].tolist() == pytest.approx([0.5, 0.75])
    # no preference: 7.5 bins to every side, here around the last point of the coarse level
    assert found.boxes_xyxy[0, -1].tolist() == pytest.approx([112 - 240, 112 - 240, 112 + 240, 112 + 240])


def test_channels_last_gives_the_same(small):
    x = images(2, 3, 64, 96)
    other = copy.deepcopy(small).to(memory_format=torch.channels_last)
    with torch.no_grad():
        own, last = small.predict(x), other.predict(x.to(memory_format=torch.channels_last))
    assert (own.boxes_xyxy - last.boxes_xyxy).abs().max() < 1e-3
    assert (own.scores - last.scores).abs().max() < 1e-6


def test_a_copy_is_independent(small):
    small.predict(images(1, 3, 64, 64))
    twin = copy.deepcopy(small)
    with torch.no_grad():
        twin.model[0].conv.weight.zero_()
    assert small.model[0].conv.weight.abs().sum() > 0
    assert twin.rows == small.rows and twin.rows is not small.rows


def test_folding(small):
    x = images(1, 3, 64, 96)
    twin = fuse(copy.deepcopy(small).train())
    assert not twin.training
    assert not any(isinstance(m, nn.BatchNorm2d) for m in twin.modules())
    with torch.no_grad():
        own, folded = small.predict(x), twin.predict(x)
        again = fuse(twin).predict(x)
    assert (own.boxes_xyxy - folded.boxes_xyxy).abs().max() < 2e-3
    assert torch.equal(folded.boxes_xyxy, again.boxes_xyxy)


def test_folding_keeps_an_old_bias():
    torch.manual_seed(3)
    conv, norm = nn.Conv2d(4, 6, 3, 2, 1, groups=2), nn.BatchNorm2d(6, eps=1e-3).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    x = images(2, 4, 9, 9)
    assert (fold(conv, norm)(x) - norm(conv(x))).abs().max() < 1e-5


def test_folding_in_float64_is_exact():
    torch.manual_seed(3)
    block = Conv(3, 8, 3).double().eval()
    nn.init.uniform_(block.bn.running_var, 0.1, 3)
    x = images(1, 3, 9, 9).double()
    before = block(x)
    block.fuse()
    assert (block(x) - before).abs().max() < 1e-14


class Plain(nn.Module):
    """Tensors in, tensors out, as exporters want it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        found = self.model.predict(x)
        return found.boxes_xyxy, found.scores


def assert_same(own, other):
    for a, b in zip(own, other, strict=True):
        assert (a - b).abs().max() < 1e-3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_traced_graph_takes_other_sizes(small):
    traced = torch.jit.trace(Plain(small), images(1, 3, 64, 64))
    for shape in ((1, 3, 64, 64), (2, 3, 96, 160)):
        assert_same(Plain(small)(images(*shape)), traced(images(*shape)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fixed_size_holds_the_grid_as_constant(small):
    twin = copy.deepcopy(small)
    twin.fix_size((64, 96))
    x = images(1, 3, 64, 96)
    assert_same(Plain(small)(x), Plain(twin)(x))
    graph = str(torch.jit.trace(Plain(twin), x).inlined_graph)
    assert "aten::arange" not in graph
    twin.fix_size(None)
    assert "aten::arange" in str(torch.jit.trace(Plain(twin), x).inlined_graph)


def test_exported_program(small):
    x = images(2, 3, 64, 96)
    height, width = (torch.export.Dim(side, min=2, max=40) * 32 for side in ("rows", "columns"))
    shapes = ({0: torch.export.Dim("batch", min=1, max=64), 2: height, 3: width},)
    program = torch.export.export(Plain(small), (x,), dynamic_shapes=shapes)
    for size in ((2, 3, 64, 96), (3, 3, 128, 64)):
        assert_same(Plain(small)(images(*size)), program.module()(images(*size)))
