"""The table of everything a model row may name, heads included."""

from __future__ import annotations

from anyolo.nn.blocks.base import Block
from anyolo.registry import Registry

BLOCKS: Registry[type[Block]] = Registry(
    "block",
    {
        "Conv": "anyolo.nn.blocks.conv:Conv",
        "DWConv": "anyolo.nn.blocks.conv:DWConv",
        "Focus": "anyolo.nn.blocks.focus:Focus",
        "C2f": "anyolo.nn.blocks.csp:C2f",
        "C3": "anyolo.nn.blocks.csp:C3",
        "SPP": "anyolo.nn.blocks.pool:SPP",
        "SPPF": "anyolo.nn.blocks.pool:SPPF",
        "SPPCSPC": "anyolo.nn.blocks.pool:SPPCSPC",
        "MP": "anyolo.nn.blocks.pool:HalvingPool",
        "SP": "anyolo.nn.blocks.pool:SteadyPool",
        "conv_bn_relu_maxpool": "anyolo.nn.blocks.shuffle:StemPool",
        "Shuffle_Block": "anyolo.nn.blocks.shuffle:ShuffleBlock",
        "ShuffleV2Block": "anyolo.nn.blocks.shuffle:ShuffleV2Block",
        "DWConvblock": "anyolo.nn.blocks.depthwise:DepthwiseBlock",
        "SeparableConv": "anyolo.nn.blocks.depthwise:SeparableConv",
        "DWConvPair": "anyolo.nn.blocks.depthwise:DepthwisePair",
        "CBH": "anyolo.nn.blocks.depthwise:CBH",
        "LC_Block": "anyolo.nn.blocks.depthwise:LCBlock",
        "Dense": "anyolo.nn.blocks.depthwise:Dense",
        "RepVGGBlock": "anyolo.nn.blocks.repvgg:RepVGGBlock",
        "RepConv": "anyolo.nn.blocks.repconv:RepConv",
        "ELAN1": "anyolo.nn.blocks.gelan:ELAN1",
        "RepNCSPELAN4": "anyolo.nn.blocks.gelan:RepNCSPELAN4",
        "AConv": "anyolo.nn.blocks.gelan:AConv",
        "ADown": "anyolo.nn.blocks.gelan:ADown",
        "SPPELAN": "anyolo.nn.blocks.gelan:SPPELAN",
        "Silence": "anyolo.nn.blocks.cascade:Silence",
        "CBLinear": "anyolo.nn.blocks.cascade:CBLinear",
        "CBFuse": "anyolo.nn.blocks.cascade:CBFuse",
        "Concat": "anyolo.nn.blocks.joints:Concat",
        "ADD": "anyolo.nn.blocks.joints:Add",
        "Upsample": "anyolo.nn.blocks.joints:Upsample",
        "Detect": "anyolo.nn.heads.detect:Detect",
        "IDetect": "anyolo.nn.heads.implicit:ImplicitHead",
        "DecoupledDetect": "anyolo.nn.heads.decoupled:DecoupledHead",
        "SharedDetect": "anyolo.nn.heads.shared_anchor:SharedAnchorHead",
        "DDetect": "anyolo.nn.heads.dual:GroupedDFLHead",
        "DualDDetect": "anyolo.nn.heads.dual:DualDFLHead",
    },
    aliases={"nn.Upsample": "Upsample"},
    group="anyolo.block",
)
