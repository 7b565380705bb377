"""ops/image: what a picture file may be, and that the header and every way of decoding it agree."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from anyolo.errors import DataError
from anyolo.ops.image import decode_image, fit_image, read_image, read_size, to_network
from anyolo.ops.image_header import parse_header
from anyolo.ops.letterbox import place


def corners(height: int = 40, width: int = 64) -> np.ndarray:
    """A picture whose four corners have different colours, so that any rotation shows."""
    pixels = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    pixels[:h, :w], pixels[:h, w:] = (255, 0, 0), (0, 255, 0)
    pixels[h:, :w], pixels[h:, w:] = (0, 0, 255), (255, 255, 255)
    return pixels


def encode(pixels: np.ndarray, suffix: str, quality: int = 95) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


def exif(orientation: int, order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(order + "IH", 8, 1) + entry + struct.pack(order + "I", 0)


def rotated_jpeg(pixels: np.ndarray, orientation: int, order: str = "<") -> bytes:
    data, body = encode(pixels, ".jpg"), b"Exif\0\0" + exif(orientation, order)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm"])
@pytest.mark.parametrize("size", [(1, 1), (3, 7), (40, 64), (300, 401)])
def test_size_comes_from_the_header(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(encode(np.full((*size, 3), 90, np.uint8), suffix))
    assert read_size(path) == size
    image = read_image(path)
    assert image.size_hw == size and image.pixels.shape == (*size, 3) and image.pixels.dtype == np.uint8
    if suffix in {".jpg", ".png", ".bmp", ".webp"}:
        header = parse_header(path.read_bytes())
        assert header is not None and header.size_hw == size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_exif_rotation_is_opencvs(orientation: int, order: str) -> None:
    data = rotated_jpeg(corners(), orientation, order)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    image = decode_image(data, "picture")
    assert np.array_equal(image.pixels, expected)
    assert image.size_hw == expected.shape[:2] == ((64, 40) if orientation >= 5 else (40, 64))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_the_same_at_reduced_scale(orientation: int) -> None:
    data = rotated_jpeg(corners(400, 640), orientation)
    whole, reduced = decode_image(data, "picture"), decode_image(data, "picture", at_least=80)
    assert reduced.size_hw == whole.size_hw and max(reduced.pixels.shape) == 80
    small = cv2.resize(whole.pixels, reduced.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - reduced.pixels).mean() < 2


def test_png_exif_rotation() -> None:
    data = encode(corners(), ".png")
    body = exif(6)
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", 0)
    header = parse_header(data[:33] + chunk + data[33:])
    assert header is not None and header.orientation == 6 and header.size_hw == (64, 40)


@pytest.mark.parametrize(
    ("at_least", "longest"),
    [(None, 640), (640, 640), (321, 640), (320, 320), (200, 320), (160, 160), (33, 80)],
)
def test_jpeg_is_decoded_no_larger_than_needed(at_least: int | None, longest: int) -> None:
    image = decode_image(encode(corners(400, 640), ".jpg"), "picture", at_least=at_least)
    assert image.size_hw == (400, 640)
    assert max(image.pixels.shape) == longest
    assert at_least is None or longest >= at_least


def test_reduced_decoding_fits_like_the_whole_picture() -> None:
    rng = np.random.default_rng(0)
    smooth = cv2.resize(
        rng.integers(0, 255, (12, 16, 3), np.uint8), (1600, 1200), interpolation=cv2.INTER_CUBIC
    )
    data = encode(smooth, ".jpg")
    placement = place((1200, 1600), (320, 320))
    whole = fit_image(decode_image(data, "a").pixels, placement)
    reduced = fit_image(decode_image(data, "a", at_least=320).pixels, placement)
    assert np.abs(whole.astype(int) - reduced).mean() < 1


def test_grey_alpha_and_sixteen_bits_become_three_bytes(tmp_path: Path) -> None:
    grey = np.full((5, 6), 77, np.uint8)
    alpha = np.dstack([np.full((5, 6, 3), 50, np.uint8), np.zeros((5, 6), np.uint8)])
    deep = np.full((5, 6), 0x5A00, np.uint16)
    for name, pixels, value in [("grey", grey, 77), ("alpha", alpha, 50), ("deep", deep, 0x5A)]:
        path = tmp_path / f"{name}.png"
        cv2.imwrite(str(path), pixels)
        image = read_image(path)
        assert image.pixels.shape == (5, 6, 3) and image.pixels.dtype == np.uint8
        assert (image.pixels == value).all(), name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"this is a text, not a picture", "not a picture"),
        (encode(corners(400, 640), ".jpg")[:-700], "cut off"),
        (encode(corners(400, 640), ".png")[:-30], "cut off"),
        (encode(corners(), ".jpg")[:20], "cut off"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    for read in (read_image, read_size):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert caught.value.where == str(path) and caught.value.hint


def test_cut_off_behind_a_thumbnail_is_seen(tmp_path: Path) -> None:
    """The end marker of an embedded thumbnail does not count."""
    thumbnail = b"Exif\0\0" + exif(1) + encode(corners(), ".jpg")
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    data = encode(noise, ".jpg")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + data[2:]
    path = tmp_path / "camera.jpg"
    path.write_bytes(data)
    assert read_size(path) == (300, 400)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="cut off"):
        read_size(path)


def test_bytes_after_the_end_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    path.write_bytes(encode(corners(200, 300), ".jpg") + bytes(50_000))
    assert read_size(path) == (200, 300) and read_image(path).size_hw == (200, 300)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "nowhere.jpg")


def test_to_network() -> None:
    pixels = corners()
    assert np.array_equal(to_network(pixels, "rgb"), pixels[..., ::-1].transpose(2, 0, 1))
    planes = to_network(pixels, "bgr")
    assert np.array_equal(planes, pixels.transpose(2, 0, 1)) and planes.flags["C_CONTIGUOUS"]
    planes[:] = 0
    assert pixels.max() == 255


def test_letterbox_pads_with_the_given_value() -> None:
    pixels = np.zeros((50, 100, 3), np.uint8)
    fitted = fit_image(pixels, place((50, 100), (100, 100)), pad_value=7)
    assert (fitted[:25] == 7).all() and (fitted[25:75] == 0).all() and (fitted[75:] == 7).all()


@pytest.mark.parametrize("name", ["coco128/images/train2017", "wrgb/img", "bccd/images/val"])
def test_real_headers_agree_with_the_decoder(shared: Callable[[str], Path], name: str) -> None:
    for path in sorted(shared(f"data/{name}").glob("*.jpg"))[::9]:
        assert read_size(path) == cv2.imread(str(path)).shape[:2]
