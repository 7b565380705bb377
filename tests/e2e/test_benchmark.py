"""The whole verb on a tiny model: formats that run, that cannot be had and that crash, and a rival."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

import anyolo
from anyolo.deploy.benchmark import STAGES
from anyolo.export import EXPORTERS
from anyolo.export.base import quiet
from anyolo.families.checkpoints import model_record, save_atomic
from tests.conformance.labelled import write_labelled
from tests.conformance.small_model import NAMES, SIDE, small_checkpoint

PLUGIN = '''
"""Two invented formats: one lacks its package, one takes its process down."""
import os, signal

class Invented:
    abilities, remark = frozenset({"dynamic"}), ""

    def __init__(self, name, requires):
        self.name, self.suffix, self.requires = name, "." + name, requires

    def write(self, model, path, options):
        path.write_bytes(b"written")

    def open(self, path, *, threads=0):
        os.kill(os.getpid(), signal.SIGSEGV)

ABSENT, CRASHING = Invented("absent", ("no-such-package",)), Invented("crashing", ())
'''


class Rival(torch.nn.Module):
    """What another exporter gives: floats 0..1 in, (1, 4 + K, N) out."""

    def __init__(self) -> None:
        super().__init__()
        self.model = small_checkpoint().model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.model.predict(images)
        low, high = found.boxes_xyxy[..., :2], found.boxes_xyxy[..., 2:]
        return torch.cat(((low + high) / 2, high - low, found.scores), -1).transpose(1, 2)


@pytest.fixture()
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two formats, in this process and in those it starts."""
    info = tmp_path / "plugin" / "invented-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: invented\nVersion: 1.0\n")
    lines = ("absent = invented_formats:ABSENT", "crashing = invented_formats:CRASHING")
    (info / "entry_points.txt").write_text("\n".join(("[anyolo.export]", *lines)) + "\n")
    (info.parent / "invented_formats.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.setattr(EXPORTERS, "_table", dict(EXPORTERS._table))
    monkeypatch.setattr(EXPORTERS, "_plugins_read", False)


def test_the_verb(plugged: None, tmp_path: Path) -> None:
    found, model = small_checkpoint(), tmp_path / "a.pt"
    save_atomic(model_record(found.model, found.spec, NAMES, imgsz=(SIDE, SIDE), metrics={}), model)
    rival, picture = tmp_path / "theirs.onnx", torch.rand(1, 3, SIDE, SIDE)
    with quiet(), torch.no_grad():
        torch.onnx.export(Rival().eval(), (picture,), str(rival), dynamo=False, opset_version=17)
    data, project = write_labelled(tmp_path / "data"), str(tmp_path / "runs")
    result = anyolo.benchmark(
        model=str(model), formats="crashing,absent,onnx", data=str(data), rival=str(rival),
        batches="2", rounds=2, n=5, rest=40, threads=1, dynamic=True, project=project, verbose=False,
    )  # fmt: skip

    document = json.loads((result.run / "benchmark.json").read_text())
    assert result.ok and document == json.loads(json.dumps(result.to_json()))
    rows = {row["format"]: row for row in document["rows"]}
    assert list(rows) == ["pytorch", "crashing", "absent", "onnx", "theirs.onnx"]
    assert document["threads"] == 1 and document["imgsz"] == [SIDE, SIDE] and document["pictures"] == 6
    _check_reasons(rows)
    _check_figures(rows)
    with (result.run / "benchmark.csv").open() as file:
        for line, row in zip(csv.DictReader(file), document["rows"], strict=True):
            assert line["format"] == row["format"] and line["reason"] == row["reason"]
            assert line["latency_ms"] == ("" if row["latency_ms"] is None else str(row["latency_ms"]))
    assert cv2.imread(str(result.run / "benchmark.png")).shape[1] == 1600
    judged = anyolo.val(model=str(model), data=str(data), rect=False, workers=0, plots=False, project=project)
    whole = judged.metrics["mAP50-95"]
    assert rows["pytorch"]["mAP50-95"] == rows["onnx"]["mAP50-95"] == pytest.approx(whole, abs=1e-4)
    # its maps are centres and sides, turned back with other roundings; six pictures, many near ties
    assert rows["theirs.onnx"]["mAP50-95"] == pytest.approx(whole, abs=0.01)


def _check_reasons(rows: dict[str, Any]) -> None:
    assert "killed by SIGSEGV" in rows["crashing"]["reason"]
    assert "needs the package 'no-such-package'" in rows["absent"]["reason"]
    for name in ("crashing", "absent"):
        assert rows[name]["latency_ms"] is None and rows[name]["passes"] == 0


def _check_figures(rows: dict[str, Any]) -> None:
    for name in ("pytorch", "onnx", "theirs.onnx"):
        row = rows[name]
        assert row["reason"] == "" and row["passes"] == 10 and row["load_ms"] > 0 < row["warmup_ms"]
        stages = sum(row[f"{stage}_ms"] for stage in STAGES)
        assert stages == pytest.approx(row["latency_ms"], rel=0.5, abs=2), "medians add up but roughly"
        assert row["latency_p95_ms"] >= row["latency_ms"] > row["network_ms"] > 0
        assert row["images_per_s"] == pytest.approx(1e3 / row["latency_ms"], rel=1e-3)
        assert row["best_images_per_s"] >= row["images_per_s"] and row["best_batch"] in {1, 2}
        assert row["ratio"] == pytest.approx(row["latency_ms"] / rows["pytorch"]["latency_ms"], rel=1e-3)
        assert Path(row["artifact"]).stat().st_size == row["size_bytes"]
    assert rows["onnx"]["verified"] is True and rows["onnx"]["max_box_error_px"] < 0.01
    assert rows["pytorch"]["verified"] is None and rows["theirs.onnx"]["rival"] is True
    assert 1e6 < rows["onnx"]["memory_bytes"] < 1e9
    assert rows["pytorch"]["device"].startswith("cpu") and rows["onnx"]["notes"] == []
