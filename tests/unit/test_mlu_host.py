"""The host side in numpy against the house's own letterbox, decoding and suppression."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyolo.export.porting import host
from anyolo.ops.image import fit_image, to_network
from anyolo.ops.letterbox import place
from anyolo.ops.nms import host_nms
from anyolo.postprocess import postprocess
from anyolo.structures import Predictions, Preprocess

FITS: Any = ("letterbox", "letterbox_topleft", "stretch")
sides = st.integers(1, 2000)


@given(size=st.tuples(sides, sides), input=st.tuples(sides, sides), fit=st.sampled_from(FITS))
def test_a_picture_lies_where_the_house_puts_it(size: Any, input: Any, fit: Any) -> None:
    ours, theirs = place(size, input, fit=fit), host.place(size, input, fit)
    assert theirs == (ours.inner_hw, ours.gain_xy, ours.offset_xy)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(480, 640), (37, 91), (1080, 810), (64, 64), (5, 3)])
def test_pixels_differ_by_one_level_at_most(size: tuple[int, int], fit: Any) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    placed = place(size, (96, 160), fit=fit)
    for channels in ("rgb", "bgr"):
        ours = to_network(fit_image(picture, placed, pad_value=114), channels)
        theirs = host.to_planes(host.letterbox(picture, (96, 160), fit, 114), channels)
        assert ours.shape == theirs.shape and theirs.flags.c_contiguous
        assert np.abs(ours.astype(int) - theirs).max() <= 1
        assert (ours == theirs).mean() > 0.85  # of noise, the hardest there is


def test_normalisation() -> None:
    images = np.arange(48, dtype=np.uint8).reshape(1, 3, 4, 4)
    for preprocess in (Preprocess(), Preprocess(scale=1, mean=(1.0, 2.0, 3.0), std=(0.5, 1.0, 4.0))):
        ours = preprocess.normalise(torch.from_numpy(images)).numpy()
        theirs = host.normalise(images, preprocess.scale, preprocess.mean, preprocess.std)
        assert theirs.dtype == np.float32
        np.testing.assert_allclose(theirs, ours, rtol=1e-6)


def crowd(seed: int, count: int, kinds: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """(1, N, 4) overlapping boxes, some turned over, and (1, N, K) scores, many of them equal."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (1, count, 2))
    boxes = np.concatenate((low, low + rng.uniform(-2, 30, (1, count, 2))), 2).astype(np.float32)
    return boxes, (rng.integers(0, 20, (1, count, kinds)) / 20).astype(np.float32)


@given(st.integers(0, 10_000), st.integers(0, 120), st.sampled_from((0.0, 0.3, 0.7)), st.booleans())
def test_suppression_is_the_houses(seed: int, count: int, iou: float, agnostic: bool) -> None:
    boxes, scores = crowd(seed, count)
    classes = scores[0].argmax(1) if count else np.zeros(0, np.int64)
    best = scores[0].max(1) if count else np.zeros(0, np.float32)
    for most in (5, 300):
        ours = host_nms(boxes[0], best, classes, iou=iou, max_det=most, agnostic=agnostic)
        np.testing.assert_array_equal(host.suppress(boxes[0], best, classes, iou, most, agnostic), ours)


@given(st.integers(0, 10_000), st.integers(1, 120), st.booleans(), st.booleans())
def test_final_boxes_are_the_houses(seed: int, count: int, agnostic: bool, has_objectness: bool) -> None:
    boxes, scores = crowd(seed, count)
    boxes[0, 0] = np.nan
    objectness = np.random.default_rng(seed).uniform(0.2, 1, (1, count)).astype(np.float32)
    decoded = (boxes, scores, objectness) if has_objectness else (boxes, scores)
    wishes: Any = {"conf": 0.3, "iou": 0.5, "max_det": 20, "agnostic": agnostic}
    rows = host.final_boxes(decoded, **wishes)
    assert rows.shape == (1, 20, 6)
    (ours,) = postprocess(Predictions(*map(torch.from_numpy, decoded)), **wishes, multi_label=False)
    found = rows[0][rows[0, :, 4] > 0]
    np.testing.assert_array_equal(found[:, :4], ours.boxes_xyxy)
    np.testing.assert_array_equal(found[:, 4], ours.scores)
    np.testing.assert_array_equal(found[:, 5], ours.classes)


@pytest.mark.parametrize("fit", FITS)
def test_boxes_come_back_to_the_picture(fit: Any) -> None:
    rows = np.array([[10, 20, 60, 70, 0.9, 2], [-5, 0, 300, 300, 0.8, 0], [0, 0, 0, 0, 0, 0]], np.float32)
    found = host.to_picture(rows, (375, 500), (160, 224), fit)
    ours = place((375, 500), (160, 224), fit=fit).inverse(rows[:2, :4], (375, 500))
    np.testing.assert_allclose(found[:, :4], ours, rtol=1e-6)
    np.testing.assert_array_equal(found[:, 4:], rows[:2, 4:])


def test_many_candidates_are_cut_to_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores = crowd(1, 80)
    monkeypatch.setattr(host, "MOST_CANDIDATES", 30)
    found = host.final_boxes((boxes, scores), 0.1, 0.5, 60, False)[0]
    (ours,) = postprocess(
        Predictions(torch.from_numpy(boxes), torch.from_numpy(scores)),
        conf=0.1, iou=0.5, max_det=60, multi_label=False, max_candidates=30,
    )  # fmt: skip
    np.testing.assert_array_equal(found[found[:, 4] > 0][:, :4], ours.boxes_xyxy)


def test_no_overflow_in_the_curves() -> None:
    x = np.array([-1e4, -90, -5, 0, 5, 90, 1e4], np.float32)
    np.testing.assert_allclose(host.sigmoid(x), torch.from_numpy(x).sigmoid().numpy(), rtol=1e-6, atol=1e-37)
    np.testing.assert_allclose(host.softmax(x, -1), torch.from_numpy(x).softmax(-1).numpy(), rtol=1e-6)
