"""Cambricon MLU270 and MLU220: inference only, in Cambricon's own PyTorch 1.3. Emulated and exported for."""

from __future__ import annotations

from anyolo.devices.base import Device, DeviceProfile


class MLU270(Device):
    profile = DeviceProfile(
        name="mlu270",
        torch_type="mlu",
        install="write the network for it with: anyolo export format=mlu270 (its PyTorch 1.3 cannot run anyolo)",
        float64=False,
        trains=False,
        limits=(("amp", "the MLU270 runs quantised graphs only"),),
    )

    @classmethod
    def unavailable(cls) -> str | None:
        return "the MLU270 runs in Cambricon's PyTorch 1.3 only, which anyolo does not; device=emulate:mlu270 works"
