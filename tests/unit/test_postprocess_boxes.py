"""postprocess against the definition, written out with plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anyolo.errors import ModelError
from anyolo.ops.letterbox import place
from anyolo.ops.nms import graph_nms
from anyolo.postprocess import postprocess, to_picture
from anyolo.structures import Detections, ImageRecord, Predictions


def random_predictions(seed: int, *, objectness: bool, points: int = 60) -> Predictions:
    batch, nc = 2, 5
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 8, (batch, points, 2)) * 10
    boxes = np.concatenate((low, low + rng.integers(1, 5, (batch, points, 2)) * 10), -1)
    scores = rng.integers(0, 9, (batch, points, nc)) / 8  # many ties
    return Predictions(
        torch.from_numpy(boxes.astype(np.float32)),
        torch.from_numpy(scores.astype(np.float32)),
        torch.from_numpy(rng.integers(0, 5, (batch, points)).astype(np.float32) / 4) if objectness else None,
    )


def by_definition(
    predictions: Predictions,
    *,
    conf: float,
    iou: float,
    max_det: int,
    agnostic: bool,
    classes: list[int] | None,
    multi_label: bool,
) -> list[list[tuple[float, ...]]]:
    """Every box with every class, then the greedy loop."""
    answer = []
    for picture, boxes in enumerate(predictions.boxes_xyxy.tolist()):
        found = []
        for point, box in enumerate(boxes):
            scores = predictions.scores[picture, point]
            if predictions.objectness is not None:
                scores = scores * predictions.objectness[picture, point]
            labels = range(len(scores)) if multi_label else [int(np.argmax(scores.numpy()))]
            found += [
                (float(scores[k]), *box, k)
                for k in labels
                if scores[k] > conf and (classes is None or k in classes)
            ]
        found.sort(key=lambda row: -row[0])
        kept: list[tuple[float, ...]] = []
        for row in found:
            rivals = [k for k in kept if agnostic or k[5] == row[5]]
            if all(_iou(k[1:5], row[1:5]) <= iou for k in rivals):
                kept.append(row)
        answer.append(kept[:max_det])
    return answer


def _iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    inter = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def rows(detections: Detections) -> list[tuple[float, ...]]:
    return [
        (float(score), *map(float, box), int(index))
        for box, score, index in zip(
            detections.boxes_xyxy, detections.scores, detections.classes, strict=True
        )
    ]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    objectness=st.booleans(),
    multi_label=st.booleans(),
    agnostic=st.booleans(),
    classes=st.sampled_from([None, [], [0, 3], [4]]),
    conf=st.sampled_from([0.0, 0.25, 0.6]),
    iou=st.sampled_from([0.2, 0.45, 0.7]),
    max_det=st.sampled_from([1, 5, 300]),
    channel_first=st.booleans(),
)
def test_equals_the_definition(
    seed: int,
    objectness: bool,
    multi_label: bool,
    agnostic: bool,
    classes: list[int] | None,
    conf: float,
    iou: float,
    max_det: int,
    channel_first: bool,
) -> None:
    predictions = random_predictions(seed, objectness=objectness)
    if channel_first:  # the layout of heads that put classes before boxes: same values, other strides
        scores = predictions.scores.transpose(1, 2).contiguous().transpose(1, 2)
        predictions = Predictions(predictions.boxes_xyxy, scores, predictions.objectness)
    before = predictions.scores.clone(), predictions.boxes_xyxy.clone()
    options = {"conf": conf, "iou": iou, "max_det": max_det, "agnostic": agnostic}
    found = postprocess(predictions, classes=classes, multi_label=multi_label, **options)  # type: ignore[arg-type]
    expected = by_definition(predictions, classes=classes, multi_label=multi_label, **options)  # type: ignore[arg-type]
    assert [rows(d) for d in found] == expected
    assert torch.equal(before[0], predictions.scores) and torch.equal(before[1], predictions.boxes_xyxy)


def test_agrees_with_the_exported_suppression() -> None:
    """The graph takes every box with its best class: multi_label=False."""
    predictions = random_predictions(3, objectness=False, points=300)
    graph = graph_nms(
        predictions.boxes_xyxy, predictions.scores, conf=0.3, iou=0.5, max_det=50, max_candidates=300
    ).numpy()
    host = postprocess(predictions, conf=0.3, iou=0.5, max_det=50, multi_label=False)
    for own, found in zip(graph, host, strict=True):
        count = len(found)
        assert count > 5 and not own[count:].any()
        np.testing.assert_array_equal(own[:count, :4], found.boxes_xyxy)
        np.testing.assert_array_equal(own[:count, 4], found.scores)
        np.testing.assert_array_equal(own[:count, 5], found.classes)


def test_only_the_best_candidates_enter() -> None:
    boxes = torch.arange(50.0).view(1, 50, 1) * 20 + torch.tensor([0.0, 0.0, 10.0, 10.0])
    scores = (torch.arange(50) % 10).view(1, 50, 1) / 10 + 0.05
    (found,) = postprocess(Predictions(boxes, scores), conf=0.01, iou=0.5, max_det=300, max_candidates=7)
    assert found.boxes_xyxy[:, 0].tolist() == [180, 380, 580, 780, 980, 160, 360]  # of equal scores the first


def test_layouts_types_and_nothing() -> None:
    nothing = Predictions(torch.zeros(2, 0, 4), torch.zeros(2, 0, 3), torch.zeros(2, 0))
    for multi_label in (True, False):
        found = postprocess(nothing, conf=0.1, iou=0.5, max_det=5, multi_label=multi_label)
        weak = random_predictions(0, objectness=True)
        low = postprocess(weak, conf=1.0, iou=0.5, max_det=5, multi_label=multi_label)
        for own in (*found, *low):
            assert own.boxes_xyxy.shape == (0, 4) and len(own) == 0
            assert own.boxes_xyxy.dtype == own.scores.dtype == np.float32 and own.classes.dtype == np.int64
    half = random_predictions(0, objectness=True)
    half = Predictions(half.boxes_xyxy.half(), half.scores.half().requires_grad_(), half.objectness)
    assert postprocess(half, conf=0.1, iou=0.5, max_det=5)[0].scores.dtype == np.float32


def test_boxes_of_a_diverged_model_are_dropped() -> None:
    inf, nan = float("inf"), float("nan")
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, inf, 10], [nan, 0, 1, 1], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.5], [0.9], [0.9], [nan]]])
    (found,) = postprocess(Predictions(boxes, scores), conf=0.1, iou=0.5, max_det=5)
    assert found.boxes_xyxy.tolist() == [[0, 0, 10, 10]]


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match="do not belong together"):
        postprocess(Predictions(torch.zeros(1, 3, 4), torch.zeros(1, 4, 2)), conf=0.1, iou=0.5, max_det=5)


def test_back_to_the_picture() -> None:
    placement = place((480, 640), (320, 320))
    record = ImageRecord("a.jpg", (480, 640), placement)
    inside = np.array([[10, 20, 300, 400], [-5, 0, 640, 480]], np.float32)
    there = Detections(placement.forward(inside), np.array([0.9, 0.8], np.float32), np.array([1, 0]))
    back = to_picture(there, record)
    np.testing.assert_allclose(back.boxes_xyxy, [[10, 20, 300, 400], [0, 0, 640, 480]], atol=1e-4)
    assert back.scores is there.scores and back.classes.tolist() == [1, 0]
