"""What somebody reads who asks for a device that is not here: one paragraph that says what to do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from anyolo.devices import available, emulate, open_device
from anyolo.errors import AnyoloError, ConfigError, DeviceError, UnknownName

HAS_ACCELERATOR = set(available()) != {"cpu"}
pytestmark = pytest.mark.skipif(HAS_ACCELERATOR, reason="this machine has an accelerator")

PIP_NPU = 'pip install "torch-npu~={}.{}.0"'.format(*torch.__version__.split(".")[:2])
ABSENT = {
    "dml": ("torch_directml is not installed", "pip install torch-directml==0.2.5.dev240914"),
    "directml:0": ("torch_directml is not installed", "numpy<2"),
    "privateuseone:0": ("torch_directml is not installed", "brings torch 2.4.1"),
    "mlu": ("torch_mlu is not installed", "Cambricon's SDK"),
    "npu": ("torch_npu is not installed", PIP_NPU),
    "xpu": ("XPU", "pip install torch --index-url https://download.pytorch.org/whl/xpu"),
    "cuda": (f"torch ({torch.__version__})", "card"),
    "cuda:3": (f"torch ({torch.__version__})", "driver"),
    "mps": ("built without Metal", "macOS 13"),
    "mlu270": ("PyTorch 1.3", "anyolo export format=mlu270"),
    "catch16": ("PyTorch 1.6", "emulate:catch16"),
}


@pytest.mark.parametrize("typed", ABSENT)
def test_what_is_missing_what_to_install_what_is_here(typed: str) -> None:
    missing, needs = ABSENT[typed]
    with pytest.raises(DeviceError) as caught:
        open_device(typed)
    error = caught.value
    assert error.message.startswith(f"{typed!r} is not available: ") and missing in error.message
    assert needs in error.hint and error.hint.endswith("Here you can use: device=cpu.")
    assert error.where == "device" and error.exit_code == 5


@pytest.mark.parametrize("typed", ["0", "1", "0,1", "-1"])
def test_a_number_means_an_accelerator(typed: str) -> None:
    with pytest.raises(DeviceError, match="means an accelerator, and there is none here") as caught:
        open_device(typed)
    assert "device=cpu" in caught.value.hint and "anyolo devices" in caught.value.hint


def test_a_batch_that_does_not_divide_is_told_first() -> None:
    with pytest.raises(ConfigError, match="a batch of 7 does not divide among 2 devices"):
        open_device("0,1", batch=7)
    with pytest.raises(DeviceError, match="there is none here"):
        open_device("0,1", batch=8)


def test_unknown_words() -> None:
    with pytest.raises(UnknownName, match="unknown device 'nonsense'") as caught:
        open_device("nonsense")
    assert "Known: " in caught.value.hint and "Here you can use: device=cpu." in caught.value.hint
    with pytest.raises(UnknownName) as caught:
        open_device("cud:0")
    assert "Did you mean 'cuda'" in caught.value.hint
    with pytest.raises(UnknownName, match="unknown backend to emulate 'nonsense'") as caught:
        open_device("emulate:nonsense")
    assert "catch16, directml, mlu, mlu270, mps, npu, xpu" in caught.value.hint
    for name in ("", "cpu", "cuda"):
        with pytest.raises(UnknownName, match="unknown backend to emulate"):
            emulate(name)


def test_there_is_one_cpu() -> None:
    assert open_device("cpu:0").torch_device == torch.device("cpu")
    with pytest.raises(DeviceError, match="there is no cpu:1") as caught:
        open_device("cpu:1")
    assert caught.value.hint == "Here you can use: device=cpu:0."


def test_auto_takes_the_cpu_where_there_is_nothing_else() -> None:
    assert open_device().profile.name == open_device("auto").profile.name == "cpu"


@pytest.mark.parametrize(
    ("verb", "device", "code"),
    [
        ("predict", "dml", 5),
        ("predict", "nonsense", 2),
        ("predict", "0,1", 5),
        ("devices", "nonsense", 2),
    ],
)
def test_the_command_line_says_it_in_one_paragraph(verb: str, device: str, code: int, tmp_path) -> None:
    words = [sys.executable, "-m", "anyolo.cli", verb, f"device={device}"]
    if verb == "predict":
        words += ["model=yolov8n", "source=nothing.jpg", f"project={tmp_path}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout == "" and done.stderr.startswith("error: device: ") and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_as_json_too() -> None:
    words = [
        sys.executable,
        "-m",
        "anyolo.cli",
        "predict",
        "model=yolov8n",
        "source=x.jpg",
        "device=npu",
        "--json",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    assert done.returncode == 5 and document["kind"] == "DeviceError" and PIP_NPU in document["hint"]


def test_errors_name_their_kind() -> None:
    for typed in ABSENT:
        with pytest.raises(AnyoloError) as caught:
            open_device(typed)
        assert len(str(caught.value).splitlines()) == 2
