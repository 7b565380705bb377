"""The class users know: results at once and one by one."""

from collections.abc import Iterator

import numpy as np
import torch

from anyolo import YOLO


def test_stream_gives_the_same_results_one_by_one() -> None:
    torch.manual_seed(0)
    model = YOLO("yolov8n")
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(3)]
    options = {"imgsz": 64, "conf": 0.0, "max_det": 5, "device": "cpu", "verbose": False}
    taken: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for number, picture in enumerate(pictures):
            taken.append(number)
            yield picture

    stream = model.predict(camera(), stream=True, **options)
    assert taken == [], "nothing is read before somebody asks"
    first = next(stream)
    assert len(taken) <= 2, "a stream must not read to its end first"
    streamed = [first, *stream]
    whole = model.predict(pictures, **options)
    assert len(streamed) == len(whole) == 3
    for one, other in zip(streamed, whole, strict=True):
        assert torch.equal(one.boxes.data, other.boxes.data) and len(one.boxes) == 5
