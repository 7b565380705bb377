"""Models with an auxiliary branch, exported to every format: what was written is their inference form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from anyolo.config.schema import ExportConfig, PredictConfig
from anyolo.deploy.predictor import Predictor
from anyolo.devices import open_device
from anyolo.export import export_model, open_artifact
from anyolo.families import FAMILIES, build_model
from anyolo.families.checkpoints import Checkpoint
from anyolo.nn.inference import Inference
from anyolo.nn.model import build
from tests.conformance.formats import FORMATS
from tests.conformance.small_model import NAMES, SIDE, lively, pictures


def narrow(rows: dict[str, Any], divisor: int = 8) -> dict[str, Any]:
    """The same wiring, which no size below 50 million parameters has, with fewer channels."""

    def shrunk(row: list[Any]) -> list[Any]:
        source, repeats, block, args = row
        if block == "Conv":
            args = [args[0] // divisor, *args[1:]]
        elif block == "CBLinear":
            args = [[c // divisor for c in args[0]]]
        elif block == "RepNCSPELAN4":
            args = [*(c // divisor for c in args[:3]), 1]
        elif block in ("ADown", "SPPELAN"):
            args = [c // divisor for c in args]
        return [source, repeats, block, args]

    return {**rows, **{part: [shrunk(row) for row in rows[part]] for part in ("backbone", "head")}}


def checkpoint_of(name: str) -> Checkpoint:
    torch.manual_seed(0)
    spec = FAMILIES.get("yolov9")
    if name != "narrow e":
        return lively(*build_model(name, nc=len(NAMES)))
    rows = narrow(yaml.safe_load(spec.rows_text("e")))
    return lively(spec, build(rows, nc=len(NAMES), batch_norm=spec.batch_norm))


@pytest.mark.parametrize("name", ["yolov9-t", "gelan-t", "narrow e"])
@pytest.mark.parametrize("format", FORMATS)
def test_exports_are_verified(format: str, name: str, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    source.mkdir()
    for number, pixels in enumerate(pictures(4)):
        cv2.imwrite(str(source / f"{number}.png"), pixels)
    checkpoint = checkpoint_of(name)
    config = ExportConfig(
        format=format, output=str(tmp_path), source=str(source), imgsz=SIDE, conf=0.3, iou=0.6, simplify=False
    )
    result = export_model(checkpoint, config)
    assert result.verified and result.verification is not None and result.verification.matched >= 20
    assert result.verification.max_box_error_px < 0.02 and result.verification.max_score_error < 5e-4
    opened = open_artifact(result.artifact)
    settings = PredictConfig(imgsz=SIDE, rect=False, conf=0.3, iou=0.6)
    judge = Inference(checkpoint.model, open_device("cpu"), checkpoint.preprocess)
    expected = Predictor(judge, checkpoint.preprocess, NAMES, settings)(pictures(5))
    found = Predictor(opened.predict, opened.preprocess, opened.names, settings, input_hw=opened.input_hw)
    for ours, theirs in zip(expected, found(pictures(5)), strict=True):
        assert len(ours) > 2
        np.testing.assert_allclose(theirs.boxes.numpy().data, ours.boxes.numpy().data, atol=0.02)
