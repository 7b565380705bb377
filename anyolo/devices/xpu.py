"""Intel graphics processors."""

from __future__ import annotations

import torch

from anyolo.devices.accelerator import Accelerator
from anyolo.devices.base import DeviceProfile


class XPU(Accelerator):
    profile = DeviceProfile(
        name="xpu",
        torch_type="xpu",
        install="pip install torch --index-url https://download.pytorch.org/whl/xpu (torch 2.5 or newer), "
        "and Intel's graphics driver",
        autocast_dtypes=(torch.bfloat16, torch.float16),
        # torch's scaler works in float64, which Arc cards lack
        float64=False,
        channels_last=True,
        pin_memory=True,
        compile=True,
        dist_backend="xccl",
        sync_bn=True,
        sources=("https://github.com/intel/torch-xpu-ops/issues/1742",),
    )

    @classmethod
    def unavailable(cls) -> str | None:
        reason = super().unavailable()
        if reason and getattr(torch.version, "xpu", None) is None:
            return f"this torch ({torch.__version__}) is built without XPU"
        return reason
