"""The Toaster, an accelerator that nobody built. It computes on the CPU and cannot multiply bool by float."""

from __future__ import annotations

import torch

from anyolo.devices.base import Device, DeviceProfile, Memory
from anyolo.devices.operators import OperatorRule, OperatorTable

SOURCE = "https://example.org/toaster/manual"
TABLE = OperatorTable(
    backend="toaster",
    source=SOURCE,
    denied_dtypes={torch.float64: "no float64 in a toaster"},
    rules=(
        OperatorRule(
            operators=("aten::mul",),
            severity="error",
            message="the toaster burns bool times float",
            when={"mixes_bool": True},
            source=SOURCE,
            confidence="report",
        ),
    ),
)


class Toaster(Device):
    profile = DeviceProfile(
        name="toaster",
        torch_type="cpu",
        install="pip install anyolo-toaster, and bread",
        float64=False,
        limits=(
            ("amp", "the toaster has one setting"),
            ("half", "the toaster has one setting"),
            ("compile", "the toaster reads no code"),
        ),
        sources=(SOURCE,),
    )

    @classmethod
    def count(cls) -> int:
        return 2

    @classmethod
    def operators(cls) -> OperatorTable:
        return TABLE

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu")

    def hardware(self) -> str:
        return f"slot {self.index}"

    def memory(self) -> Memory:
        return Memory(free_bytes=(self.index + 1) * 2**30, total_bytes=4 * 2**30)
