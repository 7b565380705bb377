"""Anchors: what holds for any boxes and any anchors."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anyolo.data.anchorfit import SMALLEST_SIDE, closeness, fit_anchors, score_anchors

sides = st.floats(0.5, 2000)
sizes = st.integers(1, 60).flatmap(lambda n: arrays(np.float64, (n, 2), elements=sides))
anchors = st.integers(1, 9).flatmap(lambda n: arrays(np.float64, (n, 2), elements=sides))
thresholds = st.floats(1.1, 10)


@given(sizes, anchors, thresholds)
def test_a_score_is_what_its_words_say(sizes, anchors, threshold):
    score = score_anchors(sizes, anchors, threshold)
    ratios = sizes[:, None] / anchors[None]
    worst = np.maximum(ratios, 1 / ratios).max(2)
    near_edge = np.abs(worst - threshold) < 1e-9 * threshold
    if not near_edge.any():
        assert score.recall == (worst < threshold).any(1).mean()
        assert score.anchors_per_box == (worst < threshold).sum(1).mean()
    assert np.allclose(closeness(sizes, anchors), 1 / worst.min(1))
    assert 0 <= score.recall / threshold - 1e-12 <= score.fitness <= score.recall + 1e-12 or score.recall == 0


@given(sizes, anchors, thresholds, st.floats(0.1, 10))
def test_only_ratios_matter_and_both_sides_alike(sizes, anchors, threshold, factor):
    found = closeness(sizes, anchors)
    assert np.allclose(closeness(sizes * factor, anchors * factor), found)
    assert np.allclose(closeness(sizes[:, ::-1], anchors[:, ::-1]), found)


@given(sizes, anchors, anchors, thresholds)
def test_more_anchors_never_fit_worse(sizes, some, more, threshold):
    few = score_anchors(sizes, some, threshold)
    many = score_anchors(sizes, np.concatenate((some, more)), threshold)
    assert many.recall >= few.recall and many.fitness >= few.fitness - 1e-12
    assert many.anchors_per_box >= few.anchors_per_box


@settings(max_examples=25)
@given(sizes, st.integers(1, 9), thresholds, st.integers(0, 3))
def test_a_fit_is_complete_sorted_and_the_same_again(sizes, count, threshold, seed):
    fitted = fit_anchors(sizes, count, threshold, seed=seed, generations=30)
    assert fitted.shape == (count, 2) and np.isfinite(fitted).all() and fitted.min() >= SMALLEST_SIDE
    assert (np.diff(fitted.prod(1)) >= 0).all()
    assert np.array_equal(fitted, fit_anchors(sizes, count, threshold, seed=seed, generations=30))
