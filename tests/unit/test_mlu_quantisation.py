"""Integer scales: found, kept, used, and what they cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from anyolo.export.porting import quantisation


def small_network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        network[0].weight[0].mul_(30)  # one loud channel spoils a scale for all
        network[2].weight[3].zero_()

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.layers(x),)

    return Network().eval().requires_grad_(False)


def batches(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(-1, 1, (2, 3, 8, 8)).astype(np.float32) for _ in range(count)]


@pytest.fixture()
def network() -> nn.Module:
    return small_network()


def test_scales_are_the_largest_numbers_met(network: nn.Module, tmp_path: Path) -> None:
    images = batches()
    largest = quantisation.calibrate(network, images)
    assert largest["layers.0"] == pytest.approx(max(np.abs(b).max() for b in images))
    with torch.no_grad():
        middle = max(float(network.layers[:2](torch.from_numpy(b)).max()) for b in images)
    assert largest["layers.2"] == pytest.approx(middle)
    found = quantisation.scales(network, largest, 8)
    steps = found["steps"]["layers.0"]
    assert steps["input"] == pytest.approx(largest["layers.0"] / 127)
    assert steps["weight"] == pytest.approx(float(network.layers[0].weight.abs().max()) / 127)
    assert len(steps["weight_channels"]) == 8 and max(steps["weight_channels"]) == steps["weight"]
    assert found["steps"]["layers.2"]["weight_channels"][3] == 1.0  # nothing but zeros
    assert not network.layers[0]._forward_pre_hooks
    path = str(tmp_path / "scales.json")
    quantisation.save(found, path)
    assert quantisation.load(path) == found == json.loads(Path(path).read_text())


def test_simulated_convolution_by_hand(network: nn.Module) -> None:
    (image,) = batches(1)
    found = quantisation.scales(network, quantisation.calibrate(network, [image]), 8)
    rounded = quantisation.simulate(network, found, False)
    first, steps = network.layers[0], found["steps"]["layers.0"]

    def through(x: torch.Tensor, step: float) -> torch.Tensor:
        return (x / step).round().clamp(-127, 127) * step

    with torch.no_grad():
        x, weight = through(torch.from_numpy(image), steps["input"]), through(first.weight, steps["weight"])
        expected = nn.functional.conv2d(x, weight, first.bias, padding=1)
        torch.testing.assert_close(rounded.layers[0](torch.from_numpy(image)), expected)
    assert float((weight - first.weight).detach().abs().max()) <= steps["weight"] / 2 + 1e-7
    assert torch.equal(first.weight, small_network().layers[0].weight), "the network itself is left alone"


def test_finer_scales_cost_less(network: nn.Module) -> None:
    images = batches()
    largest = quantisation.calibrate(network, images)

    def boxes(levels: list[np.ndarray]) -> np.ndarray:
        """Two rows for a picture, the second one's score from the maps."""
        rows = np.zeros((len(levels[0]), 3, 6), np.float32)
        rows[:, 0] = (0, 0, 10, 10, 0.9, 1)
        rows[:, 1, :4] = (20, 20, 30, 40)
        rows[:, 1, 4] = 0.5 + levels[0].mean((1, 2, 3)) / 100
        rows[:, 1, :4] += levels[0].mean((1, 2, 3))[:, None] / 10
        return rows

    costs = []
    for bits, per_channel in ((8, False), (8, True), (16, False)):
        rounded = quantisation.simulate(network, quantisation.scales(network, largest, bits), per_channel)
        costs.append(quantisation.compare(network, rounded, images, boxes))
    errors = [cost["raw_error"] for cost in costs]
    assert errors[0] > errors[1] > 10 * errors[2] > 0
    assert all(cost["boxes"] == cost["found"] == 12 and cost["extra"] == 0 for cost in costs)
    assert 0 < costs[2]["max_box_error_px"] < costs[0]["max_box_error_px"] < 1
    assert costs[0]["mean_box_error_px"] < costs[0]["max_box_error_px"]


def test_boxes_that_vanish_or_appear_are_counted(network: nn.Module) -> None:
    silent = small_network()
    with torch.no_grad():
        for parameter in silent.parameters():
            parameter.zero_()

    def boxes(levels: list[np.ndarray]) -> np.ndarray:
        rows = np.zeros((len(levels[0]), 2, 6), np.float32)
        rows[:, 0] = (0, 0, 10, 10, 0.9, 1) if levels[0].any() else (0, 0, 10, 10, 0.9, 2)
        rows[:, 1] = (50, 50, 60, 60, 0.9, 1) if levels[0].any() else 0
        return rows

    cost = quantisation.compare(network, silent, batches(1), boxes)
    assert (cost["boxes"], cost["found"], cost["extra"]) == (4, 0, 2) and cost["raw_error"] == pytest.approx(
        1
    )
