"""What the lights lie on: planks, tiles or carpet, cut from banks of noise that are made once per process."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

NOISE_SPREAD = 30.0
_BANK = 1024


@lru_cache(maxsize=1)
def noise_bank() -> Array:
    """(1024, 1024) standard normal values, the same for every seed; pictures cut random windows out of it."""
    return np.random.default_rng(7).standard_normal((_BANK, _BANK), np.float32)


@lru_cache(maxsize=1)
def noise_bytes() -> NDArray[np.uint8]:
    """``noise_bank`` for eight-bit pictures: mean 128, one standard deviation is ``NOISE_SPREAD``."""
    return np.asarray(np.clip(noise_bank() * NOISE_SPREAD + 128, 0, 255), np.uint8)


@lru_cache(maxsize=1)
def grain_bank() -> Array:
    """(1024, 1024) wood grain down the columns, zero mean, unit variance: fibres of two lengths and arcs."""
    rng = np.random.default_rng(8)
    long_fibres, short_fibres, warp = (
        cv2.resize(rng.standard_normal(shape, np.float32), (_BANK, _BANK), interpolation=cv2.INTER_CUBIC)
        for shape in ((12, 384), (96, 512), (7, 14))
    )
    arcs = np.sin(np.arange(_BANK, dtype=np.float32)[None] * 0.35 + 7.0 * warp)
    grain = long_fibres + 0.6 * short_fibres + 0.55 * arcs
    return np.asarray((grain - grain.mean()) / grain.std(), np.float32)


def window(bank: NDArray[Any], rng: np.random.Generator, height: int, width: int) -> NDArray[Any]:
    """A random ``height`` x ``width`` view of a bank, stretched where the bank is smaller."""
    rows, columns = min(height, _BANK), min(width, _BANK)
    y, x = int(rng.integers(0, _BANK - rows + 1)), int(rng.integers(0, _BANK - columns + 1))
    view = bank[y : y + rows, x : x + columns]
    return view if (rows, columns) == (height, width) else cv2.resize(view, (width, height))


def draw_floor(rng: np.random.Generator, size: int) -> tuple[Array, float]:
    """Albedo (size, size, 3) BGR around 0.45, and the angle (radians) along which it smears reflections."""
    turned = int(size * 1.42) + 2
    kind = rng.choice(3, p=(0.7, 0.15, 0.15))
    tone = (_planks, _tiles, _carpet)[kind](rng, turned)
    angle = float(rng.choice((0.0, 90.0)) + rng.normal(0, 8 if rng.random() < 0.7 else 40))
    turn = np.asarray(cv2.getRotationMatrix2D((turned / 2, turned / 2), angle, 1.0))
    turn[:, 2] = turn[:, 2] - (turned - size) / 2
    seen = cv2.warpAffine(tone, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    bases = (
        ((0.38, 0.49, 0.58), (0.46, 0.52, 0.57), (0.27, 0.37, 0.47)),
        ((0.50, 0.50, 0.50), (0.40, 0.47, 0.52), (0.34, 0.36, 0.40)),
        ((0.36, 0.38, 0.42), (0.45, 0.40, 0.36), (0.30, 0.36, 0.32)),
    )[kind]
    base = np.asarray(bases[rng.integers(len(bases))]) * rng.uniform(0.75, 1.1)
    mix = np.stack((base, base * (-0.10, 0.0, 0.05), base), 1)
    return np.asarray(cv2.transform(seen, mix), np.float32), float(np.deg2rad(90 - angle))


def _enlarged(field: Array, size: int) -> Array:
    return np.asarray(cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def _planks(rng: np.random.Generator, size: int) -> Array:
    """Tone (size, size, 2): brightness change and warmth of parquet strips with grain and dark joints."""
    tone = np.empty((size, size, 2), np.float32)
    wide, long = float(rng.uniform(0.09, 0.2)) * size, float(rng.uniform(0.35, 0.9)) * size
    depth = float(rng.uniform(0.03, 0.07))
    left = -rng.uniform(0, wide)
    while left < size:
        right = left + wide
        x1, x2 = max(int(left), 0), min(int(right), size)
        top = -rng.uniform(0, long)
        while top < size and x2 > x1:
            bottom = top + long * rng.uniform(0.8, 1.2)
            y1, y2 = max(int(top), 0), min(int(bottom), size)
            if y2 > y1:
                board = tone[y1:y2, x1:x2]
                board[..., 0] = window(grain_bank(), rng, y2 - y1, x2 - x1) * depth + rng.normal(0, 0.09)
                board[..., 1] = rng.normal(0, 0.8)
                board[:, 0, 0] -= 0.09
                board[0, :, 0] -= 0.09
            top = bottom
        left = right
    return tone


def _tiles(rng: np.random.Generator, size: int) -> Array:
    """Tone of square tiles with mottles and grooves."""
    pitch = int(rng.uniform(0.2, 0.4) * size)
    mottle = _enlarged(window(noise_bank(), rng, size // 9, size // 9), size)
    shade = rng.normal(0, 0.06, (size // pitch + 1, size // pitch + 1, 2)).astype(np.float32)
    tone = np.repeat(np.repeat(shade, pitch, 0), pitch, 1)[:size, :size] * np.asarray((1, 6), np.float32)
    tone[..., 0] += mottle * 0.05 + window(noise_bank(), rng, size, size) * 0.02
    for offset in range(3):
        tone[offset::pitch, :, 0] -= 0.12
        tone[:, offset::pitch, 0] -= 0.12
    return tone


def _carpet(rng: np.random.Generator, size: int) -> Array:
    """Tone of a short pile: coarse and fine noise."""
    coarse = _enlarged(window(noise_bank(), rng, size // 3, size // 3), size)
    fine = window(noise_bank(), rng, size, size)
    return np.stack((coarse * 0.09 + fine * 0.06, coarse), -1)
