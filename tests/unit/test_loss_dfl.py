"""Terms of the distribution loss, its gradient, its memory, and batches without boxes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from anyolo.config.schema import LossConfig
from anyolo.families import build_model
from anyolo.loss.dfl import DFLCriterion
from anyolo.loss.positives import positives_and_classes, slots, take
from anyolo.loss.terms import distribution_focal
from anyolo.ops import tiles
from anyolo.structures import HeadOutput, Targets


@cache
def model(nc=3):
    torch.manual_seed(0)
    return build_model("yolov8n", nc=nc)[1]


def random_case(images=2, side=96, boxes=6, nc=3, seed=0, dtype=torch.float32):
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    shapes = [(images, 64 + nc, side // s, side // s) for s in (8, 16, 32)]
    maps = tuple(torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes)
    rows = []
    for _ in range(images):
        low = rng.uniform(0, side * 0.6, (boxes, 2))
        high = low + rng.uniform(4, side * 0.4, (boxes, 2))
        rows.append(np.concatenate((rng.integers(0, nc, (boxes, 1)), low, high), 1).astype(np.float32))
    return maps, Targets.pad(rows)


@given(distance=st.floats(-2, 20), seed=st.integers(0, 1000))
def test_distribution_focal_is_two_cross_entropies(distance, seed):
    logits = torch.randn(16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    true = min(max(distance, 0), 14.99)
    left = int(true)
    expected = sum(
        weight * F.cross_entropy(logits.unsqueeze(0), torch.tensor([bin_]))
        for weight, bin_ in ((left + 1 - true, left), (true - left, left + 1))
    )
    own = distribution_focal(logits, torch.tensor(distance, dtype=torch.float64))
    assert float(own) == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


@given(seed=st.integers(0, 1000), positives=st.integers(0, 40), spare=st.integers(0, 9))
def test_every_positive_point_has_one_slot(seed, positives, spare):
    rng = np.random.default_rng(seed)
    score = np.zeros((3, 60), np.float32)
    for row in score:
        row[rng.permutation(60)[:positives]] = rng.uniform(1e-6, 1, positives)
    point, slot = slots(torch.from_numpy(score), positives + spare or 1)
    for image in range(3):
        expected = np.flatnonzero(score[image])
        assert point[image, :positives].tolist() == expected.tolist()
        assert slot[image][expected].tolist() == list(range(positives))
        assert (np.delete(slot[image].numpy(), expected) == (positives + spare or 1)).all()
        assert len(set(point[image].tolist())) == point.shape[1]


def test_positives_without_a_slot_are_left_out():
    point, slot = slots(torch.tensor([[0.5, 0, 0.5, 0.5]]), 2)
    assert point.tolist() == [[0, 2]]
    assert slot.tolist() == [[0, 2, 1, 2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_of_slots_is_that_of_indexing(dtype):
    maps = torch.randn(2, 30, 7, generator=torch.Generator().manual_seed(1)).to(dtype)
    score = (torch.rand(2, 30, generator=torch.Generator().manual_seed(2)) > 0.7).float()
    point, slot = slots(score, 12)
    filled = score.gather(1, point).unsqueeze(2)
    factor = torch.randn(2, 12, 7, generator=torch.Generator().manual_seed(3)) * filled
    own, plain = maps.clone().requires_grad_(), maps.clone().requires_grad_()

    rows, dense = positives_and_classes(own, point, slot, 4)
    ((rows * factor).sum() + 2 * dense).backward()
    picked = plain.float()[torch.arange(2).unsqueeze(1), point]
    ((picked * factor).sum() + 2 * F.softplus(plain[..., 4:].float()).sum()).backward()
    assert torch.equal(rows, picked)
    assert own.grad.dtype == dtype
    atol = 1e-6 if dtype == torch.float32 else 2e-2
    assert (own.grad.float() - plain.grad.float()).abs().max() < atol


def test_take_is_indexing():
    values = torch.arange(24.0).view(2, 4, 3)
    index = torch.tensor([[3, 0], [1, 1]])
    assert torch.equal(take(values, index), values[torch.arange(2).unsqueeze(1), index])


def test_gradient_by_differences():
    """The whole loss, assignment held still by a small step, in the direction of its own gradient."""
    maps, targets = random_case()
    criterion = DFLCriterion(model(), LossConfig())
    criterion(HeadOutput(maps), targets).total.backward()
    norm = torch.cat([m.grad.flatten() for m in maps]).norm()
    step = 2e-3
    with torch.no_grad():
        high, low = (
            float(
                criterion(
                    HeadOutput(tuple(m + sign * step * m.grad / norm for m in maps)), targets
                ).total.detach()
            )
            for sign in (1, -1)
        )
    # scores of the assignment move along, which the gradient rightly leaves out: a few percent
    assert (high - low) / (2 * step) == pytest.approx(float(norm), rel=0.1)


def test_nothing_to_find():
    maps, _ = random_case()
    none = Targets.pad([np.zeros((0, 5), np.float32)] * 2)
    report = DFLCriterion(model(), LossConfig())(HeadOutput(maps), none)
    report.total.backward()
    assert float(report.items["box"]) == 0 and float(report.items["dfl"]) == 0
    expected = sum(float(F.softplus(m.detach()[:, 64:]).sum()) for m in maps) * 0.5
    assert float(report.items["cls"]) == pytest.approx(expected, rel=1e-5)
    assert all(torch.isfinite(m.grad).all() for m in maps)
    assert all(m.grad[:, :64].abs().max() == 0 for m in maps)


def test_total_is_the_sum_over_images_and_items_are_detached():
    maps, targets = random_case(images=4)
    config = LossConfig(box=2.0, cls=3.0, dfl=5.0)
    report = DFLCriterion(model(), config)(HeadOutput(maps), targets)
    assert float(report.total.detach()) == pytest.approx(4 * sum(map(float, report.items.values())), rel=1e-6)
    assert not any(item.requires_grad for item in report.items.values())
    plain = DFLCriterion(model(), LossConfig(box=1, cls=1, dfl=1))(HeadOutput(maps), targets)
    for name, gain in {"box": 2, "cls": 3, "dfl": 5}.items():
        assert float(report.items[name]) == pytest.approx(gain * float(plain.items[name]), rel=1e-6)


def test_padding_of_targets_changes_nothing():
    maps, targets = random_case()
    more = Targets(F.pad(targets.labels, (0, 0, 0, 24)), F.pad(targets.mask, (0, 24)))
    criterion = DFLCriterion(model(), LossConfig())
    own, padded = (criterion(HeadOutput(maps), t).total.detach() for t in (targets, more))
    assert float(own) == pytest.approx(float(padded), rel=1e-6)


def test_tiles_change_nothing(monkeypatch):
    maps, targets = random_case(images=3)
    criterion = DFLCriterion(model(), LossConfig())
    gradients = []
    for most in (1, 10**9):
        monkeypatch.setattr(tiles, "ON_HOST", most)
        total = criterion(HeadOutput(maps), targets).total
        gradients.append((total.detach(), *torch.autograd.grad(total, maps)))
    for own, other in zip(*gradients, strict=True):
        assert torch.allclose(own, other, rtol=1e-5, atol=1e-6)


def test_memory_layout_and_half_precision():
    maps, targets = random_case()
    criterion = DFLCriterion(model(), LossConfig())
    own = criterion(HeadOutput(maps), targets)
    other = criterion(HeadOutput(tuple(m.to(memory_format=torch.channels_last) for m in maps)), targets)
    assert float(own.total.detach()) == pytest.approx(float(other.total.detach()), rel=1e-6)
    halves = tuple(m.detach().bfloat16().requires_grad_() for m in maps)
    report = criterion(HeadOutput(halves), targets)
    report.total.backward()
    assert report.total.dtype == torch.float32
    exact = criterion(HeadOutput(tuple(m.float() for m in halves)), targets)
    assert float(report.total.detach()) == pytest.approx(float(exact.total.detach()), rel=1e-6)
    assert all(m.grad.dtype == torch.bfloat16 for m in halves)


def test_criterion_has_no_parameters_of_its_own():
    criterion = DFLCriterion(model(), LossConfig())
    assert not list(criterion.parameters()) and not criterion.state_dict()
