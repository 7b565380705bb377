"""Terms of the anchor loss, slots and cells, gradients, memory, levels that balance."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from anyolo.config.schema import LossConfig
from anyolo.loss import cells as room
from anyolo.loss.anchor import AnchorCriterion, AnchorRules
from anyolo.loss.cells import pick_cells, slots_of_cells, spread
from anyolo.loss.terms import binary_cross_entropy
from anyolo.nn.heads.anchor import AnchorHead
from anyolo.ops.iou import ciou
from anyolo.structures import HeadOutput, Targets

COCO = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]]


def criterion_of(nc=3, rules=None, **settings):
    head = AnchorHead([8, 8, 8], nc, COCO)
    head.set_strides((8, 16, 32))
    return AnchorCriterion(SimpleNamespace(head=head), LossConfig(**settings), rules)


def random_case(images=2, side=96, boxes=6, nc=3, seed=0, dtype=torch.float32):
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    shapes = [(images, 3 * (5 + nc), side // s, side // s) for s in (8, 16, 32)]
    maps = tuple(torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes)
    rows = []
    for _ in range(images):
        low = rng.uniform(0, side * 0.6, (boxes, 2))
        high = low + rng.uniform(4, side * 0.4, (boxes, 2))
        rows.append(np.concatenate((rng.integers(0, nc, (boxes, 1)), low, high), 1).astype(np.float32))
    return maps, Targets.pad(rows)


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_every_cell_knows_its_last_slot(seed, slots):
    rng = np.random.default_rng(seed)
    size_hw = (int(rng.integers(1, 20)), int(rng.integers(1, 20)))
    cell = rng.integers(0, size_hw[0] * size_hw[1], (2, slots))
    expected = np.zeros((2, size_hw[0] * size_hw[1]), np.int64)
    for image in range(2):
        for slot in range(slots):
            expected[image, cell[image, slot]] = slot + 1
    assert slots_of_cells(torch.from_numpy(cell), size_hw).numpy().tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at_once", [1, 100])
def test_gradient_of_picked_cells_is_that_of_indexing(dtype, at_once, monkeypatch):
    monkeypatch.setattr(room, "images_at_once", lambda like, per_image: at_once)
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(3, 2, 4, 30, generator=generator).to(dtype)
    cell = torch.randint(0, 30, (3, 50), generator=generator)
    factor = torch.randn(3, 2, 4, 50, generator=generator)
    own, plain = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    rows = pick_cells(own, cell, slots_of_cells(cell, (5, 6)))
    (rows * factor).sum().backward()
    picked = torch.stack([plain[image][..., cell[image]] for image in range(3)]).float()
    (picked * factor).sum().backward()
    assert torch.equal(rows, picked) and own.grad.dtype == dtype
    error = (own.grad.float() - plain.grad.float()).abs().max()
    assert error < (1e-5 if dtype == torch.float32 else 5e-2)


def test_spread_leaves_other_cells_at_nothing():
    slot = torch.tensor([[0, 2, 0, 1]])
    assert spread(torch.tensor([[[5.0, 7.0]]]), slot).tolist() == [[[0, 7, 0, 5]]]


@given(st.integers(0, 1000), st.floats(0.25, 4), st.sampled_from([0.0, 0.5, 1.5, 2.0]))
def test_cross_entropy_is_the_definition(seed, weight, gamma):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(40, generator=generator, dtype=torch.float64) * 4).requires_grad_()
    wanted = torch.rand(40, generator=generator, dtype=torch.float64)
    own = binary_cross_entropy(logits, wanted, positive_weight=weight, gamma=gamma)
    p = logits.sigmoid()
    expected = -(weight * wanted * p.log() + (1 - wanted) * (1 - p).log())
    if gamma:
        right = wanted * p + (1 - wanted) * (1 - p)
        expected = expected * (1 - right) ** gamma * (wanted * 0.25 + (1 - wanted) * 0.75)
    assert torch.allclose(own, expected, rtol=1e-9, atol=1e-12)
    (ours,) = torch.autograd.grad(own.sum(), logits, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected.sum(), logits)
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_cross_entropy_of_certain_answers_is_finite():
    logits = torch.tensor([-200.0, 200.0, 0.0], requires_grad=True)
    for gamma in (0.0, 0.5, 1.5):
        loss = binary_cross_entropy(logits, torch.tensor([0.0, 1.0, 1.0]), gamma=gamma).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()
        assert gradient[0] == 0 and gradient[1] == 0 and gradient[2] < 0


@given(st.integers(0, 1000))
def test_where_upstreams_put_their_eps_makes_no_difference(seed):
    """Dialects add 1e-7 to heights, to angles, or 1e-16 to areas: below float32 for boxes in cells."""
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(-2, 3, (2, 200, 2)), np.exp(rng.uniform(np.log(0.05), np.log(60), (2, 200, 2)))
    first, second = (
        torch.from_numpy(np.concatenate((c - s / 2, c + s / 2), 1)) for c, s in zip(centre, size, strict=True)
    )
    variants = [ciou(first, second, eps=eps) for eps in (1e-7, 1e-16)]
    assert (variants[0] - variants[1]).abs().max() < 1e-5


def test_gradient_by_differences():
    maps, targets = random_case()
    rules = AnchorRules(overlap_is_objectness=False)  # the overlap as a target carries no gradient
    # no box part: the aspect weight of CIoU carries no gradient (parity tests hold that part)
    criterion = criterion_of(rules=rules, box=0, fl_gamma=1.5, label_smoothing=0.1, cls_pw=1.5, obj_pw=0.5)
    criterion(HeadOutput(maps), targets).total.backward()
    norm = torch.cat([m.grad.flatten() for m in maps]).norm()
    with torch.no_grad():
        high, low = (
            float(criterion(HeadOutput(tuple(m + s * 3e-3 * m.grad / norm for m in maps)), targets).total)
            for s in (1, -1)
        )
    assert (high - low) / 6e-3 == pytest.approx(float(norm), rel=1e-2)


def test_nothing_to_find():
    maps, _ = random_case()
    none = Targets.pad([np.zeros((0, 5), np.float32)] * 2)
    report = criterion_of(obj=1.0)(HeadOutput(maps), none)
    report.total.backward()
    assert float(report.items["box"]) == 0 and float(report.items["cls"]) == 0
    objectness = [m.detach().view(2, 3, 8, -1)[:, :, 4] for m in maps]
    expected = sum(w * float(F.softplus(x).mean()) for w, x in zip((4, 1, 0.4), objectness, strict=True))
    assert float(report.items["obj"]) == pytest.approx(expected, rel=1e-5)
    for m in maps:
        gradient = m.grad.view(2, 3, 8, -1)
        assert gradient[:, :, 4].abs().min() > 0
        assert gradient[:, :, :4].abs().max() == 0 and gradient[:, :, 5:].abs().max() == 0


def test_gains_follow_classes_and_size():
    plain = criterion_of(nc=80, box=0.05, cls=0.5, obj=1.0).gains
    assert plain == pytest.approx({"box": 0.05, "cls": 0.5, "obj": 1.0})
    scaled = criterion_of(nc=20, box=0.05, cls=0.5, obj=1.0, imgsz=(320, 640)).gains
    assert scaled == pytest.approx({"box": 0.05, "cls": 0.125, "obj": 0.5})
    fixed = criterion_of(
        nc=20, rules=AnchorRules(gains_are_relative=False), box=3.2, obj=64, cls=32, imgsz=32
    )
    assert fixed.gains == {"box": 3.2, "obj": 64, "cls": 32}


def test_total_is_the_sum_over_images_or_their_mean():
    maps, targets = random_case(images=4)
    for rules, times in ((AnchorRules(), 4), (AnchorRules(sums_images=False), 1)):
        report = criterion_of(rules=rules)(HeadOutput(maps), targets)
        expected = times * sum(map(float, report.items.values()))
        assert float(report.total.detach()) == pytest.approx(expected, rel=1e-6)
        assert not any(item.requires_grad for item in report.items.values())


def test_one_class_has_no_class_loss():
    maps, targets = random_case(nc=1)
    report = criterion_of(nc=1)(HeadOutput(maps), targets)
    report.total.backward()
    assert float(report.items["cls"]) == 0 and float(report.items["box"]) > 0
    assert all(m.grad.view(2, 3, 6, -1)[:, :, 5].abs().max() == 0 for m in maps)


def test_padding_does_not_count():
    maps, targets = random_case()
    criterion = criterion_of()
    more = Targets(F.pad(targets.labels, (0, 0, 0, 24)), F.pad(targets.mask, (0, 24)))
    reports = [criterion(HeadOutput(maps), t) for t in (targets, more)]
    gradients = [torch.autograd.grad(report.total, maps) for report in reports]
    totals = [float(report.total.detach()) for report in reports]
    assert totals[0] == pytest.approx(totals[1], rel=1e-6)
    for one, other in zip(*gradients, strict=True):
        assert (one - other).abs().max() < 1e-6


def test_half_precision_maps_give_a_float32_loss():
    maps, targets = random_case()
    rounded = tuple(m.detach().to(torch.bfloat16).requires_grad_() for m in maps)
    exact = tuple(m.detach().float().requires_grad_() for m in rounded)
    reports = [criterion_of()(HeadOutput(m), targets) for m in (rounded, exact)]
    assert reports[0].total.dtype == torch.float32
    assert float(reports[0].total.detach()) == pytest.approx(float(reports[1].total.detach()), rel=1e-6)
    reports[0].total.backward()
    assert all(m.grad.dtype == torch.bfloat16 for m in rounded)


def test_autobalance_follows_the_levels():
    maps, targets = random_case()
    still, moving = criterion_of(), criterion_of(autobalance=True)
    assert still.state_dict() == {} and list(moving.state_dict()) == ["balance"]
    before = moving.balance.clone()
    report = moving(HeadOutput(maps), targets)
    plain = torch.autograd.grad(still(HeadOutput(maps), targets).total, maps)
    for own, expected in zip(torch.autograd.grad(report.total, maps, retain_graph=True), plain, strict=True):
        assert torch.equal(own, expected)  # of the balance before it moved
    assert float(report.total.detach()) == float(still(HeadOutput(maps), targets).total.detach())
    with torch.no_grad():
        single = [criterion_of(rules=AnchorRules(balance=tuple(np.eye(3)[i].tolist()))) for i in range(3)]
        losses = [c(HeadOutput(maps), targets).items["obj"] / c.gains["obj"] for c in single]
    expected = before * 0.9999 + 0.0001 / torch.stack(losses)
    assert moving.balance.tolist() == pytest.approx((expected / expected[1]).tolist(), rel=1e-6)
    moved = moving.balance.clone()
    with torch.no_grad():
        moving(HeadOutput(maps), targets)
    assert torch.equal(moving.balance, moved)  # judging is not training


@pytest.mark.parametrize(("levels", "expected"), [(2, [4, 1]), (4, [4, 1, 0.25, 0.06])])
def test_other_numbers_of_levels_have_their_own_balance(levels, expected):
    head = AnchorHead([8] * levels, 3, [[10, 13]] * levels)
    head.set_strides(tuple(8 * 2**i for i in range(levels)))
    criterion = AnchorCriterion(SimpleNamespace(head=head), LossConfig())
    assert criterion.balance.tolist() == pytest.approx(expected)
    assert criterion.gains["box"] == pytest.approx(7.5 * 3 / levels)
