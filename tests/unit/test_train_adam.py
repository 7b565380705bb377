"""Adam of plain operators against torch's own; loss scaling against no scaling."""

import copy

import pytest
import torch
from torch import nn

from anyolo.devices.scaling import PlainScaler, Scaler, TorchScaler
from anyolo.train.adam import PlainAdam


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 3))


@pytest.mark.parametrize("is_decoupled", [False, True])
def test_plain_adam_equals_torchs(is_decoupled: bool) -> None:
    mine, theirs = small_net(), small_net()
    options = {"lr": 0.01, "betas": (0.8, 0.99)}
    groups = [{"params": list(mine.parameters()), "weight_decay": 0.05}]
    kind = torch.optim.AdamW if is_decoupled else torch.optim.Adam
    ours = PlainAdam(groups, is_decoupled=is_decoupled, **options)  # type: ignore[arg-type]
    torchs = kind(theirs.parameters(), weight_decay=0.05, foreach=False, **options)  # type: ignore[arg-type]
    x = torch.randn(32, 6)
    for step in range(20):
        for net, optimizer in ((mine, ours), (theirs, torchs)):
            optimizer.zero_grad()
            net(x * (1 + step / 10)).square().mean().backward()
            optimizer.step()
    for own, wanted in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(own, wanted, rtol=1e-5, atol=1e-7)


def test_plain_adam_goes_on_where_it_was_saved() -> None:
    net = small_net()
    optimizer = PlainAdam([{"params": list(net.parameters())}], lr=0.01)
    x = torch.randn(8, 6)

    def update(model: nn.Module, own: PlainAdam) -> None:
        own.zero_grad()
        model(x).sum().backward()
        own.step()

    update(net, optimizer)
    other = copy.deepcopy(net)
    resumed = PlainAdam([{"params": list(other.parameters())}], lr=0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    update(net, optimizer)
    update(other, resumed)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("scaler", [PlainScaler(), PlainScaler(scale=8.0), TorchScaler("cpu")])
def test_scaled_steps_equal_plain_ones(scaler: Scaler) -> None:
    mine, theirs = small_net(), small_net()
    x = torch.randn(8, 6)
    for net, own in ((mine, scaler), (theirs, Scaler())):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for _ in range(5):
            own.backward(net(x).square().mean())
            norm = own.step(optimizer, clip_norm=0.5)
        assert float(norm) > 0
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_overflow_leaves_out_the_step_and_halves_the_scale() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = PlainScaler(scale=4.0, patience=2)
    scaler.backward((weight * float("inf")).sum())
    scaler.step(optimizer)
    assert torch.equal(weight.detach(), torch.ones(3)) and scaler.scale == 2.0
    for wanted in (2.0, 4.0):  # after two good steps it is doubled
        scaler.backward(weight.sum())
        scaler.step(optimizer)
        assert scaler.scale == wanted
    fresh = PlainScaler()
    fresh.load_state_dict(scaler.state_dict())
    assert (fresh.scale, fresh.good_steps) == (4.0, 0)
