"""The accelerator that torch itself names and that has no file here: Intel Gaudi and whatever comes."""

from __future__ import annotations

from typing import Any

import torch

from anyolo.devices.accelerator import Accelerator
from anyolo.devices.base import DeviceProfile

# those that have a file of their own
_NAMED = {"cpu", "cuda", "mps", "xpu", "npu", "mlu", "privateuseone"}


def _torch_type() -> str:
    """torch tells since 2.6; plug-ins make themselves known when torch is imported, since 2.5."""
    accelerator: Any = getattr(torch, "accelerator", None)
    found = accelerator.current_accelerator() if accelerator is not None else None
    return found.type if found is not None and found.type not in _NAMED else ""


class Other(Accelerator):
    """Nothing is known of what it can do, so nothing is asked of it that a device could lack."""

    profile = DeviceProfile(
        name="other",
        torch_type=_torch_type(),
        install="torch 2.6 or newer and a plug-in that it loads by itself",
        float64=False,
        limits=(
            ("amp", "nothing is known of this accelerator's mixed precision"),
            ("half", "nothing is known of this accelerator's mixed precision"),
            ("compile", "nothing is known of this accelerator's compiler"),
        ),
        sources=("https://docs.pytorch.org/docs/stable/accelerator.html",),
    )

    @classmethod
    def unavailable(cls) -> str | None:
        if not cls.profile.torch_type:
            return f"this torch ({torch.__version__}) names no accelerator beside those listed here"
        return super().unavailable()
