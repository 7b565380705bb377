"""What the lights lie on: planks, tiles or carpet, drawn from banks of noise that are made once per process."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

_BANK = 1024


@lru_cache(maxsize=1)
def noise_bank() -> Array:
    """(1024, 1024) standard normal values, the same for every seed; pictures cut random windows out of it."""
    return np.random.default_rng(7).standard_normal((_BANK, _BANK), np.float32)


@lru_cache(maxsize=1)
def grain_bank() -> Array:
    """(1024, 1024) wood grain running down the columns, zero mean and unit variance: fibres of two lengths and arcs."""
    rng = np.random.default_rng(8)
    long_fibres, short_fibres, warp = (
        cv2.resize(rng.standard_normal(shape, np.float32), (_BANK, _BANK), interpolation=cv2.INTER_CUBIC)
        for shape in ((12, 384), (96, 512), (7, 14))
    )
    arcs = np.sin(np.arange(_BANK, dtype=np.float32)[None] * 0.35 + 7.0 * warp)
    grain = long_fibres + 0.6 * short_fibres + 0.55 * arcs
    return np.asarray((grain - grain.mean()) / grain.std(), np.float32)


def window(bank: Array, rng: np.random.Generator, height: int, width: int) -> Array:
    """A random ``height`` x ``width`` view of a bank; larger than the bank it repeats."""
    y, x = (int(v) for v in rng.integers(0, _BANK, 2))
    if y + height <= _BANK and x + width <= _BANK:
        return bank[y : y + height, x : x + width]
    rows, columns = (np.arange(y, y + height) % _BANK, np.arange(x, x + width) % _BANK)
    return bank[rows[:, None], columns[None]]


def draw_floor(rng: np.random.Generator, size: int) -> tuple[Array, float]:
    """Albedo (size, size, 3) BGR around 0.45, and the angle (radians) along which the floor smears reflections."""
    turned = int(size * 1.42) + 2
    kind = rng.choice(3, p=(0.7, 0.15, 0.15))
    tone = (_planks, _tiles, _carpet)[kind](rng, turned)
    angle = float(rng.choice((0.0, 90.0)) + rng.normal(0, 8 if rng.random() < 0.7 else 40))
    turn = cv2.getRotationMatrix2D((turned / 2, turned / 2), angle, 1.0)
    turn[:, 2] -= (turned - size) / 2
    tone = cv2.warpAffine(tone, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    bases = (
        ((0.36, 0.47, 0.56), (0.42, 0.48, 0.53), (0.22, 0.32, 0.42)),
        ((0.50, 0.50, 0.50), (0.40, 0.47, 0.52), (0.34, 0.36, 0.40)),
        ((0.36, 0.38, 0.42), (0.45, 0.40, 0.36), (0.30, 0.36, 0.32)),
    )[kind]
    base = np.asarray(bases[rng.integers(len(bases))]) * rng.uniform(0.8, 1.15)
    mix = np.stack((base, base * (-0.10, 0.0, 0.05), base), 1)
    return np.asarray(cv2.transform(tone, mix), np.float32), float(np.deg2rad(90 - angle))


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
    mottle = cv2.resize(window(noise_bank(), rng, size // 9, size // 9), (size, size), interpolation=cv2.INTER_CUBIC)
    shade = rng.normal(0, 0.06, (size // pitch + 1, size // pitch + 1, 2)).astype(np.float32)
    tone = np.repeat(np.repeat(shade, pitch, 0), pitch, 1)[:size, :size] * np.asarray((1, 6), np.float32)
    tone[..., 0] += mottle * 0.05 + window(noise_bank(), rng, size, size) * 0.02
    for offset in range(3):
        tone[offset::pitch, :, 0] -= 0.12
        tone[:, offset::pitch, 0] -= 0.12
    return tone


def _carpet(rng: np.random.Generator, size: int) -> Array:
    """Tone of a short pile: coarse and fine noise."""
    coarse = cv2.resize(window(noise_bank(), rng, size // 3, size // 3), (size, size), interpolation=cv2.INTER_LINEAR)
    fine = window(noise_bank(), rng, size, size)
    return np.stack((coarse * 0.09 + fine * 0.06, coarse), -1)
