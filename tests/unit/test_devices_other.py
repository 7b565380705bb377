"""An accelerator that torch names and anyolo has no file for, made in Python in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from anyolo.devices import DEVICES, available, look_at

NEW_ENOUGH = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 9)
PROGRAM = """
from torch.utils import backend_registration as registration

class Module(registration._DummyBackendModule):
    def get_device_name(self, index):
        return "Mark I"

registration._setup_privateuseone_for_python_backend("toastron", backend_module=Module())

from anyolo.devices import open_device
from anyolo.errors import AnyoloError

for typed in ("toastron", "toastron:0", "other", "auto", "0", "toastron:7"):
    try:
        device = open_device(typed)
        device.seed(1), device.synchronize(), device.empty_cache(), device.set_rng_state(device.rng_state())
        print(device.describe(), device.torch_device, device.memory(), device.optimizer_options())
    except AnyoloError as error:
        print(str(error).replace("\\n", " | "))
"""


@pytest.mark.skipif(not NEW_ENOUGH, reason="a device made in Python needs torch 2.9")
def test_it_answers_to_its_own_name_and_is_taken_by_auto() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        *["other:0 (Mark I) toastron:0 None {'foreach': False}"] * 5,
        "device: there is no other:7 | Here you can use: device=other:0.",
    ], done.stderr


@pytest.mark.skipif(set(available()) != {"cpu"}, reason="this machine has an accelerator")
def test_where_torch_names_none() -> None:
    assert DEVICES.get("other").profile.torch_type == ""
    assert "names no accelerator beside those listed here" in look_at("other").problem
