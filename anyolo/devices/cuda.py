"""NVIDIA (CUDA) and AMD (ROCm) through the same torch interface."""

from __future__ import annotations

import torch

from anyolo.devices.accelerator import Accelerator
from anyolo.devices.base import DeviceProfile


class CUDA(Accelerator):
    profile = DeviceProfile(
        name="cuda",
        torch_type="cuda",
        install="pip install torch with the index URL for your card (NVIDIA: CUDA, AMD: ROCm) from "
        "https://pytorch.org/get-started/locally, and the card's driver",
        autocast_dtypes=(torch.float16, torch.bfloat16),
        grad_scaler=True,
        channels_last=True,
        pin_memory=True,
        foreach=True,
        fused=True,
        compile=True,
        dist_backend="nccl",
        sync_bn=True,
        sources=("https://docs.pytorch.org/docs/stable/notes/cuda.html",),
    )

    @classmethod
    def unavailable(cls) -> str | None:
        if torch.cuda.is_available():
            return None
        if torch.version.cuda is None and torch.version.hip is None:
            return f"this torch ({torch.__version__}) is built without CUDA and ROCm"
        return f"this torch ({torch.__version__}) sees no card, or no driver of one"

    @classmethod
    def advice(cls) -> str:
        if torch.version.hip is not None:
            return "an AMD card and its ROCm driver (rocminfo has to list it)"
        if torch.version.cuda is not None:
            return f"an NVIDIA card and a driver for CUDA {torch.version.cuda} (nvidia-smi has to list it)"
        return super().advice()

    def versions(self) -> dict[str, str]:
        toolkit = {"ROCm": torch.version.hip, "CUDA": torch.version.cuda}
        found = {name: number for name, number in toolkit.items() if number}
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        return {**found, "cuDNN": str(cudnn)} if cudnn else found
