"""The folder that ``anyolo demo`` trains on: complete or drawn again, and nobody's pictures are touched."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from anyolo.data.synth import dataset, draw, write_dataset
from anyolo.errors import DataError

COUNTS = {"train": 3, "val": 2, "seed": 4, "size": 192}


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_layout_is_the_one_of_yolo(tmp_path: Path) -> None:
    described = write_dataset(tmp_path / "data", **COUNTS)
    assert described == tmp_path / "data" / "data.yaml"
    assert yaml.safe_load(described.read_text()) == {
        "path": ".",
        "train": "images/train",
        "val": "images/val",
        "names": {0: "w", 1: "r", 2: "g", 3: "b"},
    }
    pictures = sorted((tmp_path / "data" / "images" / "train").iterdir())
    assert [p.name for p in pictures] == ["bulbs_00000.jpg", "bulbs_00001.jpg", "bulbs_00002.jpg"]
    drawn, labels = draw(4, "train", 1, 192)
    stored = cv2.imread(str(pictures[1]))
    assert stored.shape == drawn.shape
    assert np.abs(stored.astype(int) - drawn).mean() < 8
    rows = np.loadtxt(tmp_path / "data" / "labels" / "train" / "bulbs_00001.txt")
    np.testing.assert_allclose(rows, labels, atol=1e-6)


def test_a_complete_folder_is_left_alone_and_a_test_split_is_drawn_when_asked_for(tmp_path: Path) -> None:
    write_dataset(tmp_path, **COUNTS)
    marker = tmp_path / "images" / "train" / "bulbs_00000.jpg"
    marker.write_bytes(b"touched")
    write_dataset(tmp_path, **COUNTS)
    assert marker.read_bytes() == b"touched"
    write_dataset(tmp_path, **COUNTS, test=1)
    assert marker.read_bytes() != b"touched"
    assert (tmp_path / "labels" / "test" / "bulbs_00000.txt").is_file()


def test_an_interrupted_drawing_is_redone_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "whole", **COUNTS)
    calls = []

    def stop_at_three(*args: object) -> tuple[np.ndarray, np.ndarray]:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dataset, "draw", stop_at_three)
        write_dataset(tmp_path / "broken", **COUNTS)
    assert not (tmp_path / "broken" / "data.yaml").exists()
    write_dataset(tmp_path / "broken", **COUNTS)
    assert _contents(tmp_path / "broken") == _contents(tmp_path / "whole")


def test_fewer_pictures_than_before_leave_no_stale_ones(tmp_path: Path) -> None:
    write_dataset(tmp_path / "many", train=4, val=3, seed=4, size=192)
    write_dataset(tmp_path / "many", **COUNTS)
    write_dataset(tmp_path / "few", **COUNTS)
    assert _contents(tmp_path / "many") == _contents(tmp_path / "few")


def test_pictures_of_others_are_never_removed(tmp_path: Path) -> None:
    mine = tmp_path / "images" / "train" / "holiday.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"holiday\.jpg"):
        write_dataset(tmp_path, **COUNTS)
    assert mine.read_bytes() == b"mine"


def test_a_data_yaml_of_others_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [cat]\n")
    with pytest.raises(DataError, match=r"data\.yaml"):
        write_dataset(tmp_path, **COUNTS)
    assert (tmp_path / "data.yaml").read_text() == "names: [cat]\n"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="file"):
        write_dataset(tmp_path / "file" / "data", **COUNTS)
