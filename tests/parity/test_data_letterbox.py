"""Letterboxes of the upstream projects, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anyolo.ops.image import fit_image, read_image, to_network
from anyolo.ops.letterbox import Fit, place, rect_shape


@pytest.mark.parametrize("picture", ["dog", "bus"])
@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("v5_square", "letterbox"),
        ("v8_square", "letterbox"),
        ("v5_rect", "letterbox"),
        ("v8_rect", "letterbox"),
        ("yolox_preproc_chw_bgr", "letterbox_topleft"),
        ("fastestv2_stretch", "stretch"),
    ],
)
def test_letterbox_is_upstreams(shared: Callable[[str], Path], picture: str, name: str, fit: Fit) -> None:
    golden = np.load(shared("golden/letterbox.npz"))[f"{picture}/{name}"]
    image = read_image(shared(f"data/demo/{picture}.jpg"))
    input_hw = rect_shape(image.size_hw, 160, 32) if name.endswith("rect") else (160, 160)
    fitted = fit_image(image.pixels, place(image.size_hw, input_hw, fit=fit))
    if "chw" in name:
        fitted = to_network(fitted, "bgr")
    assert np.array_equal(fitted, golden)
