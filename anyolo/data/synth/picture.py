"""One picture: floor, scraps, reflections, wires, bulbs, bloom, camera."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from anyolo.data.synth.floor import NOISE_SPREAD, Array, draw_floor, noise_bytes, window
from anyolo.data.synth.layout import Bodies, Layout, lay_out
from anyolo.data.synth.lights import NAMES, Spots, add_reflections, bloom, paint_dark, paint_lit, shine
from anyolo.data.synth.things import paint_wires, scatter_scraps
from anyolo.errors import ConfigError


def draw(seed: int, split: str, index: int, size: int = 416) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """One picture of LED bulbs and its labels, a function of the arguments alone.

    Returns:
        Picture (size, size, 3) BGR and labels (n, 5): class (an index into ``NAMES``), cx, cy, w, h as shares
        of ``size``.

    Raises:
        ConfigError: negative seed, or a size below 160 pixels, where the bulbs would not fit.
    """
    if seed < 0:
        raise ConfigError(f"seed {seed} is negative", where="seed", hint="Use 0 or more.")
    if size < 160:
        message = f"pictures of {size} px cannot hold 20 bulbs"
        raise ConfigError(message, where="size", hint="Use 160 or more.")
    rng = np.random.default_rng((seed, zlib.crc32(split.encode()), index))
    layout = lay_out(rng, size)
    mixture = rng.dirichlet((3.0,) * len(NAMES))
    classes = rng.choice(len(NAMES), len(layout.bodies), p=mixture)
    colours = shine(rng, classes)
    lit, lit_colours = layout.bodies.take(layout.lit), colours[layout.lit]
    mirrored = _mirror(rng, size, lit, lit_colours)
    picture = _unlit_scene(rng, size, layout, colours, mirrored)
    paint_lit(picture, rng, lit, lit_colours)
    _glow(picture, rng, lit, lit_colours, mirrored)
    return _photograph(rng, picture), _labels(lit, classes[layout.lit], size)


def _labels(lit: Bodies, classes: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    boxes = np.clip(lit.boxes_xyxy(), 0, size) / size
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate((classes[:, None], (low + high) / 2, high - low), 1).astype(np.float32)


def _unlit_scene(
    rng: np.random.Generator, size: int, layout: Layout, colours: Array, mirrored: Spots
) -> Array:
    """Everything below the lit bulbs: floor with scraps, glare and reflections, wires and dark bulbs."""
    picture, smear = draw_floor(rng, size)
    typical = float(2 * layout.bodies.radii[layout.lit].mean())
    scraps = int(len(layout.lit) * rng.uniform(0.1, 0.5))
    scatter_scraps(picture, rng, typical, shine(rng, rng.integers(len(NAMES), size=scraps)))
    picture *= _daylight(rng, size)
    add_reflections(picture, rng, mirrored, smear)
    paint_wires(picture, rng, layout, thickness=float(np.clip(typical * rng.uniform(0.18, 0.3), 1.5, 5)))
    dark = np.arange(len(layout.lit), len(layout.bodies))
    paint_dark(picture, rng, layout.bodies.take(dark), colours[dark])
    return picture


def _daylight(rng: np.random.Generator, size: int) -> Array:
    """Uneven room light (size, size, 3) around 1, sometimes with the glare of a lamp or a window."""
    warmth = rng.uniform(-0.1, 0.1)
    field = rng.uniform(0.75, 1.1, (3, 3, 1)) * (1 - warmth, 1 + rng.uniform(-0.03, 0.03), 1 + warmth)
    light = cv2.resize(field.astype(np.float32), (24, 24), interpolation=cv2.INTER_CUBIC)
    steps = np.arange(24, dtype=np.float32)
    for _ in range(rng.integers(0, 3)):
        x, y = rng.uniform(0, 24, 2)
        wide, high = rng.uniform(2, 7, 2)
        down, right = np.square((steps[:, None] - y) / high), np.square((steps[None] - x) / wide)
        spot = np.exp(-0.5 * (down + right))
        tint = rng.uniform(0.75, 1.0, 3) * rng.uniform(0.1, 0.5)
        light += (spot[..., None] * tint).astype(np.float32)
    return np.asarray(cv2.resize(light, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def _mirror(rng: np.random.Generator, size: int, lit: Bodies, colours: Array) -> Spots:
    """Mirror images of the bulbs, beside them on one side; of lights elsewhere; and small white glints."""
    count = len(lit)
    diameter = 2 * lit.radii[:, 0]
    way = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.5, count)
    gap = diameter * rng.uniform(0.75, 1.7, count)
    beside = (lit.back + lit.tip) / 2 + np.stack((np.cos(way), np.sin(way)), 1) * gap[:, None]
    shown = rng.random(count) < rng.uniform(0.6, 1.0)
    strays, glints = int(count * rng.uniform(0.5, 1.3)), int(count * rng.uniform(0.0, 0.3))
    typical = float(diameter.mean())
    sizes = (diameter[shown], rng.choice(diameter, strays), typical * rng.uniform(0.25, 0.5, glints))
    tints = (colours[shown], shine(rng, rng.integers(len(NAMES), size=strays)), np.ones((glints, 3)))
    places = (beside[shown], rng.uniform(0, size, (strays + glints, 2)))
    return Spots(
        places=np.concatenate(places).astype(np.float32),
        sizes=np.concatenate(sizes).astype(np.float32),
        colours=np.concatenate(tints).astype(np.float32),
    )


def _glow(picture: Array, rng: np.random.Generator, lit: Bodies, colours: Array, mirrored: Spots) -> None:
    """Bloom around bulbs and reflections, and wide washes of coloured light over floor and bulbs alike."""
    size, washes = picture.shape[0], int(rng.integers(1, 4))
    places = np.concatenate(((lit.back + lit.tip) / 2, mirrored.places)).astype(np.float64)
    sizes = np.concatenate((2 * lit.radii[:, 0], mirrored.sizes))
    places += rng.normal(0, 0.25, places.shape) * sizes[:, None]
    count = len(sizes)
    places = np.concatenate((places, rng.uniform(0, size, (washes, 2))))
    sizes = np.concatenate((sizes * rng.uniform(0.45, 1.1, count), rng.uniform(0.08, 0.2, washes) * size))
    tints = (colours, mirrored.colours, shine(rng, rng.integers(len(NAMES), size=washes)))
    spots = Spots(places=places.astype(np.float32), sizes=sizes, colours=np.concatenate(tints))
    strengths = rng.uniform(0.2, 0.9, count) * rng.uniform(0.6, 1.0)
    light = bloom(size, spots, np.concatenate((strengths, rng.uniform(0.1, 0.3, washes))))
    room = 0.9 - picture
    light *= np.maximum(room, 0.05, out=room)
    picture += light


def _photograph(rng: np.random.Generator, picture: Array) -> NDArray[np.uint8]:
    """Exposure, lens blur, sensor noise, eight bits."""
    size = picture.shape[0]
    sharp = cv2.convertScaleAbs(picture, alpha=255 * rng.uniform(0.8, 1.05))
    soft = cv2.GaussianBlur(sharp, (5, 5), rng.uniform(0.3, 0.65))
    grain = rng.uniform(1.5, 5.0) / NOISE_SPREAD
    noise = cv2.cvtColor(window(noise_bytes(), rng, size, size), cv2.COLOR_GRAY2BGR)
    return np.asarray(cv2.addWeighted(soft, 1, noise, grain, -128 * grain), np.uint8)
