"""What one drawn picture promises: same bytes for the same seed, honest labels, enough of everything."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest

from anyolo.data.synth import NAMES, draw
from anyolo.errors import ConfigError


def _digest(picture: np.ndarray, labels: np.ndarray) -> str:
    return hashlib.sha256(picture.tobytes() + labels.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def samples() -> list[tuple[np.ndarray, np.ndarray]]:
    return [draw(3, "train", index) for index in range(40)]


def test_same_arguments_give_the_same_bytes_whatever_was_drawn_before_and_however_many_threads() -> None:
    first = _digest(*draw(5, "val", 7))
    draw(6, "train", 0)
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        assert _digest(*draw(5, "val", 7)) == first
    finally:
        cv2.setNumThreads(threads)


def test_seed_split_and_index_all_matter() -> None:
    keys = ((0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "train", 1))
    digests = {_digest(*draw(*key)) for key in keys}
    assert len(digests) == 4


def test_picture_and_labels_have_the_promised_form(samples: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for picture, labels in samples:
        assert picture.shape == (416, 416, 3) and picture.dtype == np.uint8 and picture.flags.c_contiguous
        assert labels.dtype == np.float32 and labels.shape[1] == 5
        assert 20 <= len(labels) <= 120


def test_counts_spread_and_classes_are_balanced(samples: list[tuple[np.ndarray, np.ndarray]]) -> None:
    counts = [len(labels) for _, labels in samples]
    assert min(counts) < 30 and max(counts) > 80
    classes = np.concatenate([labels[:, 0] for _, labels in samples]).astype(int)
    shares = np.bincount(classes, minlength=len(NAMES)) / len(classes)
    assert len(shares) == 4 and shares.min() > 0.17 and shares.max() < 0.33


def test_boxes_lie_inside_and_are_as_large_as_bulbs(samples: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for _, labels in samples:
        low, high = labels[:, 1:3] - labels[:, 3:] / 2, labels[:, 1:3] + labels[:, 3:] / 2
        assert low.min() > -1e-6 and high.max() < 1 + 1e-6
        whole = ((low > 1e-4) & (high < 1 - 1e-4)).all(1)
        sides = labels[whole, 3:] * 416
        assert sides.min() >= 9 and sides.max() <= 42
        assert (labels[:, 3:] * 416).min() >= 4


def test_bulbs_do_not_hide_each_other(samples: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for _, labels in samples:
        low, high = labels[:, 1:3] - labels[:, 3:] / 2, labels[:, 1:3] + labels[:, 3:] / 2
        both = np.clip(np.minimum(high[:, None], high) - np.maximum(low[:, None], low), 0, None).prod(2)
        np.fill_diagonal(both, 0)
        smaller = np.minimum(labels[:, 3:].prod(1)[:, None], labels[:, 3:].prod(1))
        assert (both / smaller).max() < 0.5


@pytest.mark.parametrize("size", [160, 321, 640])
def test_other_sizes(size: int) -> None:
    for index in range(6):
        picture, labels = draw(0, "train", index, size)
        assert picture.shape == (size, size, 3)
        assert 20 <= len(labels) <= 120


def test_most_bulbs_are_bright_and_their_class_is_written_in_their_colour(
    samples: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    """The strongest channel over a box is mostly that of its class, and white is pale."""
    right, total, pale = 0, 0, {0: [], 1: []}
    for picture, labels in samples:
        for number, cx, cy, width, height in labels:
            x1, y1 = (np.array((cx - width / 2, cy - height / 2)) * 416).round().astype(int)
            x2, y2 = (np.array((cx + width / 2, cy + height / 2)) * 416).round().astype(int)
            blue, green, red = picture[y1:y2, x1:x2].reshape(-1, 3).mean(0)
            spread = (max(blue, green, red) - min(blue, green, red)) / max(blue, green, red)
            pale[int(number > 0)].append(spread)
            if number:
                right += int(np.argmax((red, green, blue)) == number - 1)
                total += 1
            assert max(blue, green, red) > 80
    assert right / total > 0.9
    assert np.median(pale[0]) < 0.3 < 0.4 < np.median(pale[1])


def test_bad_requests_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="negative"):
        draw(-1, "train", 0)
    with pytest.raises(ConfigError, match="100 px"):
        draw(0, "train", 0, 100)
