"""Does the reopened artefact find what the model finds? Raw numbers first, final boxes second."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anyolo.export.base import Arrays, Images, Runner, Suppression
from anyolo.postprocess import postprocess
from anyolo.structures import Detections, Predictions

ENOUGH_BOXES = 20
BEST = 100
SUPPRESSION = "the decoded maps agree: the suppression differs first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Largest differences that count as equal. Box sides are allowed 1e-4 of their length if that is more."""

    box_px: float = 0.1
    score: float = 1e-3
    iou: float = 0.99
    unmatched: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """``candidates`` are the 100 best of every picture before suppression, regardless of confidence.

    ``boxes`` are the model's final ones, ``matched`` those of them the artefact has too, ``missing`` and
    ``extra`` those that only one side has although they score clearly above the threshold. ``is_conclusive``:
    enough was compared to tell; ``reasons`` say what differs, ``first_difference`` in which part of the
    model it begins, where that is known. ``mean_precision``: mAP50-95 of both on the user's data, if asked.
    """

    pictures: int
    candidates: int
    boxes: int
    matched: int
    missing: int
    extra: int
    max_box_error_px: float
    max_score_error: float
    is_conclusive: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()
    first_difference: str = ""
    mean_precision: Mapping[str, Any] | None = None

    @property
    def verified(self) -> bool:
        return self.is_conclusive and not self.reasons

    def to_json(self) -> dict[str, Any]:
        own = {**asdict(self), "reasons": list(self.reasons), "notes": list(self.notes)}
        return {"verified": self.verified, **own}


@dataclass(slots=True)
class Errors:
    """Largest differences so far. ``excess_px`` leaves out what the length of a box excuses."""

    box_px: float = 0.0
    excess_px: float = 0.0
    score: float = 0.0

    def within(self, tolerance: Tolerance) -> bool:
        return self.excess_px <= tolerance.box_px and self.score <= tolerance.score

    def add_boxes(self, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
        errors = np.abs(ours - theirs).max(1, initial=0)
        sides = np.abs(ours[:, 2:] - ours[:, :2]).max(1, initial=0)
        self.box_px = max(self.box_px, _largest(errors))
        self.excess_px = max(self.excess_px, _largest(np.maximum(errors - 1e-4 * sides, 0)))

    def add_scores(self, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
        self.score = max(self.score, _largest(ours - theirs))


@dataclass(slots=True)
class Matching:
    """Final boxes of two sides, paired by class, overlap and score."""

    tolerance: Tolerance
    boxes: int = 0
    matched: int = 0
    missing: int = 0
    extra: int = 0
    errors: Errors = field(default_factory=Errors)

    @property
    def is_exact(self) -> bool:
        return self.boxes > 0 and self.missing + self.extra == 0

    @property
    def agrees(self) -> bool:
        return self.missing + self.extra <= self.tolerance.unmatched * self.boxes

    def add(self, ours: Detections, theirs: Detections, clear: float) -> None:
        """Boxes that do not score above ``clear`` need no partner."""
        overlap = _iou(ours.boxes_xyxy, theirs.boxes_xyxy)
        alike = (ours.classes[:, None] == theirs.classes) & (overlap >= self.tolerance.iou)
        alike &= np.abs(ours.scores[:, None] - theirs.scores) <= self.tolerance.score
        taken = np.zeros(len(theirs), np.bool_)
        self.boxes += len(ours)
        for row, partners in enumerate(alike):
            free = np.flatnonzero(partners & ~taken)
            if not len(free):
                self.missing += bool(ours.scores[row] > clear)
                continue
            partner = free[overlap[row, free].argmax()]
            taken[partner] = True
            self.matched += 1
            self.errors.add_scores(ours.scores[row, None], theirs.scores[partner, None])
            self.errors.add_boxes(ours.boxes_xyxy[row, None], theirs.boxes_xyxy[partner, None])
        self.extra += int((theirs.scores[~taken] > clear).sum())


def compare(
    reference: Callable[[Images], Predictions],
    runner: Runner,
    batches: Iterable[Images],
    suppression: Suppression,
    *,
    inside: bool,
    tolerance: Tolerance,
) -> Verification:
    """Run both on every batch (B, C, H, W). ``inside`` says whether the artefact itself gives final boxes."""
    raw, is_same_shape, candidates, pictures = Errors(), True, 0, 0
    against_model, against_itself = Matching(tolerance), Matching(tolerance)
    for images in batches:
        expected, decoded = reference(images), runner.decoded(images)
        pictures += len(images)
        shown = None if decoded is None else to_predictions(decoded)
        if shown is not None:
            is_same_shape &= shown.boxes_xyxy.shape == expected.boxes_xyxy.shape
            is_same_shape &= shown.scores.shape == expected.scores.shape
            if not is_same_shape:
                break
            candidates += _compare_candidates(raw, expected, shown, suppression.conf)
        own = final_boxes(shown, suppression) if shown is not None else None
        found = [to_detections(rows) for rows in runner.run(images)[0]] if inside else own
        assert found is not None, "an artefact without boxes inside gives its decoded outputs"
        for ours, theirs in zip(final_boxes(expected, suppression), found, strict=True):
            against_model.add(ours, theirs, suppression.conf + tolerance.score)
        for ours, theirs in zip(own or [], found, strict=False):
            against_itself.add(ours, theirs, suppression.conf)
    reasons = _differences(raw, against_model, against_itself, is_same_shape, tolerance)
    maps_agree = candidates > 0 and is_same_shape and raw.within(tolerance)
    is_excused = not reasons and not against_model.agrees
    note = (
        f"{against_model.missing} of {against_model.boxes} boxes differ only because candidates "
        "with equal scores came in another order"
    )
    return Verification(
        pictures=pictures,
        candidates=candidates,
        boxes=against_model.boxes,
        matched=against_model.matched,
        missing=against_model.missing,
        extra=against_model.extra,
        max_box_error_px=max(raw.box_px, against_model.errors.box_px),
        max_score_error=max(raw.score, against_model.errors.score),
        is_conclusive=(against_model.matched if inside else candidates) >= ENOUGH_BOXES,
        reasons=reasons,
        notes=(note,) if is_excused else (),
        first_difference=SUPPRESSION if reasons and maps_agree else "",
    )


def _differences(
    raw: Errors, against_model: Matching, against_itself: Matching, is_same_shape: bool, tolerance: Tolerance
) -> tuple[str, ...]:
    """Why the artefact is not the model; empty where it is.

    Unmatched boxes are none where the artefact's decoded outputs agree with the model's, and exact
    suppression of them on the host gives just its boxes: then only the order of equal scores differs.
    """
    if not is_same_shape:
        return ("its outputs have other shapes than the model's",)
    reasons = []
    errors = [raw, against_model.errors]
    if max(e.excess_px for e in errors) > tolerance.box_px:
        reasons.append(f"boxes differ by up to {max(e.box_px for e in errors):.3g} px")
    if max(e.score for e in errors) > tolerance.score:
        reasons.append(f"scores differ by up to {max(e.score for e in errors):.3g}")
    if not against_model.agrees and (reasons or not against_itself.is_exact):
        reasons.append(
            f"of {against_model.boxes} boxes {against_model.missing} are missing, "
            f"and {against_model.extra} are extra"
        )
    return tuple(reasons)


def compare_suppression(
    runner: Runner, batches: Iterable[Images], suppression: Suppression, *, tolerance: Tolerance
) -> Matching:
    """The artefact's final boxes against exact suppression, on the host, of its own decoded outputs."""
    matching = Matching(tolerance)
    for images in batches:
        decoded = runner.decoded(images)
        if decoded is not None:
            own = final_boxes(to_predictions(decoded), suppression)
            for ours, rows in zip(own, runner.run(images)[0], strict=True):
                matching.add(ours, to_detections(rows), suppression.conf)
    return matching


def is_same(expected: Predictions, found: Predictions, tolerance: Tolerance) -> bool:
    """Whether the candidates of two sides agree."""
    if expected.boxes_xyxy.shape != found.boxes_xyxy.shape or expected.scores.shape != found.scores.shape:
        return False
    errors = Errors()
    _compare_candidates(errors, expected, found, 1.0)
    return errors.within(tolerance)


def confidence_of(predictions: Iterable[Predictions], rank: int) -> float:
    """The highest score that the ``rank``-th best candidate of any picture has."""
    best = [np.sort(_scores(p).max(2), axis=1)[:, ::-1] for p in predictions]
    return float(max(scores[:, min(rank, scores.shape[1]) - 1].max() for scores in best))


def to_predictions(decoded: Arrays) -> Predictions:
    """The decoded outputs of an artefact as the house's own structure."""
    boxes_xyxy, scores, *objectness = (torch.from_numpy(np.asarray(array)) for array in decoded)
    return Predictions(boxes_xyxy, scores, objectness[0] if objectness else None)


def to_detections(rows: NDArray[np.float32]) -> Detections:
    """Rows x1 y1 x2 y2 score class (max_det, 6) without their padding."""
    rows = rows[rows[:, 4] > 0]
    return Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))


def final_boxes(predictions: Predictions, suppression: Suppression) -> list[Detections]:
    """Exact suppression on the host, each box with its best class, as the predictor does it."""
    return postprocess(
        predictions,
        conf=suppression.conf,
        iou=suppression.iou,
        max_det=suppression.max_det,
        agnostic=suppression.agnostic,
        multi_label=False,
    )


def _compare_candidates(raw: Errors, expected: Predictions, found: Predictions, conf: float) -> int:
    """Every score; the boxes of all candidates above ``conf``, and of the best whatever they score."""
    ours, theirs = _scores(expected), _scores(found)
    raw.add_scores(ours, theirs)
    for scores, boxes, others in zip(
        ours, expected.boxes_xyxy.numpy(), found.boxes_xyxy.numpy(), strict=True
    ):
        best = scores.max(1)
        chosen = np.argsort(-best, kind="stable")[: max(BEST, int((best > conf).sum()))]
        raw.add_boxes(boxes[chosen], others[chosen])
    return sum(min(BEST, len(scores)) for scores in ours)


def _scores(predictions: Predictions) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = predictions.scores.numpy()
    return scores if predictions.objectness is None else scores * predictions.objectness.numpy()[..., None]


def _largest(values: NDArray[np.float32]) -> float:
    """Infinite where any value is not a number, so that no comparison lets it pass."""
    largest = float(np.abs(values).max(initial=0))
    return largest if np.isfinite(largest) else float("inf")


def _iou(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float32]:
    low = np.maximum(ours[:, None, :2], theirs[:, :2])
    high = np.minimum(ours[:, None, 2:], theirs[:, 2:])
    inter = np.maximum(high - low, 0).prod(2)
    areas = [np.maximum(b[:, 2:] - b[:, :2], 0).prod(1) for b in (ours, theirs)]
    iou: NDArray[np.float32] = inter / np.maximum(areas[0][:, None] + areas[1] - inter, 1e-9)
    return iou
