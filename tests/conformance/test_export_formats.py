"""Every export format, from the table: written, reopened, compared, opened by the predictor."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from anyolo.config.schema import ExportConfig, PredictConfig
from anyolo.deploy.predictor import Predictor
from anyolo.devices import open_device
from anyolo.errors import ConfigError, ExportError, VerificationFailed
from anyolo.export import EXPORTERS, export_model, is_artifact, open_artifact
from anyolo.export.base import NMS, Images, Suppression
from anyolo.export.compare import Tolerance, compare
from anyolo.export.engine import ExportResult
from anyolo.export.manifest import digest
from anyolo.nn.inference import Inference
from anyolo.structures import Predictions
from tests.conformance.formats import FORMATS
from tests.conformance.small_model import NAMES, SIDE, network_input, pictures, small_checkpoint

Export = Callable[..., ExportResult]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """``export(format, **settings)``: the small model, verified on four pictures, in a folder of its own."""
    source = tmp_path_factory.mktemp("pictures")
    for number, pixels in enumerate(pictures(4)):
        cv2.imwrite(str(source / f"{number}.png"), pixels)

    def run(format: str, **changes: Any) -> ExportResult:
        base = {"imgsz": SIDE, "source": str(source), "conf": 0.3, "iou": 0.6, "simplify": False}
        out = changes.pop("output", None) or tmp_path_factory.mktemp(format)
        return export_model(
            small_checkpoint(), ExportConfig(**{**base, "format": format, "output": str(out), **changes})
        )

    return run


@pytest.fixture(scope="module", params=FORMATS)
def exported(request: pytest.FixtureRequest, export: Export) -> ExportResult:
    """Each format once, with default settings."""
    return export(request.param, simplify=True)


@pytest.fixture()
def copied(exported: ExportResult, tmp_path: Path) -> ExportResult:
    """The same, as a copy that a test may spoil."""
    shutil.copytree(exported.artifact.parent, tmp_path, dirs_exist_ok=True)
    return dataclasses.replace(
        exported,
        artifact=tmp_path / exported.artifact.name,
        manifest=tmp_path / exported.manifest.name,
    )


def gives_boxes(format: str) -> bool:
    """Whether its artefacts suppress inside; the others leave that to the host."""
    return NMS in EXPORTERS.get(format).abilities


def assert_predicts_like_torch(artifact: Path, imgsz: Any, **wishes: Any) -> None:
    opened = open_artifact(artifact)
    model = small_checkpoint()
    assert opened.names == NAMES and opened.preprocess == model.preprocess
    fixed = opened.input_hw
    config = PredictConfig(imgsz=imgsz, rect=fixed is None, conf=0.3, iou=0.6, **wishes)
    judge = Inference(model.model, open_device("cpu"), model.preprocess)
    expected = Predictor(judge, model.preprocess, NAMES, config)(pictures(5))
    batched = dataclasses.replace(config, batch=3)
    found = Predictor(opened.predict, opened.preprocess, opened.names, batched, input_hw=fixed)(pictures(5))
    for ours, theirs in zip(expected, found, strict=True):
        assert len(ours) > 2
        np.testing.assert_allclose(theirs.boxes.numpy().data, ours.boxes.numpy().data, atol=0.02)


def test_written_reopened_and_verified(exported: ExportResult) -> None:
    found = exported.to_json()
    assert found["verified"] is True and Path(found["artifact"]).exists()
    assert found["max_box_error_px"] < 0.01 and found["max_score_error"] < 1e-4
    assert found["verification"]["matched"] >= 20 and found["verification"]["candidates"] == 400
    assert_predicts_like_torch(exported.artifact, SIDE)


@pytest.mark.parametrize("format", FORMATS)
def test_any_batch_and_size_where_dynamic(format: str, export: Export) -> None:
    if "dynamic" not in EXPORTERS.get(format).abilities:
        with pytest.raises(ConfigError, match="dynamic=True"):
            export(format, dynamic=True)
        return
    result = export(format, dynamic=True, agnostic_nms=True)
    assert result.verified and open_artifact(result.artifact).input_hw is None
    assert_predicts_like_torch(result.artifact, SIDE, agnostic_nms=True)
    assert_predicts_like_torch(result.artifact, 192, agnostic_nms=True)


@pytest.mark.parametrize("format", FORMATS)
def test_decoded_maps_of_a_fixed_batch_that_is_no_square(format: str, export: Export) -> None:
    result = export(format, nms=False, imgsz=(96, 160), batch=3)
    assert result.verified and result.lines == ""
    assert_predicts_like_torch(result.artifact, (96, 160))
    with pytest.raises(ConfigError, match="96x160, not 128x128"):
        open_artifact(result.artifact).predict(torch.zeros(1, 3, 128, 128, dtype=torch.uint8))


def test_manifest_beside_and_inside(copied: ExportResult) -> None:
    beside = json.loads(copied.manifest.read_text())
    assert copied.manifest.name == copied.artifact.name + ".json"
    assert beside["names"] == list(NAMES) and beside["nc"] == 4 and beside["verification"]["verified"]
    assert beside["input"]["size_hw"] == [SIDE, SIDE] and beside["input"]["channels"] == "rgb"
    inside = gives_boxes(copied.format)
    assert beside["outputs"][0]["shape"] == ([1, 300, 6] if inside else [1, "points", 4])
    where = "graph" if inside else "host"
    assert beside["nms"] == {"conf": 0.3, "iou": 0.6, "max_det": 300, "agnostic": False, "where": where}
    changed = {**beside, "names": ["red", "white", "green", "blue"]}
    copied.manifest.write_text(json.dumps(changed))
    with pytest.raises(ExportError, match="was changed after it was written"):
        open_artifact(copied.artifact)
    copied.manifest.unlink()
    carried = open_artifact(copied.artifact).manifest.to_json()
    for key in ("names", "preprocess", "input", "outputs", "nms", "family", "versions"):
        assert carried[key] == beside[key], key


def test_an_artefact_of_other_bytes_names_both_hashes(copied: ExportResult) -> None:
    beside = json.loads(copied.manifest.read_text())
    own = copied.artifact
    changed = max((p for p in own.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size, default=own)
    assert beside["files"][changed.name] == hashlib.sha256(changed.read_bytes()).hexdigest()
    before = beside["size_bytes"]
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(ExportError, match="its SHA-256 differs") as caught:
        open_artifact(own)
    assert f"{digest(own)[:16]}... of {before + 1} bytes" in caught.value.message
    assert f"not {beside['sha256'][:16]}... of {before} bytes" in caught.value.message
    assert own.is_file() or f"in it {changed.name}" in caught.value.message


def test_golden_vectors_lead_to_the_same_boxes(exported: ExportResult) -> None:
    """As somebody who has only the manifest and the pictures beside the artefact would use them."""
    golden = json.loads(exported.manifest.read_text())["golden"]
    folder = exported.artifact.parent
    pixels = cv2.imread(str(folder / golden["input"]))
    images = np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1))
    assert hashlib.sha256(images.tobytes()).hexdigest() == golden["input_sha256"]
    assert images.mean((1, 2)) == pytest.approx(golden["input_means"], abs=1e-4)
    opened = open_artifact(exported.artifact)
    config = PredictConfig(imgsz=SIDE, rect=False, conf=0.3, iou=0.6)
    predictor = Predictor(opened.predict, opened.preprocess, opened.names, config, input_hw=opened.input_hw)
    golden_wh = golden["picture_size_hw"][::-1]
    for picture, expected in [("input", "boxes"), ("picture", "boxes_in_picture")]:
        boxes = predictor(str(folder / golden[picture]))[0].boxes.numpy().data
        assert len(boxes) == len(golden[expected]) > 2
        rows = np.array(golden[expected])
        rows[:, :4] = rows[:, :4].clip(0, [SIDE, SIDE] * 2 if picture == "input" else golden_wh * 2)
        np.testing.assert_allclose(boxes, rows, atol=0.01)
    drawn = cv2.imread(str(folder / golden["drawn"]))
    plain = cv2.imread(str(folder / golden["picture"]))
    assert drawn.shape == plain.shape == (*golden["picture_size_hw"], 3) and (drawn != plain).any()


def test_wishes_an_artefact_cannot_fulfil(exported: ExportResult) -> None:
    opened = open_artifact(exported.artifact)
    assert opened.notices(conf=0.3, iou=0.6, max_det=300) == []
    told = opened.notices(conf=0.001, iou=0.7, max_det=500)
    if not gives_boxes(exported.format):
        assert told == []  # the host suppresses as it is asked to
        return
    assert [word in line for word, line in zip(("conf=0.001", "max_det=500", "iou=0.7"), told, strict=True)]


def test_one_altered_weight_tensor_is_noticed(exported: ExportResult) -> None:
    """The negative control: the file against a model one of whose convolutions is 2 % off."""
    checkpoint = small_checkpoint()
    weight = checkpoint.model.model[4].cv2.conv.weight
    images = [network_input(pixels, SIDE)[None] for pixels in pictures(4)]
    opened = open_artifact(exported.artifact)

    def judge(images: Images) -> Predictions:
        with torch.no_grad():
            return checkpoint.model.predict(checkpoint.preprocess.normalise(torch.from_numpy(images)))

    def verdict() -> Any:
        suppression = Suppression(conf=0.3, iou=0.6, max_det=300)
        inside = gives_boxes(exported.format)
        return compare(judge, opened.runner, images, suppression, inside=inside, tolerance=Tolerance())

    assert verdict().verified
    with torch.no_grad():
        weight.mul_(1.02)
        try:
            spoilt = verdict()
        finally:
            weight.div_(1.02)
    assert not spoilt.verified and any("scores differ" in reason for reason in spoilt.reasons)


def test_what_fails_verification_never_takes_the_name(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(EXPORTERS.get("torchscript"))
    write = kind.write

    def sabotage(self: Any, model: Any, path: Path, options: Any) -> None:
        model.decoded.detector.model[4].cv2.conv.weight.mul_(1.02)
        write(self, model, path, options)

    monkeypatch.setattr(kind, "write", sabotage)
    with pytest.raises(VerificationFailed, match="differs from the model") as caught:
        export("torchscript", output=tmp_path / "best.torchscript")
    assert caught.value.exit_code == 6
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"best.unverified.torchscript", "best.unverified.torchscript.json"}
    manifest = json.loads((tmp_path / "best.unverified.torchscript.json").read_text())
    assert manifest["verification"]["verified"] is False


@pytest.mark.parametrize("format", FORMATS)
def test_a_model_that_finds_nothing_is_proved_at_a_lower_confidence(format: str, export: Export) -> None:
    result = export(format, conf=0.99999)
    assert result.verified and result.verification is not None
    assert result.verification.candidates == 400
    if gives_boxes(format):  # nothing else is to be proved of maps
        assert result.verification.matched >= 20
        assert "compared at conf" in result.verification.notes[0]
    assert json.loads(result.manifest.read_text())["nms"]["conf"] == 0.99999


@pytest.mark.parametrize("format", FORMATS)
def test_objectness_is_multiplied_inside(
    format: str, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(small_checkpoint().model)
    plain = kind.decode

    def with_objectness(self: Any, output: Any) -> Predictions:
        found = plain(self, output)
        return dataclasses.replace(found, objectness=1 - found.scores[..., 0] / 2)

    monkeypatch.setattr(kind, "decode", with_objectness)
    result = export(format)
    assert result.verified
    decoded = open_artifact(result.artifact).runner.decoded(np.zeros((1, 3, SIDE, SIDE), np.uint8))
    assert decoded is not None and [array.ndim for array in decoded] == [3, 3, 2]


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_something_else_is_named(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"wrong{EXPORTERS.get(format).suffix}"
    assert is_artifact(path)
    with pytest.raises(ExportError, match="no such file"):
        open_artifact(path)
    path.write_bytes(b"not a model")
    with pytest.raises(ExportError, match="wrong"):
        open_artifact(path)


def test_the_model_itself_is_left_alone(export: Export) -> None:
    checkpoint = small_checkpoint()
    before = {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}
    result = export("torchscript", verify=False)
    assert result.ok and not result.verified and result.to_json()["max_box_error_px"] is None
    after = checkpoint.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
