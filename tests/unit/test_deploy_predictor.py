"""The predictor with a network of known answers: sizes, batches, mapping back, bad input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyolo import console
from anyolo.config.schema import PredictConfig, SaveConfig
from anyolo.deploy.predictor import Predictor
from anyolo.deploy.saving import Saver
from anyolo.errors import ConfigError, DataError
from anyolo.structures import Predictions, Preprocess

NAMES = ("bright", "dark")


class FindsBright:
    """A 'network' that answers with the bounding box of white pixels; remembers what it was fed."""

    def __init__(self) -> None:
        self.fed: list[torch.Tensor] = []

    def __call__(self, images: torch.Tensor) -> Predictions:
        self.fed.append(images)
        boxes, scores = torch.zeros(len(images), 2, 4), torch.zeros(len(images), 2, 2)
        for number, image in enumerate(images):
            rows, columns = np.nonzero(image.numpy().min(0) > 200)
            if len(rows):
                corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                boxes[number, 0] = torch.tensor([int(c) for c in corners])
                scores[number, 0, 0], scores[number, 1, 1] = 0.9, 0.6
        boxes[:, 1] = boxes[:, 0]
        return Predictions(boxes, scores)


def scene(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    pixels = np.full((height, width, 3), 40, np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return pixels


def predictor(network: Any = None, preprocess: Preprocess | None = None, **settings: Any) -> Predictor:
    config = PredictConfig(**{"imgsz": 128, **settings})
    return Predictor(network or FindsBright(), preprocess or Preprocess(), NAMES, config)


@given(
    size=st.tuples(st.integers(40, 300), st.integers(40, 300)),
    rect=st.booleans(),
    fit=st.sampled_from(["letterbox", "letterbox_topleft", "stretch"]),
    imgsz=st.sampled_from([128, 256, (128, 224), (224, 96)]),
)
def test_boxes_come_back_to_the_picture(size: tuple[int, int], rect: bool, fit: Any, imgsz: Any) -> None:
    height, width = size
    box = (width // 4, height // 5, width // 4 + width // 2, height // 5 + height // 2)
    pixels = scene(height, width, box)
    before = pixels.copy()
    network = FindsBright()
    own = predictor(network, Preprocess(fit=fit), rect=rect, imgsz=imgsz, classes=(0,))
    (result,) = own(pixels)
    np.testing.assert_array_equal(pixels, before)
    assert result.orig_shape == size and result.orig_img is pixels
    fed = tuple(network.fed[0].shape[2:])
    assert all(side % 32 == 0 and side <= max(own.input_hw) for side in fed)
    if not rect or fit == "stretch":
        assert fed == own.input_hw
    gain = min(fed[0] / height, fed[1] / width)
    np.testing.assert_allclose(result.boxes.xyxy[0].tolist(), box, atol=1.6 / gain + 0.5)


def test_how_pictures_are_batched_changes_nothing() -> None:
    pictures = [scene(90 + 10 * (k // 3), 120, (20 + k, 30, 70, 60 + k)) for k in range(8)]
    alone = predictor(batch=1)(pictures)
    network = FindsBright()
    together = predictor(network, batch=4)(pictures)
    assert [len(images) for images in network.fed] == [3, 4, 1]  # 96 rows, then 128
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.boxes.data, other.boxes.data) and one.path == other.path
    network = FindsBright()
    mixed = [scene(*size, (5, 5, 30, 30)) for size in [(60, 120), (60, 120), (120, 60), (60, 120)]]
    predictor(network, batch=4)(mixed)
    assert [tuple(images.shape[2:]) for images in network.fed] == [(64, 128), (128, 64), (64, 128)]


def test_the_networks_channels_and_padding() -> None:
    blue = np.zeros((64, 128, 3), np.uint8)
    blue[..., 0] = 250
    for channels, plane in (("rgb", 2), ("bgr", 0)):
        network = FindsBright()
        predictor(network, Preprocess(channels=channels, pad_value=7), rect=False)(blue)
        (image,) = network.fed[0]
        assert network.fed[0].dtype == torch.uint8 and network.fed[0].is_contiguous()
        assert (
            image[plane, 64, 64] == 250 and image[(plane + 1) % 3, 64, 64] == 0 and (image[:, 0] == 7).all()
        )


def test_thresholds_and_classes() -> None:
    pixels = scene(64, 128, (10, 10, 50, 50))
    assert predictor()(pixels)[0].boxes.conf.tolist() == pytest.approx([0.9, 0.6])
    assert predictor(conf=0.7)(pixels)[0].boxes.cls.tolist() == [0]
    assert predictor(classes=(1,))(pixels)[0].boxes.cls.tolist() == [1]
    assert predictor(max_det=1)(pixels)[0].boxes.cls.tolist() == [0]
    assert predictor(agnostic_nms=True)(pixels)[0].boxes.cls.tolist() == [0]
    assert set(predictor()(pixels)[0].speed) == {"preprocess", "inference", "postprocess"}


def test_nothing_found_and_pictures_of_a_pixel() -> None:
    for pixels in (
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((1, 700, 3), np.uint8),
        scene(50, 50, (0, 0, 0, 0)),
    ):
        (result,) = predictor()(pixels)
        assert len(result) == 0 and result.boxes.xyxy.shape == (0, 4) and result.plot().shape == pixels.shape


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="multiple of the model's stride 32") as caught:
        predictor(imgsz=100)
    assert "96 or 128" in caught.value.hint
    with pytest.raises(ConfigError):
        predictor(imgsz=(0, 64))
    fixed = Predictor(FindsBright(), Preprocess(), NAMES, PredictConfig(imgsz=100), input_hw=(96, 160))
    assert fixed.placement((200, 200)).input_hw == (96, 160)


def test_large_jpegs_refer_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    cv2.imwrite(str(path), scene(1200, 1600, (400, 300, 1200, 900)))
    (result,) = predictor(classes=(0,))(path)
    assert result.orig_shape == (1200, 1600)
    np.testing.assert_allclose(result.boxes.xyxy[0].tolist(), [400, 300, 1200, 900], atol=20)
    assert result.orig_img.shape == (1200, 1600, 3) and result.plot().shape == (1200, 1600, 3)


class _Ear(console.NullReporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_broken_files_are_counted_and_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "good.png"), scene(60, 60, (5, 5, 30, 30)))
    (tmp_path / "empty.jpg").write_bytes(b"")
    own = predictor()
    with console.use(_Ear()) as ear:
        assert len(own(tmp_path)) == 1
    assert isinstance(ear, _Ear) and len(ear.warnings) == 1
    assert "1 could not be read" in ear.warnings[0] and "empty.jpg" in ear.warnings[0]
    assert len(own.problems) == 1
    with pytest.raises(DataError):
        own(tmp_path / "empty.jpg")


def test_saving_pictures_labels_and_crops(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.png", "b/y.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), scene(60, 80, (5, 5, 30, 30)))
    out = tmp_path / "out"
    config = SaveConfig(save=True, save_txt=True, save_conf=True, save_crop=True)
    with Saver(config, out) as saver:
        for result in predictor(classes=(0,)).stream([tmp_path / "a", tmp_path / "b"]):
            saver.add(result)
    written = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert written == [
        "crops/bright/x.jpg",
        "crops/bright/x_2.jpg",
        "crops/bright/y.jpg",
        "labels/x.txt",
        "labels/x_2.txt",
        "labels/y.txt",
        "x.png",
        "x_2.png",
        "y.jpg",
    ]
    assert len((out / "labels" / "y.txt").read_text().split()) == 6
    assert cv2.imread(str(out / "x.png")).shape == (60, 80, 3)


def test_saving_films(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (80, 60))
    for left in range(6):
        writer.write(scene(60, 80, (left, 5, 30, 30)))
    writer.release()
    own = predictor(vid_stride=2, classes=(0,))
    with Saver(
        SaveConfig(save=True, save_txt=True, save_frames=True), tmp_path / "out", vid_stride=2
    ) as saver:
        results = list(own.stream(path))
        for result in results:
            saver.add(result)
    assert [r.number for r in results] == [0, 2, 4] and all(r.path == str(path) for r in results)
    assert results[1].to_dict()["frame"] == 2
    capture = cv2.VideoCapture(str(tmp_path / "out" / "film.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(5) and capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    capture.release()
    assert {p.name for p in (tmp_path / "out" / "film_frames").iterdir()} == {"0.jpg", "2.jpg", "4.jpg"}
    assert {p.name for p in (tmp_path / "out" / "labels").iterdir()} == {
        "film_0.txt",
        "film_2.txt",
        "film_4.txt",
    }


def test_nothing_is_written_unless_asked(tmp_path: Path) -> None:
    with Saver(dataclasses.replace(SaveConfig(), save=False), tmp_path) as saver:
        for result in predictor()(scene(60, 80, (5, 5, 30, 30))):
            saver.add(result)
    assert not list(tmp_path.iterdir())
