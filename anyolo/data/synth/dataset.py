"""Pictures on disk in the YOLO layout, drawn once and drawn again when the drawing was interrupted."""

from __future__ import annotations

import os
from pathlib import Path

import cv2

from anyolo.console import track
from anyolo.data.synth.lights import NAMES
from anyolo.data.synth.picture import draw
from anyolo.errors import DataError

DRAWING = 1
"""Raise it when pictures change, so that folders drawn before are drawn again."""
_SIGN = "# drawn by anyolo:"
_QUALITY = 92


def write_dataset(
    folder: str | Path, *, train: int = 200, val: int = 50, test: int = 0, seed: int = 0, size: int = 416
) -> Path:
    """Draw a data set of ``train`` + ``val`` + ``test`` pictures and return its ``data.yaml``.

    ``data.yaml`` is written last and says what was drawn: where it already says the same, nothing is drawn.

    Raises:
        DataError: the folder holds files that are not ours, or cannot be written.
    """
    root = Path(folder)
    counts = {name: count for name, count in (("train", train), ("val", val), ("test", test)) if count > 0}
    document = _describe(counts, seed, size)
    described = root / "data.yaml"
    if described.is_file():
        present = described.read_text(encoding="utf-8", errors="replace")
        if present == document:
            return described
        if not present.startswith(_SIGN):
            raise DataError("was not drawn here", where=str(described), hint="Choose another folder.")
    try:
        described.unlink(missing_ok=True)
        for split in counts:
            _clear(root / "images" / split)
            _clear(root / "labels" / split)
        plan = [(split, index) for split, count in counts.items() for index in range(count)]
        for split, index in track(plan, "drawing bulbs", "picture"):
            _write_picture(root, split, index, seed, size)
        unfinished = described.with_suffix(".part")
        unfinished.write_text(document, encoding="utf-8")
        os.replace(unfinished, described)
    except OSError as error:
        raise DataError(
            str(error), where=str(root), hint="Choose a folder with room that you may write to."
        ) from error
    return described


def _describe(counts: dict[str, int], seed: int, size: int) -> str:
    numbers = " ".join(f"{split}={count}" for split, count in counts.items())
    lines = [f"{_SIGN} drawing={DRAWING} seed={seed} size={size} {numbers}", "path: ."]
    lines += [f"{split}: images/{split}" for split in counts]
    lines += ["names:", *(f"  {number}: {name}" for number, name in enumerate(NAMES))]
    return "\n".join(lines) + "\n"


def _clear(folder: Path) -> None:
    """Make the folder and remove files of an earlier drawing, ours only."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if not path.name.startswith("bulbs_"):
            raise DataError("a file that was not drawn here", where=str(path), hint="Choose another folder.")
        path.unlink()


def _write_picture(root: Path, split: str, index: int, seed: int, size: int) -> None:
    picture, labels = draw(seed, split, index, size)
    stem = f"bulbs_{index:05d}"
    done, coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise DataError("OpenCV could not write a JPEG", where=stem, hint="Reinstall opencv-python-headless.")
    (root / "images" / split / f"{stem}.jpg").write_bytes(coded.tobytes())
    rows = "".join(f"{int(row[0])} {row[1]:.6f} {row[2]:.6f} {row[3]:.6f} {row[4]:.6f}\n" for row in labels)
    (root / "labels" / split / f"{stem}.txt").write_text(rows, encoding="utf-8")
