"""The CPU: always here, and the judge of all others."""

from __future__ import annotations

import ctypes
import platform
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anyolo.devices import host_memory
from anyolo.devices.base import Device, DeviceProfile
from anyolo.devices.host_memory import Memory, Peak


def _autocast_dtypes() -> tuple[torch.dtype, ...]:
    """bfloat16 only where the processor multiplies it in hardware; emulated it is slower than float32."""
    cpu = torch.cpu
    for word in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        if getattr(cpu, word, lambda: False)():
            return (torch.bfloat16,)
    return ()


# Pictures beyond this push each other out of the cache: 66 against 76 ms each (4 or 16 of 480 x 640).
PIXELS_AT_ONCE = 4 * 480 * 640
# From malloc.h; the largest threshold that glibc takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_ON_HEAP, _MOST_KEPT = 32 << 20, 512 << 20

_ONEDNN_CONV = "_convolution_pointwise"
_ONEDNN_NAMES: dict[type[nn.Module], tuple[str, tuple[float, ...]]] = {
    nn.SiLU: ("swish", ()),
    nn.ReLU: ("relu", ()),
    nn.LeakyReLU: ("leaky_relu", ()),
    nn.Hardswish: ("hardswish", ()),
}


class OneDNNConvolution(nn.Module):
    """Convolution and activation in one pass over memory, the operator that torch's own compiler emits.

    The weights are laid out for the first input size seen; others give the same, at the cost of a reordering.
    YOLOv8n in float32 at 640 on one thread: 155 ms against 196 ms (channels last) and 209 ms (plain).
    """

    def __init__(self, conv: nn.Conv2d, activation: str, scalars: tuple[float, ...]) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.geometry = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self.activation, self.scalars = activation, list(scalars)
        self.kernel = getattr(torch.ops.mkldnn, _ONEDNN_CONV)
        self.is_packed = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_packed:
            self._pack(x)
        y: Tensor = self.kernel(x, self.weight, self.bias, *self.geometry, self.activation, self.scalars, "")
        return y

    def _pack(self, x: Tensor) -> None:
        plain = self.weight.detach().contiguous().to_mkldnn()
        reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
        self.weight = nn.Parameter(reorder(plain, *self.geometry, tuple(x.shape)), requires_grad=False)
        self.is_packed = True


@cache
def _keep_freed_memory() -> None:
    """Let the C library keep what tensors give back, where it is glibc.

    It returns every large block to the system at once, which then clears it page by page for the next tensor:
    a fifth of the time of an inference (60 against 50 ms a picture of YOLOv8n at 480 x 640).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP)
    mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)


def _trim() -> None:
    """Have the C library give back what it keeps, where it is glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return


class CPU(Device):
    profile = DeviceProfile(
        name="cpu",
        torch_type="cpu",
        autocast_dtypes=_autocast_dtypes(),
        grad_scaler=True,
        channels_last=True,
        fused=True,
        compile=True,
        shares_host=True,
        dist_backend="gloo",
        limits=(
            ("amp", "torch finds no units for bfloat16 in this processor"),
            ("half", "torch finds no units for bfloat16 in this processor"),
        ),
        sources=("https://docs.pytorch.org/docs/stable/amp.html",),
    )

    def __init__(self, index: int = 0, *, threads: int = 0) -> None:
        super().__init__(0, threads=threads)
        _keep_freed_memory()

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu")

    def hardware(self) -> str:
        return cpu_model()

    def describe(self) -> str:
        return f"cpu ({cpu_model()}, {torch.get_num_threads()} threads)"

    def images_at_once(self, size_hw: tuple[int, int]) -> int:
        return max(1, PIXELS_AT_ONCE // (size_hw[0] * size_hw[1]))

    def fused_convolution(self, conv: nn.Conv2d, activation: nn.Module) -> nn.Module | None:
        name, scalars = _ONEDNN_NAMES.get(type(activation), ("", ()))
        if not name or not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, _ONEDNN_CONV):
            return None
        if isinstance(activation, nn.LeakyReLU):
            scalars = (activation.negative_slope,)
        return OneDNNConvolution(conv, name, scalars)

    def memory(self) -> Memory | None:
        return host_memory.read_memory()

    def held_bytes(self) -> int | None:
        return host_memory.held_bytes()

    def watch_memory(self) -> AbstractContextManager[Peak]:
        return host_memory.watch()

    def empty_cache(self) -> None:
        _trim()

    def exhausted(self, error: BaseException) -> bool:
        # of torch's own allocator: "DefaultCPUAllocator: can't allocate memory: you tried to allocate ..."
        words = "can't allocate memory" in str(error).lower()
        return isinstance(error, MemoryError) or words or super().exhausted(error)


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
