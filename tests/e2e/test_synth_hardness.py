"""The drawn data set cannot be solved by thresholding colours: the best tuned rival stays below mAP50
0.40.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from anyolo.data.synth import draw

sys.path.insert(0, str(Path(__file__).parent))
import colour_threshold as rival


@pytest.fixture(scope="module")
def unseen() -> rival.Samples:
    return [draw(0, "val", index) for index in range(40)]


def test_the_rival_is_able(unseen: rival.Samples) -> None:
    """Given isolated coloured discs it scores high, so a low score is the pictures' doing, not the
    rival's.
    """
    discs = [rival.easy_picture(index) for index in range(6)]
    settings = rival.tune(discs[:3], rival.COARSE)
    assert rival.coco_map50(discs[3:], settings) > 0.9


def test_thresholding_colours_stays_below_040(unseen: rival.Samples) -> None:
    settings = rival.tune([draw(0, "train", index) for index in range(6)], rival.COARSE)
    assert 0.05 < rival.coco_map50(unseen, settings) < 0.36


@pytest.mark.slow
def test_every_setting_tuned_on_the_unseen_pictures_themselves_stays_below_040(unseen: rival.Samples) -> None:
    """Even cheating, with the whole grid."""
    settings = rival.tune(unseen[:20], rival.ALL)
    assert rival.coco_map50(unseen[:20], settings) < 0.40
