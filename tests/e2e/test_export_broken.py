"""Artefacts broken on purpose: each is caught before it takes its name, and the fault is placed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import onnx
import pytest
from onnx import numpy_helper
from torch import Tensor

from anyolo.config.schema import ExportConfig
from anyolo.errors import ExportError, VerificationFailed
from anyolo.export import EXPORTERS, export_model, open_artifact
from anyolo.families.checkpoints import Checkpoint, load_model
from anyolo.structures import Preprocess
from tests.conformance.formats import FORMATS
from tests.conformance.small_model import SIDE, pictures, small_checkpoint

Sabotage = Callable[[Any], None]


class Swapped(Preprocess):
    """Feeds red where blue belongs."""

    def normalise(self, images: Tensor) -> Tensor:
        return Preprocess.normalise(self, images).flip(1)


def swap_channels(model: Any) -> None:
    own = model.decoded.preprocess
    model.decoded.preprocess = Swapped(**{f.name: getattr(own, f.name) for f in dataclasses.fields(own)})


def change_one_weight(model: Any) -> None:
    model.decoded.detector.model[4].cv2.conv.weight[3, 5].add_(0.2)


def change_the_threshold(model: Any) -> None:
    if model.suppression is not None:
        model.suppression = dataclasses.replace(model.suppression, iou=0.95)


def change_the_decoding(model: Any) -> None:
    decode = model.decoded.detector.decode if hasattr(model.decoded, "detector") else None

    def moved(output: Any) -> Any:
        found = decode(output)
        return dataclasses.replace(found, boxes_xyxy=found.boxes_xyxy + 2)

    model.decoded.detector.decode = moved


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, pixels in enumerate(pictures(4)):
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
    return folder


@pytest.fixture()
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Sabotage], None]:
    """``spoil(format, sabotage)``: everything that is written in that format is written broken."""

    def patch(format: str, sabotage: Sabotage) -> None:
        kind = type(EXPORTERS.get(format))
        write = kind.write

        def broken(self: Any, model: Any, path: Path, options: Any) -> None:
            sabotage(model)
            write(self, model, path, options)

        monkeypatch.setattr(kind, "write", broken)

    return patch


def failure(checkpoint: Checkpoint, out: Path, **settings: Any) -> tuple[str, dict[str, Any]]:
    """What the user reads, and what the manifest of the unverified artefact says."""
    with pytest.raises(VerificationFailed) as caught:
        export_model(checkpoint, ExportConfig(**{"output": str(out), **settings}))
    beside = [path for path in out.iterdir() if path.suffix == ".json"]
    assert [".unverified" in path.name for path in beside] == [True]
    assert not list(out.glob("*.check.png"))
    return caught.value.message, json.loads(beside[0].read_text())["verification"]


CASES = [
    (swap_channels, "the input differs before the first row"),
    (change_one_weight, "row 4 (C2f) differs first"),
    (change_the_threshold, "the decoded maps agree: the suppression differs first"),
    (change_the_decoding, "all rows agree: the decoding"),
]


@pytest.mark.parametrize(("sabotage", "place"), CASES, ids=lambda own: getattr(own, "__name__", ""))
def test_the_fault_is_caught_and_placed(
    sabotage: Sabotage, place: str, spoil: Any, source: Path, tmp_path: Path
) -> None:
    spoil("torchscript", sabotage)
    message, found = failure(
        small_checkpoint(), tmp_path, format="torchscript", imgsz=SIDE, conf=0.3, source=str(source)
    )
    assert "differs from the model" in message and place in message
    assert found["verified"] is False and place in found["first_difference"]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_changed_weight_is_placed_in_every_format(
    format: str, spoil: Any, source: Path, tmp_path: Path
) -> None:
    spoil(format, change_one_weight)
    message, _ = failure(
        small_checkpoint(), tmp_path, format=format, imgsz=SIDE, conf=0.3, source=str(source), simplify=False
    )
    assert "row 4 (C2f) differs first" in message or format == "mlu270"  # writes whole models only


def test_a_weight_changed_in_the_file_itself(
    monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path
) -> None:
    """Not the model that is written, but the finished file: one number in one tensor of it."""
    kind = type(EXPORTERS.get("onnx"))
    write = kind.write

    def broken(self: Any, model: Any, path: Path, options: Any) -> None:
        write(self, model, path, options)
        graph = onnx.load(path)
        for tensor in graph.graph.initializer:
            if tensor.name.endswith("model.2.cv1.conv.weight"):
                values = numpy_helper.to_array(tensor).copy()
                values[1, 2] += 1
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        onnx.save(graph, path)

    monkeypatch.setattr(kind, "write", broken)
    message, _ = failure(
        small_checkpoint(), tmp_path, format="onnx", imgsz=SIDE, conf=0.3, source=str(source), simplify=False
    )
    assert "row 2 (C2f) differs first" in message


def test_an_edited_manifest(source: Path, tmp_path: Path) -> None:
    """Channels, threshold, size: whatever is changed, the predictor refuses and names both hashes."""
    config = ExportConfig(imgsz=SIDE, source=str(source), conf=0.3, output=str(tmp_path))
    result = export_model(small_checkpoint(), config)
    good = json.loads(result.manifest.read_text())
    for room, key, value in [("preprocess", "channels", "bgr"), ("nms", "iou", 0.9), ("input", "batch", 2)]:
        edited = {**good, room: {**good[room], key: value}}
        result.manifest.write_text(json.dumps(edited))
        with pytest.raises(ExportError, match="was changed after it was written") as caught:
            open_artifact(result.artifact)
        assert good["manifest_sha256"][:16] in caught.value.message


@pytest.mark.slow
@pytest.mark.parametrize(("sabotage", "place"), CASES[:3], ids=lambda own: getattr(own, "__name__", ""))
def test_official_weights(
    sabotage: Sabotage, place: str, spoil: Any, shared: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = load_model(shared("weights/yolov8n.pt"))
    spoil("onnx", sabotage)
    source = str(shared("data/demo") / "*.jpg")
    message, _ = failure(checkpoint, tmp_path, format="onnx", imgsz=320, conf=0.1, source=source)
    assert place in message
