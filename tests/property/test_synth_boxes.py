"""A label is the visible extent of its bulb: bulbs are painted alone on black and measured."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anyolo.data.synth.layout import Bodies, lay_out
from anyolo.data.synth.lights import paint_lit, shine


@settings(max_examples=60, deadline=None)
@given(
    back=st.tuples(st.floats(10, 86), st.floats(10, 86)),
    angle=st.floats(0, 6.28),
    radius=st.floats(4.6, 12.5),
    shape=st.one_of(st.just((0.0, 1.0)), st.tuples(st.floats(0.4, 1.8), st.floats(0.75, 1))),
    number=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_box_is_the_visible_extent(
    back: tuple[float, float], angle: float, radius: float, shape: tuple[float, float], number: int, seed: int
) -> None:
    """``shape``: length in radii, and how much thinner the tip is."""
    rng = np.random.default_rng(seed)
    length, taper = radius * shape[0], shape[1]
    start = np.array([back], np.float32)
    tip = start + np.array([[np.cos(angle), np.sin(angle)]], np.float32) * np.float32(length)
    body = Bodies(back=start, tip=tip, radii=np.array([[radius, radius * taper]], np.float32))
    picture = np.zeros((96, 96, 3), np.float32)
    paint_lit(picture, rng, body, shine(rng, np.array([number])))
    rows, columns = np.nonzero(picture.max(2) > 0.3)
    seen = np.array((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    # the rim of a large bulb is shaded below what counts as seen here: 1.5 of 25 pixels at most
    np.testing.assert_allclose(seen, np.clip(body.boxes_xyxy()[0], 0, 96), atol=1.6)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(160, 640))
def test_every_layout_holds_20_to_120_lit_bulbs_inside_the_picture(seed: int, size: int) -> None:
    layout = lay_out(np.random.default_rng(seed), size)
    assert 20 <= len(layout.lit) <= 120
    lit = layout.bodies.take(layout.lit)
    centre = (lit.back + lit.tip) / 2
    assert (centre > 4).all() and (centre < size - 4).all()
    assert len(layout.knots) == len(layout.bodies)
