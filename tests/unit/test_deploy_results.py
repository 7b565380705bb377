"""Results and Boxes: the names users know, and numbers that could be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from anyolo.deploy.results import Boxes, Results
from anyolo.errors import AnyoloError, MissingPackage

NAMES = {0: "lamp", 1: "red bulb"}
ROWS = [[10.0, 20.0, 50.0, 40.0, 0.9, 1], [0.0, 0.0, 100.0, 80.0, 0.5, 0], [60.0, 10.0, 70.0, 30.0, 0.25, 1]]


def result(rows: list[list[float]] = ROWS, path: str = "pictures/street.jpg") -> Results:
    pixels = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    return Results(pixels, path, NAMES, Boxes(torch.tensor(rows).reshape(-1, 6), (80, 100)))


def test_boxes_in_every_layout() -> None:
    boxes = result().boxes
    assert boxes.xyxy[0].tolist() == [10, 20, 50, 40]
    assert boxes.xywh[0].tolist() == [30, 30, 40, 20]
    torch.testing.assert_close(boxes.xyxyn[0], torch.tensor([0.1, 0.25, 0.5, 0.5]))
    torch.testing.assert_close(boxes.xywhn[0], torch.tensor([0.3, 0.375, 0.4, 0.25]))
    torch.testing.assert_close(boxes.conf, torch.tensor([0.9, 0.5, 0.25]))
    assert boxes.cls.tolist() == [1, 0, 1] and boxes.id is None and boxes.orig_shape == (80, 100)
    assert boxes.data.shape == (3, 6) and len(boxes) == 3


def test_boxes_as_arrays_and_on_devices() -> None:
    arrays = result().boxes.numpy()
    assert isinstance(arrays.xywhn, np.ndarray) and arrays.xywhn.dtype == np.float32
    np.testing.assert_allclose(arrays.xywhn[0], [0.3, 0.375, 0.4, 0.25])
    assert isinstance(arrays.to("cpu").data, torch.Tensor)
    assert result().to(torch.float64).boxes.data.dtype == torch.float64
    assert isinstance(result().cpu().numpy().boxes.data, np.ndarray)


def test_taking_some_of_the_boxes() -> None:
    whole = result()
    assert len(whole) == 3 and len(whole[0]) == 1 and len(whole[1:]) == 2 and len(whole[[0, 2]]) == 2
    assert whole[whole.boxes.conf > 0.4].boxes.cls.tolist() == [1, 0]
    assert [len(box) for box in whole.boxes] == [1, 1, 1]
    assert whole[-1].boxes.conf.tolist() == [0.25] and whole[0].path == whole.path


def test_words_and_tables() -> None:
    found = result()
    assert found.verbose() == "1 lamp, 2 red bulb" and result([]).verbose() == "nothing found"
    first = {
        "name": "red bulb",
        "class": 1,
        "confidence": 0.9,
        "box": {"x1": 10.0, "y1": 20.0, "x2": 50.0, "y2": 40.0},
    }
    assert found.summary()[0] == first and json.loads(found.to_json())[0] == first
    assert found.summary(normalize=True)[0]["box"] == {"x1": 0.1, "y1": 0.25, "x2": 0.5, "y2": 0.5}
    assert found.to_csv().splitlines()[:2] == [
        "name,class,confidence,x1,y1,x2,y2",
        "red bulb,1,0.9,10.0,20.0,50.0,40.0",
    ]
    document = found.to_dict()
    assert (document["width"], document["height"], len(document["boxes"])) == (100, 80, 3)
    assert document["boxes"][0]["xyxy"] == [10, 20, 50, 40] and document["boxes"][0]["name"] == "red bulb"
    assert json.dumps(document) and result([]).to_dict()["boxes"] == []


def test_a_table_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("anyolo.deploy.results.import_module", absent)
    with pytest.raises(MissingPackage, match="pandas"):
        result().to_df()


def test_a_table() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    assert list(result().to_df()["class"]) == [1, 0, 1]


def test_label_files(tmp_path: Path) -> None:
    path = Path(result().save_txt(tmp_path / "labels" / "street.txt"))
    assert path.read_text().splitlines()[0] == "1 0.300000 0.375000 0.400000 0.250000"
    result().save_txt(path, save_conf=True)
    lines = path.read_text().splitlines()
    assert len(lines) == 3 and lines[0].endswith(" 0.900000")
    result([]).save_txt(path)
    assert path.read_text() == ""


def test_drawing_changes_a_copy_only() -> None:
    found = result()
    before = found.orig_img.copy()
    drawn = found.plot()
    np.testing.assert_array_equal(found.orig_img, before)
    assert drawn.shape == before.shape and (drawn != before).any()
    np.testing.assert_array_equal(found.plot(labels=False, boxes=False), before)
    assert (found.plot(labels=False) != drawn).any()
    blank = np.zeros((80, 100, 3), np.uint8)
    # the outline of the first box lies where the box is
    outline = found[0].plot(labels=False, img=blank, line_width=1).any(2)
    rows, columns = np.flatnonzero(outline.any(1)), np.flatnonzero(outline.any(0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 40, 10, 50)


def test_boxes_at_and_beyond_the_edges_are_drawn() -> None:
    odd = [
        [-5.0, -5.0, 3.0, 3.0, 0.9, 1],
        [95.0, 75.0, 130.0, 95.0, 0.8, 0],
        [50.0, 50.0, 50.0, 50.0, 0.7, 1],
    ]
    assert result(odd).plot().shape == (80, 100, 3)
    tiny = Results(
        np.zeros((1, 1, 3), np.uint8), "a.jpg", NAMES, Boxes(torch.tensor([[0, 0, 1, 1, 0.9, 1]]), (1, 1))
    )
    assert tiny.plot().shape == (1, 1, 3)


def test_written_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert result().save() == "results_street.jpg" and Path("results_street.jpg").is_file()
    path = result().save(tmp_path / "лампа" / "улица.png")
    assert cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR).shape == (80, 100, 3)
    with pytest.raises(AnyoloError, match=r"\.xyz"):
        result().save("a.xyz")


def test_crops(tmp_path: Path) -> None:
    written = result().save_crop(tmp_path, "street.png")
    names = [str(Path(path).relative_to(tmp_path).as_posix()) for path in written]
    assert names == ["red bulb/street.png", "lamp/street.png", "red bulb/street2.png"]
    np.testing.assert_array_equal(cv2.imread(written[0]), result().orig_img[20:40, 10:50])


def test_a_picture_is_loaded_only_when_asked_for() -> None:
    calls = []

    def load() -> np.ndarray:
        calls.append(1)
        return np.zeros((80, 100, 3), np.uint8)

    lazy = Results(load, "a.jpg", NAMES, result().boxes)
    assert lazy.orig_shape == (80, 100) and lazy.verbose() and not calls
    assert lazy.plot().shape == (80, 100, 3) and lazy.orig_img is lazy.orig_img and len(calls) == 1


def test_no_window_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AnyoloError, match="no window") as caught:
        result().show()
    assert "save()" in caught.value.hint
