"""Any DirectX 12 card on Windows and WSL through the plug-in torch_directml."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from anyolo.devices.base import Device, DeviceProfile
from anyolo.devices.probe import ask

_PLUGIN = "torch_directml"
_TORCH = "2.4.1"
_OURS = torch.__version__.partition("+")[0]
_NEWEST_PYTHON = (3, 12)


class DirectML(Device):
    """Seeds by the CPU's generator; has no streams, no pinned memory, no mixed precision."""

    profile = DeviceProfile(
        name="directml",
        torch_type="privateuseone",
        plugin=_PLUGIN,
        install=f'pip install torch-directml==0.2.5.dev240914 "numpy<2" (brings torch {_TORCH}; Python 3.8 '
        "to 3.12), on Windows or WSL 2 with a DirectX 12 card",
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
        if find_spec(_PLUGIN) is not None:
            return _problem()
        reason = f"the package {_PLUGIN} is not installed"
        if sys.version_info[:2] > _NEWEST_PYTHON:
            return f"{reason}, nor is there one for Python {sys.version_info[0]}.{sys.version_info[1]}"
        return reason

    @classmethod
    def advice(cls) -> str:
        if find_spec(_PLUGIN) is not None and _OURS == _TORCH:
            return "Windows, or WSL 2 with /dev/dxg, and a DirectX 12 card with its driver"
        return super().advice()

    @classmethod
    def count(cls) -> int:
        return int(_plugin().device_count())

    @property
    def torch_device(self) -> torch.device:
        device: torch.device = _plugin().device(self.index)
        return device

    def hardware(self) -> str:
        return str(_plugin().device_name(self.index)).strip("\0 ")

    def synchronize(self) -> None:
        # there is no call for it: reading a number back waits for all that was queued
        torch.zeros(1, device=self.torch_device).cpu()


@cache
def _problem() -> str | None:
    """Asked in a process of its own: without a card, torch-directml 0.2.5 crashes instead of saying so."""
    answer = ask(f"import {_PLUGIN} as d; print(int(d.is_available() and d.device_count()))")
    if not answer.problem:
        return None if answer.text != "0" else f"{_PLUGIN} finds no DirectX 12 card"
    if _OURS != _TORCH:
        return f"{_PLUGIN} is made for torch {_TORCH}, here is {_OURS} ({answer.problem})"
    how = "crashes" if answer.crashed else "fails"
    return (
        f"{_PLUGIN} is installed and {how} here ({answer.problem}): no DirectX 12 card, or no driver of one"
    )


def _plugin() -> Any:
    return import_module(_PLUGIN)
