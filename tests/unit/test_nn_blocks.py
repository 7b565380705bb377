"""Blocks one by one: their numbers against the plain spelling, and folding."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from anyolo.nn.blocks import BLOCKS
from anyolo.nn.blocks.base import Inputs
from anyolo.nn.blocks.conv import Chain
from anyolo.nn.blocks.focus import Focus
from anyolo.nn.blocks.shuffle import alternate, separate
from anyolo.nn.fuse import fuse
from anyolo.nn.rows import Scale

ROWS = {  # block: channels of the input, arguments, shape of the output of (1, c, 8, 12)
    "Conv": (6, [16, 3, 2, None, 2], (1, 16, 4, 6)),
    "DWConv": (6, [9, 3, 1], (1, 16, 8, 12)),
    "Focus": (3, [8, 3], (1, 8, 4, 6)),
    "C3": (6, [16, False], (1, 16, 8, 12)),
    "SPP": (6, [16, [3, 5]], (1, 16, 8, 12)),
    "conv_bn_relu_maxpool": (3, [8], (1, 8, 2, 3)),
    "Shuffle_Block": (8, [8, 1], (1, 8, 8, 12)),
    "ShuffleV2Block": (8, [16, 2], (1, 16, 4, 6)),
    "DWConvblock": (6, [16, 5, 2], (1, 16, 4, 6)),
    "DWConvPair": (6, [5], (1, 6, 8, 12)),
    "CBH": (3, [16, 3, 2], (1, 16, 4, 6)),
    "LC_Block": (48, [16, 2, 5, True], (1, 16, 4, 6)),
    "Dense": (6, [16, 1, 0.2], (1, 16, 8, 12)),
    "RepVGGBlock": (8, [8], (1, 8, 8, 12)),
    "ELAN1": (6, [16, 8, 4], (1, 16, 8, 12)),
    "RepNCSPELAN4": (6, [16, 8, 4, 2], (1, 16, 8, 12)),
    "AConv": (6, [16], (1, 16, 4, 6)),
    "ADown": (6, [16], (1, 16, 4, 6)),
    "SPPELAN": (6, [16, 8], (1, 16, 8, 12)),
}


def block_of(name, channels, args, *, repeats=2, activation="SiLU"):
    row = Inputs(
        channels=(channels,), args=tuple(args), repeats=repeats, scale=Scale(), nc=3, activation=activation
    )
    return BLOCKS.get(name).from_row(row)


def stirred(block):
    """Random statistics, so that folding has something to fold."""
    torch.manual_seed(1)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return block


@pytest.mark.parametrize("name", ROWS)
def test_folds_to_equal_outputs(name):
    channels, args, shape = ROWS[name]
    torch.manual_seed(0)
    block, c_out = block_of(name, channels, args)
    block = stirred(block).double().eval()
    x = torch.rand(1, channels, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        before = block(x)
        folded = fuse(copy.deepcopy(block))
        assert (folded(x) - before).abs().max() < 1e-12
        assert torch.equal(fuse(folded)(x), folded(x))
    assert tuple(before.shape) == shape and c_out == shape[1]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())


@pytest.mark.parametrize("name", ROWS)
def test_every_weight_is_trained(name):
    channels, args, _ = ROWS[name]
    torch.manual_seed(0)
    block, _ = block_of(name, channels, args)
    block.train()(torch.rand(2, channels, 8, 12)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def phases(x):
    return torch.cat([x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)], 1)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (1, 1), (5, 2)])
def test_focus_is_every_second_pixel_as_a_channel(kernel, stride):
    block = Focus(3, 8, kernel, stride).double().eval()
    x = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    expected = F.conv2d(phases(x), block.conv.conv.weight, None, stride, kernel // 2)
    assert (block.conv.conv(x) - expected).abs().max() < 1e-12


def test_focus_learns_as_the_plain_spelling_does():
    block = Focus(3, 8, 3)
    x = torch.rand(2, 3, 8, 8)
    weight = block.conv.conv.weight
    seed = torch.rand(2, 8, 4, 4)
    (own,) = torch.autograd.grad(block.conv.conv(x), weight, seed)
    (plain,) = torch.autograd.grad(F.conv2d(phases(x), weight, None, 1, 1), weight, seed)
    assert (own - plain).abs().max() < 1e-5


def test_shuffled_channels():
    first, second = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    mixed = alternate(first, second)
    assert torch.equal(mixed[:, 0::2], first) and torch.equal(mixed[:, 1::2], second)
    assert all(torch.equal(a, b) for a, b in zip(separate(mixed), (first, second), strict=True))


def test_shuffle_blocks_let_half_of_the_channels_pass():
    x = torch.rand(1, 8, 4, 4)
    at_output, _ = block_of("Shuffle_Block", 8, [8, 1])
    assert torch.equal(at_output.eval()(x)[:, 0::2], x[:, :4])
    at_input, _ = block_of("ShuffleV2Block", 8, [8, 1])
    assert torch.equal(at_input.eval()(x)[:, :4], x[:, 0::2])


def test_add_weighs_the_second():
    row = Inputs(channels=(4, 4), args=(2,), repeats=1, scale=Scale(), nc=3, activation="SiLU")
    block, channels = BLOCKS.get("ADD").from_row(row)
    a, b = torch.rand(1, 4, 2, 2), torch.rand(1, 4, 2, 2)
    assert channels == 4 and torch.equal(block([a, b]), a + 2 * b)


def test_merging_takes_every_folded_pair_with_its_activation():
    seen = []

    def merge(conv, act):
        seen.append(type(act).__name__)
        return nn.Sequential(conv, act) if isinstance(act, nn.ReLU) else None

    block, _ = block_of("ShuffleV2Block", 8, [16, 2])
    block = fuse(stirred(block))
    x = torch.rand(1, 8, 4, 4)
    with torch.no_grad():
        before = block(x)
        for module in list(block.modules()):
            if isinstance(module, Chain):
                module.merge(merge)
        assert torch.equal(block(x), before)
    assert seen == ["ReLU", "Conv2d", "ReLU", "Conv2d", "ReLU"]
    left = [type(m).__name__ for m in block.branch_main]
    assert left == ["Sequential", "Identity", "Identity", "Conv2d", "Identity", *left[:3]]
    assert all(a is not b for a, b in pairwise(block.branch_main))


@pytest.mark.parametrize(
    ("name", "channels", "args", "words"),
    [
        ("Shuffle_Block", 8, [16, 1], "keeps its channels"),
        ("ShuffleV2Block", 8, [16, 3], "stride is 1 or 2"),
        ("RepVGGBlock", 8, [16, 5], "kernel is 3"),
        ("C3", 8, [16, True, 1, 0.5, 7], "arguments at most"),
    ],
)
def test_arguments_that_cannot_be(name, channels, args, words):
    with pytest.raises(ValueError, match=words):
        block_of(name, channels, args)
