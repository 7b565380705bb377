"""The row name that generations of the field's model files share."""

from __future__ import annotations

from torch import nn

from anyolo.nn.blocks.base import Inputs
from anyolo.nn.heads.anchor import AnchorHead
from anyolo.nn.heads.base import Head
from anyolo.nn.heads.dfl import DFLHead
from anyolo.nn.rows import Channels


class Detect(Head):
    """``[nc, anchors]`` makes a head with anchors, ``[nc]`` one without: the arguments say which is meant."""

    @classmethod
    def from_row(cls, row: Inputs) -> tuple[nn.Module, Channels]:
        return (AnchorHead if len(row.args) > 1 else DFLHead).from_row(row)
