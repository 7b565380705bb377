"""What every backend promises (anyolo/devices/base.py), asked of every line of the table.

An installed package that brings a backend by entry point is asked too (tests/unit/test_devices_plugin.py).
"""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from anyolo.devices import DEVICES, Device, emulate, look_at, named_backend, open_device
from anyolo.devices.base import DeviceProfile
from anyolo.devices.names import parse
from anyolo.errors import AnyoloError, DeviceError

CONFIDENCE = {"hardware", "disasm", "source", "report", "inferred"}
WITH_TABLE = [name for name in DEVICES if DEVICES.get(name).operators() is not None]


@pytest.mark.parametrize("name", DEVICES.names())
class TestEveryBackend:
    def test_the_profile_is_complete(self, name: str) -> None:
        profile = DEVICES.get(name).profile
        assert isinstance(profile, DeviceProfile)
        assert profile.name == name
        assert profile.sources, "a profile says where its facts are from"
        limits = dict(profile.limits)
        if not profile.autocast_dtypes:
            assert limits["amp"] and limits["half"]
        if not profile.compile:
            assert limits["compile"]
        if not profile.trains:
            assert limits["train"]
        assert all(reason == reason.strip(" .") and "\n" not in reason for reason in limits.values())

    def test_it_says_whether_it_is_here_and_never_raises(self, name: str) -> None:
        reason = DEVICES.get(name).unavailable()
        assert reason is None or (reason and "\n" not in reason)
        assert look_at(name).problem == (reason or "")

    def test_it_says_what_it_takes(self, name: str) -> None:
        advice = DEVICES.get(name).advice()
        assert name == "cpu" or (advice and "\n" not in advice and not advice.endswith("."))

    def test_its_operators_load(self, name: str) -> None:
        table = DEVICES.get(name).operators()
        if table is None:
            return
        assert table.backend == name and table.source
        assert table.native is None or len(table.native) > 100
        for rule in table.rules:
            assert rule.source and rule.confidence in CONFIDENCE, rule
            assert rule.message or rule.severity == "fallback", rule
            assert rule.condition or not rule.when
        assert DEVICES.get(name).operators() is table, "read once"

    def test_it_opens_or_says_in_one_paragraph_why_not(self, name: str) -> None:
        if DEVICES.get(name).unavailable() is None:
            device = open_device(name)
            assert isinstance(device, Device)
            return
        with pytest.raises(DeviceError) as caught:
            open_device(name)
        assert f"{name!r} is not available" in caught.value.message
        assert DEVICES.get(name).advice() in caught.value.hint
        assert "device=cpu" in caught.value.hint
        assert len(str(caught.value).splitlines()) == 2

    def test_its_name_is_understood(self, name: str) -> None:
        assert parse(f"{name}:1") == (name, (1,), False)
        assert named_backend(f"emulate:{name}") == name


@pytest.mark.parametrize("name", [name for name in DEVICES if DEVICES.get(name).unavailable() is None])
class TestEveryOneHere:
    def test_every_verb_answers(self, name: str) -> None:
        device = open_device(name)
        assert device.profile.name in device.describe()
        device.seed(3)
        state = device.rng_state()
        device.set_rng_state(state)
        device.synchronize()
        device.empty_cache()
        memory = device.memory()
        assert memory is None or 0 < memory.free_bytes <= memory.total_bytes
        assert device.remarks() == []
        with device.region("forward"), device.host():
            assert float(device.to(torch.ones(2)).sum()) == 2
        assert device.exhausted(RuntimeError("out of memory"))

    def test_a_small_step_trains(self, name: str) -> None:
        device = open_device(name)
        train_a_little(device)


@pytest.mark.parametrize("name", WITH_TABLE)
def test_a_small_step_runs_under_its_rules(name: str) -> None:
    device = emulate(name)
    if device.profile.trains:
        train_a_little(device)
        assert device.emulation.count("unsupported") == 0
    else:
        model, images = nn.Conv2d(3, 4, 3), torch.ones(1, 3, 8, 8)
        with torch.no_grad(), device.region("forward"):
            model(images)
    assert device.emulation.count("fallback") == 0
    assert device.emulation.count("native") + device.emulation.count("unknown") > 0
    assert name in device.remarks()[0] and not device.profile.compile and not device.profile.pin_memory


@pytest.mark.parametrize("name", [name for name in DEVICES if name not in WITH_TABLE])
def test_where_nothing_is_known_there_is_no_emulation(name: str) -> None:
    with pytest.raises(AnyoloError, match="unknown backend to emulate"):
        open_device(f"emulate:{name}")


def test_facts_are_plain_json() -> None:
    from anyolo.api.listing import run_devices

    for name in WITH_TABLE:
        document = run_devices({"device": name}).to_json()
        assert json.loads(json.dumps(document)) == document
        assert document["facts"]["source"]
        assert [line["backend"] for line in document["devices"]] == [name]


def train_a_little(device: Device) -> None:
    """Three steps of a small network; the loss has to fall."""
    torch.manual_seed(0)
    model = device.prepare(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **device.optimizer_options())
    scaler = device.scaler(None)
    images, losses = device.arrange(device.to(torch.rand(2, 3, 8, 8))), []
    for _ in range(3):
        with device.region("forward"), device.autocast(None):
            output = model(images)
        with device.region("loss"):
            loss = ((output + -1) * (output + -1)).mean()
        with device.region("backward"):
            scaler.backward(loss)
        with device.region("optimizer"):
            scaler.step(optimizer, clip_norm=10.0)
        losses.append(float(loss.detach()))
    assert losses[0] > losses[1] > losses[2]
