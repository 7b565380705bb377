"""What a prediction gives: ``Results`` of one picture, with the attribute names users of the field know."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from anyolo.deploy.sources import Video
from anyolo.errors import AnyoloError, MissingPackage
from anyolo.ops.boxes import xyxy_to_cxcywh
from anyolo.ops.draw import draw_boxes, label_of
from anyolo.ops.image import Pixels
from anyolo.types import PathLike, SizeHW


class Boxes:
    """Boxes of one picture, best first. Everything is a tensor, or a numpy array after ``numpy()``.

    ``data`` (N, 6): x1, y1, x2, y2 in picture pixels, score, class. ``orig_shape`` is (height, width).
    """

    def __init__(self, data: Any, orig_shape: SizeHW) -> None:
        self.data = data
        self.orig_shape = orig_shape

    @property
    def xyxy(self) -> Any:
        return self.data[:, :4]

    @property
    def conf(self) -> Any:
        return self.data[:, 4]

    @property
    def cls(self) -> Any:
        """Class numbers, as floats like all of ``data``."""
        return self.data[:, 5]

    @property
    def id(self) -> None:
        """Track numbers; always None, nothing here tracks."""
        return None

    @property
    def xywh(self) -> Any:
        """Centre x, centre y, width, height in pixels."""
        return xyxy_to_cxcywh(self.xyxy)

    @property
    def xyxyn(self) -> Any:
        """``xyxy`` as shares of the picture's width and height."""
        return self.xyxy / self._extent()

    @property
    def xywhn(self) -> Any:
        """``xywh`` as shares of the picture's width and height."""
        return self.xywh / self._extent()

    def _extent(self) -> Any:
        height, width = self.orig_shape
        if isinstance(self.data, Tensor):
            return self.data.new_tensor((width, height, width, height))
        return np.asarray((width, height, width, height), self.data.dtype)

    def cpu(self) -> Boxes:
        return Boxes(self.data.cpu(), self.orig_shape) if isinstance(self.data, Tensor) else self

    def numpy(self) -> Boxes:
        return Boxes(self.data.cpu().numpy(), self.orig_shape) if isinstance(self.data, Tensor) else self

    def to(self, *args: Any, **kwargs: Any) -> Boxes:
        return Boxes(torch.as_tensor(self.data).to(*args, **kwargs), self.orig_shape)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Boxes:
        """A number, slice, list or mask; a single number keeps the first axis."""
        return Boxes(self.data[[index] if isinstance(index, int) else index], self.orig_shape)

    def __repr__(self) -> str:
        return f"Boxes(n={len(self)}, orig_shape={self.orig_shape}, data={self.data!r})"


class Results:
    """One picture and what was found in it.

    ``orig_img`` may be given as a function: a large picture that was decoded smaller is only read in full
    when somebody asks for its pixels. ``names`` maps class numbers to names; ``speed`` holds milliseconds.
    A frame of a film carries its ``video`` and its ``number`` in it.
    """

    def __init__(
        self,
        orig_img: Pixels | Callable[[], Pixels],
        path: str,
        names: Mapping[int, str],
        boxes: Boxes,
        *,
        speed: Mapping[str, float] | None = None,
        video: Video | None = None,
        number: int = 0,
    ) -> None:
        self._orig_img = orig_img
        self.path = path
        self.names = dict(names)
        self.boxes = boxes
        self.speed = dict(speed or {"preprocess": 0.0, "inference": 0.0, "postprocess": 0.0})
        self.video = video
        self.number = number

    @property
    def orig_img(self) -> Pixels:
        """The picture in its own size, HWC BGR uint8."""
        if callable(self._orig_img):
            self._orig_img = self._orig_img()
        return self._orig_img

    @property
    def orig_shape(self) -> SizeHW:
        return self.boxes.orig_shape

    def _with(self, boxes: Boxes) -> Results:
        return Results(
            self._orig_img,
            self.path,
            self.names,
            boxes,
            speed=self.speed,
            video=self.video,
            number=self.number,
        )

    def cpu(self) -> Results:
        return self._with(self.boxes.cpu())

    def numpy(self) -> Results:
        return self._with(self.boxes.numpy())

    def to(self, *args: Any, **kwargs: Any) -> Results:
        return self._with(self.boxes.to(*args, **kwargs))

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> Results:
        return self._with(self.boxes[index])

    def __repr__(self) -> str:
        return f"Results(path={self.path!r}, orig_shape={self.orig_shape}, boxes={self.verbose() or 'none'})"

    def verbose(self) -> str:
        """Such as ``4 person, 1 bus``: names as they are, since plurals of classes are anyone's guess."""
        counts = Counter(int(c) for c in self.boxes.cls.tolist())
        return ", ".join(f"{n} {self.names[c]}" for c, n in sorted(counts.items())) or "nothing found"

    # ---- pictures

    def plot(
        self,
        conf: bool = True,
        line_width: int | None = None,
        *,
        labels: bool = True,
        boxes: bool = True,
        img: Pixels | None = None,
    ) -> Pixels:
        """The picture (or ``img``) with boxes drawn on it, a new HWC BGR array."""
        own = self.boxes.numpy()
        classes = own.cls.astype(int).tolist()
        texts = [
            label_of(self.names[c], c, score if conf else None) if labels else ""
            for c, score in zip(classes, own.conf.tolist(), strict=True)
        ]
        pixels = self.orig_img if img is None else img
        return draw_boxes(pixels, own.xyxy, classes, texts, line_width=line_width, boxes=boxes)

    def show(self, **drawing: Any) -> None:
        """Open a window until a key is pressed (films run on); ``drawing`` as in ``plot``."""
        # some builds of OpenCV abort the whole process without a display, so ask before trying
        has_display = sys.platform in {"win32", "darwin"} or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)
        try:
            if not has_display:
                raise AnyoloError(
                    "no window can be opened: there is no display", hint="Use save() instead of show()."
                )
            cv2.imshow(Path(self.path).name, self.plot(**drawing))
            cv2.waitKey(1 if self.video else 0)
        except cv2.error as error:
            raise AnyoloError(
                "no window can be opened: this OpenCV is built without windows",
                hint="Use save() instead of show(), or install opencv-python.",
            ) from error

    def save(self, filename: PathLike | None = None, **drawing: Any) -> str:
        """Write the drawn picture, by default ``results_<name>.jpg`` in the working folder."""
        path = Path(filename) if filename else Path(f"results_{Path(self.path).stem}.jpg")
        return write_picture(path, self.plot(**drawing))

    def save_crop(self, save_dir: PathLike, file_name: PathLike = "im.jpg") -> list[str]:
        """Write each box as ``save_dir/<class>/<file_name>``, numbered from the second of a class."""
        wanted, counts, written = Path(file_name), Counter[int](), []
        height, width = self.orig_shape
        for x1, y1, x2, y2, _, class_index in self.boxes.data.tolist():
            left, top = max(0, int(x1)), max(0, int(y1))
            right, bottom = min(width, max(left + 1, round(x2))), min(height, max(top + 1, round(y2)))
            crop = self.orig_img[top:bottom, left:right]
            if crop.size:
                counts[int(class_index)] += 1
                number = counts[int(class_index)]
                stem = wanted.stem + (str(number) if number > 1 else "")
                folder = Path(save_dir) / _file_safe(self.names[int(class_index)])
                written.append(write_picture(folder / f"{stem}{wanted.suffix or '.jpg'}", crop))
        return written

    # ---- text

    def save_txt(self, txt_file: PathLike, save_conf: bool = False) -> str:
        """Write rows ``class cx cy w h [score]``, normalised; an empty file where nothing was found."""
        path = Path(txt_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = zip(self.boxes.cls.tolist(), self.boxes.xywhn.tolist(), self.boxes.conf.tolist(), strict=True)
        lines = (
            " ".join([f"{c:.0f}", *(f"{v:.6f}" for v in cxcywh), *([f"{score:.6f}"] if save_conf else [])])
            for c, cxcywh, score in rows
        )
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return str(path)

    def summary(self, normalize: bool = False, decimals: int = 5) -> list[dict[str, Any]]:
        """One mapping per box: name, class, confidence, box {x1, y1, x2, y2}."""
        boxes = (self.boxes.xyxyn if normalize else self.boxes.xyxy).tolist()
        return [
            {
                "name": self.names[int(c)],
                "class": int(c),
                "confidence": round(score, decimals),
                "box": {
                    side: round(v, decimals) for side, v in zip(("x1", "y1", "x2", "y2"), box, strict=True)
                },
            }
            for box, score, c in zip(boxes, self.boxes.conf.tolist(), self.boxes.cls.tolist(), strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """The picture and its boxes as ``anyolo predict --json`` gives them."""
        height, width = self.orig_shape
        boxes = [
            {"xyxy": box, "conf": score, "cls": int(c), "name": self.names[int(c)]}
            for box, score, c in zip(
                self.boxes.xyxy.tolist(), self.boxes.conf.tolist(), self.boxes.cls.tolist(), strict=True
            )
        ]
        place = {"frame": self.number} if self.video else {}
        return {"path": self.path, **place, "width": width, "height": height, "boxes": boxes}

    def _flat_summary(self, normalize: bool, decimals: int) -> list[dict[str, Any]]:
        return [
            {**{k: v for k, v in row.items() if k != "box"}, **row["box"]}
            for row in self.summary(normalize, decimals)
        ]

    def to_json(self, normalize: bool = False, decimals: int = 5) -> str:
        return json.dumps(self.summary(normalize, decimals), ensure_ascii=False)

    def to_csv(self, normalize: bool = False, decimals: int = 5) -> str:
        """Text with a heading and one line per box."""
        text = io.StringIO()
        columns = ("name", "class", "confidence", "x1", "y1", "x2", "y2")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._flat_summary(normalize, decimals))
        return text.getvalue()

    def to_df(self, normalize: bool = False, decimals: int = 5) -> Any:
        """A pandas DataFrame, one line per box."""
        try:
            pandas = import_module("pandas")
        except ImportError:
            raise MissingPackage("pandas", extra="pandas", needed_for="Results.to_df()") from None
        columns = ("name", "class", "confidence", "x1", "y1", "x2", "y2")
        return pandas.DataFrame(self._flat_summary(normalize, decimals), columns=columns)


def write_picture(path: Path, pixels: Pixels) -> str:
    """Write by suffix; names outside ASCII work on every system. AnyoloError where it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        done, encoded = cv2.imencode(path.suffix or ".jpg", pixels)
    except cv2.error:
        done = False
    if not done:
        raise AnyoloError(f"cannot write pictures of the kind {path.suffix!r}", hint="Use .jpg or .png.")
    try:
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise AnyoloError(
            f"cannot write {path}: {error.strerror}", hint="Is the disk full or the folder closed?"
        ) from error
    return str(path)


def _file_safe(name: str) -> str:
    return "".join("_" if c in '<>:"/\\|?*' else c for c in name).strip(". ") or "class"
