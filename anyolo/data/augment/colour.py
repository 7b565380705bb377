"""Changes of colour; boxes stay where they are."""

from __future__ import annotations

import cv2
import numpy as np

from anyolo.config.schema import AugmentConfig
from anyolo.ops.image import Pixels

_LEVELS = np.arange(256, dtype=np.float64)


def jitter_hsv(rng: np.random.Generator, pixels: Pixels, config: AugmentConfig) -> None:
    """Turn the hue and scale saturation and brightness, in place, by lookup tables. Grey stays grey."""
    hue, saturation, brightness = rng.uniform(-1, 1, 3) * (config.hsv_h, config.hsv_s, config.hsv_v)
    if not (hue or saturation or brightness):
        return
    tables = np.empty((1, 256, 3), np.uint8)
    tables[0, :, 0] = (_LEVELS + hue * 180) % 180
    tables[0, :, 1] = np.clip(_LEVELS * (1 + saturation), 0, 255)
    tables[0, :, 2] = np.clip(_LEVELS * (1 + brightness), 0, 255)
    cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV, dst=pixels)
    cv2.LUT(pixels, tables, dst=pixels)
    cv2.cvtColor(pixels, cv2.COLOR_HSV2BGR, dst=pixels)
