"""The table of everything a model row may name, heads included."""

from __future__ import annotations

from anyolo.nn.blocks.base import Block
from anyolo.registry import Registry

BLOCKS: Registry[type[Block]] = Registry(
    "block",
    {
        "Conv": "anyolo.nn.blocks.conv:Conv",
        "C2f": "anyolo.nn.blocks.csp:C2f",
        "SPPF": "anyolo.nn.blocks.pool:SPPF",
        "Concat": "anyolo.nn.blocks.joints:Concat",
        "Upsample": "anyolo.nn.blocks.joints:Upsample",
        "Detect": "anyolo.nn.heads.dfl:DFLHead",
    },
    aliases={"nn.Upsample": "Upsample"},
    group="anyolo.block",
)
