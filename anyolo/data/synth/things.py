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
    sockets = np.stack((layout.knots, layout.bodies.back), 1)
    thin, thick = max(1, round(thickness)), max(2, round(thickness * 1.7))
    mask = np.zeros((size, size), np.uint8)
    cv2.polylines(mask, [_fixed(wire) for wire in layout.wires], False, 255, thin, cv2.LINE_AA, _SHIFT)
    cv2.polylines(mask, list(_fixed(sockets)), False, 255, thick, cv2.LINE_AA, _SHIFT)
    fall = rng.normal(0, 1, 2)
    fall *= rng.uniform(1, 2) * thickness / np.hypot(*fall)
    half = cv2.resize(mask, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
    half = cv2.warpAffine(half, np.array([[1, 0, fall[0]], [0, 1, fall[1]]]), half.shape)
    half = cv2.GaussianBlur(half, (0, 0), 0.6 + thickness * 0.2)
    shadow = cv2.resize(half, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    cover = mask.astype(np.float32) / 255
    keep = (1 - shadow * np.float32(rng.uniform(0.15, 0.5) / 255)) * (1 - cover)
    dark = np.float32(rng.uniform(0.06, 0.14))
    picture *= cv2.cvtColor(keep, cv2.COLOR_GRAY2BGR)
    picture += cv2.cvtColor(cover * dark, cv2.COLOR_GRAY2BGR)
    level = float(dark + rng.uniform(0.06, 0.2))
    dashes = np.concatenate([_dashes(wire, thickness) for wire in layout.wires])
    cv2.polylines(picture, list(_fixed(dashes)), False, (level, level, level), 1, cv2.LINE_8, _SHIFT)


def _dashes(wire: Array, thickness: float) -> Array:
    """Slanted strokes (n, 2, 2) across a wire that, drawn light, make it look like two twisted strands."""
    every = max(1, round(thickness * 0.8))
    middles = wire[1:-1:every]
    heading = wire[2::every][: len(middles)] - wire[:-2:every][: len(middles)]
    heading /= np.maximum(np.linalg.norm(heading, axis=1, keepdims=True), 1e-6)
    slant = (heading + np.stack((-heading[:, 1], heading[:, 0]), 1)) * np.float32(thickness * 0.3)
    return np.stack((middles - slant, middles + slant), 1)


def scatter_scraps(picture: Array, rng: np.random.Generator, largest: float, colours: Array) -> None:
    """Matte coloured paper: clear shape and colour like a bulb, but no light of its own. In place."""
    size = picture.shape[0]
    for colour in colours:
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
