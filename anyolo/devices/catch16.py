"""Cambricon MLU370 in CATCH (PyTorch 1.6): too old to run anyolo. Emulated, to write graphs that it can run."""

from __future__ import annotations

from anyolo.devices.base import Device, DeviceProfile


class CATCH16(Device):
    profile = DeviceProfile(
        name="catch16",
        torch_type="mlu",
        install="use device=mlu with Cambricon's present torch_mlu, or: anyolo export format=mlu270",
        float64=False,
        trains=False,
        dist_backend="cncl",
        sources=("https://github.com/Cambricon/catch",),
    )

    @classmethod
    def unavailable(cls) -> str | None:
        return "CATCH is a PyTorch 1.6, which anyolo does not run in; device=emulate:catch16 works"
