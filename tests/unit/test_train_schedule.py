"""Learning rates, momentum and accumulation against the field's figures, worked out by hand."""

import math

import pytest
import torch

from anyolo.config.schema import OptimConfig
from anyolo.devices import open_device
from anyolo.train.ema import WeightAverage
from anyolo.train.optim import build_optimizer, parameter_groups, resolve_optimizer
from anyolo.train.schedule import Schedule


def schedule(**settings: object) -> Schedule:
    return Schedule(config=OptimConfig(optimizer="SGD", **settings), epochs=100, batches=50, batch=16)  # type: ignore[arg-type]


def small_model() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 4, 1)
    )


def rates(plan: Schedule, epoch: int, index: int) -> dict[str, tuple[float, float]]:
    optimizer = build_optimizer(small_model(), plan.config, open_device("cpu"), batch=16)
    plan.apply(optimizer, epoch, index)
    return {group["name"]: (group["lr"], group["momentum"]) for group in optimizer.param_groups}


def test_linear_and_cosine_factors() -> None:
    assert schedule().factor(0) == 1
    assert schedule().factor(50) == pytest.approx(0.5 * 0.99 + 0.01)
    assert schedule().factor(99) == pytest.approx(0.01 * 0.99 + 0.01)
    cosine = schedule(cos_lr=True)
    assert cosine.factor(50) == pytest.approx(0.505)
    assert cosine.factor(25) == pytest.approx((1 - math.cos(math.pi / 4)) / 2 * -0.99 + 1)


def test_steps_take_a_tenth_from_each_of_their_epochs_on() -> None:
    plan = schedule(steps=(30, 60), cos_lr=True)
    assert [plan.factor(epoch) for epoch in (0, 29, 30, 59, 60, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    assert rates(plan, 30, 0)["weights"][0] == pytest.approx(0.001)
    assert schedule(steps=()).factor(99) == 1


def test_warm_up_starts_biases_high_and_weights_at_zero() -> None:
    start = rates(schedule(), 0, 0)
    assert start["weights"] == (0.0, pytest.approx(0.8))
    assert start["biases"] == (pytest.approx(0.1), pytest.approx(0.8))
    half = rates(schedule(), 1, 25)  # batch 75 of the 150 of the warm-up
    assert half["weights"][0] == pytest.approx(0.5 * 0.01 * schedule().factor(1))
    assert half["biases"][0] == pytest.approx(0.1 + 0.5 * (0.01 * schedule().factor(1) - 0.1))
    done = rates(schedule(), 3, 0)
    assert done["biases"] == (pytest.approx(0.01 * schedule().factor(3)), pytest.approx(0.937))


def test_accumulation_rises_to_the_nominal_batch() -> None:
    plan = schedule()
    assert [plan.accumulate(0, 0), plan.accumulate(1, 25), plan.accumulate(3, 0)] == [1, 2, 4]
    assert Schedule(config=OptimConfig(), epochs=10, batches=5, batch=128).accumulate(5, 0) == 1


def test_three_groups_and_scaled_decay() -> None:
    weights, norms, biases = parameter_groups(small_model(), 0.1)
    assert [len(group["params"]) for group in (weights, norms, biases)] == [2, 1, 2]
    assert [group["weight_decay"] for group in (weights, norms, biases)] == [0.1, 0.0, 0.0]
    optimizer = build_optimizer(small_model(), OptimConfig(optimizer="SGD"), open_device("cpu"), batch=24)
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.0005 * 24 * 3 / 64)


def test_auto_says_what_it_chose_and_keeps_what_was_typed() -> None:
    chosen, note = resolve_optimizer(OptimConfig(), (), images=222, batch=16, epochs=30, nc=4)
    assert (chosen.optimizer, chosen.lr0, chosen.momentum, chosen.warmup_bias_lr) == (
        "AdamW",
        0.00125,
        0.9,
        0.0,
    )
    assert "AdamW" in note and "0.00125" in note
    kept, note = resolve_optimizer(
        OptimConfig(momentum=0.8, lrf=0.2), {"momentum"}, images=222, batch=16, epochs=30, nc=4
    )
    assert (kept.momentum, kept.lrf) == (0.8, 0.01) and note.endswith("kept your momentum")
    given, note = resolve_optimizer(OptimConfig(lr0=0.003), {"lr0"}, images=222, batch=16, epochs=30, nc=4)
    assert (given.optimizer, given.lr0) == ("SGD", 0.003) and note.endswith("for a given lr0")
    long, _ = resolve_optimizer(OptimConfig(lr0=0.001), (), images=100_000, batch=64, epochs=100, nc=80)
    assert (long.optimizer, long.lr0, long.momentum) == ("SGD", 0.001, 0.937)


def test_an_update_per_batch_where_the_nominal_batch_is_none() -> None:
    config = OptimConfig(optimizer="SGD", nbs=0, warmup_epochs=0.0)
    schedule = Schedule(config=config, epochs=3, batches=10, batch=16)
    assert {schedule.accumulate(epoch, index) for epoch in range(3) for index in range(10)} == {1}
    optimizer = build_optimizer(small_model(), config, open_device("cpu"), batch=24)
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.0005)


def test_average_follows_its_formula() -> None:
    model = torch.nn.BatchNorm2d(2)
    average = WeightAverage(model, decay=0.9, tau=10)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(5.0)
        model.num_batches_tracked.fill_(7)
    average.update(model)
    keep = 0.9 * (1 - math.exp(-1 / 10))
    assert torch.allclose(average.model.weight, torch.full((2,), keep * 1 + (1 - keep) * 3))
    assert torch.allclose(average.model.running_mean, torch.full((2,), (1 - keep) * 5))
    assert int(average.model.num_batches_tracked) == 7
