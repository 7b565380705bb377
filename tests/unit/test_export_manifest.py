"""The sealed manifest: what was edited, mixed up, written by another version or never was one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from anyolo.config.schema import ExportConfig
from anyolo.errors import ExportError
from anyolo.export import export_model, open_artifact
from anyolo.export.engine import ExportResult
from anyolo.export.manifest import digests, seal_of
from tests.conformance.small_model import SIDE, pictures, small_checkpoint


def export(out: Path, **changes: Any) -> ExportResult:
    config = {"format": "torchscript", "imgsz": SIDE, "output": str(out), "verify": False, **changes}
    return export_model(small_checkpoint(), ExportConfig(**config))


@pytest.fixture()
def result(tmp_path: Path) -> ExportResult:
    return export(tmp_path)


def refused(result: ExportResult, text: str) -> str:
    result.manifest.write_text(text)
    with pytest.raises(ExportError) as caught:
        open_artifact(result.artifact)
    assert caught.value.where == str(result.manifest) and caught.value.hint
    return caught.value.message


def test_every_entry_is_under_the_seal(result: ExportResult) -> None:
    good = json.loads(result.manifest.read_text())
    assert good["schema"] == 2 and good["manifest_sha256"] == seal_of(good)
    assert open_artifact(result.artifact).manifest.size_hw == (SIDE, SIDE)
    for key in good:
        if key not in {"schema", "manifest_sha256"}:
            assert "was changed after it was written" in refused(
                result, json.dumps({**good, key: "other"})
            ), key
    deep = json.loads(json.dumps(good))
    deep["nms"]["iou"] = 0.71
    message = refused(result, json.dumps(deep))
    assert seal_of(deep)[:16] in message and good["manifest_sha256"][:16] in message
    assert "says nothing" in refused(result, json.dumps({k: v for k, v in good.items() if "_sha" not in k}))
    result.manifest.write_text(json.dumps(dict(reversed(good.items()))))  # the order is no content
    open_artifact(result.artifact)


def test_what_is_no_manifest(result: ExportResult) -> None:
    good = json.loads(result.manifest.read_text())

    def sealed(**changes: Any) -> str:
        document = {**good, **changes}
        return json.dumps({**document, "manifest_sha256": seal_of(document)})

    assert "cannot be read" in refused(result, "{")
    assert "no manifest of anyolo" in refused(result, "{}")
    assert "no manifest of anyolo" in refused(result, "[1]")
    assert "schema 99, known is 2" in refused(result, sealed(schema=99))
    assert "no manifest of anyolo" in refused(result, sealed(nms={"conf": 1}))


def test_the_first_schema_still_opens(result: ExportResult) -> None:
    good = json.loads(result.manifest.read_text())
    old = {k: v for k, v in good.items() if k not in {"manifest_sha256", "files", "golden"}}
    result.manifest.write_text(json.dumps({**old, "schema": 1}))
    opened = open_artifact(result.artifact)
    assert opened.manifest.files == {} and opened.names == small_checkpoint().names
    result.artifact.write_bytes(result.artifact.read_bytes() + b"x")
    assert "its SHA-256 differs" in refused(result, json.dumps({**old, "schema": 1}))


def test_two_artefacts_mixed_up(result: ExportResult, tmp_path: Path) -> None:
    other = export(tmp_path / "other", iou=0.5, imgsz=96)
    message = refused(result, other.manifest.read_text())
    for path in (result.artifact, other.artifact):
        assert f"... of {path.stat().st_size} bytes" in message
        assert digests(path)[path.name][:16] in message


def test_a_renamed_pair_stays_a_pair(result: ExportResult, tmp_path: Path) -> None:
    new = tmp_path / "bulbs.torchscript"
    result.artifact.rename(new)
    result.manifest.rename(tmp_path / "bulbs.torchscript.json")
    assert open_artifact(new).names == small_checkpoint().names


def test_golden_vectors_belong_to_the_last_export(tmp_path: Path) -> None:
    import cv2

    source = tmp_path / "source"
    source.mkdir()
    for number, pixels in enumerate(pictures(3, height=600, width=1000)):
        cv2.imwrite(str(source / f"{number}.png"), pixels)
    out = tmp_path / "out"
    result = export(out, verify=True, source=str(source), conf=0.3)
    golden = json.loads(result.manifest.read_text())["golden"]
    # no larger than twice the input, and of the pictures the one with the most boxes
    assert golden["picture_size_hw"] == [154, 256] and len(golden["boxes"]) > 2
    assert {path.name for path in out.iterdir()} == {
        "yolov8t.torchscript",
        *(f"yolov8t.torchscript.{end}" for end in ("json", "golden.png", "input.png", "check.png")),
    }
    export(out)  # not run, so there is nothing to show
    assert {path.name for path in out.iterdir()} == {"yolov8t.torchscript", "yolov8t.torchscript.json"}
