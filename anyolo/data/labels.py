"""Rows of a YOLO label file: ``class cx cy w h``, normalised, one object a line.

Nothing here is fatal: a row that cannot be used is named by file and line and left out.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from anyolo.data.index import Problem

_SLACK = 1e-3
"""How far a value may leave 0..1 by rounding; it is clipped back."""


def read_label_file(path: str, nc: int) -> tuple[NDArray[np.float32], list[Problem]]:
    """(n, 5) float32 inside the picture, no duplicates; an absent or empty file is a background picture."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except FileNotFoundError:
        return _rows([]), []
    except (OSError, UnicodeDecodeError) as error:
        return _rows([]), [Problem(path, f"cannot be read: {error}", "unreadable label file")]
    return parse_labels(text, path, nc)


def parse_labels(text: str, where: str, nc: int) -> tuple[NDArray[np.float32], list[Problem]]:
    """As ``read_label_file``, from the text."""
    words = [line.split() for line in text.splitlines()]
    problems: list[Problem] = []
    table = _plain_table(words, nc)
    if table is None:
        rows = []
        for number, row in enumerate(words, 1):
            if row:
                values, problem = _parse_row(row, f"{where}:{number}", nc)
                rows += [values] if values else []
                problems += [problem] if problem else []
        table = np.asarray(rows, np.float64).reshape(-1, 5)
    labels = clip_labels(table)
    first = np.sort(np.unique(labels, axis=0, return_index=True)[1])
    if len(first) < len(labels):
        problems.append(Problem(where, f"{len(labels) - len(first)} repeated", "duplicate labels"))
    return labels[first], problems


def clip_labels(table: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n, 5) ``class, cx, cy, w, h`` with the sides clipped to the picture; untouched rows stay exact."""
    low = table[:, 1:3] - table[:, 3:5] / 2
    high = table[:, 1:3] + table[:, 3:5] / 2
    outside = ((low < 0) | (high > 1)).any(1)
    if outside.any():
        low, high = np.clip(low[outside], 0, 1), np.clip(high[outside], 0, 1)
        table = table.copy()
        table[outside, 1:] = np.concatenate(((low + high) / 2, high - low), 1)
    return table.astype(np.float32)


def _plain_table(words: list[list[str]], nc: int) -> NDArray[np.float64] | None:
    """All rows at once, or None when any needs a closer look."""
    if any(len(row) != 5 for row in words):
        return None
    try:
        table = np.asarray(words, np.float64).reshape(-1, 5)
    except ValueError:
        return None
    classes, boxes = table[:, 0], table[:, 1:]
    with np.errstate(invalid="ignore"):
        fine = (classes >= 0) & (classes < nc) & (classes % 1 == 0)
        fine &= ((boxes >= 0) & (boxes <= 1)).all(1) & (boxes[:, 2:] > 0).all(1)
    return table if fine.all() else None


def _parse_row(row: list[str], where: str, nc: int) -> tuple[list[float] | None, Problem | None]:
    """The five values and perhaps a note, or None and what is wrong."""

    def reject(message: str, kind: str) -> tuple[None, Problem]:
        return None, Problem(where, message, kind)

    try:
        values = [float(word) for word in row]
    except ValueError:
        return reject(f"not a number in {' '.join(row)[:60]!r}", "unreadable label")
    is_polygon = len(values) >= 7 and len(values) % 2 == 1
    if len(values) != 5 and not is_polygon:
        return reject(f"{len(values)} values instead of 5 (class cx cy w h)", "wrong number of columns")
    if not all(math.isfinite(value) for value in values):
        return reject("NaN or infinite value", "NaN label")
    if values[0] < 0 or values[0] % 1:
        return reject(f"class {row[0]} is not a whole number from 0", "invalid class")
    if values[0] >= nc:
        return reject(f"class {row[0]}, but there are {nc} classes (0 to {nc - 1})", "class out of range")
    if is_polygon:
        xs, ys = values[1::2], values[2::2]
        low_x, high_x, low_y, high_y = min(xs), max(xs), min(ys), max(ys)
        values[1:] = [(low_x + high_x) / 2, (low_y + high_y) / 2, high_x - low_x, high_y - low_y]
    if any(not -_SLACK <= value <= 1 + _SLACK for value in values[1:]):
        return reject(f"coordinates {' '.join(row[1:5])} leave 0..1", "coordinates out of range")
    if min(values[3], values[4]) <= 0:
        return reject("box without area", "empty box")
    return values, Problem(where, "outline turned into its box", "polygon label") if is_polygon else None


def _rows(rows: list[list[float]]) -> NDArray[np.float32]:
    return np.asarray(rows, np.float32).reshape(-1, 5)
