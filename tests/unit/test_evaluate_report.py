"""Every picture is drawn, for few classes, many, one, none, without a display; the rest is for the eye."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from anyolo.data.index import AnnotationIndex, Item
from anyolo.errors import DataError
from anyolo.evaluate import draw_batch, draw_labels, draw_report, draw_training, judge
from anyolo.evaluate.report.mosaics import draw_pairs
from anyolo.ops.draw import colour_of
from anyolo.structures import Detections

ROOT = Path(__file__).resolve().parents[2]
CHARTS = {
    *(f"{letter}_curve.png" for letter in ("PR", "F1", "P", "R")),
    "confusion_matrix.png",
    "confusion_matrix_normalized.png",
}
HEADER = "epoch,time,train/box_loss,metrics/precision(B),metrics/mAP50(B),val/box_loss,lr/weights"


def random_index(folder: Path, nc: int, objects: int, pictures: int = 2) -> AnnotationIndex:
    rng = np.random.default_rng(nc)
    items = []
    for number in range(pictures):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (60, 90, 3), dtype=np.uint8))
        size = rng.uniform(0.1, 0.3, (objects, 2))
        columns = (rng.integers(0, nc, (objects, 1)), rng.uniform(0.2, 0.8, (objects, 2)), size)
        labels = np.concatenate(columns, 1).astype(np.float32)
        area = (size.prod(1) * 5400).astype(np.float32)
        items.append(Item(str(path), (60, 90), labels, np.zeros(objects, np.bool_), area, number))
    return AnnotationIndex(tuple(f"name {k}" for k in range(nc)), tuple(items))


def truth_of(index: AnnotationIndex) -> dict[int | str, Detections]:
    return {
        own.image_id: Detections(
            own.boxes_xyxy, np.full(len(own.labels), 0.9, np.float32), own.labels[:, 0].astype(np.int64)
        )
        for own in index.items
    }


def sizes(folder: Path) -> dict[str, tuple[int, ...]]:
    return {path.name: cv2.imread(str(path)).shape for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("nc", "objects", "finds"), [(4, 6, True), (80, 40, True), (1, 3, False), (3, 0, False)]
)
def test_report(tmp_path: Path, nc: int, objects: int, finds: bool) -> None:
    index = random_index(tmp_path, nc, objects)
    folder = tmp_path / "run"
    folder.mkdir()
    draw_report(judge(index, truth_of(index) if finds else {}), folder)
    draw_labels(index, folder / "labels.jpg")
    drawn = sizes(folder)
    assert set(drawn) == CHARTS | {"labels.jpg", "val_batch0_labels.jpg", "val_batch0_pred.jpg"}
    assert min(min(shape[:2]) for shape in drawn.values()) >= 400
    labels, guesses = (cv2.imread(str(folder / f"val_batch0_{word}.jpg")) for word in ("labels", "pred"))
    differ = np.abs(labels.astype(int) - guesses).max() > 60
    assert differ == (objects > 0)  # the labels have no scores; where nothing was found there are no boxes


def test_many_pictures_and_lost_files(tmp_path: Path) -> None:
    index = random_index(tmp_path, 2, 1, pictures=60)
    Path(index.items[3].path).unlink()
    draw_pairs(index.items, list(truth_of(index).values()), index.names, tmp_path)
    assert len(list(tmp_path.glob("val_batch?_pred.jpg"))) == 3


def test_boxes_lie_where_they_are_said_to_lie(tmp_path: Path) -> None:
    """A batch of 5 is drawn 3 across; the third picture's box must lie in the third tile."""
    images = torch.full((5, 3, 200, 200), 255, dtype=torch.uint8)
    boxes = [np.zeros((0, 5), np.float32)] * 5
    boxes[2] = np.array([[1, 20, 60, 180, 190]], np.float32)
    draw_batch(images, boxes, ("猫", "dog"), tmp_path / "batch.png")
    picture = cv2.imread(str(tmp_path / "batch.png")).astype(int)
    assert picture.shape == (404, 608, 3)
    left = 2 * 204
    near = np.abs(picture - colour_of(1)).max(2) < 40
    assert near[59:62, left + 100].any() and near[188:192, left + 100].any()
    assert near[150, left + 19 : left + 22].any() and near[150, left + 179 : left + 182].any()
    assert not near[:, : left - 4].any() and not near[204:].any()


def test_channels_and_large_batches(tmp_path: Path) -> None:
    """RGB comes in; 20 pictures of 640 become 16 that fit into 1920 pixels."""
    images = torch.zeros(20, 3, 640, 640, dtype=torch.uint8)
    images[:, 0] = 200
    rows = [np.array([[0, 100, 100, 300, 300, 0.5]], np.float32)] * 20
    draw_batch(images, rows, ("猫",), tmp_path / "train_batch0.jpg")
    picture = cv2.imread(str(tmp_path / "train_batch0.jpg"))
    assert picture.shape == (4 * 484 - 4, 4 * 484 - 4, 3)
    assert np.abs(picture[470, 470].astype(int) - (0, 0, 200)).max() < 8


@pytest.mark.parametrize("epochs", [1, 12])
def test_training(tmp_path: Path, epochs: int) -> None:
    rows = [f"{k + 1},{k},1.5,0.{k:02},0.1,{'' if k % 2 else 1.2},0.01" for k in range(epochs)]
    (tmp_path / "results.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    draw_training(tmp_path / "results.csv", tmp_path)
    assert cv2.imread(str(tmp_path / "results.png")).shape[1] > 500


def test_training_without_an_epoch(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(HEADER + "\n")
    with pytest.raises(DataError, match="no epoch"):
        draw_training(tmp_path / "results.csv", tmp_path)


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    index = random_index(tmp_path, 3, 5)
    paths = [tmp_path / f"labels{k}.png" for k in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda path: draw_labels(index, path), paths))
    first, *others = (cv2.imread(str(path)) for path in paths)
    assert all(np.array_equal(first, other) for other in others)


def test_evaluating_loads_no_plotting(tmp_path: Path) -> None:
    """A run without plots must not pay for matplotlib; no run may need pyplot, which looks for a display."""
    code = (
        "import sys; from anyolo.evaluate import evaluate, judge, draw_report, draw_labels\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from anyolo.data.index import AnnotationIndex, Item; import numpy as np\n"
        "z = np.zeros\n"
        "own = Item('a', (9, 9), z((0, 5), np.float32), z(0, bool), z(0, np.float32), 1)\n"
        "draw_labels(AnnotationIndex(('a',), (own,)), sys.argv[1])\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "labels.jpg")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
