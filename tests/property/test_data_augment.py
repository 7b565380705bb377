"""Augmented boxes stay valid and stay on their objects, whatever the settings."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anyolo.config.schema import AugmentConfig
from anyolo.data.augment.colour import jitter_hsv
from anyolo.data.augment.geometry import MAX_ASPECT, MIN_SIDE, move_boxes, worth_keeping
from anyolo.data.augment.pipeline import Picture, Pipeline
from anyolo.data.labels import clip_labels
from anyolo.ops.letterbox import place

share = st.floats(0, 1)
configs = st.builds(
    AugmentConfig,
    degrees=st.sampled_from([0.0, 5.0, 180.0]),
    translate=share,
    scale=st.floats(0, 1.5),
    shear=st.sampled_from([0.0, 10.0, 60.0]),
    perspective=st.sampled_from([0.0, 0.0005, 0.001]),
    flipud=share,
    fliplr=share,
    bgr=share,
    mosaic=st.sampled_from([0.0, 0.5, 1.0]),
    mixup=st.sampled_from([0.0, 0.5]),
)
sizes = st.sampled_from([(64, 64), (64, 96), (160, 32), (320, 320)])
fits = st.sampled_from(["letterbox", "letterbox_topleft", "stretch"])


def make_pictures(
    rng: np.random.Generator, size_hw: tuple[int, int], fit: str, count: int = 5
) -> list[Picture]:
    """Grey pictures that fit the input, with rectangles of their own strong colour under every box."""
    pictures = []
    for number in range(count):
        shape = tuple(int(side) for side in rng.integers(1, 400, 2))
        height, width = place(shape, size_hw, fit=fit).inner_hw  # type: ignore[arg-type]
        pixels = np.full((height, width, 3), 60, np.uint8)
        labels = []
        if height >= 12 and width >= 12:
            # two boxes side by side, so that none hides another
            for part in range(2):
                left = part * width // 2
                x1, x2 = np.sort(rng.choice(np.arange(left, left + width // 2 + 1), 2, replace=False))
                y1, y2 = np.sort(rng.choice(np.arange(height + 1), 2, replace=False))
                kind = 2 * number + part
                pixels[y1:y2, x1:x2] = colour(kind)
                labels.append((kind, x1, y1, x2, y2))
        pictures.append((pixels, np.asarray(labels, np.float32).reshape(-1, 5)))
    return pictures


def colour(kind: int) -> tuple[int, int, int]:
    """Different for each kind, and far from the grey of pictures and padding."""
    return 250, 20 * kind, 255 - 25 * kind


@given(config=configs, size_hw=sizes, fit=fits, seed=st.integers(0, 2**32 - 1), mix=st.booleans())
def test_labels_stay_inside_and_valid(
    config: AugmentConfig, size_hw: tuple[int, int], fit: str, seed: int, mix: bool
) -> None:
    pictures = make_pictures(np.random.default_rng(seed), size_hw, fit)
    before = [(pixels.copy(), labels.copy()) for pixels, labels in pictures]
    pipeline = Pipeline(config, size_hw, fit, 114)  # type: ignore[arg-type]
    pixels, labels = pipeline(
        np.random.default_rng(seed), lambda k: pictures[k], 0, np.arange(len(pictures)), mix=mix
    )
    assert pixels.shape == (*size_hw, 3) and pixels.dtype == np.uint8
    assert labels.shape[1:] == (5,) and labels.dtype == np.float32 and np.isfinite(labels).all()
    low, high = labels[:, 1:3], labels[:, 3:]
    assert (low >= 0).all() and (high <= (size_hw[1], size_hw[0])).all()
    assert (high - low > MIN_SIDE * 0.999).all()
    assert ((high - low).max(1) / (high - low).min(1) < MAX_ASPECT).all() if len(labels) else True
    assert set(labels[:, 0]) <= set(range(2 * len(pictures)))
    for (own, rows), (pixels_before, rows_before) in zip(pictures, before, strict=True):
        assert np.array_equal(own, pixels_before) and np.array_equal(rows, rows_before)


@settings(max_examples=150)
@given(config=configs, size_hw=sizes, fit=fits, seed=st.integers(0, 2**32 - 1), mix=st.booleans())
def test_boxes_lie_where_the_pixels_are(
    config: AugmentConfig, size_hw: tuple[int, int], fit: str, seed: int, mix: bool
) -> None:
    """What is seen of each colour lies in its box, and the box is filled to within 2 pixels."""
    config = replace(config, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0, bgr=0.0, mixup=0.0)
    pictures = make_pictures(np.random.default_rng(seed), size_hw, fit)
    pool = np.arange(1, len(pictures))
    pipeline = Pipeline(config, size_hw, fit, 114)  # type: ignore[arg-type]
    pixels, labels = pipeline(np.random.default_rng(seed), lambda k: pictures[k], 0, pool, mix=mix)
    kinds, counts = np.unique(labels[:, 0], return_counts=True)
    for kind in kinds[counts == 1]:  # a picture may occur twice in a mosaic
        (x1, y1, x2, y2) = labels[labels[:, 0] == kind][0, 1:]
        alike = np.abs(pixels.astype(int) - colour(int(kind))).max(2) < 10
        near = _piece(alike, (y1 + y2) / 2, (x1 + x2) / 2)
        if near.sum() < 8 or not near.any(0).sum() > 2 or not near.any(1).sum() > 2:
            continue  # thinner than the interpolation
        columns, rows = np.flatnonzero(near.any(0)), np.flatnonzero(near.any(1))
        seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert (seen[:2] >= np.array([x1, y1]) - 2).all() and (seen[2:] <= np.array([x2, y2]) + 2).all()
        if not (config.degrees or config.shear or config.perspective):
            zoom = 1 + config.scale  # the blurred border of an enlarged rectangle
            assert np.abs(seen - (x1, y1, x2, y2)).max() <= 2 + zoom / 2


def _piece(alike: np.ndarray, row: float, column: float) -> np.ndarray:
    """The connected pixels nearest to a point; others may be the picture met again, its label too thin."""
    _, pieces = cv2.connectedComponents(alike.astype(np.uint8), connectivity=4)
    rows, columns = np.nonzero(alike)
    if not len(rows):
        return alike
    nearest = np.hypot(rows - row, columns - column).argmin()
    return np.asarray(pieces == pieces[rows[nearest], columns[nearest]])


@given(
    size_hw=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    input_hw=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    fit=fits,
    boxes=hnp.arrays(np.float32, (7, 4), elements=st.floats(0, 1, width=32)),
)
def test_letterbox_and_back(
    size_hw: tuple[int, int], input_hw: tuple[int, int], fit: str, boxes: np.ndarray
) -> None:
    placement = place(size_hw, (input_hw[0] * 32, input_hw[1] * 32), fit=fit)  # type: ignore[arg-type]
    boxes = np.sort(boxes.reshape(-1, 2, 2), 1).reshape(-1, 4) * np.array(
        [*size_hw[::-1], *size_hw[::-1]], np.float32
    )
    inside = placement.forward(boxes)
    assert (inside >= -1e-3).all()
    assert (inside <= np.array([*placement.input_hw[::-1]] * 2) + 1).all()
    tolerance = 1e-3 + 1e-5 * max(size_hw) / min(placement.gain_xy)
    assert np.abs(placement.inverse(inside, size_hw) - boxes).max() <= tolerance


@given(hnp.arrays(np.float64, (4, 5), elements=st.floats(0, 1)))
def test_clipped_labels_are_inside(table: np.ndarray) -> None:
    table[:, 3:] += 0.01
    clipped = clip_labels(table).astype(np.float64)
    low, high = clipped[:, 1:3] - clipped[:, 3:] / 2, clipped[:, 1:3] + clipped[:, 3:] / 2
    assert (low > -1e-6).all() and (high < 1 + 1e-6).all() and (clipped[:, 3:] > 0).all()


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.5))
def test_turned_boxes_hold_their_corners(seed: int, tilt: float) -> None:
    rng = np.random.default_rng(seed)
    boxes = np.sort(rng.uniform(0, 100, (5, 2, 2)), 1).reshape(-1, 4).astype(np.float32)
    matrix = np.eye(3)
    matrix[:2] = rng.uniform(-2, 2, (2, 3))
    matrix[2, :2] = tilt / 100
    moved = move_boxes(boxes, matrix)
    for box, own in zip(boxes, moved, strict=True):
        for x, y in [(box[0], box[1]), (box[2], box[1]), (box[0], box[3]), (box[2], box[3])]:
            point = matrix @ (x, y, 1)
            assert (point[:2] / point[2] >= own[:2] - 1e-2).all() and (
                point[:2] / point[2] <= own[2:] + 1e-2
            ).all()


def test_what_is_worth_keeping() -> None:
    before = np.array([[0, 0, 10, 10]] * 5, np.float32)
    after = np.array([[0, 0, 10, 10], [0, 0, 2, 10], [0, 0, 3, 3], [0, 0, 4, 4], [0, 0, 400, 3]], np.float32)
    assert worth_keeping(before, after).tolist() == [True, False, False, True, False]


@given(hnp.arrays(np.uint8, (6, 5, 3)), st.integers(0, 2**32 - 1), share, share, share)
def test_colour_jitter_keeps_grey_grey(
    pixels: np.ndarray, seed: int, hue: float, sat: float, val: float
) -> None:
    pixels[:2] = pixels[:2, :, :1]
    jitter_hsv(np.random.default_rng(seed), pixels, AugmentConfig(hsv_h=hue, hsv_s=sat, hsv_v=val))
    grey = pixels[:2].astype(int)
    assert (np.ptp(grey, axis=2) <= 1).all()


def test_colour_jitter_off_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)
    before = pixels.copy()
    jitter_hsv(np.random.default_rng(0), pixels, AugmentConfig(hsv_h=0, hsv_s=0, hsv_v=0))
    assert np.array_equal(pixels, before)


def test_hue_turns_all_the_way_round() -> None:
    """Red turned by a third is green or blue; tables that stop at the end of the scale would leave it red."""
    seen = set()
    for seed in range(40):
        pixels = np.full((2, 2, 3), (0, 0, 255), np.uint8)
        jitter_hsv(np.random.default_rng(seed), pixels, AugmentConfig(hsv_h=1, hsv_s=0, hsv_v=0))
        assert pixels[0, 0].max() == 255 and pixels[0, 0].min() <= 2
        seen.add(int(pixels[0, 0].argmax()))
    assert seen == {0, 1, 2}
