"""The network tests: a small detector on right and wrong devices."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

from anyolo.audit.compare_network import NetworkComparison
from anyolo.audit.host import Host
from anyolo.audit.network_runs import Way, look, step
from anyolo.audit.reference import Reference, Subject
from anyolo.audit.scene import draw_batch, enliven
from anyolo.devices import emulate, open_device
from anyolo.families import FAMILIES
from anyolo.nn.model import build
from tests.conformance import broken_devices as broken
from tests.conformance.broken_devices import Broken

SIDE = 64


@cache
def subject() -> Subject:
    torch.manual_seed(0)
    spec = FAMILIES.get("yolov8")
    rows = {**yaml.safe_load(spec.rows_text()), "scales": {"t": [0.33, 0.125, 256]}}
    model = build(rows, size="t", nc=4, batch_norm=spec.batch_norm)
    batch = draw_batch(spec.preprocess, (SIDE, SIDE), classes=4, pictures=3)
    model = enliven(model, spec.preprocess.normalise(batch.images))
    return Subject(model=model, spec=spec, preprocess=spec.preprocess, batch=batch)


@cache
def reference() -> Reference:
    return Reference(subject())


def compare(device, dtypes=(torch.float32,), **options):
    return NetworkComparison(reference(), device, lambda stage: None, **options).run(dtypes)


def lonely_layer():
    """Name and shape of a convolution in the middle of the network whose shape no other has."""
    shapes = {n: tuple(p.shape) for n, p in subject().model.named_parameters() if p.dim() == 4}
    lonely = [(n, shape) for n, shape in shapes.items() if list(shapes.values()).count(shape) == 1]
    return lonely[len(lonely) // 2]


class Names(TorchDispatchMode):
    """Every operator called on the device, by its plain name."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "aten":
            self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class Listening(Host):
    def __init__(self):
        super().__init__()
        self.mode = Names()

    def region(self, phase):
        return self.mode

    @contextmanager
    def host(self):
        before = set(self.mode.names)
        yield
        self.mode.names = before


@cache
def operators_of_the_job() -> set[str]:
    """Every operator of one training step and one inference."""
    device, s = Listening(), subject()
    step(s.model, s.spec, s.preprocess, s.batch, Way(device, torch.float32))
    look(s.model, s.preprocess, s.batch.images, Way(device, torch.float32))
    return device.mode.names


def test_drawn_pictures_have_boxes_and_one_has_none():
    counts = subject().batch.targets.counts
    assert counts[-1] == 0 and min(counts[:-1]) > 0
    assert subject().batch.images.shape == (3, 3, SIDE, SIDE)


@pytest.mark.parametrize("kind", [Host, lambda: open_device("cpu")], ids=["plain", "fast"])
def test_a_right_device_is_right(kind):
    report = compare(kind(), (torch.float32, torch.bfloat16))
    assert report.findings == []
    stages = {(m.stage, m.dtype) for m in report.measures}
    for stage in ("forward", "boxes", "loss", "gradients", "updates", "statistics"):
        assert (stage, torch.float32) in stages and (stage, torch.bfloat16) in stages
    assert ("decode", torch.float32) in stages and ("loss of given maps", torch.float32) in stages
    single = {m.stage: m for m in report.measures if m.dtype == torch.float32}
    assert single["forward"].error < 1e-5
    assert single["gradients"].error < 1e-3
    assert single["boxes"].worst.split()[0] == single["boxes"].worst.split()[2], single["boxes"].worst
    boxes = int(single["boxes"].worst.split()[2])
    assert boxes > 20
    assert set(report.gradients["float32"]) == {
        n for n, p in subject().model.named_parameters() if p.requires_grad
    }


def test_a_layer_without_gradient_is_named():
    name, shape = lonely_layer()
    report = compare(Broken(broken.dead_layer(shape)))
    dead = [f for f in report.findings if f.id == "network.dead"]
    assert any(f.where == f"gradients: {name}, float32" for f in dead), report.findings
    assert all(f.severity == "error" for f in dead)


def test_a_gradient_a_tenth_too_large_is_named():
    name, shape = lonely_layer()
    report = compare(Broken(broken.skewed_layer(shape)))
    (finding,) = [f for f in report.findings if f.id == "network.gradients"]
    assert finding.severity == "error"
    assert finding.where == f"gradients: {name}"
    assert report.gradients["float32"][name][0] == pytest.approx(0.1, rel=0.05)


FAULTS = [
    (broken.convolution_off, None, {"network.forward", "network.gradients"}, ""),
    (broken.wrong_atan, None, {"network.loss"}, "although both sides were given the same maps"),
    (broken.shifted_add, {"decode"}, {"network.decode"}, "px"),
    (
        broken.forgetful_add,
        {"optimizer"},
        {"network.updates"},
        "the optimizer changed the weights differently",
    ),
    (broken.late_cumsum, None, {"network.raised"}, "IndexError"),
    (broken.nan_silu, None, {"network.forward"}, "infinitely"),
]


@pytest.mark.parametrize("change, phases, ids, words", FAULTS, ids=[f[0].__name__ for f in FAULTS])
def test_a_wrong_device_is_found(change, phases, ids, words):
    report = compare(Broken(change, phases=None if phases is None else frozenset(phases)))
    found = {f.id for f in report.findings if f.severity == "error"}
    assert ids <= found, report.findings
    assert any(words in f.message for f in report.findings)


def test_a_refusal_in_the_middle_is_a_finding_and_the_rest_goes_on():
    report = compare(Broken(broken.no_gather))
    raised = [f for f in report.findings if f.id == "network.raised"]
    assert {f.where for f in raised} >= {"training step, float32", "loss, float32"}
    assert all("aten::gather" in f.message and f.severity == "error" for f in raised)
    assert "forward" in {m.stage for m in report.measures}


def test_short_products_are_judged_by_what_they_do_to_the_network():
    device = Broken(broken.short_convolution)
    assert compare(device, rounds_products=True).findings == []


def test_an_emulated_device_computes_as_the_cpu_does():
    report = compare(emulate("directml"))
    assert [f for f in report.findings if f.severity == "error"] == []
    assert {m.stage for m in report.measures} >= {
        "forward",
        "decode",
        "boxes",
        "loss",
        "gradients",
        "updates",
    }
