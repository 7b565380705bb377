"""The verb ``demo``: the main job from nothing, offline, on pictures drawn here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anyolo import console
from anyolo.api.training import run_train
from anyolo.api.using import ValResult, run_export, run_predict, run_val
from anyolo.config.load import load
from anyolo.config.schema import DemoVerb
from anyolo.data import open_data
from anyolo.data.synth import write_dataset
from anyolo.evaluate import draw_batch
from anyolo.export import ExportResult
from anyolo.ops.boxes import cxcywh_to_xyxy
from anyolo.train.folder import RunFolder

# What reaches mAP50 0.70 with room to spare inside 600 CPU seconds (docs/results.md).
SIZE = 320
PICTURES = {"train": 400, "val": 40}
RECIPE: dict[str, Any] = {
    "model": "yolov8n",
    "imgsz": SIZE,
    "epochs": 8,
    # small batches, each an update: random weights need many
    "batch": 8,
    "nbs": 8,
    "optimizer": "AdamW",
    "lr0": 0.002,
    "momentum": 0.9,
    "cos_lr": True,
    "warmup_epochs": 1,
    "warmup_bias_lr": 0.0,
    # the pictures are varied already, and colour is the class
    "mosaic": 0.0,
    "scale": 0.0,
    "translate": 0.0,
    "hsv_h": 0.0,
    "hsv_s": 0.0,
    "hsv_v": 0.0,
    "flipud": 0.5,
}
THREADS = 1
"""A second thread more than doubles the processor time of so small a step on a busy machine."""
SHOWN = 8
"""Pairs fill rows of a square: with eight, truth and prediction always stand side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """``picture`` shows truth beside prediction; ``verified``: the exported file gives the same boxes."""

    run: Path
    data: Path
    best: Path
    artifact: str
    picture: Path
    metrics: Mapping[str, float]
    verified: bool

    @property
    def ok(self) -> bool:
        return self.verified

    def to_json(self) -> dict[str, Any]:
        places = {name: str(getattr(self, name)) for name in ("run", "data", "best", "artifact", "picture")}
        return {**places, "metrics": dict(self.metrics), "verified": self.verified}


def run_demo(values: Mapping[str, Any]) -> DemoResult:
    """Settings as in ``anyolo demo --help``."""
    config = load(DemoVerb, values).config
    run, device = config.run, config.device
    root = RunFolder.create(run.project, run.name, "demo", exist_ok=run.exist_ok).root
    common = {
        "device": device.device,
        "threads": device.threads or THREADS,
        "project": str(root),
        "exist_ok": True,
    }
    say = console.current().line

    say("1/5 drawing pictures of coloured LED bulbs")
    data = write_dataset(root / "data", **PICTURES, seed=config.seed, size=SIZE)
    say("2/5 training YOLOv8n from random weights")
    settings = {
        **common,
        **RECIPE,
        "data": str(data),
        "seed": config.seed,
        "amp": device.amp,
        "plots": run.plots,
    }
    trained = run_train({**settings, "name": "train"})
    say("3/5 measuring the best weights on pictures it never saw")
    measured: ValResult = run_val(
        {
            **common,
            "model": str(trained.best),
            "data": str(data),
            "imgsz": SIZE,
            "name": "val",
            "plots": run.plots,
        }
    )
    say("4/5 exporting to ONNX with the boxes inside, reopening it in onnxruntime, comparing")
    pictures = str(root / "data" / "images" / "val")
    exported: ExportResult = run_export(
        {
            "model": str(trained.best),
            "format": "onnx",
            "imgsz": SIZE,
            "source": pictures,
            "device": device.device,
        }
    )
    say("5/5 drawing truth beside prediction")
    picture = root / "truth_and_prediction.jpg"
    _draw(str(trained.best), str(data), SIZE, device.device, picture)

    rows = [
        ("mAP50 on unseen pictures", f"{measured.metrics['mAP50']:.3f}"),
        ("exported file gives the same boxes", "yes" if exported.verified else "NO"),
        ("pictures and labels", str(data.parent)),
        ("weights", str(trained.best)),
        ("exported model", str(exported.artifact)),
        ("truth beside prediction", str(picture)),
        ("curves", str(trained.run)),
    ]
    say("")
    for what, value in rows:
        # lines, not a table: a path must stay whole so that it can be copied
        say(f"{what:<36}{value}")
    return DemoResult(
        run=root,
        data=data,
        best=trained.best,
        artifact=str(exported.artifact),
        picture=picture,
        metrics=measured.metrics,
        verified=exported.verified,
    )


def _draw(weights: str, data: str, size: int, device: str, path: Path) -> None:
    """Pairs of the same picture: left the truth, right what the model found."""
    items = open_data(data, "val").items[:SHOWN]
    names = open_data(data, "val").names
    found = run_predict(
        {
            "model": weights,
            "source": [item.path for item in items],
            "imgsz": SIZE,
            "save": False,
            "verbose": False,
            "device": device,
        }
    )
    images, boxes = [], []
    for item, result in zip(items, found.results, strict=True):
        height, width = item.size_hw
        truth = cxcywh_to_xyxy(item.labels[:, 1:]) * np.asarray((width, height, width, height), np.float32)
        rgb = np.ascontiguousarray(result.orig_img[..., ::-1].transpose(2, 0, 1))
        images += [rgb, rgb]
        own = result.boxes.numpy()
        boxes += [
            np.column_stack((item.labels[:, 0], truth)).astype(np.float32),
            np.column_stack((own.cls, own.xyxy, own.conf)).astype(np.float32),
        ]
    draw_batch(torch.from_numpy(np.stack(images)), boxes, names, path)
