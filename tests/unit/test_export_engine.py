"""Export: where files go, what users may ask for, and what happens when it cannot be done."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from anyolo import console
from anyolo.config.schema import ExportConfig
from anyolo.errors import ConfigError, DataError, ExportError, MissingPackage, UnknownName, VerificationFailed
from anyolo.export import EXPORTERS, export_model, is_artifact, open_artifact
from anyolo.export.base import require
from anyolo.export.engine import ExportResult
from anyolo.export.pictures import MOST, network_inputs, pictures_for
from anyolo.structures import Preprocess
from tests.conformance.small_model import SIDE, pictures, small_checkpoint


class Ear(console.NullReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def line(self, text: str) -> None:
        self.said.append(text)

    warn = line


@pytest.fixture()
def ear() -> Any:
    with console.use(Ear()) as ear:
        yield ear


def export(out: Path | str = "", weights: Path | str = "", **changes: Any) -> ExportResult:
    config = {"format": "torchscript", "imgsz": SIDE, "output": str(out), "verify": False, **changes}
    return export_model(small_checkpoint(), ExportConfig(**config), weights=weights)


def test_where_the_artefact_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "weights" / "best.pt"
    weights.parent.mkdir()
    weights.touch()
    assert export(weights=weights).artifact == weights.with_name("best.torchscript")
    assert export().artifact == Path("yolov8t.torchscript")
    assert export(tmp_path / "new" / "name.pt").artifact == tmp_path / "new" / "name.torchscript"
    result = export(tmp_path / "new", weights=weights)
    assert result.artifact == tmp_path / "new" / "best.torchscript"
    assert result.manifest == tmp_path / "new" / "best.torchscript.json" and result.manifest.is_file()
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".anyolo")]
    assert "torch.jit.load('best.torchscript')" in result.lines


def test_words_that_mean_nothing() -> None:
    with pytest.raises(UnknownName, match="unknown export format 'onx'") as caught:
        export(format="onx")
    assert "'onnx'" in caught.value.hint
    with pytest.raises(UnknownName):
        export(format="web")  # not built yet, so not in the table
    with pytest.raises(ConfigError, match="multiple of the model's stride"):
        export(imgsz=100)
    with pytest.raises(ConfigError, match="opset=25"):
        export(format="onnx", opset=25)
    with pytest.raises(MissingPackage, match="no-such-package"):
        require(("torch", "no-such-package"), extra="onnx")
    assert EXPORTERS.resolve("TS") == "torchscript" and not is_artifact("best.pt")
    with pytest.raises(ExportError, match="no exported file by its name"):
        open_artifact("best.pt")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = export(tmp_path).artifact.read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ExportError, match="No space left") as caught:
        export(tmp_path)
    assert "disk" in caught.value.hint and str(tmp_path) in caught.value.where
    assert (tmp_path / "yolov8t.torchscript").read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="cannot be written"):
        export(tmp_path / "file" / "a.torchscript")


def test_too_few_boxes_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that cannot show its decoded maps, and a model that finds nothing."""
    runner = type(open_artifact(export(tmp_path).artifact).runner)
    monkeypatch.setattr(runner, "decoded", lambda self, images: None)
    cv2.imwrite(str(tmp_path / "a.png"), pictures(1)[0])
    with pytest.raises(VerificationFailed, match="only 0 boxes matched, 20 are needed") as caught:
        export(tmp_path / "b", verify=True, conf=0.99999, source=str(tmp_path))
    assert "source=" in caught.value.hint


def test_pictures_of_the_user(tmp_path: Path, ear: Ear) -> None:
    for number in range(40):
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), np.full((8, 8, 3), number, np.uint8))
    (tmp_path / "07.png").write_bytes(b"")
    found = pictures_for(str(tmp_path), "", {})
    assert len(found) == MOST and found[0].mean() == 0 and found[-1].mean() == 39
    assert len(pictures_for(str(tmp_path / "0*.png"), "", {})) == 9 and "07.png" in ear.said[-1]
    with pytest.raises(DataError, match="no picture to verify with"):
        pictures_for(str(tmp_path / "*.jpg"), "", {})


def test_pictures_of_the_training_run(tmp_path: Path, ear: Ear) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "data" / "images" / "a.png"), np.full((40, 50, 3), 9, np.uint8))
    data = tmp_path / "data" / "data.yaml"
    data.write_text(yaml.safe_dump({"path": ".", "train": "images", "val": "images", "names": ["a"]}))
    run = tmp_path / "run"
    (run / "weights").mkdir(parents=True)
    (run / "args.yaml").write_text(yaml.safe_dump({"data": str(data)}))
    weights = run / "weights" / "best.pt"
    assert [p.shape for p in pictures_for("", weights, {})] == [(40, 50, 3)]
    assert "data.yaml" in ear.said[-1]
    data.unlink()
    assert len(pictures_for("", weights, {})) == 4 and "drawn pictures" in ear.said[-1]
    assert len(pictures_for("", "best.pt", {"train_args": {"data": "nowhere.yaml"}})) == 4


def test_network_inputs() -> None:
    made = pictures(5, height=90, width=160)
    fixed = list(network_inputs(made, Preprocess(), (96, 128), batch=2, is_dynamic=False))
    assert [x.shape for x in fixed] == [(2, 3, 96, 128)] * 3  # the last filled up
    np.testing.assert_array_equal(fixed[2][1], fixed[0][0])
    free = list(network_inputs(made, Preprocess(), (128, 128), batch=1, is_dynamic=True))
    assert [x.shape for x in free] == [(1, 3, 96, 128)] * 5 + [(2, 3, 128, 128)]
