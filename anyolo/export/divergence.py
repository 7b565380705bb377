"""Where an artefact first differs from its model: parts of the model are written in the same format and run.

The part up to row k is written, opened in its runtime and compared with the same rows in PyTorch; halving
finds the first row that differs in five files or so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from anyolo.export.base import Decoded, Images, Runner
from anyolo.nn.count import tensors_in

MOST = 1e-3
"""Largest difference that is rounding, as a share of what a map's values usually are (their mean square)."""
INPUT = -1


class Prefix(nn.Module):
    """The model up to row ``last``, -1 for the normalised pictures alone, as any format can write it: its
    maps take the shape of decoded boxes (B, A, 4) and scores (B, A, 1).
    """

    def __init__(self, decoded: Decoded, last: int) -> None:
        super().__init__()
        self.detector, self.preprocess, self.last = decoded.detector, decoded.preprocess, last

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.detector.row(self.preprocess.normalise(images), self.last)
        values = torch.cat([tensor.flatten(1) for tensor in tensors_in(found)], 1)
        if missing := -values.shape[1] % 4:
            values = functional.pad(values, (0, missing))
        rows = values.reshape(values.shape[0], -1, 4)
        return rows, rows[..., :1]


def first_difference(
    prepared: Decoded,
    write: Callable[[nn.Module, Path], None],
    open: Callable[[Path], Runner],
    place: Path,
    images: Images,
) -> str:
    """In words: the input, a row, or what comes behind the rows. ``write`` writes a part of the model without
    any suppression; ``place`` is a free name with the format's ending.
    """

    def differs(last: int) -> bool:
        part = Prefix(prepared, last).eval()
        with torch.no_grad():
            expected = part(torch.from_numpy(images))[0].numpy()
        path = place.with_name(f"rows{last + 1}.{place.name}")
        write(part, path)
        found = open(path).decoded(images)
        return found is None or _is_other(expected, found[0])

    rows = prepared.detector.model
    good, bad = INPUT - 1, len(rows) - 1
    if not differs(bad):
        return "all rows agree: the decoding of their maps into boxes differs first"
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if differs(middle) else (middle, bad)
    if bad == INPUT:
        return "the input differs before the first row: its channels, scale or mean"
    return f"row {bad} ({type(rows[bad]).__name__}) differs first"


def _is_other(expected: NDArray[np.float32], found: NDArray[np.float32]) -> bool:
    if expected.shape != found.shape:
        return True
    usual = float(np.sqrt(np.square(expected, dtype=np.float64).mean()))
    return not float(np.abs(expected - found).max(initial=0)) <= MOST * max(usual, 1e-12)  # NaN is other too
