"""Words shared by every room: the shape legend and a few aliases.

Shape suffixes used in names (``scores_BAK``):

    B batch     C channels     H, W height and width (pixels or cells)
    L levels    A anchor points over all levels       T padded targets per image
    K classes   R distribution bins of a box side     N boxes of one image, M other boxes

Boxes say their layout: ``boxes_xyxy`` (left, top, right, bottom), ``boxes_cxcywh`` (centre, width, height),
in pixels unless the name says ``normalised``. Sizes are ``size_hw``, (height, width).
"""

from __future__ import annotations

import os
from typing import TypeAlias

PathLike: TypeAlias = str | os.PathLike[str]
SizeHW: TypeAlias = tuple[int, int]
JSONValue: TypeAlias = bool | int | float | str | list["JSONValue"] | dict[str, "JSONValue"] | None
