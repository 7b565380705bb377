"""Cambricon MLU370 in CATCH, a PyTorch 1.6: too old to run anyolo. Emulated, to write graphs for it."""

from __future__ import annotations

from anyolo.devices.base import Device, DeviceProfile


class CATCH16(Device):
    profile = DeviceProfile(
        name="catch16",
        torch_type="mlu",
        install="CATCH, a PyTorch 1.6, which cannot run anyolo: use device=mlu with Cambricon's present "
        "torch_mlu, or try device=emulate:catch16",
        float64=False,
        trains=False,
        dist_backend="cncl",
        limits=(
            ("train", "CATCH lacks operators of the loss (scatter, cumsum, where)"),
            ("amp", "CATCH's mixed precision is not used here"),
            ("half", "CATCH's mixed precision is not used here"),
            ("compile", "torch.compile came with PyTorch 2.0"),
        ),
        sources=("https://github.com/Cambricon/catch",),
    )

    @classmethod
    def unavailable(cls) -> str | None:
        return "CATCH is a PyTorch 1.6, which anyolo does not run in"
