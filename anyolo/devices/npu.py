"""Huawei Ascend through the plug-in torch_npu."""

from __future__ import annotations

import torch

from anyolo.devices.accelerator import Accelerator
from anyolo.devices.base import DeviceProfile


class NPU(Accelerator):
    profile = DeviceProfile(
        name="npu",
        torch_type="npu",
        plugin="torch_npu",
        install="pip install torch-npu of torch's own version, Huawei's CANN toolkit and driver",
        autocast_dtypes=(torch.float16, torch.bfloat16),
        grad_scaler=True,
        dist_backend="hccl",
        limits=(("compile", "torch.compile for Ascend needs torchair, which is not used here"),),
        sources=("https://github.com/Ascend/pytorch", "https://github.com/Ascend/op-plugin"),
    )

    @classmethod
    def advice(cls) -> str:
        major, minor = torch.__version__.split(".")[:2]
        return f'pip install "torch-npu~={major}.{minor}.0", and Huawei\'s CANN toolkit and driver'
