"""Post-processing of [1, 25200, 85] (filter, sort, suppression): ms, against ultralytics 8.4.190.

    python benchmarks/nms.py

2,000 and 8,000 boxes score above conf 0.25; iou 0.45, 300 boxes at most. Rate: median ms of 15 calls after
3 to warm up. ``ours`` is what a small job gets (numpy), ``ours_compiled`` what a long one gets where numba
is installed. The boxes kept are compared with the textbook loop, by score: ``missing`` and ``extra`` count
the differences.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
from numpy.typing import NDArray

CONF, IOU, MAX_DET = 0.25, 0.45, 300
POINTS, CLASSES = 25200, 80


def draw_candidates(count: int) -> NDArray[np.float32]:
    """(25200, 85): centre, size, objectness, 80 class scores; ten boxes around each object."""
    rng = np.random.default_rng(count)
    objects = count // 10
    centre, size = rng.uniform(30, 610, (objects, 2)), rng.uniform(20, 150, (objects, 2))
    classes, owner = rng.integers(0, CLASSES, objects), rng.integers(0, objects, count)
    rows = np.empty((POINTS, 5 + CLASSES), np.float32)
    rows[:, :2], rows[:, 2:4] = rng.uniform(0, 640, (POINTS, 2)), rng.uniform(5, 200, (POINTS, 2))
    rows[:, 4] = rng.uniform(0, 0.2, POINTS)
    rows[:, 5:] = rng.uniform(0, 0.2, (POINTS, CLASSES))
    chosen = rng.choice(POINTS, count, replace=False)
    rows[chosen, :2] = centre[owner] + rng.normal(0, 4, (count, 2))
    rows[chosen, 2:4] = size[owner] * np.exp(rng.normal(0, 0.1, (count, 2)))
    rows[chosen, 4] = rng.uniform(0.6, 1, count)
    rows[chosen, 5 + classes[owner]] = rng.uniform(0.5, 1, count)
    return rows


def textbook_scores(rows: NDArray[np.float32]) -> list[float]:
    """Scores of the boxes that the quadratic loop keeps, best first."""
    scores = (rows[:, 5:] * rows[:, 4:5]).max(1)
    rows, scores = rows[scores > CONF], scores[scores > CONF]
    classes = rows[:, 5:].argmax(1)
    low, high = rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2
    area = (high - low).prod(1)
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        rivals = [k for k in kept if classes[k] == classes[index]]
        sides = np.minimum(high[rivals], high[index]) - np.maximum(low[rivals], low[index])
        inter = np.maximum(sides, 0).prod(1)
        if not (inter / (area[rivals] + area[index] - inter) > np.float32(IOU)).any():
            kept.append(int(index))
    return [float(score) for score in scores[kept[:MAX_DET]]]


def ours(rows: NDArray[np.float32]) -> Callable[[], Any]:
    import torch

    from anyolo.ops.boxes import cxcywh_to_xyxy
    from anyolo.postprocess import postprocess
    from anyolo.structures import Predictions

    tensor = torch.from_numpy(rows)[None]

    # our heads decode to corners
    predictions = Predictions(cxcywh_to_xyxy(tensor[..., :4]), tensor[..., 5:], tensor[..., 4])

    def call() -> Any:
        return postprocess(predictions, conf=CONF, iou=IOU, max_det=MAX_DET, multi_label=False)[0].scores

    return call


def ours_compiled(rows: NDArray[np.float32]) -> Callable[[], Any]:
    from anyolo.ops import nms

    nms.NUMBA_PAYS_AFTER = 0
    return ours(rows)


def rival(rows: NDArray[np.float32]) -> Callable[[], Any]:
    """Its function takes (1, 4 + classes, points), no objectness: the product is made beforehand, untimed."""
    import torch
    from ultralytics.utils.nms import non_max_suppression

    table = np.concatenate((rows[:, :4], rows[:, 5:] * rows[:, 4:5]), 1)
    tensor = torch.from_numpy(table.T.copy())[None]

    def call() -> Any:  # a clone, because its input may be changed
        kept = non_max_suppression(tensor.clone(), conf_thres=CONF, iou_thres=IOU, max_det=MAX_DET)
        return kept[0][:, 4].numpy()

    return call


def measure(who: str, count: int) -> dict[str, Any]:
    rows = draw_candidates(count)
    call = {"ours": ours, "ours_compiled": ours_compiled, "rival": rival}[who](rows)
    spent_ms = []
    for _ in range(18):
        start = time.perf_counter()
        scores = call()
        spent_ms.append((time.perf_counter() - start) * 1000)
    kept, expected = {float(s) for s in scores}, set(textbook_scores(rows))
    return {
        "rate": round(statistics.median(spent_ms[3:]), 3),
        "kept": len(scores),
        "missing": len(expected - kept),
        "extra": len(kept - expected),
    }


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "measure":
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
        return
    options = side_by_side.arguments(__doc__ or "").parse_args()
    me, summary = str(Path(__file__).resolve()), {}
    for count in (2000, 8000):
        commands = {
            who: [python, me, "measure", who, str(count)]
            for who, python in (
                ("ours", sys.executable),
                ("ours_compiled", sys.executable),
                ("rival", options.rival),
            )
        }
        summary[f"{count} candidates"] = side_by_side.compare(
            f"{count} candidates",
            commands,
            repeats=options.repeats,
            threads=options.threads,
            cwd=side_by_side.HERE.parent,
            higher_is_better=False,
        )
    side_by_side.write("nms", summary, options.rival)


if __name__ == "__main__":
    main()
