"""Darknet's and Yolo-FastestV2's ``.data`` files: the data, and the settings that come with them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from anyolo.data import data_settings, open_data
from anyolo.errors import AnyoloError, DataError, UnknownName

SECTIONS = """\
[name]
model_name=lights

[train-configure]
epochs=55
steps=30,45
batch_size=32
subdivisions=2
learning_rate=0.002

[model-configure]
pre_weights=None
classes=2
width=416
height=416
anchor_num=3
anchors=5.48,14.20, 13.54,14.93, 15.09,8.58, 16.81,16.89, 18.91,20.13, 23.56,24.22

[data-configure]
train=train.txt
val=val.txt
names=obj.names
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "set"
    for number in range(3):
        path = root / f"img/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((20, 40, 3), np.uint8))
        path.with_suffix(".txt").write_text(f"{number % 2} .5 .5 .25 .5\n")
    (root / "train.txt").write_text("./img/0.png\n./img/1.png\n")
    (root / "val.txt").write_text("img/2.png\n")
    (root / "obj.names").write_text("white\nred\n")
    return root


def written(folder: Path, text: str, name: str = "obj.data") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_plain_darknet_lines(folder: Path) -> None:
    data = written(
        folder, "classes= 2\ntrain  = train.txt\nvalid  = val.txt\nnames = obj.names\nbackup = b/\n"
    )
    train, val = open_data(data, "train"), open_data(data, "val")
    assert (train.names, len(train), len(val)) == (("white", "red"), 2, 1)
    assert train.items[1].labels.tolist() == [[1, 0.5, 0.5, 0.25, 0.5]]
    assert data_settings(data).values == {} and data_settings(data).unused == ("backup",)
    assert open_data(str(folder), "val").items[0].path == val.items[0].path  # the folder's only .data
    with pytest.raises(DataError, match="there is no test split"):
        open_data(data, "test")


def test_sections_give_data_and_settings(folder: Path) -> None:
    data = written(folder, "\ufeff# mine\n" + SECTIONS)
    assert [len(open_data(data, split)) for split in ("train", "val")] == [2, 1]
    said = data_settings(data)
    assert said.values == {
        "epochs": "55",
        "steps": "30,45",
        "lr0": "0.002",
        "name": "lights",
        "anchors": "5.48,14.20, 13.54,14.93, 15.09,8.58, 16.81,16.89, 18.91,20.13, 23.56,24.22",
        "model": "yolo-fastestv2",
        "imgsz": "416",
        "batch": "16",
        "nbs": "32",
    }
    lines = {key: int(where.rpartition(":")[2]) for key, where in said.places.items()}
    assert lines["lr0"] == 10 and lines["anchors"] == 18 and lines["imgsz"] == 15
    assert said.unused == ()


def test_a_wide_input_and_own_weights(folder: Path) -> None:
    (folder / "mine.pth").write_bytes(b"")
    text = SECTIONS.replace("width=416", "width=640").replace("pre_weights=None", "pre_weights=mine.pth")
    said = data_settings(written(folder, text))
    assert said.values["imgsz"] == "416,640"  # height, width
    assert said.values["model"] == str(folder / "mine.pth")
    lost = data_settings(written(folder, SECTIONS.replace("pre_weights=None", "pre_weights=a/lost.pth")))
    assert lost.values["model"] == "a/lost.pth"  # named by whoever wants it; a typed model= needs it not


def test_paths_from_the_working_directory_and_the_folder_above(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cfg").mkdir()
    data = written(folder, "train = train.txt\nvalid = val.txt\nnames = obj.names", "cfg/my.data")
    assert len(open_data(data, "train")) == 2
    elsewhere = folder / "deep/er"
    elsewhere.mkdir(parents=True)
    far = written(elsewhere, "train = train.txt\nvalid = val.txt\nclasses = 2")
    with pytest.raises(DataError, match=r"train: train\.txt does not exist"):
        open_data(far, "train")
    monkeypatch.chdir(folder)
    assert open_data(far, "train").names == ("class0", "class1")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("train train.txt\n", 1, "'train train.txt' is no key = value"),
        ("classes = 2\nclasses = 3\n", 2, "classes is given twice"),
        (SECTIONS.replace("learning_rate", "learning_rte"), 9, "unknown key 'learning_rte'"),
        (SECTIONS.replace("width=416", "width=wide"), 14, "width=wide is not allowed"),
        (SECTIONS.replace("subdivisions=2", "subdivisions=3"), 8, "batch_size=32 cannot be split"),
        (SECTIONS.replace("subdivisions=2", "subdivisions=0"), 8, "subdivisions=0 is not allowed"),
        (SECTIONS.replace(", 23.56,24.22", ""), 17, "10 numbers are no width and height for anchor_num=3"),
    ],
)
def test_a_mistake_is_named_with_its_line(folder: Path, text: str, line: int, words: str) -> None:
    data = written(folder, text)
    with pytest.raises(AnyoloError) as caught:
        data_settings(data)
    assert caught.value.where == f"{data}:{line}" and words in caught.value.message and caught.value.hint


def test_a_misspelt_key_gets_a_suggestion(folder: Path) -> None:
    with pytest.raises(UnknownName) as caught:
        data_settings(written(folder, "clases = 2\n"))
    assert "'classes'" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("train = train.txt\nclasses = 3\nnames = obj.names", 2, "classes = 3, but"),
        ("train = train.txt\nnames = lost.names", 2, "names: lost.names does not exist"),
        ("train = train.txt", 0, "names is missing"),
    ],
)
def test_class_names_must_be_there_and_agree(folder: Path, text: str, line: int, words: str) -> None:
    data = written(folder, text)
    with pytest.raises(DataError) as caught:
        open_data(data, "train")
    assert caught.value.where == (f"{data}:{line}" if line else data) and words in caught.value.message


def test_no_data_no_settings(tmp_path: Path) -> None:
    assert data_settings("") == data_settings(str(tmp_path / "lost.data")) == data_settings(str(tmp_path))


def test_the_real_files(shared) -> None:
    plain, full = (str(shared(f"data/wrgb/{name}")) for name in ("obj.data", "obj-fastestv2.data"))
    for data in (plain, full):
        index = open_data(data, "train")
        assert (index.names, len(index), index.boxes) == (("w", "r", "g", "b"), 277, 1500)
    said = data_settings(full)
    assert (said.values["imgsz"], said.values["batch"], said.values["lr0"]) == ("416", "16", "0.001")
    assert data_settings(plain).unused == ("backup",)
