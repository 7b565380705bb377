"""Asking for what a device lacks: a notice with the reason, an error with ``strict``, never silence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyolo import api, console
from anyolo.api.using import half_dtype
from anyolo.config.schema import DeviceConfig, LossConfig
from anyolo.data.synth import write_dataset
from anyolo.devices import Device, emulate, open_device
from anyolo.errors import ConfigError, DeviceError
from anyolo.families import build_model
from anyolo.families.checkpoints import load_model
from anyolo.structures import Targets
from anyolo.train.host_loss import HostLoss
from tests.e2e.test_train_resume import TINY

REASON = "torch-directml has no kernels for autocast"


class Heard(console.NullReporter):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def heard(run: Any) -> Heard:
    with console.use(Heard()) as report:
        run()
    return report


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("wishes")
    data = write_dataset(folder / "data", train=4, val=2, size=160)
    (folder / "tiny.yaml").write_text(TINY)
    return {
        "model": str(folder / "tiny.yaml"), "data": str(data), "imgsz": 64, "batch": 2, "epochs": 1,
        "workers": 0, "plots": False, "optimizer": "SGD", "project": str(folder / "runs"),
    }  # fmt: skip


class TestHalf:
    def test_a_notice_with_the_reason(self) -> None:
        found: list[torch.dtype] = []
        report = heard(lambda: found.append(half_dtype(DeviceConfig(half=True), emulate("directml"))))
        assert found == [torch.float32]
        assert report.warnings == [f"half=True: {REASON}; float32 is used"]

    def test_an_error_with_strict(self) -> None:
        with pytest.raises(DeviceError, match=f"half=True: {REASON}") as caught:
            half_dtype(DeviceConfig(half=True, strict=True), emulate("directml"))
        assert caught.value.hint == "Use half=False, or strict=False for a notice instead."

    def test_silence_where_nothing_was_asked_or_it_is_there(self) -> None:
        assert heard(lambda: half_dtype(DeviceConfig(), emulate("directml"))).warnings == []
        assert heard(lambda: half_dtype(DeviceConfig(half=True), emulate("npu"))).warnings == []


class TestTraining:
    def test_amp_typed_is_answered_amp_by_default_is_mentioned(self, job: dict[str, Any]) -> None:
        typed = heard(lambda: api.train(**job, device="emulate:directml", amp=True))
        assert typed.warnings == [f"amp=True: {REASON}; float32 is used"]
        left = heard(lambda: api.train(**job, device="emulate:directml"))
        assert left.warnings == []
        for report in (typed, left):
            assert any(line.endswith(f"float32: {REASON}") for line in report.lines)

    def test_strict(self, job: dict[str, Any]) -> None:
        with pytest.raises(DeviceError, match=f"amp=True: {REASON}"):
            api.train(**job, device="emulate:directml", amp=True, strict=True)
        with pytest.raises(DeviceError, match=r"compile=True: torch.compile has no backend for DirectML"):
            api.train(**job, device="emulate:directml", compile=True, strict=True)
        api.train(**job, device="emulate:directml", strict=True)  # amp was not typed

    def test_compile_where_it_is_not_there(self, job: dict[str, Any]) -> None:
        report = heard(lambda: api.train(**job, device="emulate:mlu", amp=False, compile=True))
        assert report.warnings == [
            "compile=True: torch_mlu's compiler is not used here; the model runs as it is"
        ]
        report = heard(lambda: api.train(**job, device="emulate:xpu", amp=False, compile=True))
        assert report.warnings[0].startswith("compile=True: an emulated backend judges operators one by one")

    @pytest.mark.parametrize("backend", ["mlu270", "catch16"])
    def test_a_backend_that_does_not_train_says_so_before_anything_is_made(
        self, backend: str, job: dict[str, Any], tmp_path: Path
    ) -> None:
        with pytest.raises(DeviceError, match=f"emulate:{backend} does not train: ") as caught:
            api.train(**{**job, "project": str(tmp_path / "runs")}, device=f"emulate:{backend}")
        assert "predict" in caught.value.hint and not (tmp_path / "runs").exists()

    def test_a_batch_for_two_devices(self, job: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="a batch of 7 does not divide among 2 devices") as caught:
            api.train(**{**job, "batch": 7}, device=[0, 1])
        assert caught.value.hint == "Use batch=6 or batch=8."

    def test_torch_devices_are_taken(self, job: dict[str, Any]) -> None:
        assert api.train(**job, device=torch.device("cpu"), amp=False).device.startswith("cpu (")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler is full of its own deprecations
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_run_has_the_names_and_losses_of_a_plain_one(job: dict[str, Any]) -> None:
    runs = [api.train(**job, device="cpu", amp=False, compile=flag) for flag in (False, True)]
    names = [list(load_model(run.best).model.state_dict()) for run in runs]
    assert names[0] == names[1]
    rows = [(run.run / "results.csv").read_text().splitlines()[1].split(",")[2:5] for run in runs]
    assert [float(value) for value in rows[0]] == pytest.approx([float(value) for value in rows[1]], rel=1e-3)


def test_a_compiler_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function: Any) -> Any:
        raise RuntimeError("\n  InvalidCxxCompiler: no g++\nmore")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(
        DeviceError, match=r"torch.compile does not work here: InvalidCxxCompiler: no g[+][+]"
    ) as caught:
        open_device("cpu").compile(nn.Conv2d(1, 1, 1))
    assert caught.value.hint == "Use compile=False."


class TestLossOnTheHost:
    def targets(self) -> Targets:
        labels = torch.tensor([[[1.0, 8, 8, 40, 40]], [[0.0, 10, 20, 30, 60]]])
        return Targets(labels, torch.ones(2, 1))

    def gradients(
        self, device: Device, *, on_host: bool
    ) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
        torch.manual_seed(0)
        spec, model = build_model("yolov8n", nc=3)
        criterion = spec.criterion(model.train(), LossConfig())
        if on_host:
            criterion = HostLoss(criterion, device)
        images, targets = torch.rand(2, 3, 64, 64), self.targets()
        with device.region("forward"):
            output = model(images)
        with device.region("loss"):
            report = criterion(output, targets)
        with device.region("backward"):
            (report.total * 2).backward()
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        return float(report.total.detach()), found, dict(report.items)

    def test_same_loss_and_gradients(self) -> None:
        here, there = (self.gradients(open_device("cpu"), on_host=flag) for flag in (False, True))
        assert here[0] == there[0] and here[2] == there[2]
        assert here[1].keys() == there[1].keys()
        assert all(torch.allclose(here[1][name], there[1][name], rtol=1e-5, atol=1e-7) for name in here[1])

    def test_the_device_sees_nothing_of_it(self) -> None:
        device = emulate("directml", record=True)
        self.gradients(device, on_host=True)
        calls = device.emulation.calls
        # the scalar that backward is called on
        assert {call.op for call in calls if call.phase == "loss"} == {"aten::clone"}
        assert {call.phase for call in calls} == {"forward", "loss", "backward"}
        of_the_loss = {"aten::topk", "aten::_log_softmax", "aten::atan", "aten::softplus_backward"}
        assert not of_the_loss & {call.op for call in calls}
        assert device.emulation.phase == "backward"

    def test_without_gradients(self) -> None:
        spec, model = build_model("yolov8n", nc=3)
        criterion = HostLoss(spec.criterion(model, LossConfig()), open_device("cpu"))
        with torch.no_grad():
            report = criterion(model.eval()(torch.rand(2, 3, 64, 64)), self.targets())
        assert not report.total.requires_grad and set(report.items) == {"box", "cls", "dfl"}

    def test_a_run_has_the_same_losses(self, job: dict[str, Any]) -> None:
        runs = [api.train(**job, device="cpu", amp=False, loss_device=where) for where in ("auto", "cpu")]
        rows = [(run.run / "results.csv").read_text().splitlines()[1].split(",")[2:] for run in runs]
        assert [float(value) for value in rows[0]] == pytest.approx(
            [float(value) for value in rows[1]], rel=1e-4
        )
