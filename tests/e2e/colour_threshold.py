"""The strongest simple rival of a detector on bulb pictures: thresholds on colour and brightness.

Two ways of cutting spots out of a picture: bright cores with the colour read off the ring around them, and a
mask of hue, saturation and brightness per class, holes filled. Each is followed by connected components,
an area filter, a fitted box (scaled, or of fixed size) and a score (area, contrast, roundness ...). Every
setting is tried on the training pictures and the best is kept for each class separately.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

Samples = Sequence[tuple[np.ndarray, np.ndarray]]
"""Pictures HWC BGR with labels (n, 5) class cx cy w h, as ``synth.draw`` gives them."""

HUES = {1: 0.0, 2: 120.0, 3: 240.0}
SCALES = tuple((scale, margin) for scale in (0.7, 1.0, 1.3, 1.7, 2.2) for margin in (0.0, 2.0, 5.0))
BOXES = SCALES + tuple((0.0, side) for side in (10.0, 12.0, 15.0, 20.0))
"""Scale and margin of the component's rectangle; scale 0 is a square of fixed side."""
AREAS = (3, 12, 30, 70)
SCORES = ("area", "small", "bright", "contrast", "round", "ring", "size_x_contrast")


@dataclass(frozen=True)
class Setting:
    """What is tuned for one class."""

    cut: tuple[Any, ...]
    area: int
    box: tuple[float, float]
    score: str


@dataclass(frozen=True)
class Spots:
    """Components of one picture taken for one class: rectangles (n, 4) xyxy, centres and features."""

    rectangles: np.ndarray
    centres: np.ndarray
    features: dict[str, np.ndarray]

    def boxes(self, box: tuple[float, float]) -> np.ndarray:
        scale, margin = box
        low, high = self.rectangles[:, :2], self.rectangles[:, 2:]
        centre, half = (low + high) / 2, (high - low) / 2 * scale + margin / 2
        if scale == 0:
            centre = self.centres
        return np.concatenate((centre - half, centre + half), 1)


ALL = (
    *itertools.product(("core",), (170, 200, 225, 240, 252), (2, 4), (0.12, 0.2, 0.3)),
    *itertools.product(("hue",), (60, 110, 160, 200), (110, 160, 210, 245), (25, 45), (0, 3)),
)
"""("core", level, ring width, white below this saturation) and ("hue", s, v, hue width, closing)."""
COARSE = (
    *itertools.product(("core",), (200, 240), (2,), (0.12, 0.2, 0.3)),
    *itertools.product(("hue",), (110, 200), (160, 210), (45,), (0,)),
)


def spots(picture: np.ndarray, cut: tuple[Any, ...]) -> dict[int, Spots]:
    """Class -> spots of one picture, for one way of cutting."""
    return _core_spots(picture, *cut[1:]) if cut[0] == "core" else _hue_spots(picture, *cut[1:])


def _core_spots(picture: np.ndarray, level: int, ring: int, pale: float) -> dict[int, Spots]:
    mask = (picture.min(2) >= level).astype(np.uint8)
    found, colour = _measure(picture, mask, ring)
    value, low = colour.max(1), colour.min(1)
    hue = _hue(colour)
    kinds = np.zeros(len(colour), np.int64)
    for number, degrees in HUES.items():
        kinds[_turn(hue - degrees) <= 60] = number
    kinds[(value - low) < pale * np.maximum(value, 1)] = 0
    return {number: _pick(found, kinds == number) for number in range(4)}


def _hue_spots(
    picture: np.ndarray, saturation: int, value: int, width: int, closing: int
) -> dict[int, Spots]:
    hsv = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)
    hue, depth, bright = hsv[..., 0].astype(np.float32) * 2, hsv[..., 1], hsv[..., 2]
    result = {}
    for number in range(4):
        if number == 0:
            mask = (depth <= 255 - saturation) & (bright >= value) & (picture.min(2) >= value - 40)
        else:
            mask = (_turn(hue - HUES[number]) <= width) & (depth >= saturation) & (bright >= value)
        mask = mask.astype(np.uint8)
        if closing:
            mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((closing, closing), np.uint8))
        outer, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        filled = cv2.drawContours(np.zeros_like(mask), outer, -1, 1, cv2.FILLED)
        found, _ = _measure(picture, filled, 3)
        result[number] = _pick(found, np.ones(len(found.rectangles), bool))
    return result


def _measure(picture: np.ndarray, mask: np.ndarray, ring: int) -> tuple[Spots, np.ndarray]:
    """Components of a mask with their features, and the mean colour (n, 3) in a ring around each."""
    count, labels, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
    around = cv2.dilate(labels.astype(np.uint16), np.ones((2 * ring + 1,) * 2, np.uint8)).astype(np.int32)
    near, within = np.flatnonzero(around.ravel() * (labels.ravel() == 0)), np.flatnonzero(labels)
    owner, own = around.ravel()[near], labels.ravel()[within]
    pixels = np.maximum(np.bincount(owner, minlength=count), 1)[1:]
    nearby = picture.reshape(-1, 3)[near]
    colour = np.stack([np.bincount(owner, nearby[:, c], minlength=count)[1:] / pixels for c in range(3)], 1)
    area = stats[1:, cv2.CC_STAT_AREA].astype(np.float32)
    inner = np.bincount(own, picture.reshape(-1, 3)[within].max(1), minlength=count)[1:] / np.maximum(area, 1)
    outer = np.bincount(owner, nearby.max(1), minlength=count)[1:] / pixels
    left, top, width, height = (stats[1:, i].astype(np.float32) for i in range(4))
    fill = area / np.maximum(width * height, 1)
    evenness = np.minimum(width, height) / np.maximum(np.maximum(width, height), 1)
    features = {
        "area": area,
        "small": -area,
        "bright": inner,
        "contrast": inner - outer,
        "round": evenness * fill,
        "ring": colour.max(1) - colour.min(1) if count > 1 else area,
        "size_x_contrast": np.sqrt(area) * np.maximum(inner - outer, 0) * evenness,
    }
    rectangles = np.stack((left, top, left + width, top + height), 1)
    return Spots(rectangles, centres[1:].astype(np.float32), features), colour


def _pick(found: Spots, keep: np.ndarray) -> Spots:
    features = {name: values[keep] for name, values in found.features.items()}
    return Spots(found.rectangles[keep], found.centres[keep], features)


def _turn(degrees: np.ndarray) -> np.ndarray:
    return np.abs((degrees + 180) % 360 - 180)


def _hue(colour_bgr: np.ndarray) -> np.ndarray:
    blue, green, red = colour_bgr.T
    return np.rad2deg(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)) % 360


def tune(samples: Samples, cuts: Sequence[tuple[Any, ...]] = ALL) -> dict[int, Setting]:
    """Best setting per class by average precision at 0.5: every cut, then box, area and score in turn."""
    truth = [_truth(picture, labels) for picture, labels in samples]
    best = dict.fromkeys(range(4), (-1.0, Setting(("core", 200, 2, 0.2), 3, (1.0, 0.0), "area")))
    for cut in cuts:
        cut_out = [spots(picture, cut) for picture, _ in samples]
        for number in range(4):
            trial = _Trial([one[number] for one in cut_out], [one[number] for one in truth])
            setting = Setting(cut, AREAS[0], SCALES[4], "ring")
            for _ in range(2):
                setting = max((replace(setting, box=box) for box in BOXES), key=trial.precision)
                options = itertools.product(AREAS, SCORES)
                setting = max(
                    (replace(setting, area=area, score=s) for area, s in options), key=trial.precision
                )
            best[number] = max(best[number], (trial.precision(setting), setting), key=lambda pair: pair[0])
    return {number: setting for number, (_, setting) in best.items()}


class _Trial:
    """Average precision of settings that share the spots of one class."""

    def __init__(self, found: list[Spots], truth: list[np.ndarray]) -> None:
        self.found, self.truth = found, truth
        self.features = {name: np.concatenate([one.features[name] for one in found]) for name in SCORES}
        self.targets: dict[tuple[float, float], np.ndarray] = {}

    def precision(self, setting: Setting) -> float:
        """Each truth is found by its best scored spot with IoU >= 0.5; 101-point interpolated precision."""
        keep = self.features["area"] >= setting.area
        order = np.argsort(-self.features[setting.score][keep], kind="stable")
        target = self._targets(setting.box)[keep][order]
        _, first = np.unique(target, return_index=True)
        hits = np.zeros(len(target), bool)
        hits[first] = True
        hits[target < 0] = False
        count = sum(len(one) for one in self.truth)
        if not hits.any():
            return 0.0
        right = np.cumsum(hits)
        precision = np.maximum.accumulate((right / np.arange(1, len(right) + 1))[::-1])[::-1]
        reached = np.searchsorted(right / count, np.linspace(0, 1, 101))
        return float(np.append(precision, 0.0)[np.minimum(reached, len(precision))].mean())

    def _targets(self, box: tuple[float, float]) -> np.ndarray:
        """For each spot the number of the truth it covers, or -1."""
        if box not in self.targets:
            start, targets = 0, []
            for one, truth in zip(self.found, self.truth, strict=True):
                overlap = _iou(one.boxes(box), truth)
                hit = overlap.max(1, initial=0) >= 0.5
                targets.append(np.where(hit, start + (overlap.argmax(1) if len(truth) else 0), -1))
                start += len(truth)
            self.targets[box] = np.concatenate(targets)
        return self.targets[box]


def detect(picture: np.ndarray, settings: dict[int, Setting]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes xyxy, scores and classes of one picture."""
    boxes, scores, classes = [np.zeros((0, 4))], [np.zeros(0)], [np.zeros(0, np.int64)]
    for number, setting in settings.items():
        found = spots(picture, setting.cut)[number]
        keep = found.features["area"] >= setting.area
        boxes.append(found.boxes(setting.box)[keep])
        scores.append(found.features[setting.score][keep])
        classes.append(np.full(int(keep.sum()), number))
    return np.concatenate(boxes), np.concatenate(scores), np.concatenate(classes)


def easy_picture(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Forty bright discs in pure colours on dark grey: what thresholds are made for."""
    rng = np.random.default_rng(index)
    picture, labels = np.full((416, 416, 3), 60, np.uint8), []
    colours = ((255, 255, 255), (30, 30, 255), (30, 255, 30), (255, 30, 30))
    for number, place in enumerate(rng.permutation(49)[:40]):
        centre, radius = (np.array(divmod(int(place), 7)) + 0.5) * 59, int(rng.integers(6, 11))
        cv2.circle(picture, centre.astype(int).tolist(), radius, colours[number % 4], -1)
        labels.append((number % 4, *((centre.astype(int) + 0.5) / 416), *((2 * radius + 1) / 416,) * 2))
    return picture, np.array(labels, np.float32)


def coco_map50(samples: Samples, settings: dict[int, Setting]) -> float:
    """COCO mAP at IoU 0.5 by faster-coco-eval, up to 300 detections a picture."""
    from faster_coco_eval import COCO, COCOeval_faster

    images, truths, found = [], [], []
    for image_id, (picture, labels) in enumerate(samples, 1):
        images.append(
            {
                "id": image_id,
                "height": picture.shape[0],
                "width": picture.shape[1],
                "file_name": str(image_id),
            }
        )
        for number, boxes in _truth(picture, labels).items():
            for x1, y1, x2, y2 in boxes.tolist():
                box = [x1, y1, x2 - x1, y2 - y1]
                truths.append(
                    {"id": len(truths) + 1, "image_id": image_id, "category_id": number, "bbox": box}
                    | {"area": box[2] * box[3], "iscrowd": 0}
                )
        for (x1, y1, x2, y2), score, number in zip(
            *(v.tolist() for v in detect(picture, settings)), strict=True
        ):
            box = [x1, y1, x2 - x1, y2 - y1]
            found.append({"image_id": image_id, "category_id": number, "bbox": box, "score": score})
    categories = [{"id": number, "name": str(number)} for number in range(4)]
    coco = COCO({"images": images, "annotations": truths, "categories": categories})
    judge = COCOeval_faster(coco, coco.loadRes(found), "bbox", print_function=lambda *_: None)
    judge.params.maxDets = [1, 100, 1000]
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"][0, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def _truth(picture: np.ndarray, labels: np.ndarray) -> dict[int, np.ndarray]:
    size = picture.shape[0]
    boxes = np.concatenate((labels[:, 1:3] - labels[:, 3:] / 2, labels[:, 1:3] + labels[:, 3:] / 2), 1) * size
    return {number: boxes[labels[:, 0] == number] for number in range(4)}


def _iou(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    both = np.maximum(high - low, 0).prod(2)
    areas = [np.maximum(b[:, 2:] - b[:, :2], 0).prod(1) for b in (boxes, truth)]
    return both / np.maximum(areas[0][:, None] + areas[1][None] - both, 1e-9)
