"""Anything that holds pictures, as one stream of frames.

A source is a file, folder, glob, list file (``.txt``), video, camera number, stream address, numpy picture
(HWC, BGR), PIL picture, tensor (3,H,W or B,3,H,W; RGB; uint8 or float 0..1), or any iterable of those.
Nothing given is changed.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from anyolo.data.pictures import is_picture
from anyolo.errors import DataError
from anyolo.ops.image import Pixels, read_image
from anyolo.types import SizeHW

VIDEO_SUFFIXES = frozenset(
    {".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
STREAM_PREFIXES = ("rtsp://", "rtmp://", "rtp://", "udp://", "tcp://", "http://", "https://")

WHAT_IS_TAKEN = (
    "A source is a picture, folder, glob, list file (.txt), video, camera number, stream address, "
    "numpy array (HWC, BGR, uint8), PIL picture, tensor (3,H,W or B,3,H,W), or a list of those."
)


@dataclass(frozen=True, slots=True)
class Video:
    """The film a frame comes from. ``fps`` is 0 where the source does not say."""

    path: str
    fps: float
    is_live: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture. ``pixels`` (HWC BGR uint8) may be a reduced decoding, ``size_hw`` is the picture's own.

    ``number`` counts frames of a video from 0.
    """

    path: str
    pixels: Pixels
    size_hw: SizeHW
    number: int = 0
    video: Video | None = None

    def full_pixels(self) -> Pixels:
        """The picture in its own size; read again where it had been decoded smaller."""
        if self.pixels.shape[:2] == self.size_hw:
            return self.pixels
        return read_image(self.path).pixels


class Source:
    """Iterate to get ``Frame``s. Files that cannot be read are skipped and named in ``problems``.

    ``at_least`` lets large JPEGs be decoded smaller, their longest side not below it. ``total`` is the number
    of pictures where that is known beforehand. Raises DataError where nothing at all could be read.
    """

    def __init__(self, source: Any, *, vid_stride: int = 1, at_least: int | None = None) -> None:
        self.problems: list[str] = []
        self._vid_stride, self._at_least = vid_stride, at_least
        self._said = _describe(source)
        self._items: Iterable[Any] = _expand(source)
        self.total = self._count()

    def __iter__(self) -> Iterator[Frame]:
        found = 0
        for item in self._items:
            for frame in self._frames(item, found):
                found += 1
                yield frame
        if not found:
            hint = "; ".join(self.problems[:5]) or WHAT_IS_TAKEN
            raise DataError(f"no picture could be read from {self._said}", hint=hint)

    def _count(self) -> int | None:
        if isinstance(self._items, list) and not any(_is_video(item) for item in self._items):
            return len(self._items)
        return None

    def _frames(self, item: Any, number: int) -> Iterator[Frame]:
        if _is_video(item):
            yield from self._film(item)
        elif isinstance(item, str):
            try:
                loaded = read_image(item, at_least=self._at_least)
            except DataError as error:
                self.problems.append(str(error))
            else:
                yield Frame(item, loaded.pixels, loaded.size_hw)
        else:
            path = getattr(item, "filename", "") or f"image{number}.jpg"
            pixels = _to_bgr(item)
            yield Frame(str(path), pixels, (pixels.shape[0], pixels.shape[1]))

    def _film(self, item: str | int) -> Iterator[Frame]:
        is_live = isinstance(item, int) or item.startswith(STREAM_PREFIXES)
        name = f"camera{item}" if isinstance(item, int) else item
        with _capture(item) as capture:
            if not capture.isOpened():
                self.problems.append(
                    f"{name}: cannot be opened as a {'camera or stream' if is_live else 'video'}"
                )
                return
            video = Video(name, float(capture.get(cv2.CAP_PROP_FPS) or 0), is_live)
            number = 0
            while capture.grab():
                if number % self._vid_stride == 0:
                    decoded, pixels = capture.retrieve()
                    if decoded:
                        bgr = np.asarray(pixels, np.uint8)
                        yield Frame(name, bgr, (bgr.shape[0], bgr.shape[1]), number, video)
                    else:
                        self.problems.append(f"{name}: frame {number} cannot be decoded")
                number += 1
            if not number:
                self.problems.append(f"{name}: has no frame")


@contextmanager
def _capture(item: str | int) -> Iterator[cv2.VideoCapture]:
    capture = cv2.VideoCapture()
    try:
        if isinstance(item, int):
            capture.open(item)
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a live picture, not the oldest one in the queue
        else:
            capture.open(item)
        yield capture
    finally:
        capture.release()


def _describe(source: Any) -> str:
    return (
        repr(os.fspath(source))
        if isinstance(source, str | os.PathLike)
        else f"the {type(source).__name__} given"
    )


def _is_video(item: Any) -> bool:
    if isinstance(item, str):
        return item.startswith(STREAM_PREFIXES) or Path(item).suffix.lower() in VIDEO_SUFFIXES
    return isinstance(item, int)


def _expand(source: Any) -> Iterable[Any]:
    """A list of what can be read one by one; an iterator only for iterators, which may never end."""
    if isinstance(source, str | os.PathLike):
        return _expand_path(os.fspath(source))
    if isinstance(source, int) and not isinstance(source, bool):
        return [source]
    if isinstance(source, np.ndarray | Tensor):
        return list(source) if source.ndim == 4 else [source]
    if _is_pil(source):
        return [source]
    if isinstance(source, list | tuple):
        return [item for part in source for item in _expand(part)]
    if isinstance(source, Iterable):
        return (item for part in source for item in _expand(part))
    raise DataError(f"cannot take a {type(source).__name__} as a source", hint=WHAT_IS_TAKEN)


def _expand_path(text: str) -> list[str | int]:
    if not text:
        raise DataError("no source given", hint=WHAT_IS_TAKEN)
    if text.isdigit() and not Path(text).exists():
        return [int(text)]
    if text.startswith(STREAM_PREFIXES):
        return [text]
    path = Path(text).expanduser()
    if path.is_dir():
        return list(_known_files(sorted(path.iterdir()), text, f"{text}/**/* looks into its folders too"))
    if path.is_file():
        return list(_listed(path)) if path.suffix.lower() == ".txt" else [str(path)]
    if glob.has_magic(text):
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        return list(_known_files(found, text, "Check the pattern; put it in quotes on a command line."))
    raise DataError(f"source {text!r} does not exist", hint=f"Looked from {Path.cwd()}. {WHAT_IS_TAKEN}")


def _known_files(paths: list[Path], text: str, hint: str) -> list[str]:
    found = [str(p) for p in paths if (is_picture(p.name) or _is_video(str(p))) and p.is_file()]
    if not found:
        raise DataError(f"no picture or video in {text!r}", hint=hint)
    return found


def _listed(path: Path) -> Iterator[str | int]:
    """The lines of a list file, relative to it; one that names nothing is reported when it is read."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    for line in (line for line in lines if line and not line.startswith("#")):
        beside = path.parent / line
        if line.startswith(STREAM_PREFIXES):
            yield line
        else:
            yield str(beside if beside.exists() else Path(line))


def _is_pil(item: Any) -> bool:
    return type(item).__module__.partition(".")[0] == "PIL" and hasattr(item, "convert")


def _to_bgr(item: Any) -> Pixels:
    """One picture of any kind as HWC BGR uint8; the caller's own memory where that is already the layout."""
    if isinstance(item, Tensor):
        return _tensor_to_bgr(item)
    if _is_pil(item):
        return np.ascontiguousarray(np.asarray(item.convert("RGB"))[..., ::-1])
    pixels = np.asarray(item)
    if pixels.dtype != np.uint8:
        raise DataError(
            f"a numpy picture must be uint8, not {pixels.dtype}",
            hint="Scale it to 0..255 and use .astype(np.uint8); a tensor may be float 0..1.",
        )
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in {1, 3, 4} or not pixels.size:
        raise DataError(f"a numpy picture is (H, W, 3) BGR, not {pixels.shape}", hint=WHAT_IS_TAKEN)
    if pixels.shape[2] == 3:
        return pixels
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]


def _tensor_to_bgr(item: Tensor) -> Pixels:
    if item.ndim != 3 or item.shape[0] != 3 or not item.numel():
        raise DataError(
            f"a tensor picture is (3, H, W) or (B, 3, H, W), not {tuple(item.shape)}", hint=WHAT_IS_TAKEN
        )
    pixels = item.detach().cpu()
    if pixels.dtype != torch.uint8:
        if not pixels.is_floating_point() or not (pixels.min() >= 0 and pixels.max() <= 1):
            raise DataError(
                f"a tensor picture is uint8 or float in 0..1, not {str(pixels.dtype).removeprefix('torch.')} "
                f"in {float(pixels.min()):g}..{float(pixels.max()):g}",
                hint="Divide a 0..255 float tensor by 255.",
            )
        pixels = (pixels.float() * 255).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.flip(0).permute(1, 2, 0).numpy())
