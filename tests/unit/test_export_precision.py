"""``data=`` of export: the mAP of the artefact beside the model's, and what happens when it is another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from anyolo.config.schema import ExportConfig
from anyolo.errors import ConfigError, DataError, VerificationFailed
from anyolo.export import OpenedArtifact, export_model
from anyolo.export.engine import ExportResult
from anyolo.structures import Predictions
from tests.conformance.labelled import write_labelled
from tests.conformance.small_model import SIDE, small_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("data"))


def export(out: Path, data: Path, **changes: Any) -> ExportResult:
    config = {
        "imgsz": SIDE,
        "conf": 0.3,
        "output": str(out),
        "source": str(data),
        "data": str(data),
        **changes,
    }
    return export_model(small_checkpoint(), ExportConfig(**config))


def test_both_figures_stand_in_the_manifest(data: Path, tmp_path: Path) -> None:
    result = export(tmp_path, data)
    found = json.loads(result.manifest.read_text())["verification"]["mean_precision"]
    assert found["model"] > 0.3 and found["artifact"] == pytest.approx(found["model"], abs=1e-4)
    assert found["difference"] == found["artifact"] - found["model"] and found["data"] == str(data)


def test_another_mean_precision_fails(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an artefact would give that is right on the pictures it was verified on and wrong on others."""
    plain = OpenedArtifact.candidates

    def blurred(self: OpenedArtifact, images: torch.Tensor) -> Predictions:
        found = plain(self, images)
        return Predictions(found.boxes_xyxy + 2, found.scores, found.objectness)

    monkeypatch.setattr(OpenedArtifact, "candidates", blurred)
    with pytest.raises(VerificationFailed, match=r"mAP50-95 is 0\.\d+ instead of 0\.\d+"):
        export(tmp_path, data)
    assert [path.name for path in tmp_path.glob("*.torchscript")] == ["yolov8t.unverified.torchscript"]


def test_a_runtime_that_shows_no_candidates_is_judged_by_its_boxes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenedArtifact, "shows_candidates", False)
    found = export(tmp_path, data).verification
    assert found is not None and found.mean_precision is not None
    assert found.mean_precision["model"] > 0.3 and abs(found.mean_precision["difference"]) < 1e-4


def test_data_that_cannot_be_compared_on(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(
        data.read_text().replace("- white\n", "- white\n- grey\n").replace("path: .", f"path: {data.parent}")
    )
    with pytest.raises(DataError, match="the model has 4 classes, the data 5"):
        export(tmp_path, other, source=str(data))
    with pytest.raises(ConfigError, match="data= compares the mAP"):
        export(tmp_path, data, verify=False)
