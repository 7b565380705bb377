"""Everything a source may be, and what happens to what it may not be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from anyolo.deploy.sources import Frame, Source
from anyolo.errors import DataError


def picture(seed: int = 0, height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    (tmp_path / "notes.md").write_text("no picture")
    return tmp_path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (40, 30))
    assert writer.isOpened()
    for level in range(0, 200, 20):
        writer.write(np.full((30, 40, 3), level, np.uint8))
    writer.release()
    return path


def frames(source: Any, **settings: Any) -> list[Frame]:
    return list(Source(source, **settings))


def test_files_folders_globs_and_lists_of_files(folder: Path) -> None:
    names = [str(folder / f"{number}.png") for number in range(3)]
    (folder / "list.txt").write_text(f"0.png\n\n# a remark\n{names[2]}\n")
    assert [f.path for f in frames(folder)] == names
    assert [f.path for f in frames(str(folder))] == names
    assert [f.path for f in frames(names[1])] == names[1:2]
    assert [f.path for f in frames(f"{folder}/[01].png")] == names[:2]
    assert [f.path for f in frames([Path(names[2]), names[0]])] == [names[2], names[0]]
    assert [f.path for f in frames(folder / "list.txt")] == [names[0], names[2]]
    assert Source(folder).total == 3
    np.testing.assert_array_equal(frames(names[1])[0].pixels, picture(1))


def test_subfolders_by_glob(folder: Path) -> None:
    (folder / "deep").mkdir()
    cv2.imwrite(str(folder / "deep" / "x.jpg"), picture())
    assert len(frames(folder)) == 3
    assert len(frames(f"{folder}/**/*")) == 4


def test_one_broken_file_is_named_and_skipped(folder: Path) -> None:
    (folder / "1.png").write_bytes(b"")
    (folder / "2.png").write_bytes((folder / "0.png").read_bytes()[:60])
    source = Source(folder)
    assert [Path(f.path).name for f in source] == ["0.png"]
    assert len(source.problems) == 2 and "1.png" in source.problems[0] and "2.png" in source.problems[1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "no source given"),
        ("/does/not/exist.jpg", "does not exist"),
        ("/does/not/*.jpg", "no picture or video"),
        (3.5, "cannot take a float"),
        (None, "cannot take a NoneType"),
        ([], "no picture could be read"),
        (np.zeros((4, 4, 3), np.float32), "must be uint8, not float32"),
        (np.zeros((4, 4, 2), np.uint8), "is \\(H, W, 3\\)"),
        (np.zeros((0, 4, 3), np.uint8), "is \\(H, W, 3\\)"),
        (torch.full((3, 4, 4), 255.0), "in 255..255"),
        (torch.full((3, 4, 4), float("nan")), "float in 0..1"),
        (torch.zeros(4, 4, dtype=torch.uint8), "a tensor picture is"),
    ],
)
def test_what_is_no_source(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        frames(source)
    assert caught.value.hint


def test_a_folder_without_pictures_and_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no picture or video"):
        frames(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(DataError, match="no picture could be read") as caught:
        frames(tmp_path / "a.jpg")
    assert "a.jpg" in caught.value.hint


def test_arrays_pil_and_tensors_are_the_same_picture() -> None:
    bgr = picture()
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    chw = torch.from_numpy(rgb).permute(2, 0, 1)
    kinds = [bgr, np.dstack((bgr, bgr[..., 0])), Image.fromarray(rgb), chw, chw.float() / 255]
    for kind in kinds:
        (frame,) = frames(kind)
        np.testing.assert_array_equal(frame.pixels, bgr)
        assert frame.size_hw == (30, 40)
    assert len(frames(kinds)) == 5
    assert len(frames(torch.stack((chw, chw)))) == 2
    assert len(frames(np.stack((bgr, bgr, bgr)))) == 3
    grey = bgr[..., 0]
    np.testing.assert_array_equal(frames(grey)[0].pixels, np.dstack((grey, grey, grey)))
    np.testing.assert_array_equal(frames(Image.fromarray(grey))[0].pixels, np.dstack((grey, grey, grey)))


def test_nothing_given_is_changed_and_streams_are_lazy() -> None:
    given = picture()
    before = given.copy()
    taken = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield given

    stream = iter(Source(endless()))
    assert [next(stream).path for _ in range(3)] == ["image0.jpg", "image1.jpg", "image2.jpg"]
    assert len(taken) == 3 and Source(endless()).total is None
    np.testing.assert_array_equal(given, before)


def test_large_jpegs_are_decoded_smaller_and_read_again_in_full(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    cv2.imwrite(str(path), cv2.resize(picture(), (1600, 1200), interpolation=cv2.INTER_CUBIC))
    (frame,) = frames(path, at_least=320)
    assert frame.size_hw == (1200, 1600) and frame.pixels.shape == (300, 400, 3)
    assert frame.full_pixels().shape == (1200, 1600, 3)
    (whole,) = frames(path)
    assert whole.full_pixels() is whole.pixels


def test_films_frame_by_frame(film: Path) -> None:
    found = frames(film)
    assert [f.number for f in found] == list(range(10))
    assert found[0].video is not None and found[0].video.fps == 12.5 and not found[0].video.is_live
    levels = [float(f.pixels.mean()) for f in found]
    np.testing.assert_allclose(levels, range(0, 200, 20), atol=3)
    every_third = frames(film, vid_stride=3)
    assert [f.number for f in every_third] == [0, 3, 6, 9]
    np.testing.assert_allclose([f.pixels.mean() for f in every_third], [0, 60, 120, 180], atol=3)
    assert Source(film).total is None


def test_a_film_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no picture could be read") as caught:
        frames(tmp_path / "a.mp4")
    assert "cannot be opened as a video" in caught.value.hint


def test_a_camera_that_is_absent() -> None:
    with pytest.raises(DataError, match="no picture could be read") as caught:
        frames("63")
    assert "camera63" in caught.value.hint
