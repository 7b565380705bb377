"""Does the reopened artefact find what the model finds? Raw numbers first, final boxes second."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anyolo.export.base import Arrays, Images, Runner, Suppression
from anyolo.postprocess import postprocess
from anyolo.structures import Detections, Predictions

ENOUGH_BOXES = 20
BEST = 100


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
    enough was compared to tell; ``reasons`` say what differs.
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

    @property
    def verified(self) -> bool:
        return self.is_conclusive and not self.reasons

    def to_json(self) -> dict[str, Any]:
        own = {**asdict(self), "reasons": list(self.reasons), "notes": list(self.notes)}
        return {"verified": self.verified, **own}


@dataclass(slots=True)
class _Tally:
    pictures: int = 0
    candidates: int = 0
    boxes: int = 0
    matched: int = 0
    missing: int = 0
    extra: int = 0
    box_px: float = 0.0
    excess_px: float = 0.0
    score: float = 0.0
    broken: bool = False


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
    tally = _Tally()
    for images in batches:
        expected = reference(images)
        decoded = runner.decoded(images)
        tally.pictures += len(images)
        if decoded is not None:
            _compare_candidates(tally, expected, decoded)
        if inside:
            found = [to_detections(rows) for rows in runner.run(images)[0]]
        else:
            found = _final(to_predictions(decoded or runner.run(images)), suppression)
        for ours, theirs in zip(_final(expected, suppression), found, strict=True):
            _compare_boxes(tally, ours, theirs, suppression.conf + tolerance.score, tolerance)
    return _judge(tally, tolerance, tally.matched if inside else tally.candidates)


def compare_suppression(
    runner: Runner, batches: Iterable[Images], suppression: Suppression, *, tolerance: Tolerance
) -> Verification:
    """The artefact's final boxes against exact suppression, on the host, of its own decoded outputs.

    Both start from the same numbers, so that near-equal scores of an unsure model cannot change the order.
    """
    tally = _Tally()
    for images in batches:
        decoded = runner.decoded(images)
        tally.pictures += len(images)
        if decoded is not None:
            found = (to_detections(rows) for rows in runner.run(images)[0])
            for ours, theirs in zip(_final(to_predictions(decoded), suppression), found, strict=True):
                _compare_boxes(tally, ours, theirs, suppression.conf, tolerance)
    return _judge(tally, tolerance, tally.matched)


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


def _final(predictions: Predictions, suppression: Suppression) -> list[Detections]:
    return postprocess(
        predictions,
        conf=suppression.conf,
        iou=suppression.iou,
        max_det=suppression.max_det,
        agnostic=suppression.agnostic,
        multi_label=False,
    )


def _compare_candidates(tally: _Tally, expected: Predictions, decoded: Arrays) -> None:
    """Every score, and the boxes of the best candidates, point by point."""
    found = to_predictions(decoded)
    if expected.boxes_xyxy.shape != found.boxes_xyxy.shape or expected.scores.shape != found.scores.shape:
        tally.broken = True
        return
    ours, theirs = _scores(expected), _scores(found)
    best = np.argsort(-ours.max(2), axis=1, kind="stable")[:, :BEST, None]
    boxes = np.take_along_axis(expected.boxes_xyxy.numpy(), best, 1)
    others = np.take_along_axis(found.boxes_xyxy.numpy(), best, 1)
    tally.candidates += best.size
    tally.score = max(tally.score, _largest(ours - theirs))
    _note_box_errors(tally, boxes.reshape(-1, 4), others.reshape(-1, 4))


def _scores(predictions: Predictions) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = predictions.scores.numpy()
    return scores if predictions.objectness is None else scores * predictions.objectness.numpy()[..., None]


def _note_box_errors(tally: _Tally, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    errors = np.abs(ours - theirs).max(1, initial=0)
    sides = np.abs(ours[:, 2:] - ours[:, :2]).max(1, initial=0)
    tally.box_px = max(tally.box_px, _largest(errors))
    tally.excess_px = max(tally.excess_px, _largest(np.maximum(errors - 1e-4 * sides, 0)))


def _largest(values: NDArray[np.float32]) -> float:
    """Infinite where any value is not a number, so that no comparison lets it pass."""
    largest = float(np.abs(values).max(initial=0))
    return largest if np.isfinite(largest) else float("inf")


def _compare_boxes(
    tally: _Tally, ours: Detections, theirs: Detections, clear: float, tolerance: Tolerance
) -> None:
    """Pair boxes of one class by overlap. Boxes that do not score above ``clear`` need no partner."""
    overlap = _iou(ours.boxes_xyxy, theirs.boxes_xyxy)
    alike = (ours.classes[:, None] == theirs.classes) & (overlap >= tolerance.iou)
    alike &= np.abs(ours.scores[:, None] - theirs.scores) <= tolerance.score
    taken = np.zeros(len(theirs), np.bool_)
    tally.boxes += len(ours)
    for row, partners in enumerate(alike):
        free = np.flatnonzero(partners & ~taken)
        if len(free):
            partner = free[overlap[row, free].argmax()]
            taken[partner] = True
            tally.matched += 1
            tally.score = max(tally.score, float(abs(ours.scores[row] - theirs.scores[partner])))
            _note_box_errors(tally, ours.boxes_xyxy[row, None], theirs.boxes_xyxy[partner, None])
        else:
            tally.missing += bool(ours.scores[row] > clear)
    tally.extra += int((theirs.scores[~taken] > clear).sum())


def _iou(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float32]:
    low = np.maximum(ours[:, None, :2], theirs[:, :2])
    high = np.minimum(ours[:, None, 2:], theirs[:, 2:])
    inter = np.maximum(high - low, 0).prod(2)
    areas = [np.maximum(b[:, 2:] - b[:, :2], 0).prod(1) for b in (ours, theirs)]
    iou: NDArray[np.float32] = inter / np.maximum(areas[0][:, None] + areas[1] - inter, 1e-9)
    return iou


def _judge(tally: _Tally, tolerance: Tolerance, compared: int) -> Verification:
    reasons = []
    if tally.broken:
        reasons.append("its outputs have other shapes than the model's")
    if tally.excess_px > tolerance.box_px:
        reasons.append(f"boxes differ by up to {tally.box_px:.3g} px")
    if tally.score > tolerance.score:
        reasons.append(f"scores differ by up to {tally.score:.3g}")
    if tally.missing + tally.extra > tolerance.unmatched * tally.boxes:
        reasons.append(f"of {tally.boxes} boxes {tally.missing} are missing, and {tally.extra} are extra")
    return Verification(
        pictures=tally.pictures,
        candidates=tally.candidates,
        boxes=tally.boxes,
        matched=tally.matched,
        missing=tally.missing,
        extra=tally.extra,
        max_box_error_px=tally.box_px,
        max_score_error=tally.score,
        is_conclusive=compared >= ENOUGH_BOXES,
        reasons=tuple(reasons),
    )
