"""What shines: bulbs with over-exposed cores, soft reflections on the floor, and the bloom around all."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from anyolo.data.synth.layout import Array, Bodies

NAMES = ("w", "r", "g", "b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spots:
    """N round lights without an edge."""

    places: Array
    """(N, 2) x y in pixels."""
    sizes: Array
    """(N,) pixels, comparable to the diameter of a bulb."""
    colours: Array
    """(N, 3) BGR, brightest channel 1."""


def shine(rng: np.random.Generator, classes: NDArray[np.int64]) -> Array:
    """Colour (N, 3) BGR per class, brightest channel 1: white is tinted, the others are never pure."""
    count = len(classes)
    weak, other = rng.uniform(0.02, 0.2, count), rng.uniform(0.02, 0.4, count)
    full = np.ones(count)
    tints = np.array(((1, 0.88, 0.76), (1, 0.70, 0.88), (0.88, 0.70, 1), (0.70, 0.88, 1), (1, 0.98, 0.96)))
    colours = np.stack(
        (
            tints[rng.integers(len(tints), size=count)],
            np.stack((weak, other * 0.6, full), 1),
            np.stack((other * 1.5, full, weak), 1),
            np.stack((full, other * 1.3, weak), 1),
        )
    )
    return colours[classes, np.arange(count)].astype(np.float32)


def expose(power: Array, colours: Array) -> Array:
    """Light (N, P, P, 3) of ``power`` (N, P, P): in its colour up to 1, beyond that it runs into white."""
    light = np.empty((*power.shape, 3), np.float32)
    below, beyond = np.minimum(power, 1), np.maximum(power - 1, 0) * 1.4
    for channel in range(3):
        light[..., channel] = below * colours[:, channel, None, None] + beyond
    return light


def paint_lit(picture: Array, rng: np.random.Generator, bodies: Bodies, colours: Array) -> None:
    """Shining bodies, in place: clear edge, coloured rim, core of any size, mostly white, rarely central."""
    count = len(bodies)
    x, y, corners = _patches((bodies.back + bodies.tip) / 2, _reach(bodies))
    inside, depth = _cover(x, y, bodies)
    radius = bodies.radii[:, 0]
    way, off = rng.uniform(0, 2 * np.pi, count), radius * rng.uniform(0.0, 0.4, count)
    middle = bodies.back + (bodies.tip - bodies.back) * rng.uniform(0.0, 1.0, (count, 1))
    centre = middle + np.stack((np.cos(way), np.sin(way)), 1) * off[:, None]
    spread = _each(radius * rng.uniform(0.3, 0.95, count))
    core = np.exp(-np.square(_squared(x, y, centre) / np.square(spread)))
    core *= _each(rng.uniform(0.1, 2.2, count))
    power = _each(rng.uniform(0.75, 1.05, count)) * (0.8 + 0.25 * depth) + core
    _paint(picture, expose(power, colours) * inside[..., None], inside, corners)


def paint_dark(picture: Array, rng: np.random.Generator, bodies: Bodies, colours: Array) -> None:
    """Bulbs that are off: milky or tinted plastic with a small highlight."""
    count = len(bodies)
    x, y, corners = _patches((bodies.back + bodies.tip) / 2, _reach(bodies))
    inside, depth = _cover(x, y, bodies)
    tint = 0.2 + colours * rng.uniform(0.0, 0.55, (count, 1)).astype(np.float32)
    spot = (bodies.back + bodies.tip) / 2 + bodies.radii[:, :1] * rng.uniform(-0.45, 0.45, (count, 2))
    highlight = np.exp(-_squared(x, y, spot) / _each(np.square(0.3 * bodies.radii[:, 0])))
    light = expose(0.55 + 0.4 * depth, tint) + highlight[..., None] * np.float32(0.9)
    _paint(picture, light * inside[..., None], inside, corners)


def add_reflections(picture: Array, rng: np.random.Generator, spots: Spots, smear: float) -> None:
    """Mirrored lights on a glossy floor, in place: no edge, smeared along ``smear`` (radians)."""
    size, count = picture.shape[0], len(spots.sizes)
    places, sizes = spots.places / 2, spots.sizes / 2
    x, y, corners = _patches(places, float(sizes.max(initial=1.0)) * 1.3)
    angle = _each(smear + rng.normal(0, 0.15, count))
    dx, dy = x - _each(places[:, 0]), y - _each(places[:, 1])
    cosine, sine = np.cos(angle), np.sin(angle)
    width = sizes * rng.uniform(0.24, 0.36, count)
    length = width * rng.uniform(1.0, 1.5, count)
    along, across = (dx * cosine + dy * sine) / _each(length), (dy * cosine - dx * sine) / _each(width)
    power = np.exp(-0.5 * (np.square(along) + np.square(across))) * _each(rng.uniform(0.7, 2.8, count))
    small = (-(-size // 2),) * 2  # half the size is enough for what has no edge
    half = np.asarray(cv2.resize(picture, small, interpolation=cv2.INTER_AREA), np.float32)
    before = half.copy()
    _paint(half, expose(power, spots.colours), np.minimum(power, 1) * np.float32(0.85), corners)
    picture += cv2.resize(half - before, (size, size), interpolation=cv2.INTER_LINEAR)


def bloom(size: int, spots: Spots, strengths: Array) -> Array:
    """Light (size, size, 3) of Gaussians, ``spots.sizes`` their sigma, ``strengths`` their height."""
    small = -(-size // 4)  # a quarter of the size is enough for what is this soft
    total = np.zeros((small, small, 3), np.float32)
    steps = np.geomspace(spots.sizes.min() * 0.999, spots.sizes.max() * 1.001, 4)
    rows, columns = (np.clip((spots.places[:, axis] / 4).astype(np.int64), 0, small - 1) for axis in (1, 0))
    for low, high in pairwise(steps):
        chosen = (spots.sizes >= low) & (spots.sizes < high)
        sigma = float(np.sqrt(low * high)) / 4
        points = np.zeros_like(total)
        peaks = spots.colours[chosen] * (strengths[chosen] * 2 * np.pi * sigma**2)[:, None]
        np.add.at(points, (rows[chosen], columns[chosen]), peaks)
        total += cv2.GaussianBlur(points, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(cv2.resize(total, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def _each(values: NDArray[np.floating]) -> Array:
    """One value per patch, (N,) -> (N, 1, 1), in float32."""
    return np.asarray(values, np.float32)[:, None, None]


def _reach(bodies: Bodies) -> float:
    length = np.linalg.norm(bodies.tip - bodies.back, axis=1) / 2
    return float((length + bodies.radii.max(1)).max(initial=1.0)) + 1.5


def _patches(centres: NDArray[np.floating], reach: float) -> tuple[Array, Array, NDArray[np.int64]]:
    """Pixel centres x (N, 1, P) and y (N, P, 1) of patches around ``centres``, and their corners (N, 2)."""
    corners = np.floor(centres - reach)
    steps = np.arange(int(2 * reach) + 2, dtype=np.float32) + np.float32(0.5)
    x, y = _each(corners[:, 0]) + steps[None, None], _each(corners[:, 1]) + steps[None, :, None]
    return x, y, corners.astype(np.int64)


def _squared(x: Array, y: Array, points: NDArray[np.floating]) -> Array:
    return np.asarray(np.square(x - _each(points[:, 0])) + np.square(y - _each(points[:, 1])), np.float32)


def _cover(x: Array, y: Array, bodies: Bodies) -> tuple[Array, Array]:
    """Coverage (N, P, P) of each pixel, and depth below the edge as a share of the radius."""
    axis = bodies.tip - bodies.back
    step = axis / np.maximum(np.square(axis).sum(1, keepdims=True), 1e-6)
    dx, dy = x - _each(bodies.back[:, 0]), y - _each(bodies.back[:, 1])
    share = np.clip(dx * _each(step[:, 0]) + dy * _each(step[:, 1]), 0, 1)
    distance = np.sqrt(np.square(dx - share * _each(axis[:, 0])) + np.square(dy - share * _each(axis[:, 1])))
    radius = _each(bodies.radii[:, 0]) + share * _each(bodies.radii[:, 1] - bodies.radii[:, 0])
    return np.clip(radius - distance + np.float32(0.5), 0, 1), np.clip(1 - distance / radius, 0, 1)


def _paint(picture: Array, light: Array, opacity: Array, corners: NDArray[np.int64]) -> None:
    """Lay patches of ``light`` (N, P, P, 3) over the picture, which shows through where ``opacity`` < 1."""
    rest = np.repeat((1 - opacity)[..., None], 3, axis=3)
    low, high = np.maximum(corners, 0), np.minimum(corners + light.shape[1], picture.shape[1::-1])
    spans = np.concatenate((low, high, low - corners, high - corners), 1)
    for number in np.flatnonzero((low < high).all(1)):
        x1, y1, x2, y2, left, top, right, bottom = spans[number].tolist()
        target = picture[y1:y2, x1:x2]
        target *= rest[number, top:bottom, left:right]
        target += light[number, top:bottom, left:right]
