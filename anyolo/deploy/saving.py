"""Keeps what was found: drawn pictures and films, label files, crops, a window."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2

from anyolo import console
from anyolo.config.schema import SaveConfig
from anyolo.deploy.results import Results, write_picture
from anyolo.ops.image import Pixels

WRITABLE = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class Saver:
    """Writes each result into ``folder`` as ``config`` asks. A context manager: films are closed at its end.

    Pictures go to ``<name>``, films to ``<name>.mp4``, single frames to ``<name>_frames/``, rows to
    ``labels/``, boxes to ``crops/<class>/``. Pictures of the same name are told apart by a number.
    """

    def __init__(self, config: SaveConfig, folder: Path, *, vid_stride: int = 1) -> None:
        self.config, self.folder = config, folder
        self._vid_stride = vid_stride
        self._films: dict[str, cv2.VideoWriter] = {}
        self._stems: dict[str, str] = {}
        self._used: Counter[str] = Counter()

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for film in self._films.values():
            film.release()
        self._films.clear()

    def add(self, result: Results) -> None:
        config = self.config
        stem = self._stem(result)
        frame = f"{stem}_{result.number}" if result.video else stem
        if config.save_txt:
            result.save_txt(self.folder / "labels" / f"{frame}.txt", save_conf=config.save_conf)
        if config.save_crop:
            result.save_crop(self.folder / "crops", f"{frame}.jpg")
        drawing: dict[str, Any] = {
            "conf": config.show_conf,
            "line_width": config.line_width,
            "labels": config.show_labels,
            "boxes": config.show_boxes,
        }
        if config.show:
            result.show(**drawing)
        if config.save or (config.save_frames and result.video is not None):
            self._keep(result, stem, result.plot(**drawing))

    def _keep(self, result: Results, stem: str, drawn: Pixels) -> None:
        config = self.config
        if result.video is None and config.save:
            suffix = Path(result.path).suffix.lower()
            write_picture(self.folder / f"{stem}{suffix if suffix in WRITABLE else '.jpg'}", drawn)
        if result.video is not None and config.save:
            self._add_to_film(result, stem, drawn)
        if result.video is not None and config.save_frames:
            write_picture(self.folder / f"{stem}_frames" / f"{result.number}.jpg", drawn)

    def _stem(self, result: Results) -> str:
        """A file name of its own for every picture, one for all frames of a film."""
        if result.video is not None and result.path in self._stems:
            return self._stems[result.path]
        plain = Path(result.path).stem or "picture"
        self._used[plain] += 1
        stem = plain if self._used[plain] == 1 else f"{plain}_{self._used[plain]}"
        if result.video is not None:
            self._stems[result.path] = stem
        return stem

    def _add_to_film(self, result: Results, stem: str, drawn: Pixels) -> None:
        if stem not in self._films:
            self.folder.mkdir(parents=True, exist_ok=True)
            rate = (result.video.fps if result.video else 0) or 30.0
            height, width = drawn.shape[:2]
            film = cv2.VideoWriter(
                str(self.folder / f"{stem}.mp4"),
                cv2.VideoWriter.fourcc(*"mp4v"),
                rate / self._vid_stride,
                (width, height),
            )
            if not film.isOpened():
                console.current().warn(
                    f"this OpenCV cannot write {stem}.mp4; save_frames=True writes the frames as pictures"
                )
            self._films[stem] = film
        self._films[stem].write(drawn)
