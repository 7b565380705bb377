"""Cambricon MLU270 and MLU220: inference only, in Cambricon's own PyTorch 1.3. Emulated and exported for."""

from __future__ import annotations

from anyolo.devices.base import Device, DeviceProfile


class MLU270(Device):
    profile = DeviceProfile(
        name="mlu270",
        torch_type="mlu",
        install="Cambricon's own PyTorch 1.3, which cannot run anyolo: write the network for it with anyolo "
        "export format=mlu270, or try device=emulate:mlu270",
        float64=False,
        trains=False,
        limits=(
            ("train", "the MLU270 runs finished graphs only"),
            ("amp", "the MLU270 runs quantised graphs only"),
            ("half", "the MLU270 runs quantised graphs only"),
            ("compile", "the MLU270 runs finished graphs only"),
        ),
        sources=("https://github.com/CambriconECO/Pytorch_Yolov5_Inference",),
    )

    @classmethod
    def unavailable(cls) -> str | None:
        return "the MLU270 runs in Cambricon's PyTorch 1.3 only"
