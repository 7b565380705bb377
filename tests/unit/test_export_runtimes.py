"""Runtimes with packages of their own: what users read when a file, a size or a package is wrong."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch

from anyolo.config.schema import ExportConfig
from anyolo.errors import ConfigError, ExportError, MissingPackage
from anyolo.export import EXPORTERS, base, export_model, open_artifact
from anyolo.export.engine import ExportResult
from tests.conformance.formats import runnable
from tests.conformance.small_model import SIDE, small_checkpoint


def export(format: str, out: Path, **changes: object) -> ExportResult:
    config = {"format": format, "imgsz": SIDE, "output": str(out), "verify": False, **changes}
    return export_model(small_checkpoint(), ExportConfig(**config))  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["openvino", "ncnn"])
def test_a_missing_package_names_the_extra(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(base, "version", absent)
    with pytest.raises(MissingPackage, match=f"format={format} needs") as caught:
        export(format, tmp_path)
    assert f'pip install "anyolo[{format}]"' in caught.value.hint


@pytest.mark.parametrize("format", [runnable(name) for name in ("ptl", "openvino", "ncnn")])
def test_a_wrong_size_names_both(format: str, tmp_path: Path) -> None:
    opened = open_artifact(export(format, tmp_path).artifact)
    with pytest.raises(ConfigError, match="128x128, not 64x96"):
        opened.predict(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))


@pytest.mark.parametrize("format", [runnable("ncnn")])
def test_ncnn_believes_nothing_that_was_changed(format: str, tmp_path: Path) -> None:
    folder = export(format, tmp_path).artifact
    runner = EXPORTERS.get(format).open(folder)
    with pytest.raises(ExportError, match="128x128, not 64x96"):  # ncnn itself would answer
        runner.run(np.zeros((1, 3, 64, 96), np.uint8))
    param = folder / "model.ncnn.param"
    param.write_text(param.read_text().replace("Swish", "Sigmoid", 1))
    with pytest.raises(ExportError, match="SHA-256 differs") as caught:
        EXPORTERS.get(format).open(folder)
    assert caught.value.where == str(param)
    (folder / "metadata.json").write_text(json.dumps({"files": {}}))
    with pytest.raises(ExportError, match="no folder that anyolo wrote for ncnn"):
        EXPORTERS.get(format).open(folder)


def test_torchscript_is_no_file_for_phones(tmp_path: Path) -> None:
    other = export("torchscript", tmp_path).artifact
    other.rename(tmp_path / "a.ptl")
    with pytest.raises(ExportError, match="lite interpreter") as caught:
        open_artifact(tmp_path / "a.ptl")
    assert caught.value.where == str(tmp_path / "a.ptl")


def test_the_oldest_operator_set(tmp_path: Path) -> None:
    import onnx

    result = export("onnx", tmp_path, opset=12, simplify=False, verify=True, conf=0.3)
    assert result.verified
    assert onnx.load(result.artifact).opset_import[0].version == 12
    with pytest.raises(ConfigError, match="opset=11"):
        export("onnx", tmp_path, opset=11)
