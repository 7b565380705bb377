"""SimOTA against its rules spelled out, box by box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from anyolo.assign.simota import SimOTA, class_costs
from anyolo.families import build_model
from anyolo.ops.iou import pairwise_iou
from anyolo.structures import Targets

SIZES = [(12, 8), (6, 4), (3, 2)]


def case(seed, boxes, nc=4, images=2):
    rng = np.random.default_rng(seed)
    head = build_model("yolox-nano", nc=nc)[1].head
    maps = [torch.from_numpy(rng.normal(0, 1.2, (images, 5 + nc, *hw)).astype(np.float32)) for hw in SIZES]
    rows = []
    for _ in range(images):
        low = rng.uniform(0, 40, (boxes, 2))
        size = rng.uniform(2, 60, (boxes, 2))
        rows.append(np.concatenate((rng.integers(0, nc, (boxes, 1)), low, low + size), 1).astype(np.float32))
    rows[-1] = rows[-1][: boxes // 2]
    flat = head.flatten(maps)
    centres = head.centres(maps)
    return Targets.pad(rows), head.boxes(flat[..., :4], centres), flat[..., 5:], flat[..., 4], centres


def spelled_out(labels, boxes, logits, objectness, centres):
    """Owner of every point, -1 for none; as the rules are told, with sorts and loops."""
    points, stride = centres[:, :2], centres[:, 2]
    middle = (labels[:, 1:3] + labels[:, 3:]) / 2
    inside = ((points - middle[:, None]).abs() < 1.5 * stride[:, None]).all(2)
    candidates = inside.any(0).nonzero().flatten().tolist()
    owner = torch.full((len(points),), -1)
    if not candidates:
        return owner
    inside = inside[:, candidates]
    iou = pairwise_iou(labels[:, 1:], boxes[candidates])
    score = (logits[candidates].sigmoid() * objectness[candidates, None].sigmoid()).sqrt()
    cost = torch.zeros_like(iou)
    for t, label in enumerate(labels):
        wanted = F.one_hot(label[0].long(), logits.shape[1]).float().expand_as(score)
        cost[t] = F.binary_cross_entropy(score, wanted, reduction="none").sum(1)
    cost = cost - 3 * (iou + 1e-8).log() + 1e6 * (~inside)
    chosen = torch.zeros_like(inside)
    for t in range(len(labels)):
        k = max(1, int(iou[t].sort(descending=True).values[:10].sum()))
        chosen[t, cost[t].argsort()[:k]] = True
    for p, point in enumerate(candidates):
        if chosen[:, p].sum() > 1:
            owner[point] = cost[:, p].argmin()
        elif chosen[:, p].any():
            owner[point] = chosen[:, p].float().argmax()
    return owner


@pytest.mark.parametrize("boxes", [1, 3, 12, 60])
@pytest.mark.parametrize("seed", range(4))
def test_owners_are_those_of_the_rules(seed, boxes):
    targets, predicted, logits, objectness, centres = case(seed, boxes)
    found = SimOTA()(targets, predicted, logits, objectness, centres, SIZES)
    positives = 0
    for image, count in enumerate(targets.counts):
        labels = targets.labels[image, :count]
        expected = spelled_out(labels, predicted[image], logits[image], objectness[image], centres)
        own = torch.where(found.positive_BA[image] > 0, found.owner_BA[image], -1)
        assert torch.equal(own, expected)
        positives += int((own >= 0).sum())
        at = (own >= 0).nonzero().flatten()
        overlap = pairwise_iou(labels[:, 1:], predicted[image])[own[at], at]
        assert torch.allclose(found.overlap_BA[image][at], overlap)
    assert positives >= boxes // 2  # several boxes want the same points


def test_no_box_no_owner():
    _, predicted, logits, objectness, centres = case(0, 2)
    targets = Targets.pad([np.zeros((0, 5), np.float32)] * 2)
    found = SimOTA()(targets, predicted, logits, objectness, centres, SIZES)
    assert float(found.positive_BA.sum()) == 0


def test_equal_costs_give_as_many_points_as_wanted():
    """All points look alike: the first of them answer, not all."""
    targets, predicted, logits, objectness, centres = case(1, 1)
    predicted = targets.labels[:, :1, 1:].expand_as(predicted).contiguous()
    found = SimOTA()(targets, predicted, logits * 0, objectness * 0, centres, SIZES)
    assert float(found.positive_BA[0].sum()) == 10


def test_class_costs_of_certain_scores_are_bounded():
    cost = class_costs(torch.tensor([[[200.0, -200.0]]]), torch.tensor([[200.0]]), torch.tensor([[0.0, 1.0]]))
    assert cost.flatten().tolist() == [0.0, 200.0]
