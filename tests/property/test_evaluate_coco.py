"""judge() against pycocotools on random data sets: crowd, ties, empty pictures, category gaps."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anyolo.data.index import AnnotationIndex, Item
from anyolo.evaluate import Evaluation, judge, metrics
from anyolo.structures import Detections

CATEGORY_IDS = (1, 2, 7, 90)
Row = dict[str, Any]


def random_set(seed: int) -> tuple[AnnotationIndex, dict[int | str, Detections], list[Row], list[Row]]:
    """The same pictures, objects and guesses twice: as anyolo holds them and as COCO's rows."""
    rng = np.random.default_rng(seed)
    pictures = int(rng.integers(1, 9))
    numbers = rng.permutation(1000)[:pictures].tolist()  # not in order: ties go by picture number
    used = rng.permutation(len(CATEGORY_IDS))[: rng.integers(1, 5)]
    score_steps = int(rng.choice([3, 1000]))
    items, found, truth, guesses = [], {}, [], []
    for number in numbers:
        height, width = (int(side) for side in rng.integers(200, 900, 2))
        count = int(rng.choice([0, 1, 5, 20]))
        boxes = _boxes(rng, count, width, height)
        classes, crowd = rng.choice(used, count), rng.random(count) < 0.15
        areas = (boxes[:, 2:].prod(1) * rng.uniform(0.4, 1, count)).astype(np.float32)
        size = np.array([width, height, width, height])
        centred = np.concatenate((boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]), 1) / size
        labels = np.concatenate((classes[:, None], centred), 1).astype(np.float32)
        items.append(Item(f"{number}.jpg", (height, width), labels, crowd, areas, number))
        for box, index, is_crowd, area in zip(boxes, classes, crowd, areas, strict=True):
            truth.append(_row(number, index, box, iscrowd=int(is_crowd), area=float(area), id=len(truth) + 1))
        if rng.random() < 0.2:
            continue  # a picture without detections
        copies = np.repeat(np.arange(count), rng.integers(0, 4, count))
        near = boxes[copies] + rng.normal(0, 1, (len(copies), 4)) * boxes[copies][:, [2, 3, 2, 3]] * 0.12
        guess = np.concatenate((near, _boxes(rng, int(rng.integers(0, 120)), width, height)))
        guess[:, 2:] = np.maximum(guess[:, 2:], 0.5)
        right = np.concatenate((classes[copies], rng.choice(used, len(guess) - len(copies))))
        wrong = rng.random(len(guess)) < 0.1
        guess_classes = np.where(wrong, rng.integers(0, len(CATEGORY_IDS), len(guess)), right)
        scores = (rng.integers(1, score_steps + 1, len(guess)) / score_steps).astype(np.float32)
        corners = np.concatenate((guess[:, :2], guess[:, :2] + guess[:, 2:]), 1).astype(np.float32)
        found[number] = Detections(corners, scores, guess_classes.astype(np.int64))
        guesses += [
            _row(number, index, box, score=float(score))
            for box, score, index in zip(guess, scores, guess_classes, strict=True)
        ]
    index = AnnotationIndex(tuple("abcd"), tuple(items), category_ids=CATEGORY_IDS)
    return index, found, truth, guesses


def _boxes(rng: np.random.Generator, count: int, width: int, height: int) -> NDArray[np.float64]:
    size = np.exp(rng.uniform(np.log(5), np.log(250), (count, 2)))
    return np.concatenate((rng.uniform(0, 1, (count, 2)) * (width, height) * 0.8, size), 1)


def _row(number: int, index: int, box: NDArray[np.float64], **more: Any) -> Row:
    return {"image_id": number, "category_id": CATEGORY_IDS[index], "bbox": box.tolist(), **more}


def by_pycocotools(index: AnnotationIndex, truth: list[Row], guesses: list[Row]) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO()
        true.dataset = {
            "info": {},
            "images": [{"id": item.image_id} for item in index.items],
            "categories": [{"id": number, "name": str(number)} for number in CATEGORY_IDS],
            "annotations": truth,
        }
        true.createIndex()
        own = COCOeval(true, true.loadRes(guesses), "bbox")
        own.evaluate()
        own.accumulate()
        own.summarize()
    return own


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_equal_to_pycocotools(seed: int) -> None:
    pytest.importorskip("pycocotools")
    index, found, truth, guesses = random_set(seed)
    if not guesses:
        return
    ours, theirs = judge(index, found), by_pycocotools(index, truth, guesses)
    expected = np.maximum(theirs.stats, 0)
    assert ours.metrics["mAP50-95"] == pytest.approx(expected[0], abs=1e-9)
    assert ours.metrics["mAP50"] == pytest.approx(expected[1], abs=1e-9)
    for size, value in zip(metrics.SIZES, theirs.stats[3:6], strict=True):
        own = ours.by_size[size]
        assert (-1 if own is None else own) == pytest.approx(value, abs=1e-9)
    table = theirs.eval["precision"][:, :, :, 0, 2]
    for row in ours.per_class:
        assert row.map50 == pytest.approx(table[0, :, row.index].mean(), abs=1e-9)
        assert row.map50_95 == pytest.approx(table[:, :, row.index].mean(), abs=1e-9)
    assert [row.index for row in ours.per_class] == np.flatnonzero(table[0, 0] > -1).tolist()
    _check_counts(ours, index)


def _check_counts(ours: Evaluation, index: AnnotationIndex) -> None:
    """Every object and every sure detection is in the confusion matrix once; curves stay in 0..1."""
    true = np.concatenate([item.labels[~item.crowd, 0] for item in index.items]).astype(int)
    assert ours.confusion[:, :-1].sum(0).tolist() == np.bincount(true, minlength=4).tolist()
    sure = np.concatenate([own.classes[own.scores > 0.25] for own in ours.found])
    counted = ours.confusion[:-1].sum(1)
    assert (counted <= np.bincount(sure, minlength=4)).all()
    if not any(item.crowd.any() for item in index.items):
        assert counted.tolist() == np.bincount(sure, minlength=4).tolist()
    for curve in (ours.curves.precision, ours.curves.recall, ours.curves.f1, ours.curves.precision_at_recall):
        assert curve.min(initial=0) >= 0 and curve.max(initial=0) <= 1
    assert (np.diff(ours.curves.recall) <= 1e-12).all()


def test_classes_are_judged_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    index, found, _, _ = random_set(7)
    whole = judge(index, found)
    monkeypatch.setattr(metrics, "CHUNK", 20)
    assert len(metrics._chunks(np.repeat([0, 1, 1, 3], 20), 4)) == 3
    parts = judge(index, found)
    assert parts.metrics == whole.metrics and parts.per_class == whole.per_class
