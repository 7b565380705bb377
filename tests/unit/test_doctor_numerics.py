"""The measures of difference, and the finding of the same boxes."""

from __future__ import annotations

import math

import pytest
import torch

from anyolo.audit.boxes import confidence, match
from anyolo.audit.numerics import TOLERANCES, describe, difference, distance
from anyolo.structures import Predictions

NAN, INF = math.nan, math.inf


def t(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize(
    "found, expected, error",
    [
        (t(1, 2, 4), t(1, 2, 4), 0),
        (t(1, 2, 4.4), t(1, 2, 4), 0.1),
        (t(1.4, 2, 4), t(1, 2, 4), 0.1),
        (t(0.25, 0), t(0, 0), 0.25),
        (t(1, NAN), t(1, 2), INF),
        (t(1, 2), t(1, NAN), INF),
        (t(1, 0), t(1, NAN), INF),
        (t(1, NAN), t(1, NAN), 0),
        (t(1, INF), t(1, INF), 0),
        (t(1, -INF), t(1, INF), INF),
        (t(), t(), 0),
        (t(1, 2), t(1, 2, 3), INF),
        (t(1, 2, dtype=torch.int64), t(1, 2, dtype=torch.int64), 0),
        (t(1, 3, dtype=torch.int64), t(1, 2, dtype=torch.int64), INF),
        (t(1, 0, dtype=torch.bool), t(1, 1, dtype=torch.bool), INF),
    ],
)
def test_difference(found, expected, error):
    assert difference(found, expected) == pytest.approx(error, rel=1e-5)


def test_distance_is_of_norms_and_knows_a_least_size():
    assert distance(t(3, 4), t(3, 4)) == 0
    assert distance(t(0, 0), t(3, 4)) == 1
    assert distance(t(3, 4.5), t(3, 4)) == pytest.approx(0.1)
    assert distance(t(1e-9), t(0), least=1e-3) == pytest.approx(1e-6)
    assert distance(t(0), t(0)) == 0
    assert distance(t(NAN), t(0)) == INF
    assert distance(t(1, 2), t(1)) == INF


def test_describe_names_the_worst_element():
    assert describe(t(1, 2.5), t(1, 2)) == "worst element 2.5 instead of 2"
    assert describe(t(1, NAN), t(1, 2)) == "1 of 2 elements are not finite"
    assert describe(t(1), t(1, 2)) == "shape (1,) instead of (2,)"
    a, b = t(1, 7, 3, dtype=torch.int64), t(1, 2, 4, dtype=torch.int64)
    assert describe(a, b) == "2 of 3 elements differ; worst element 7 instead of 2"


def test_tolerances_have_reasons_and_grow_with_the_step_of_the_type():
    for dtype, tolerance in TOLERANCES.items():
        step = torch.finfo(dtype).eps
        assert step < tolerance.operator < 400 * step
        assert tolerance.operator < tolerance.network
        assert tolerance.reason


def predictions(shift=0.0, scores=(0.9, 0.8, 0.3)):
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 40, 40], [50, 0, 60, 10]]]) + shift
    return Predictions(boxes, torch.tensor(scores).view(1, 3, 1).float())


def matched(found, **options):
    return match(predictions(), found, **{"conf": 0.25, "min_iou": 0.99, "score_share": 1e-3, **options})


def test_the_same_boxes_match():
    assert matched(predictions()) == (3, 3, 0)
    assert matched(predictions(shift=0.001)).alone == 0


def test_moved_and_missing_boxes_stand_alone():
    assert matched(predictions(shift=1.0)) == (3, 0, 6)
    assert matched(predictions(scores=(0.9, 0.8, 0.1))) == (3, 2, 1)
    assert matched(predictions(scores=(0.9, 0.7, 0.3))) == (3, 2, 2)


def test_a_box_at_the_threshold_needs_no_partner():
    found = predictions(scores=(0.9, 0.8, 0.2501))
    assert (
        match(predictions(scores=(0.9, 0.8, 0.2499)), found, conf=0.25, min_iou=0.99, score_share=1e-3).alone
        == 0
    )


def test_confidence_lets_some_candidates_pass():
    many = Predictions(
        torch.zeros(2, 100, 4), torch.linspace(0, 1, 100).view(1, 100, 1).expand(2, -1, 3).clone()
    )
    assert confidence(many) == pytest.approx(60 / 99)
    assert confidence(predictions()) == pytest.approx(0.3)
