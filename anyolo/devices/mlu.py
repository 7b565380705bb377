"""Cambricon MLU370 and MLU590 through the plug-in torch_mlu."""

from __future__ import annotations

import torch

from anyolo.devices.accelerator import Accelerator
from anyolo.devices.base import DeviceProfile


class MLU(Accelerator):
    profile = DeviceProfile(
        name="mlu",
        torch_type="mlu",
        plugin="torch_mlu",
        install="the wheel torch_mlu-...+torch2.4 (or 2.1, 2.3) from Cambricon's SDK or container, as it is "
        "not on PyPI, with that torch and Cambricon's driver",
        autocast_dtypes=(torch.float16, torch.bfloat16),
        grad_scaler=True,
        # its kernels compute float64 as float32 without saying so
        float64=False,
        dist_backend="cncl",
        limits=(("compile", "torch_mlu's compiler is not used here"),),
        sources=("https://github.com/Cambricon/torch_mlu",),
    )
