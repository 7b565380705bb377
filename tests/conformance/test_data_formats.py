"""Every data set format: what it writes it reads again."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from anyolo.data.formats import FORMATS
from anyolo.data.index import AnnotationIndex, Item
from anyolo.data.reader import open_data


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def make_index(folder: Path, split: str, seed: int) -> AnnotationIndex:
    """Pictures of several sizes in two folders with equal names, 0 to 9 boxes each."""
    rng = np.random.default_rng(seed)
    items = []
    for number in range(6):
        height, width = (int(side) for side in rng.integers(1, 90, 2))
        path = folder / f"{number % 2}/{number // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (height, width, 3), np.uint8))
        count = int(rng.integers(0, 10)) if number else 0
        low = rng.uniform(0, 0.9, (count, 2))
        side = rng.uniform(0.01, 1, (count, 2)) * (1 - low)
        classes = rng.integers(0, 3, (count, 1))
        labels = np.concatenate((classes, low + side / 2, side), 1).astype(np.float32)
        items.append(
            Item(
                path=str(path),
                size_hw=(height, width),
                labels=labels,
                crowd=np.zeros(count, np.bool_),
                area=labels[:, 3] * labels[:, 4] * np.float32(height * width),
                image_id=number + 10,
            )
        )
    return AnnotationIndex(("cat", "dog", "a: b"), tuple(items), split=split, category_ids=(0, 1, 2))


@pytest.mark.parametrize("name", FORMATS.names())
def test_written_and_read_again(tmp_path: Path, name: str) -> None:
    written = {
        split: make_index(tmp_path / "from" / split, split, seed)
        for seed, split in enumerate(("train", "val"))
    }
    root = str(tmp_path / "to")
    for index in written.values():
        data = FORMATS.get(name).write(index, root)
    for split, index in written.items():
        for place in (data, root) if name == "yolo" else (root,):
            assert next(n for n in FORMATS.names() if FORMATS.get(n).matches(place)) == name
            read = open_data(place, split)
            assert read.names == index.names and not read.problems and len(read) == len(index)
            pictures = {os.path.basename(item.path): item for item in read.items}
            assert len(pictures) == len(index)
            content = {Path(item.path).read_bytes(): item for item in read.items}
            for item in index.items:
                own = content[Path(item.path).read_bytes()]
                assert own.size_hw == item.size_hw
                assert (
                    own.labels.dtype == np.float32 and np.abs(own.labels - item.labels).max(initial=0) < 1e-7
                )
                assert np.array_equal(own.labels[:, 0], item.labels[:, 0])
                assert np.allclose(own.area, item.area, rtol=1e-5) and not own.crowd.any()


@pytest.mark.parametrize("name", FORMATS.names())
def test_contract(name: str, tmp_path: Path) -> None:
    occupant = FORMATS.get(name)
    assert occupant.name == name
    assert not occupant.matches(str(tmp_path / "weights.pt"))


def test_coco_keeps_crowds_ids_and_outlines(tmp_path: Path) -> None:
    index = make_index(tmp_path / "from", "val", 3)
    item = index.items[1]
    item.crowd[:1] = True
    item.area[:] = 1.25
    index = AnnotationIndex(index.names, index.items, split="val", category_ids=(2, 7, 90))
    read = open_data(FORMATS.get("coco").write(index, str(tmp_path / "to")), "val")
    own = next(i for i in read.items if i.image_id == item.image_id)
    assert np.array_equal(own.crowd, item.crowd) and np.array_equal(own.area, item.area)
    assert read.category_ids == (2, 7, 90)
