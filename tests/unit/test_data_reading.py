"""data= to an index: the rules of data.yaml, labels, COCO json, and what is said about bad files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from anyolo import console
from anyolo.data import open_data
from anyolo.data.index import summarise
from anyolo.data.labels import parse_labels
from anyolo.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


class Listener(console.NullReporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def picture(path: Path, size: tuple[int, int] = (20, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), 99, np.uint8))
    return path


def dataset(root: Path, count: int = 3, label: str = "0 .5 .5 .2 .2\n", **keys: Any) -> Path:
    """images/train and labels/train with ``count`` pictures, and a data.yaml."""
    for number in range(count):
        picture(root / f"images/train/{number}.png")
        file = root / f"labels/train/{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(label)
    content = {"path": ".", "train": "images/train", "names": ["cat", "dog"]} | keys
    (root / "data.yaml").write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return root / "data.yaml"


def refusal(data: Path | str, split: str = "train") -> DataError:
    with pytest.raises(DataError) as caught:
        open_data(str(data), split)
    assert caught.value.where and caught.value.hint
    return caught.value


# ------------------------------------------------------------------ data.yaml


def test_folders_names_and_labels(tmp_path: Path) -> None:
    index = open_data(str(dataset(tmp_path)), "train")
    assert index.names == ("cat", "dog") and index.nc == 2 and index.category_ids == (0, 1)
    assert [item.image_id for item in index.items] == [0, 1, 2]
    item = index.items[0]
    assert item.size_hw == (20, 30) and item.labels.dtype == np.float32
    assert np.allclose(item.boxes_xyxy, [[12, 8, 18, 12]]) and np.allclose(item.area, [24])


def test_path_is_relative_to_the_yaml_then_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset(tmp_path / "sets/one")
    elsewhere = tmp_path / "configs/one.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text("path: ../sets/one\ntrain: images/train\nnames: [a]\n")
    assert len(open_data(str(elsewhere), "train")) == 3
    elsewhere.write_text("path: sets/one\ntrain: images/train\nnames: [a]\n")
    assert "does not exist" in refusal(elsewhere).message
    monkeypatch.chdir(tmp_path)
    assert len(open_data(str(elsewhere), "train")) == 3


def test_a_split_is_a_folder_a_list_file_or_several(tmp_path: Path) -> None:
    dataset(tmp_path)
    picture(tmp_path / "more/x.png")
    (tmp_path / "list.txt").write_text("./images/train/0.png\nimages/train/2.png\n\nmore/x.png\n")
    for split, count in [("list.txt", 3), (["images/train", "more"], 4), (["list.txt", "images/train"], 4)]:
        path = dataset(tmp_path, train=split)
        assert len(open_data(str(path), "train")) == count


def test_list_files_may_be_relative_to_path(tmp_path: Path) -> None:
    dataset(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.txt").write_text("images/train/0.png\nimages/train/nowhere.png\n")
    index = open_data(str(dataset(tmp_path, train="lists/train.txt")), "train")
    assert len(index) == 1
    assert [p.kind for p in index.problems] == ["missing picture"]
    assert "lists/train.txt:2" in index.problems[0].where


def test_labels_lie_in_labels_or_beside_the_picture(tmp_path: Path) -> None:
    picture(tmp_path / "img/a.png").with_suffix(".txt").write_text("1 .5 .5 .1 .1")
    picture(tmp_path / "images/b.png").with_suffix(".txt").write_text("0 .5 .5 .1 .1")
    path = dataset(tmp_path, train=["img", "images/b.png"])
    index = open_data(str(path), "train")
    assert [int(item.labels[0, 0]) for item in index.items] == [1, 0]


@pytest.mark.parametrize(
    ("names", "nc", "expected"),
    [
        (["a", "b"], None, ("a", "b")),
        ({0: "a", 1: "b"}, None, ("a", "b")),
        ({"1": "b", "0": "a"}, 2, ("a", "b")),
        (None, 2, ("class0", "class1")),
        ([1, True], None, ("1", "True")),
    ],
)
def test_names(tmp_path: Path, names: Any, nc: int | None, expected: tuple[str, ...]) -> None:
    assert open_data(str(dataset(tmp_path, names=names, nc=nc)), "train").names == expected


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"names": None}, "names: is missing"),
        ({"names": ["a"], "nc": 2}, "nc: 2, but names: has 1"),
        ({"names": {0: "a", 2: "b"}}, "without gaps"),
        ({"names": {}}, "must be a list"),
        ({"nc": "two"}, "not a number of classes"),
        ({"train": "images/nowhere"}, "images/nowhere does not exist"),
        ({"train": None}, "no train split"),
        ({"path": "/nowhere/at/all"}, "/nowhere/at/all does not exist"),
        ({"download": "import os; os.remove('x')", "path": "nowhere"}, "does not exist"),
    ],
)
def test_what_is_wrong_with_a_yaml_is_said(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    path = dataset(tmp_path, **keys)
    error = refusal(path)
    assert message in error.message and str(path) in error.where


def test_broken_yaml_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("train: a\nnames:\n  0: a: b\n")
    assert refusal(path).where == f"{path}:3"
    path.write_text("")
    assert "no keys" in refusal(path).message
    path.write_bytes(b"names: [caf\xe9]")
    assert "UTF-8" in refusal(path).hint


def test_download_is_never_executed(tmp_path: Path) -> None:
    path = dataset(tmp_path, download=f"touch {tmp_path}/executed")
    open_data(str(path), "train")
    assert not (tmp_path / "executed").exists()


def test_wrong_paths_say_what_is_there(tmp_path: Path) -> None:
    dataset(tmp_path)
    error = refusal(tmp_path / "data.yml")
    assert "no such file" in error.message and "data.yaml" in error.hint
    assert "no data set given" in refusal("").message
    (tmp_path / "notes.md").write_text("hello")
    assert "no data set any format knows" in refusal(tmp_path / "notes.md").message


def test_empty_split(tmp_path: Path) -> None:
    (tmp_path / "images/empty").mkdir(parents=True)
    assert "split is empty" in refusal(dataset(tmp_path, train="images/empty")).message
    path = dataset(tmp_path)
    shutil.rmtree(tmp_path / "images/train")
    (tmp_path / "images/train").mkdir()
    (tmp_path / "images/train/0.png").write_bytes(b"")
    error = refusal(path)
    assert "no usable picture" in error.message and "unusable picture" in error.hint


def test_exporters_that_write_two_dots_too_many(tmp_path: Path) -> None:
    picture(tmp_path / "set/train/images/a.jpg")
    (tmp_path / "set/data.yaml").write_text("train: ../train/images\nnames: [a]\n")
    assert len(open_data(str(tmp_path / "set/data.yaml"), "train")) == 1


# ------------------------------------------------------------------ folders


def test_a_folder_may_hold_a_yaml_splits_or_only_pictures(tmp_path: Path) -> None:
    dataset(tmp_path / "with_yaml")
    assert open_data(str(tmp_path / "with_yaml"), "train").names == ("cat", "dog")
    picture(tmp_path / "splits/images/train/a.png")
    picture(tmp_path / "splits/images/val/b.png")
    label = tmp_path / "splits/labels/val/b.txt"
    label.parent.mkdir(parents=True)
    label.write_text("2 .5 .5 .1 .1")
    index = open_data(str(tmp_path / "splits"), "val")
    assert len(index) == 1 and index.names == ("class0", "class1", "class2")
    picture(tmp_path / "plain/deep/a.png").with_suffix(".txt").write_text("0 .5 .5 .1 .1")
    (tmp_path / "plain/classes.txt").write_text("lamp\n\n")
    for split in ("train", "val", "test"):
        index = open_data(str(tmp_path / "plain"), split)
        assert len(index) == 1 and index.boxes == 1 and index.names == ("lamp",)


def test_a_list_file_is_every_split(tmp_path: Path) -> None:
    picture(tmp_path / "img/a.png").with_suffix(".txt").write_text("1 .5 .5 .1 .1")
    (tmp_path / "train.txt").write_text("./img/a.png\n")
    index = open_data(str(tmp_path / "train.txt"), "val")
    assert len(index) == index.boxes == 1 and index.names == ("class0", "class1")


def test_labels_that_are_nowhere_are_mentioned(tmp_path: Path) -> None:
    path = dataset(tmp_path)
    shutil.rmtree(tmp_path / "labels")
    listener = Listener()
    with console.use(listener):
        assert open_data(str(path), "train").boxes == 0
    assert len(listener.warnings) == 1 and str(tmp_path / "labels/train/0.txt") in listener.warnings[0]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    dataset(tmp_path)
    try:
        (tmp_path / "images/train/again").symlink_to(tmp_path / "images", target_is_directory=True)
    except OSError:
        pytest.skip("no links on this system")
    assert len(open_data(str(tmp_path), "train")) == 3


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    dataset(tmp_path)
    picture(tmp_path / "images/train/._0.png")
    picture(tmp_path / "images/train/.cache/1.png")
    assert len(open_data(str(tmp_path), "train")) == 3


# ------------------------------------------------------------------ labels


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("0 nan .5 .1 .1", "NaN label"),
        ("0 .5 inf .1 .1", "NaN label"),
        ("0 .5 .5 .1", "wrong number of columns"),
        ("0 .5 .5 .1 .1 .9", "wrong number of columns"),
        ("0 .5 .5 .1 1.5", "coordinates out of range"),
        ("0 320 240 50 50", "coordinates out of range"),
        ("0 -.5 .5 .1 .1", "coordinates out of range"),
        ("0 .5 .5 0 .1", "empty box"),
        ("0 .5 .5 -.1 .1", "coordinates out of range"),
        ("2 .5 .5 .1 .1", "class out of range"),
        ("-1 .5 .5 .1 .1", "invalid class"),
        ("0.5 .5 .5 .1 .1", "invalid class"),
        ("cat .5 .5 .1 .1", "unreadable label"),
    ],
)
def test_a_bad_row_is_named_and_the_others_stay(row: str, kind: str) -> None:
    labels, problems = parse_labels(f"1 .5 .5 .5 .5\n\n{row}\n1 .2 .2 .1 .1", "a.txt", 2)
    assert np.allclose(labels, [[1, 0.5, 0.5, 0.5, 0.5], [1, 0.2, 0.2, 0.1, 0.1]])
    assert [(p.where, p.kind) for p in problems] == [("a.txt:3", kind)]


def test_polygons_become_boxes_with_a_note() -> None:
    labels, problems = parse_labels("1 .1 .2 .5 .2 .3 .8\n", "a.txt", 2)
    assert np.allclose(labels, [[1, 0.3, 0.5, 0.4, 0.6]])
    assert [p.kind for p in problems] == ["polygon label"]


def test_duplicates_are_removed_and_counted() -> None:
    row = "0 .5 .5 .1 .1\n"
    labels, problems = parse_labels(row + "1 .2 .2 .1 .1\n" + row * 2, "a.txt", 2)
    assert np.allclose(labels[:, 0], [0, 1])
    assert [(p.kind, p.message) for p in problems] == [("duplicate labels", "2 repeated")]


def test_boxes_are_cut_at_the_picture_and_others_stay_exact() -> None:
    labels, problems = parse_labels("0 .9 .5 .4 .2\n0 0.123456 0.5 0.1 0.1\n0 1.0005 .5 .1 .1", "a.txt", 1)
    assert not problems
    assert np.allclose(labels[0], [0, 0.85, 0.5, 0.3, 0.2])
    assert labels[1, 1] == np.float32(0.123456)
    assert (labels[:, 1:3] + labels[:, 3:] / 2 <= 1 + 1e-6).all()


def test_missing_and_empty_label_files_are_background(tmp_path: Path) -> None:
    path = dataset(tmp_path)
    (tmp_path / "labels/train/0.txt").write_text("\n \n")
    (tmp_path / "labels/train/1.txt").unlink()
    index = open_data(str(path), "train")
    assert [len(item.labels) for item in index.items] == [0, 0, 1] and not index.problems


def test_one_bad_file_is_counted_many_wrong_classes_are_refused(tmp_path: Path) -> None:
    path = dataset(tmp_path)
    (tmp_path / "labels/train/0.txt").write_text("7 .5 .5 .1 .1\n0 .5 .5 .1 .1")
    (tmp_path / "images/train/1.png").write_bytes(b"")
    listener = Listener()
    with console.use(listener):
        index = open_data(str(path), "train")
    assert len(index) == 2 and index.boxes == 2
    assert len(listener.warnings) == 2
    assert any("0.txt:1" in w and "class 7" in w for w in listener.warnings)
    assert any("1.png" in w and "empty" in w for w in listener.warnings)
    (tmp_path / "labels/train/2.txt").write_text("7 .5 .5 .1 .1")
    error = refusal(path)
    assert "0.txt:1" in error.where and "names 2 classes" in error.hint


def test_summaries_name_the_first_few(tmp_path: Path) -> None:
    _, problems = parse_labels("0 nan 0 0 0\n" * 5, "a.txt", 1)
    assert len(summarise(problems)) == 1
    assert summarise(problems)[0].startswith("5 x NaN label: a.txt:1") and summarise(problems)[0].endswith(
        "..."
    )


# ------------------------------------------------------------------ asked of the index


def test_fraction_classes_and_single_class(tmp_path: Path) -> None:
    path = str(dataset(tmp_path, count=10, label="0 .5 .5 .2 .2\n1 .2 .2 .1 .1\n"))
    assert [item.image_id for item in open_data(path, "train", fraction=0.3).items] == [0, 3, 6]
    assert len(open_data(path, "train", fraction=0.001)) == 1
    only = open_data(path, "train", classes=[1])
    assert only.names == ("cat", "dog") and {int(c) for i in only.items for c in i.labels[:, 0]} == {1}
    single = open_data(path, "train", single_cls=True)
    assert single.names == ("item",) and {int(c) for i in single.items for c in i.labels[:, 0]} == {0}
    assert single.boxes == 20
    with pytest.raises(ConfigError, match="no class 2"):
        open_data(path, "train", classes=[2])


# ------------------------------------------------------------------ index cache


def same(one: Any, other: Any) -> bool:
    plain = all(getattr(one, k) == getattr(other, k) for k in ("names", "problems", "root", "category_ids"))
    pairs = zip(one.items, other.items, strict=True)
    return plain and all(
        (a.path, a.size_hw, a.image_id) == (b.path, b.size_hw, b.image_id)
        and all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("labels", "crowd", "area"))
        for a, b in pairs
    )


def test_the_cache_gives_the_same_and_notices_changes(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dataset(tmp_path, label="0 .5 .5 .2 .2\n1 nan 0 0 0\n")
    first = open_data(str(path), "train")
    (stored,) = (own_cache / "anyolo").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(
            "anyolo.data.formats.label_files.read_label_file", lambda *_: pytest.fail("not from the cache")
        )
        assert same(first, open_data(str(path), "train"))
    (tmp_path / "labels/train/0.txt").write_text("1 .4 .4 .2 .2")
    assert open_data(str(path), "train").items[0].labels[0, 0] == 1
    (tmp_path / "labels/train/1.txt").unlink()
    assert len(open_data(str(path), "train").items[1].labels) == 0
    picture(tmp_path / "images/train/3.png")
    assert len(open_data(str(path), "train")) == 4
    stored.write_bytes(stored.read_bytes()[:100])
    assert len(open_data(str(path), "train")) == 4
    assert open_data(str(dataset(tmp_path, names=["cat", "cow"])), "train").names == ("cat", "cow")


def test_no_cache_folder_is_said_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    listener = Listener()
    with console.use(listener):
        assert len(open_data(str(dataset(tmp_path)), "train")) == 3
    assert "XDG_CACHE_HOME" in listener.warnings[0]


def test_data_sets_are_not_written_into(tmp_path: Path) -> None:
    path = dataset(tmp_path)
    before = sorted(os.walk(tmp_path))
    open_data(str(path), "train")
    assert sorted(os.walk(tmp_path)) == before


# ------------------------------------------------------------------ COCO


def coco(root: Path, **changes: Any) -> Path:
    picture(root / "images/1.png", (20, 30))
    picture(root / "images/2.png", (40, 40))
    content = {
        "images": [
            {"id": 7, "file_name": "1.png", "height": 20, "width": 30},
            {"id": 9, "file_name": "2.png", "height": 40, "width": 40},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [3, 2, 6, 4], "area": 11.5, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 30, 20], "area": 600, "iscrowd": 1},
        ],
        "categories": [{"id": 90, "name": "brush"}, {"id": 3, "name": "car"}],
    } | changes
    path = root / "annotations/instances_val.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_coco_ids_gaps_and_crowds(tmp_path: Path) -> None:
    path = coco(tmp_path)
    for data in (path, tmp_path):
        index = open_data(str(data), "val")
        assert index.names == ("car", "brush") and index.category_ids == (3, 90)
        assert [item.image_id for item in index.items] == [7, 9]
        item = index.items[0]
        assert item.labels[:, 0].tolist() == [1, 0] and item.crowd.tolist() == [False, True]
        assert np.allclose(item.boxes_xyxy, [[3, 2, 9, 6], [0, 0, 30, 20]]) and item.area[0] == 11.5
        assert len(index.items[1].labels) == 0


def test_coco_bad_annotations_are_named(tmp_path: Path) -> None:
    good = {"image_id": 7, "category_id": 3, "bbox": [1, 1, 5, 5]}
    rows = [
        ({}, None),
        ({"category_id": 4}, "class out of range"),
        ({"bbox": [1, 1, 0, 5]}, "empty box"),
        ({"bbox": [1, 1, 5]}, "unreadable label"),
        ({"bbox": None}, "unreadable label"),
        ({"bbox": [1, 1, 5, float("nan")]}, "NaN label"),
        ({"image_id": 8}, "unknown image"),
        ({"bbox": [100, 100, 5, 5]}, "coordinates out of range"),
    ]
    path = coco(tmp_path, annotations=[{"id": k, **good, **change} for k, (change, _) in enumerate(rows)])
    index = open_data(str(path), "val")
    assert index.boxes == 1
    assert sorted(p.kind for p in index.problems) == sorted(kind for _, kind in rows if kind)
    assert any(p.where == f"{path} annotation 2" for p in index.problems)


def test_coco_picture_of_another_shape_is_left_out_and_of_another_size_scaled(tmp_path: Path) -> None:
    path = coco(tmp_path)
    picture(tmp_path / "images/1.png", (40, 60))
    index = open_data(str(path), "val")
    assert np.allclose(index.items[0].boxes_xyxy[0], [6, 4, 18, 12]) and index.items[0].area[0] == 46
    picture(tmp_path / "images/1.png", (30, 20))
    index = open_data(str(path), "val")
    assert len(index) == 1 and [p.kind for p in index.problems] == ["picture of another shape"]


def test_coco_errors(tmp_path: Path) -> None:
    path = coco(tmp_path)
    (tmp_path / "images/1.png").unlink()
    index = open_data(str(path), "val")
    assert [p.kind for p in index.problems] == ["missing picture"]
    path.write_text(path.read_text()[:100])
    assert "not valid JSON" in refusal(path, "val").message
    path.write_text('{"images": []}')
    assert "no list 'annotations'" in refusal(path, "val").message
    coco(tmp_path, images=[{"id": 1, "file_name": "nowhere.jpg"}])
    assert "nowhere.jpg" in refusal(path, "val").message
    shutil.copy(path, path.with_name("instances_train.json"))
    shutil.copy(path, path.with_name("instances_test.json"))
    (tmp_path / "annotations/instances_val.json").unlink()
    assert "named after val" in refusal(tmp_path, "val").message


def test_real_coco_files(shared: Callable[[str], Path]) -> None:
    index = open_data(str(shared("data/coco_mini_val79")), "val")
    names = yaml.safe_load(shared("data/coco128/data.yaml").read_text())["names"]
    assert index.names == tuple(names.values())
    assert len(index) == 79 and index.boxes == 624 and sum(int(i.crowd.sum()) for i in index.items) == 5
    assert (index.category_ids[0], index.category_ids[11], index.category_ids[-1]) == (1, 13, 90)
    yolo = open_data(str(shared("data/coco128/data.yaml")), "train")
    same_pictures = open_data(str(shared("data/coco128/instances.json")), "train")
    by_id = {item.image_id: item for item in same_pictures.items}
    for item in yolo.items:
        other = by_id[item.image_id].keep(~by_id[item.image_id].crowd)
        assert len(other.labels) == len(item.labels) and other.size_hw == item.size_hw
        order, own = np.lexsort(other.labels.T), np.lexsort(item.labels.T)
        assert np.abs(other.boxes_xyxy[order] - item.boxes_xyxy[own]).max(initial=0) < 0.02


@pytest.mark.parametrize(("name", "train", "val"), [("wrgb", 222, 55), ("bccd", 205, 87)])
def test_real_yolo_sets(shared: Callable[[str], Path], name: str, train: int, val: int) -> None:
    path = str(shared(f"data/{name}/data.yaml"))
    assert (len(open_data(path, "train")), len(open_data(path, "val"))) == (train, val)
    assert not open_data(path, "train").problems
