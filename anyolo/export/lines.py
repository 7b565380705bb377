"""Ten lines of Python with which an artefact alone, without anyolo, gives final boxes."""

from __future__ import annotations

from anyolo.export.base import Format
from anyolo.export.manifest import Manifest

_PLACE = {
    "letterbox": (
        "gain = min({rows} / height, {columns} / width)",
        "size = max(1, round(width * gain)), max(1, round(height * gain))",
        "left, top = round(({columns} - size[0]) / 2 - 0.1), round(({rows} - size[1]) / 2 - 0.1)",
    ),
    "letterbox_topleft": (
        "gain = min({rows} / height, {columns} / width)",
        "size, left, top = (max(1, int(width * gain)), max(1, int(height * gain))), 0, 0",
    ),
    "stretch": (
        "gain = numpy.array([{columns} / width, {rows} / height] * 2)",
        "size, left, top = ({columns}, {rows}), 0, 0",
    ),
}


def lines_to_run(manifest: Manifest, format: Format, file_name: str, picture: str = "picture.jpg") -> str:
    """A program that prints rows x1 y1 x2 y2 score class in pixels of ``picture``. Only for boxes inside."""
    rows, columns = manifest.size_hw
    package, call = format.calling_code(file_name)
    order = "[..., ::-1]" if manifest.preprocess.channels == "rgb" else ""
    batch = "" if manifest.batch == 1 or manifest.is_dynamic else f".repeat({manifest.batch}, 0)"
    sides = f"top, {rows} - size[1] - top, left, {columns} - size[0] - left"
    pad = f"value=({manifest.preprocess.pad_value},) * 3"
    return "\n".join(
        (
            f"import cv2, numpy, {package}",
            f"height, width, _ = (picture := cv2.imread({picture!r})).shape",
            *(line.format(rows=rows, columns=columns) for line in _PLACE[manifest.preprocess.fit]),
            f"canvas = cv2.copyMakeBorder(cv2.resize(picture, size), {sides}, cv2.BORDER_CONSTANT, {pad})",
            f"images = numpy.ascontiguousarray(canvas[None]{order}.transpose(0, 3, 1, 2)){batch}",
            f"boxes = {call}[0]",
            "boxes = boxes[boxes[:, 4] > 0]",
            "boxes[:, :4] = ((boxes[:, :4] - [left, top] * 2) / gain).clip(0, [width, height] * 2)",
            "print(boxes)  # x1 y1 x2 y2 score class",
        )
    )
