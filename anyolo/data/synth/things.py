"""What does not shine: wires with their shadows, sockets, and scraps of coloured paper on the floor."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from anyolo.data.synth.layout import Array, Layout

_SHIFT = 4


def paint_wires(picture: Array, rng: np.random.Generator, layout: Layout, thickness: float) -> None:
    """Dark twisted wires, stubs and sockets over a soft shadow, in place."""
    size = picture.shape[0]
    lines = [_fixed(wire) for wire in layout.wires]
    sockets = np.stack((layout.knots, layout.bodies.back), 1)
    stubs = list(_fixed(sockets))
    thin, thick = max(1, round(thickness)), max(2, round(thickness * 1.7))
    mask = np.zeros((size, size), np.uint8)
    cv2.polylines(mask, lines, False, 255, thin, cv2.LINE_AA, _SHIFT)
    cv2.polylines(mask, stubs, False, 255, thick, cv2.LINE_AA, _SHIFT)
    fall = rng.normal(0, 1, 2)
    fall *= rng.uniform(2, 4) * thickness / np.hypot(*fall)
    shadow = cv2.warpAffine(mask, np.array([[1, 0, fall[0]], [0, 1, fall[1]]]), (size, size))
    shadow = cv2.GaussianBlur(shadow, (0, 0), 1.2 + thickness * 0.4)
    dark = rng.choice(((0.07, 0.07, 0.06), (0.08, 0.11, 0.07), (0.13, 0.12, 0.12)))
    shade = cv2.cvtColor(shadow, cv2.COLOR_GRAY2BGR).astype(np.float32)
    picture *= 1 - shade * np.float32(rng.uniform(0.15, 0.5) / 255)
    cover = cv2.cvtColor(mask, cv2.COLOR_GRAY2BGR).astype(np.float32) / 255
    picture *= 1 - cover
    picture += cv2.multiply(cover, (*dark, 0.0))
    for wire in layout.wires:
        _twist(picture, rng, wire, thickness, float(dark.mean()))


def _twist(picture: Array, rng: np.random.Generator, wire: Array, thickness: float, dark: float) -> None:
    """Slanted light dashes that make a line look like two strands."""
    every = max(1, round(thickness * 0.8))
    middles = wire[1:-1:every]
    heading = wire[2::every][: len(middles)] - wire[:-2:every][: len(middles)]
    heading /= np.maximum(np.linalg.norm(heading, axis=1, keepdims=True), 1e-6)
    slant = (heading + np.stack((-heading[:, 1], heading[:, 0]), 1)) * np.float32(thickness * 0.3)
    dashes = _fixed(np.stack((middles - slant, middles + slant), 1))
    level = dark + rng.uniform(0.06, 0.2)
    cv2.polylines(picture, list(dashes), False, (level, level, level), 1, cv2.LINE_8, _SHIFT)


def scatter_scraps(picture: Array, rng: np.random.Generator, count: int, largest: float, colours: Array) -> None:
    """Matte coloured paper: clear shape and colour like a bulb, but no light of its own. In place."""
    size = picture.shape[0]
    for colour in colours[:count]:
        centre, half = rng.uniform(0, size, 2), rng.uniform(0.25, 0.6, 2) * largest
        level = float(rng.uniform(0.45, 0.95))
        bgr = tuple(float(v) for v in (0.1 + 0.9 * colour) * level)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        if rng.random() < 0.5:
            angles = np.arange(12) * (np.pi / 6)
            corners = np.stack((np.cos(angles), np.sin(angles)), 1) * half
        angle = rng.uniform(0, np.pi)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        cv2.fillPoly(picture, [_fixed(corners @ turn + centre)], bgr, cv2.LINE_8, _SHIFT)


def _fixed(points: NDArray[np.floating]) -> NDArray[np.int32]:
    """Fixed-point coordinates for OpenCV's sub-pixel drawing."""
    return np.round(np.asarray(points) * (1 << _SHIFT)).astype(np.int32)
