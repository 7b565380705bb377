"""Heads with anchors: which row makes which, what they refuse, decoding, biases, and graphs of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from anyolo.errors import ModelError
from anyolo.nn.heads.anchor import AnchorHead
from anyolo.nn.heads.dfl import DFLHead
from anyolo.nn.heads.shared_anchor import SharedAnchorHead
from anyolo.nn.model import build
from anyolo.structures import HeadOutput
from anyolo.train.prepare import transfer

BACKBONE = [[-1, 1, "Conv", [8, 3, 8]], [-1, 1, "Conv", [8, 3, 2]]]
ANCHORS = [[10, 13, 16, 30], [30, 61, 62, 45]]


class Decoded(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        found = self.model.predict(images)
        return found.boxes_xyxy, found.scores, found.objectness


def rows(*head, **more):
    return {"nc": 3, "backbone": BACKBONE, "head": [list(row) for row in head], "anchors": ANCHORS, **more}


def test_the_arguments_of_a_row_say_which_head_is_meant():
    assert type(build(rows([[0, 1], 1, "Detect", ["nc", "anchors"]])).head) is AnchorHead
    assert type(build(rows([[0, 1], 1, "Detect", ["nc"]])).head) is DFLHead
    shared = build(rows([[0, 0, 1, 1], 1, "SharedDetect", ["nc", "anchors"]])).head
    assert type(shared) is SharedAnchorHead and shared.strides == (8, 16)


@pytest.mark.parametrize(
    ("anchors", "words"),
    [
        (3, "anchors are 2 lists"),
        (None, "anchors are 2 lists"),
        ([[10, 13]], "anchors are 2 lists"),
        ([[10, 13], [10, 13, 16, 30]], "equally long"),
        ([[10, 13, 16], [10, 13, 16]], "equally long"),
        ([[10, -13], [10, 13]], "above 0"),
        ([["a", "b"], [10, 13]], "anchors are 2 lists"),
    ],
)
def test_wrong_anchors_are_told_with_their_row(anchors, words):
    with pytest.raises(ModelError, match=words) as caught:
        build(rows([[0, 1], 1, "Detect", ["nc", "anchors"]], anchors=anchors), where="mine.yaml")
    assert caught.value.where == "mine.yaml: row 2 (Detect)"


def test_pairs_may_stand_in_lists_of_their_own():
    nested = [[[10, 13], [16, 30]], [[30, 61], [62, 45]]]
    model = build(rows([[0, 1], 1, "Detect", ["nc", "anchors"]], anchors=nested))
    assert torch.equal(model.head.anchors, torch.tensor(nested) / torch.tensor([8, 16]).view(2, 1, 1))


def test_features_of_unlike_stride_are_refused():
    with pytest.raises(ModelError, match="two features per level") as caught:
        build(rows([[0, 1, 0, 1], 1, "SharedDetect", ["nc", "anchors"]]), where="mine.yaml")
    assert caught.value.where == "mine.yaml: row 2 (SharedDetect)"


def test_biases_start_at_rare_objects():
    """8 objects in a picture of 640 px, a class at odds of 0.6 to 79; torch's own start around it."""
    torch.manual_seed(0)
    head = build(rows([[0, 1], 1, "Detect", ["nc", "anchors"]], nc=80)).head
    for conv, stride in zip(head.m, (8, 16), strict=True):
        bias = conv.bias.detach().view(2, 85)
        assert bias[:, 4].tolist() == pytest.approx([math.log(8 / (640 / stride) ** 2)] * 2, abs=0.36)
        assert float(bias[:, 5:].mean()) == pytest.approx(math.log(0.6 / (80 - 0.99999)), abs=0.1)
        assert float(bias[:, :4].abs().max()) < 0.36  # torch's own start, 1 / sqrt(8)


@pytest.mark.parametrize(
    "row", [[[0, 1], 1, "Detect", ["nc", "anchors"]], [[0, 0, 1, 1], 1, "SharedDetect", ["nc", "anchors"]]]
)
def test_decoding_is_the_formula_box_by_box(row):
    torch.manual_seed(0)
    model = build(rows(row)).eval()
    head = model.head
    with torch.no_grad():
        output = model(torch.rand(2, 3, 64, 96))
        found = model.decode(output)
    assert found.scores.shape == (2, 2 * (8 * 12 + 4 * 6), 3) and found.objectness.shape == (2, 240)
    index = 0
    for level, (raw, stride) in enumerate(zip(output.levels, head.strides, strict=True)):
        parts = head.parts(raw)
        for anchor in range(2):
            for y in range(raw.shape[2]):
                for x in range(raw.shape[3]):
                    cell = y * raw.shape[3] + x
                    s = parts.boxes[1, anchor, :, cell].sigmoid() * 2
                    xy = (s[:2] - 0.5 + torch.tensor([x, y])) * stride
                    wh = s[2:] ** 2 * torch.tensor(ANCHORS[level][2 * anchor : 2 * anchor + 2])
                    box = torch.cat((xy - wh / 2, xy + wh / 2))
                    assert torch.allclose(found.boxes_xyxy[1, index], box, atol=1e-4)
                    classes = parts.classes[1, anchor if parts.classes.shape[1] > 1 else 0, :, cell]
                    scores = classes.softmax(0) if head.classes_are_exclusive else classes.sigmoid()
                    assert torch.allclose(found.scores[1, index], scores, atol=1e-6)
                    wanted = parts.objectness[1, anchor, cell].sigmoid()
                    assert torch.allclose(found.objectness[1, index], wanted, atol=1e-6)
                    index += 1


@pytest.mark.parametrize(
    "row", [[[0, 1], 1, "Detect", ["nc", "anchors"]], [[0, 0, 1, 1], 1, "SharedDetect", ["nc", "anchors"]]]
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("fixed", [True, False])
def test_decoding_traces(row, fixed):
    torch.manual_seed(0)
    model = build(rows(row)).eval()
    model.fix_size((64, 96) if fixed else None)
    image = torch.rand(1, 3, 64, 96)

    with torch.no_grad():
        traced = torch.jit.trace(Decoded(model), image, check_trace=False)
        others = [image * 0.5] if fixed else [image * 0.5, torch.rand(2, 3, 96, 128)]
        for other in others:
            for own, eager in zip(traced(other), Decoded(model)(other), strict=True):
                assert torch.allclose(own, eager, atol=1e-4)


def test_maps_of_any_layout_are_decoded_alike():
    torch.manual_seed(0)
    model = build(rows([[0, 1], 1, "Detect", ["nc", "anchors"]])).eval()
    with torch.no_grad():
        levels = model(torch.rand(2, 3, 64, 64)).levels
        last = tuple(x.contiguous(memory_format=torch.channels_last) for x in levels)
        found = [model.decode(HeadOutput(maps)).boxes_xyxy for maps in (levels, last)]
    assert torch.allclose(found[0], found[1], atol=1e-4)


def test_boxes_and_objectness_survive_other_classes():
    """From 3 classes to 2: the network finds the same boxes with the same objectness; classes start anew."""
    old, new = (build(rows([[0, 1], 1, "Detect", ["nc", "anchors"]]), nc=nc).eval() for nc in (3, 2))
    said = transfer(new, old)
    assert "4 in part (boxes and objectness)" in said and "anew" not in said
    images = torch.rand(2, 3, 32, 32)
    before, after = old.predict(images), new.predict(images)
    assert torch.equal(before.boxes_xyxy, after.boxes_xyxy)
    assert torch.equal(before.objectness, after.objectness)
    assert after.scores.shape[2] == 2
    other = build({**rows([[0, 1], 1, "Detect", ["nc", "anchors"]]), "anchors": [[10, 13], [30, 61]]}, nc=2)
    assert "in part" not in transfer(other, old)  # another number of anchors: nothing means the same
