"""Programs written from a tape: every operator of both vocabularies gives the numbers of the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyolo.devices import emulate
from anyolo.errors import ExportError
from anyolo.export.porting.decode_code import DecodeProgram
from anyolo.export.porting.network_code import NetworkProgram
from anyolo.export.porting.tape import record
from anyolo.export.porting.vetting import load_code

X = torch.randn(2, 8, 12, 10, generator=torch.Generator().manual_seed(0))


def shuffled(x: Tensor) -> Tensor:
    """Channel shuffle as ShuffleNet has it, with a 5-D view."""
    b, c, h, w = x.shape
    return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


NETWORKS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "hardtanh": F.relu6,
    "add.Tensor": lambda x: x + torch.sigmoid(x) + 0.5,
    "mul.Tensor": lambda x: x * torch.sigmoid(x) * 0.5,
    "cat": lambda x: torch.cat((x, F.relu(x)), 1),
    "mean.dim": lambda x: x * F.adaptive_avg_pool2d(x, 1),
    "max_pool2d_with_indices": lambda x: F.max_pool2d(x, 5, 1, 2) + F.max_pool2d(x, 3, 1, 1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2, 1, 0, False, True),
    "upsample_nearest2d": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "view": lambda x: x.reshape(2, -1),
    "transpose.int": shuffled,
    "permute": lambda x: F.relu(x.permute(0, 2, 3, 1)),
    "clone": shuffled,
    "_unsafe_view": lambda x: x.permute(0, 2, 3, 1).reshape(2, -1),
    "split": lambda x: torch.cat(x.split((2, 6), 1)[::-1], 1) + torch.cat(x.chunk(2, 1)[::-1], 1),
    "slice": lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], 1),
    "unbind": lambda x: x.unbind(1)[3] + x.select(1, -1),
}


def written_network(
    function: Callable[[Tensor], Tensor | Sequence[Tensor]], *inputs: Tensor
) -> NetworkProgram:
    names = {}
    if isinstance(function, nn.Module):
        function.requires_grad_(False)
        names = {id(tensor): name for name, tensor in function.named_parameters()}

    def results(x: Tensor) -> Sequence[Tensor]:
        found = function(x)
        return [found] if isinstance(found, Tensor) else found

    return NetworkProgram(record(results, inputs or [X]), names)


def run_network(program: NetworkProgram, x: Tensor) -> Tensor:
    network = load_code(Path("network.py"), program.text("A test.")).Network()
    network.load_state_dict(program.weights)
    with torch.no_grad():
        for profile in ("mlu270", "catch16"):
            device = emulate(profile, strict=True)
            with device.region("forward"):
                found = network.eval()(x)
            assert device.emulation.calls and not device.emulation.count("unsupported")
    return found


def test_every_form_of_the_network_is_tried() -> None:
    assert set(NetworkProgram.forms) <= set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_operator_of_a_network(name: str) -> None:
    program = written_network(NETWORKS[name])
    if name in NetworkProgram.forms:
        assert name in program.used_forms
    torch.testing.assert_close(run_network(program, X), NETWORKS[name](X), rtol=1e-6, atol=1e-6)


class Branches(nn.Module):
    """Convolutions of every kind; one shared by two branches, one read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=4), nn.SiLU())
        self.wide = nn.Conv2d(8, 6, (3, 1), padding=(2, 0), dilation=(2, 1), bias=False)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.wide(self.stem(x))
        return [self.head(x), self.head(F.relu(x))]


def test_convolutions_keep_their_names_and_weights() -> None:
    model = Branches().eval()
    program = written_network(model)
    assert list(program.weights) == [
        *("stem_0.weight", "stem_0.bias", "wide.weight", "head.weight", "head.bias"),
    ]
    text = program.text("A test.")
    assert "self.stem_0 = nn.Conv2d(8, 8, (3, 3), stride=(2, 2), padding=(1, 1), groups=4)" in text
    assert "self.wide = nn.Conv2d(8, 6, (3, 1), padding=(2, 0), dilation=(2, 1), bias=False)" in text
    assert "silu(self.stem_0(images))" in text and text.count("nn.Conv2d") == 3
    with torch.no_grad():
        for ours, theirs in zip(run_network(program, X), model(X), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_a_network_has_no_names_it_does_not_use() -> None:
    text = written_network(lambda x: x.chunk(2, 1)[0]).text("A test.")
    assert text.count(" = images[") == 1 and "def silu" not in text


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: torch.cumsum(x, 1), "cumsum has no counterpart in PyTorch 1.3"),
        (lambda x: torch.add(x, x, alpha=2), "add.Tensor with alpha=2"),
        (lambda x: F.conv_transpose2d(x, torch.ones(8, 1, 2, 2)), "convolution transposed"),
        (lambda x: F.conv2d(x, x), "convolution with computed weights"),
        (lambda x: torch.relu(x).add_(1), "in place"),
        (lambda x: torch.ones(2), "does not depend on its input"),
        (Scaled(), "no weight of a convolution"),
    ],
)
def test_what_cannot_be_written_is_named(function: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ExportError, match=re.escape(message)):
        written_network(function)


BIG = torch.linspace(0, 1, 40)
SMALL = torch.tensor([[0.5], [-2.0]])
DECODERS: dict[str, Callable[..., Tensor]] = {
    "permute": lambda x: x.permute(0, 2, 3, 1) * 2,
    "transpose.int": lambda x: x.transpose(1, 3),
    "view": lambda x: x.reshape(2, -1),
    "_unsafe_view": lambda x: x.permute(0, 3, 2, 1).flatten(1, 2),
    "expand": lambda x: x[:, :1].expand(-1, 8, -1, -1),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "squeeze.dim": lambda x: x[:, 3:4].squeeze(1),
    "clone": lambda x: x.permute(0, 3, 2, 1).flatten(1, 2),
    "cat": lambda x: torch.cat((x, x), -1),
    "stack": lambda x: torch.stack((x, x), 2),
    "sigmoid": lambda x: (100 * x).sigmoid(),
    "_softmax": lambda x: (50 * x).softmax(1),
    "exp": lambda x: x.exp(),
    "add.Tensor": lambda x: x + 3,
    "sub.Tensor": lambda x: x.reshape(2, 24, 40) - BIG,
    "rsub.Scalar": lambda x: 1 - x,
    "mul.Tensor": lambda x: x.reshape(2, -1) * SMALL,
    "div.Tensor": lambda x: x / 7 / (x * 0 + 3),
    "pow.Tensor_Scalar": lambda x: x**2,
    "sum.dim_IntList": lambda x: x.sum((1, 2)) + x.sum(1, keepdim=True).sum((1, 2)),
    "clamp": lambda x: x.clamp(min=-0.5) + x.clamp(0, 1),
    "parts": lambda x: x.split(4, 1)[1][..., 0] + x.unbind(1)[2][:, None, :, 0],
}


def test_every_form_of_the_decoding_is_tried() -> None:
    assert set(DecodeProgram.forms) <= set(DECODERS)


@pytest.mark.parametrize("name", DECODERS)
def test_an_operator_of_the_decoding(name: str) -> None:
    from anyolo.export.porting import text_of

    x = X + 0.01  # no tensor of the module's own
    program = DecodeProgram(record(lambda x: [DECODERS[name](x)], [x]))
    if name in DecodeProgram.forms:
        assert name in program.used_forms
    host = load_code(Path("host.py"), text_of("host.py") + "\nARRAYS = {}\n\n" + program.text())
    host.ARRAYS.update(program.arrays)
    found = host.decode([x.numpy()])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, DECODERS[name](x).numpy(), rtol=2e-6, atol=1e-6)
