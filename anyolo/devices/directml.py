"""Any DirectX 12 card on Windows and WSL through the plug-in torch_directml."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from anyolo.devices.base import Device, DeviceProfile
from anyolo.devices.probe import ask

_PLUGIN = "torch_directml"


class DirectML(Device):
    """Seeds by the CPU's generator; has no streams, no pinned memory, no mixed precision."""

    profile = DeviceProfile(
        name="directml",
        torch_type="privateuseone",
        plugin=_PLUGIN,
        install="pip install torch-directml==0.2.5.dev240914 (brings torch 2.4.1; Python 3.8 to 3.12; Windows "
        "or WSL 2 with a DirectX 12 card)",
        float64=False,
        limits=(
            ("amp", "torch-directml has no kernels for autocast"),
            ("half", "torch-directml has no kernels for autocast"),
            ("compile", "torch.compile has no backend for DirectML"),
        ),
        sources=("https://github.com/microsoft/DirectML",),
    )

    @classmethod
    def unavailable(cls) -> str | None:
        if find_spec(_PLUGIN) is None:
            return f"the package {_PLUGIN} is not installed"
        # without a card, torch-directml 0.2.5 does not answer False: it ends the process
        answer = ask(f"import {_PLUGIN} as d; print(d.is_available() and d.device_count())")
        if answer.crashed:
            return f"{_PLUGIN} is installed and crashes here ({answer.problem}): no DirectX 12 card or driver"
        return None if answer.text.isdigit() and int(answer.text) else "torch_directml finds no DirectX 12 card"

    @classmethod
    def count(cls) -> int:
        return int(_plugin().device_count())

    @property
    def torch_device(self) -> torch.device:
        device: torch.device = _plugin().device(self.index)
        return device

    def describe(self) -> str:
        return f"directml:{self.index} ({_plugin().device_name(self.index).strip(chr(0))})"

    def synchronize(self) -> None:
        # there is no call for it: reading a number back waits for all that was queued
        torch.zeros(1, device=self.torch_device).cpu()


def _plugin() -> Any:
    return import_module(_PLUGIN)
