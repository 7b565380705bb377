"""The judge of artefacts, judged: it must see every difference and excuse only the order of equal scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from anyolo.export.base import Arrays, Images, Suppression
from anyolo.export.compare import Tolerance, compare, final_boxes, to_predictions
from anyolo.structures import Predictions

RULES = Suppression(conf=0.25, iou=0.5, max_det=300)
BATCHES = [np.full((2, 3, 8, 8), number, np.uint8) for number in range(2)]


def decoded(images: Images, *, top: float = 0.9) -> Arrays:
    """30 boxes far apart, a duplicate of each, and a hundred unsure ones."""
    rng = np.random.default_rng(int(images[0, 0, 0, 0]))
    count = len(images)
    corners = np.stack(np.meshgrid(np.arange(6) * 100.0, np.arange(5) * 100.0), -1).reshape(-1, 2)
    corners = np.concatenate((corners, corners + 2, rng.uniform(0, 500, (100, 2))))
    boxes = np.concatenate((corners, corners + 60), 1)[None].repeat(count, 0).astype(np.float32)
    scores = np.zeros((count, 160, 3), np.float32)
    scores[:, :30, 1] = np.linspace(0.3, top, 30)
    scores[:, 30:60, 1] = np.linspace(0.28, top - 0.1, 30)
    scores[:, 60:, 2] = np.linspace(0.001, 0.2, 100)
    return boxes, scores


class FakeRunner:
    """An artefact: ``change`` spoils its decoded maps, ``after`` its boxes; ``shows`` those maps or not."""

    metadata: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        change: Callable[[Arrays], Arrays] = lambda arrays: arrays,
        after: Callable[[np.ndarray], np.ndarray] = lambda rows: rows,
        *,
        shows: bool = True,
    ) -> None:
        self.change, self.after, self.shows = change, after, shows

    def decoded(self, images: Images) -> Arrays | None:
        return self.change(decoded(images)) if self.shows else None

    def run(self, images: Images) -> Arrays:
        rows = np.zeros((len(images), RULES.max_det, 6), np.float32)
        for row, found in zip(
            rows, final_boxes(to_predictions(self.change(decoded(images))), RULES), strict=True
        ):
            row[: len(found)] = np.column_stack((found.boxes_xyxy, found.scores, found.classes))
        return (self.after(rows),)


def reference(images: Images) -> Predictions:
    return to_predictions(decoded(images))


def verdict(runner: FakeRunner, model: Callable[[Images], Predictions] = reference) -> Any:
    return compare(model, runner, BATCHES, RULES, inside=True, tolerance=Tolerance())


def moved(by: float, at: int) -> Callable[[Arrays], Arrays]:
    def change(arrays: Arrays) -> Arrays:
        boxes, scores = (array.copy() for array in arrays)
        boxes[:, at, 0] += by
        return boxes, scores

    return change


def rescored(by: float, at: int, to: int = 1) -> Callable[[Arrays], Arrays]:
    def change(arrays: Arrays) -> Arrays:
        boxes, scores = (array.copy() for array in arrays)
        scores[:, at, to] += by
        return boxes, scores

    return change


def cut(rows: np.ndarray) -> np.ndarray:
    return np.concatenate((rows[:, 2:], np.zeros_like(rows[:, :2])), 1)


def doubled(rows: np.ndarray) -> np.ndarray:
    rows[:, 40] = rows[:, 0]
    return rows


def test_the_same_passes() -> None:
    found = verdict(FakeRunner())
    assert found.verified and found.reasons == () and found.notes == ()
    assert (found.pictures, found.boxes, found.matched, found.missing, found.extra) == (4, 120, 120, 0, 0)
    assert found.candidates == 400 and found.max_box_error_px == 0 and found.max_score_error == 0
    assert found.to_json()["verified"] is True


def test_rounding_passes_and_is_reported() -> None:
    found = verdict(FakeRunner(moved(0.01, 3)))
    assert found.verified and found.max_box_error_px == pytest.approx(0.01, abs=1e-4)
    found = verdict(FakeRunner(rescored(2e-4, 70, 2)))
    assert found.verified and found.max_score_error == pytest.approx(2e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("runner", "reason"),
    [
        (FakeRunner(moved(0.5, 3)), "boxes differ by up to 0.5"),
        (FakeRunner(moved(0.5, 3), shows=False), "boxes differ by up to 0.5"),
        (FakeRunner(moved(20, 3), shows=False), "missing"),
        (FakeRunner(moved(3, 159)), "boxes differ"),  # a candidate far below the threshold
        (FakeRunner(rescored(0.01, 0)), "scores differ by up to 0.01"),
        (FakeRunner(rescored(0.01, 61, 0)), "scores differ"),  # a class nobody would ask for
        (FakeRunner(after=cut), "8 are missing"),
        (FakeRunner(after=doubled), "4 are extra"),
        (FakeRunner(after=lambda rows: rows[..., [1, 0, 3, 2, 4, 5]]), "missing"),
        (FakeRunner(after=lambda rows: rows + np.float32([0, 0, 0, 0, 0, 1])), "missing"),
        (FakeRunner(lambda arrays: (arrays[0] * np.float32("nan"), arrays[1])), "boxes differ by up to inf"),
        (FakeRunner(lambda arrays: (arrays[0][:, 1:], arrays[1][:, 1:])), "other shapes"),
    ],
    ids=range(12),
)
def test_what_differs_fails_and_says_how(runner: FakeRunner, reason: str) -> None:
    found = verdict(runner)
    assert not found.verified and reason in "; ".join(found.reasons)


def test_too_few_boxes_are_no_proof() -> None:
    def shy(arrays: Arrays) -> Arrays:
        return arrays[0], np.minimum(arrays[1], 0.2)

    found = verdict(FakeRunner(shy, shows=False), lambda images: to_predictions(shy(decoded(images))))
    assert found.boxes == 0 and found.reasons == ()
    assert not found.is_conclusive and not found.verified


def test_another_order_of_equal_scores_is_no_difference() -> None:
    """Twins that suppress each other and score alike but for the last digit: either may win."""

    def twins(arrays: Arrays, better: int) -> Arrays:
        boxes, scores = (array.copy() for array in arrays)
        for first in (0, 30):
            scores[:, first : first + 10, 1] = 0.9 + 1e-6 * (first == better)
        return boxes, scores

    def model(images: Images) -> Predictions:
        return to_predictions(twins(decoded(images), 0))

    found = verdict(FakeRunner(lambda arrays: twins(arrays, 30)), model)
    assert (
        found.verified
        and (found.matched, found.missing, found.extra) == (80, 40, 40)
        and "another order" in found.notes[0]
    )
    hidden = verdict(FakeRunner(lambda arrays: twins(arrays, 30), shows=False), model)
    assert not hidden.verified
    spoilt = verdict(FakeRunner(lambda arrays: twins(arrays, 30), after=cut), model)
    assert not spoilt.verified
