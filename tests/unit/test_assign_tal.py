"""Task-aligned assignment against the rules written out as plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyolo.assign.overlap import clipped_ciou, measure
from anyolo.assign.tal import TaskAligned, _kth_largest
from anyolo.nn.heads.points import CellCentres
from anyolo.ops import tiles
from anyolo.ops.iou import ciou
from anyolo.structures import Targets

SIZES = ((8, 12), (4, 6), (2, 3))
WIDTH, HEIGHT = 96, 64
CENTRES = CellCentres((8, 16, 32))([torch.zeros(1, 1, *size) for size in SIZES])
POINTS = CENTRES[:, :2]


def plain_ciou(a, b):
    """Source: Zheng et al. 2020, with eps on the heights, the union and the diagonal."""
    eps = 1e-7
    aw, ah, bw, bh = a[2] - a[0], a[3] - a[1] + eps, b[2] - b[0], b[3] - b[1] + eps
    inter = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    iou = inter / (aw * ah + bw * bh - inter + eps)
    across = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2 + eps
    apart = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    v = 4 / math.pi**2 * (math.atan(bw / bh) - math.atan(aw / ah)) ** 2
    return iou - apart / across - v * v / (v - iou + 1 + eps)


def plain_assignment(boxes_true, classes, predicted, probabilities, min_side, everywhere=False, topk=10):
    """One picture, float64, one box after another. Returns owner or -1, and score, of every point."""
    count, points = len(boxes_true), len(POINTS)
    u, t = np.zeros((count, points)), np.zeros((count, points))
    inside, chosen = np.zeros((2, count, points), bool)
    for g, box in enumerate(boxes_true):
        half = [max(box[2] - box[0], min_side) / 2, max(box[3] - box[1], min_side) / 2]
        centre = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
        for a, (x, y) in enumerate(POINTS.tolist()):
            inside[g, a] = abs(x - centre[0]) < half[0] and abs(y - centre[1]) < half[1]
            if inside[g, a] or everywhere:
                u[g, a] = max(0.0, plain_ciou(box, predicted[a]))
                t[g, a] = probabilities[a, classes[g]] ** 0.5 * u[g, a] ** 6
        best = sorted(range(points), key=lambda a, g=g: -t[g, a] * inside[g, a])[:topk]
        chosen[g, [a for a in best if inside[g, a] and t[g, a] > 1e-30]] = True
    owner = np.full(points, -1)
    for a in range(points):
        if chosen[:, a].sum() == 1:
            owner[a] = int(chosen[:, a].argmax())
        elif chosen[:, a].sum() > 1:
            owner[a] = int(u[:, a].argmax())
    score = np.zeros(points)
    for g in range(count):
        own = owner == g
        if own.any():
            score[own] = t[g, own] * u[g, own].max() / (t[g, own].max() + 1e-9)
    return owner, score


def random_scene(seed, images, most, tiny):
    """Targets, predicted boxes near the points and near the objects, class logits."""
    rng = np.random.default_rng(seed)
    scenes, predicted = [], []
    for _ in range(images):
        count = int(rng.integers(0, most + 1))
        wh = np.exp(rng.uniform(np.log(1 if tiny else 12), np.log(70), (count, 2)))
        low = rng.uniform(0, (WIDTH, HEIGHT), (count, 2)) - wh / 2
        boxes = np.concatenate((rng.integers(0, 3, (count, 1)), low, low + wh), 1)
        scenes.append(boxes.astype(np.float32))
        points = POINTS.numpy()
        own = np.concatenate(
            (points - rng.uniform(1, 30, (126, 2)), points + rng.uniform(1, 30, (126, 2))), 1
        )
        for box in boxes:
            near = rng.random(126) < 0.4
            own[near] = box[1:] + rng.normal(0, 3, (near.sum(), 4))
        own[:, 2:] = np.maximum(own[:, 2:], own[:, :2] + 0.5)
        predicted.append(own)
    logits = rng.normal(-1, 2, (images, 126, 3)).astype(np.float32)
    return Targets.pad(scenes), scenes, torch.tensor(np.array(predicted), dtype=torch.float32), logits


@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 3),
    most=st.integers(0, 12),
    tiny=st.booleans(),
    min_side=st.sampled_from([0.0, 16.0]),
    everywhere=st.booleans(),
)
def test_same_as_plain_loops(seed, images, most, tiny, min_side, everywhere):
    targets, scenes, predicted, logits = random_scene(seed, images, most, tiny)
    assign = TaskAligned(min_side=min_side, everywhere=everywhere)
    found = assign(targets, predicted, torch.from_numpy(logits), POINTS, SIZES)
    assert torch.isfinite(found.score_BA).all()
    for image, scene in enumerate(scenes):
        own = predicted[image].double().numpy()
        probabilities = 1 / (1 + np.exp(-logits[image].astype(np.float64)))
        classes = scene[:, 0].astype(int)
        owner, score = plain_assignment(
            scene[:, 1:].astype(np.float64), classes, own, probabilities, min_side, everywhere
        )
        assert np.abs(found.score_BA[image].numpy() - score).max(initial=0) < 2e-4
        clear = score > 1e-3
        assert (found.owner_BA[image].numpy()[clear] == owner[clear]).all()


def assign(boxes, predicted, logits=None, **options):
    """One picture; ``boxes`` rows class, x1, y1, x2, y2."""
    targets = Targets.pad([np.asarray(boxes, np.float32).reshape(-1, 5)])
    logits = torch.zeros(1, len(POINTS), 3) if logits is None else logits
    return TaskAligned(**options)(targets, predicted.unsqueeze(0), logits, POINTS, SIZES)


def test_picture_without_boxes():
    found = assign([], torch.cat((POINTS - 8, POINTS + 8), 1), min_side=16.0)
    assert found.score_BA.abs().sum() == 0


def test_tiny_box_has_points_only_when_enlarged():
    box = [1, 6.5, 14.5, 9.5, 17.5]  # around (8, 16), where no level has a point
    predicted = torch.tensor(box[1:]).expand(len(POINTS), 4)
    assert assign([box], predicted).score_BA.sum() == 0
    score = assign([box], predicted, min_side=16.0).score_BA[0]
    around = [[4, 12], [12, 12], [4, 20], [12, 20]]
    assert POINTS[score > 0].tolist() == around
    assert score[score > 0].tolist() == pytest.approx([1.0] * 4, rel=1e-5)


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_contested_point_outside_a_box(everywhere):
    """(12, 12) lies in the first two boxes; the prediction there is the third, in which it does not lie."""
    boxes = [[0, 2, 2, 40, 40], [1, 4, 4, 42, 42], [2, 13, 13, 45, 45]]
    predicted = torch.cat((POINTS - 1, POINTS + 1), 1)
    predicted[POINTS.tolist().index([12, 12])] = torch.tensor([13.0, 13, 45, 45])
    found = assign(boxes, predicted, everywhere=everywhere)
    at = POINTS.tolist().index([12, 12])
    assert found.score_BA[0, at] > 0
    assert (found.owner_BA[0, at] == 2) == everywhere


def test_of_equal_boxes_the_first_answers():
    predicted = torch.cat((POINTS - 10, POINTS + 10), 1)
    twins = [[0, 20, 20, 44, 44], [2, 20, 20, 44, 44]]
    found = assign(twins, predicted)
    positive = found.score_BA[0] > 0
    assert positive.any()
    assert (found.owner_BA[0][positive] == 0).all()


def test_best_score_of_a_box_is_its_best_overlap():
    """The scores of one box are its alignments scaled so that the largest equals its largest overlap."""
    predicted = torch.cat((POINTS - 14, POINTS + 12), 1)
    box = [1, 20.0, 12.0, 51.0, 42.0]
    found = assign([box], predicted)
    overlaps = ciou(torch.tensor(box[1:]), predicted)[found.score_BA[0] > 0]
    assert (found.score_BA[0] > 0).sum() == 10
    assert float(found.score_BA.max()) == pytest.approx(float(overlaps.max()), rel=1e-5)


@pytest.mark.parametrize("most", [1, 400, 10**9])
def test_tiles_change_nothing(monkeypatch, most):
    targets, _, predicted, logits = random_scene(5, 5, 9, True)
    whole = TaskAligned()(targets, predicted, torch.from_numpy(logits), POINTS, SIZES)
    monkeypatch.setattr(tiles, "ON_HOST", most)
    again = TaskAligned()(targets, predicted, torch.from_numpy(logits), POINTS, SIZES)
    assert torch.equal(whole.score_BA, again.score_BA)
    positive = whole.score_BA > 0
    assert torch.equal(whole.owner_BA[positive], again.owner_BA[positive])


def test_many_classes_are_picked_alike():
    """Above as many classes as boxes, class scores are picked from the other side."""
    targets, _, predicted, logits = random_scene(6, 2, 8, False)
    few = TaskAligned()(targets, predicted, torch.from_numpy(logits), POINTS, SIZES)
    many = np.concatenate((logits, np.full((2, 126, 30), -9, np.float32)), 2)
    again = TaskAligned()(targets, predicted, torch.from_numpy(many), POINTS, SIZES)
    assert torch.equal(few.owner_BA[few.score_BA > 0], again.owner_BA[few.score_BA > 0])
    assert torch.allclose(few.score_BA, again.score_BA, rtol=1e-5)


@given(seed=st.integers(0, 1000), points=st.integers(1, 300), k=st.integers(1, 12))
def test_kth_largest(seed, points, k):
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.integers(0, 40, (2, 3, points)).astype(np.float32))  # ties included
    expected = values.sort(dim=2, descending=True).values[..., min(k, points) - 1].unsqueeze(2)
    assert torch.equal(_kth_largest(values, k), expected)


@given(seed=st.integers(0, 2**32 - 1))
def test_clipped_ciou_is_ciou(seed):
    targets, _, predicted, _ = random_scene(seed, 2, 6, True)
    true = targets.labels[..., 1:]
    inside = torch.ones(*targets.mask.shape, 126) * targets.mask.unsqueeze(2)
    expected = ciou(true.unsqueeze(2), predicted.unsqueeze(1)).clamp(min=0) * inside
    own = clipped_ciou(measure(true), measure(predicted), inside)
    assert (own - expected).abs().max() < 2e-6
    assert clipped_ciou(measure(true), measure(predicted), inside * 0).max() == 0


@pytest.mark.parametrize("min_side", [0.0, 6.0, 16.0])
def test_the_share_of_boxes_without_a_point_is_what_placing_them_gives(min_side: float) -> None:
    """Boxes of three sizes, put at every quarter pixel of a cell of eight."""
    sizes = np.array([[4.0, 5.0], [7.0, 12.0], [20.0, 3.0]])
    places = (np.arange(32) + 0.5) / 4
    low_x, low_y = (grid.ravel() for grid in np.meshgrid(places, places))
    lows = torch.from_numpy(np.stack((low_x, low_y), 1)).float()
    points = torch.stack(torch.meshgrid(*[torch.arange(8) * 8.0 + 4] * 2, indexing="xy"), -1).view(-1, 2)
    without = []
    for size in torch.from_numpy(sizes).float():
        centres, half = lows + 8 + size / 2, size.clamp(min=min_side) / 2
        inside = (points[None] - centres[:, None]).abs().lt(half).all(-1).any(1)
        without.append(1 - inside.float().mean().item())
    found = TaskAligned(min_side=min_side).left_out(sizes, 8)
    assert found == pytest.approx(np.mean(without), abs=0.01)
    assert (found > 0.2) == (min_side < 16)


def test_no_boxes_are_all_met() -> None:
    assert TaskAligned().left_out(np.zeros((0, 2)), 8) == 0
