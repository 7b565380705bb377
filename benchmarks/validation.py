"""Validation images/s of yolov8n.pt on coco_val128 at 640, plots off, and file to boxes, against ultralytics
8.4.190.

    python benchmarks/validation.py

Rate of ``val``: pictures over the seconds of a whole second ``val`` from the weights file (caches warm),
rect, batch 16, conf 0.001, iou 0.7. Rate of ``predict``: pictures a second, one by one, from file to boxes,
median over the set. Both also with our ``half=True`` (bfloat16 here; the rival has no such thing on a CPU).
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import side_by_side
from training import copy_data


def ours_val(weights: str, data: str, threads: int, half: bool = False) -> dict[str, float]:
    from anyolo import api

    for _ in range(2):
        start = time.perf_counter()
        result = api.val(
            model=weights,
            data=data,
            imgsz=640,
            rect=True,
            batch=16,
            plots=False,
            threads=threads,
            half=half,
            device="cpu",
            project=tempfile.mkdtemp(),
        )
        seconds = time.perf_counter() - start
    return {"rate": 128 / seconds, "mAP50-95": result.metrics["mAP50-95"], "mAP50": result.metrics["mAP50"]}


def ours_half_val(weights: str, data: str, threads: int) -> dict[str, float]:
    return ours_val(weights, data, threads, half=True)


def rival_val(weights: str, data: str, threads: int) -> dict[str, float]:
    import torch
    from ultralytics import YOLO

    for _ in range(2):
        start = time.perf_counter()
        model = YOLO(weights)
        # choosing the CPU sets the rival to one thread less than there are processors
        model.add_callback("on_val_start", lambda validator: torch.set_num_threads(threads))
        result = model.val(
            data=data,
            imgsz=640,
            rect=True,
            batch=16,
            conf=0.001,
            iou=0.7,
            plots=False,
            device="cpu",
            workers=threads,
            project=tempfile.mkdtemp(),
            verbose=False,
        )
        seconds = time.perf_counter() - start
    return {"rate": 128 / seconds, "mAP50-95": float(result.box.map), "mAP50": float(result.box.map50)}


def ours_predict(weights: str, data: str, threads: int, half: bool = False) -> dict[str, float]:
    import torch

    from anyolo import YOLO

    torch.set_num_threads(threads)
    model = YOLO(weights)
    return _one_by_one(
        data, lambda path: model.predict(path, imgsz=640, save=False, verbose=False, device="cpu", half=half)
    )


def ours_half_predict(weights: str, data: str, threads: int) -> dict[str, float]:
    return ours_predict(weights, data, threads, half=True)


def rival_predict(weights: str, data: str, threads: int) -> dict[str, float]:
    import torch
    from ultralytics import YOLO

    model = YOLO(weights)

    def predict(path: str):  # type: ignore[no-untyped-def]
        torch.set_num_threads(threads)
        return model.predict(path, imgsz=640, save=False, verbose=False, device="cpu")

    return _one_by_one(data, predict)


def _one_by_one(data: str, predict) -> dict[str, float]:  # type: ignore[no-untyped-def]
    paths = sorted(str(p) for p in Path(data).parent.rglob("*.jpg"))[:64]
    for path in paths[:4]:
        predict(path)
    seconds, boxes = [], 0
    for path in paths:
        start = time.perf_counter()
        boxes += len(predict(path)[0].boxes)
        seconds.append(time.perf_counter() - start)
    return {"rate": 1 / statistics.median(seconds), "boxes": boxes}


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1].startswith(("ours", "rival")):
        _, who, weights, data, threads = sys.argv
        print(json.dumps(globals()[who](weights, data, int(threads))))
        return
    options = side_by_side.arguments(__doc__ or "").parse_args()
    weights = str(options.shared / "weights" / "yolov8n.pt")
    me, summary = str(Path(__file__).resolve()), {}
    with tempfile.TemporaryDirectory() as folder:
        data = copy_data(options.shared / "data" / "coco_val128", Path(folder))
        for job in ("val", "predict"):
            commands = {
                who: [python, me, f"{who}_{job}", weights, data, str(options.threads)]
                for who, python in (
                    ("ours", sys.executable),
                    ("ours_half", sys.executable),
                    ("rival", options.rival),
                )
            }
            summary[job] = side_by_side.compare(
                job, commands, repeats=options.repeats, threads=options.threads, cwd=side_by_side.HERE.parent
            )
    side_by_side.write("validation", summary, options.rival)


if __name__ == "__main__":
    main()
