"""Where things are: wires across the picture, stubs on the wires, and a bulb at the end of each stub."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

FEWEST, MOST = 20, 120
SMALLEST_PX, LARGEST_PX = 9.2, 22.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bodies:
    """N bulb bodies: each the hull of two circles, ``back`` at the socket and ``tip``. Pixels, float32."""

    back: Array
    """(N, 2) x y."""
    tip: Array
    """(N, 2) x y."""
    radii: Array
    """(N, 2) of the circles at back and tip."""

    def __len__(self) -> int:
        return len(self.back)

    def take(self, keep: NDArray[np.int64]) -> Bodies:
        return Bodies(back=self.back[keep], tip=self.tip[keep], radii=self.radii[keep])

    def boxes_xyxy(self) -> Array:
        """(N, 4) exact extents."""
        back, tip = self.radii[:, :1], self.radii[:, 1:]
        low = np.minimum(self.back - back, self.tip - tip)
        high = np.maximum(self.back + back, self.tip + tip)
        return np.concatenate((low, high), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One scene before any light: everything in pixels."""

    wires: list[Array]
    knots: Array
    """(N, 2) where each stub leaves its wire."""
    bodies: Bodies
    lit: NDArray[np.int64]
    """Indices of bodies that shine; the others are dark."""
    pitch: float
    """Typical distance between neighbours."""


def lay_out(rng: np.random.Generator, size: int) -> Layout:
    """Wires and bulbs for one picture, with 20 to 120 lit bulbs that do not hide each other."""
    wanted = int(np.exp(rng.uniform(np.log(FEWEST), np.log(MOST + 1))))
    spare = rng.uniform(1.1, 1.45)
    while True:
        layout = _try_layout(rng, size, wanted, pitch=size / np.sqrt(wanted * spare))
        if len(layout.lit) >= FEWEST:
            return layout
        spare *= 1.15


def _try_layout(rng: np.random.Generator, size: int, wanted: int, pitch: float) -> Layout:
    wires = _wires(rng, size, pitch)
    knots, headings = _knots(rng, wires, pitch)
    bodies = _bodies(rng, size, knots, headings, pitch)
    centre = (bodies.back + bodies.tip) / 2
    near = np.flatnonzero((np.abs(centre / size - 0.5) < 0.56).all(1))
    knots, bodies, centre = knots[near], bodies.take(near), centre[near]
    inside = ((centre > 4) & (centre < size - 4)).all(1)
    order = rng.permutation(np.flatnonzero(inside))
    kept = order[_apart(bodies.take(order))]
    everything = np.concatenate((kept, np.flatnonzero(~inside)))
    return Layout(
        wires=wires,
        knots=knots[everything],
        bodies=bodies.take(everything),
        lit=np.arange(min(wanted, len(kept)), dtype=np.int64),
        pitch=pitch,
    )


def _wires(rng: np.random.Generator, size: int, pitch: float) -> list[Array]:
    """Wavy lines in one main direction, ``pitch`` apart, each longer than the picture's diagonal."""
    reach = 0.75 * size
    along = np.arange(-reach, reach, 3.0)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    gap = pitch * rng.uniform(1.0, 1.3)
    wires = []
    for offset in np.arange(-reach + rng.uniform(0, gap), reach, gap):
        waves = rng.uniform(1.2, 9.0, 4) * 2 * np.pi / (2 * reach)
        heights = rng.normal(0, 1, 4) * gap * 0.16 / (0.4 + waves * reach / 12)
        phases = rng.uniform(0, 2 * np.pi, 4)
        across = offset + (np.sin(along[:, None] * waves + phases) * heights).sum(1)
        across += np.cumsum(rng.normal(0, 0.12, len(along)))
        wires.append((np.stack((along, across), 1) @ turn + size / 2).astype(np.float32))
    return wires


def _knots(rng: np.random.Generator, wires: list[Array], pitch: float) -> tuple[Array, Array]:
    """Points (N, 2) on the wires about ``pitch`` apart, and the angle (N,) in which a stub leaves there."""
    places, headings = [], []
    for wire in wires:
        gaps = rng.uniform(0.6, 1.1, int(3 * len(wire) / pitch) + 1) * pitch / 3
        steps = np.cumsum(gaps).astype(np.int64)
        steps = steps[(steps > 1) & (steps < len(wire) - 2)]
        tangent = wire[steps + 1] - wire[steps - 1]
        side = rng.choice((-1.0, 1.0), len(steps)) * rng.normal(1.25, 0.45, len(steps))
        places.append(wire[steps])
        headings.append(np.arctan2(tangent[:, 1], tangent[:, 0]) + side)
    return np.concatenate(places), np.concatenate(headings).astype(np.float32)


def _bodies(rng: np.random.Generator, size: int, knots: Array, headings: Array, pitch: float) -> Bodies:
    """Bulbs at the end of their stubs; nearer ones look larger, as the floor is seen at a slant."""
    count = len(knots)
    typical = np.clip(pitch * rng.uniform(0.22, 0.32), 11.0, 17.0)
    slant = rng.uniform(0, 2 * np.pi)
    nearness = (knots / size - 0.5) @ (np.cos(slant), np.sin(slant)) * rng.uniform(0.2, 0.9)
    wide = np.clip(typical * np.exp(nearness + rng.normal(0, 0.13, count)), SMALLEST_PX, LARGEST_PX)
    stretch = rng.uniform(0.2, 0.85) if rng.random() < 0.65 else 0.0
    taper = rng.uniform(0.75, 1.0) if stretch else 1.0
    way = np.stack((np.cos(headings), np.sin(headings)), 1)
    stub = (wide * rng.uniform(0.6, 1.2, count))[:, None]
    radius = wide / 2
    back = knots + way * (stub + radius[:, None])
    tip = back + way * (wide * stretch)[:, None]
    radii = np.stack((radius, radius * taper), 1)
    return Bodies(back=back.astype(np.float32), tip=tip.astype(np.float32), radii=radii.astype(np.float32))


def _apart(bodies: Bodies) -> NDArray[np.int64]:
    """Indices of bodies kept when, in their order, each that comes too near an earlier one is dropped."""
    centre = (bodies.back + bodies.tip) / 2
    reach = np.linalg.norm(bodies.tip - bodies.back, axis=1) / 2 + bodies.radii.max(1)
    distance = np.linalg.norm(centre[:, None] - centre[None], axis=2)
    near = distance < (reach[:, None] + reach[None]) * 0.95
    kept: list[int] = []
    for number in range(len(centre)):
        if not near[number, kept].any():
            kept.append(number)
    return np.asarray(kept, np.int64)
