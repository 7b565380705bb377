"""The contract of a device: facts (``DeviceProfile``) and verbs (``Device``).

The verbs are written here once, from the facts; an occupant overrides what its vendor does differently.
"""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from anyolo import console
from anyolo.devices.host_memory import Memory as Memory
from anyolo.devices.host_memory import Peak as Peak
from anyolo.devices.operators import FACTS, OperatorTable
from anyolo.devices.scaling import PlainScaler, Scaler, TorchScaler
from anyolo.errors import DeviceError

Movable = TypeVar("Movable", bound=Any)
Module = TypeVar("Module", bound=nn.Module)
Phase = Literal["forward", "loss", "backward", "optimizer", "decode", "average", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """Facts about a backend, no behaviour.

    ``install`` says what to type where the backend is missing. ``grad_scaler`` means that torch's own loss
    scaling works (it asks for float64); without it float16 uses ours. ``trains`` is False for backends that
    only run finished graphs. ``limits`` are sentences about what the backend cannot do and why, by the name
    of the setting that asks for it (``amp``, ``half``, ``compile``) or of the verb (``train``).
    ``shares_host`` means that its memory is the process's own: what else the process keeps takes from it.
    """

    name: str
    torch_type: str
    plugin: str = ""
    install: str = ""
    autocast_dtypes: tuple[torch.dtype, ...] = ()
    grad_scaler: bool = False
    float64: bool = True
    channels_last: bool = False
    pin_memory: bool = False
    foreach: bool = False
    fused: bool = False
    compile: bool = False
    trains: bool = True
    shares_host: bool = False
    dist_backend: str = ""
    sync_bn: bool = False
    limits: tuple[tuple[str, str], ...] = ()
    sources: tuple[str, ...] = ()

    def limit(self, setting: str) -> str:
        """Why the backend lacks what ``setting`` asks for; a general sentence where nothing special is
        known.
        """
        return dict(self.limits).get(setting, f"{self.name} has no support for it")


class Device:
    """One opened device. ``index`` counts devices of the same backend."""

    profile: DeviceProfile

    def __init__(self, index: int = 0, *, threads: int = 0) -> None:
        self.index = index
        if threads:
            torch.set_num_threads(threads)

    @classmethod
    def unavailable(cls) -> str | None:
        """Why this backend cannot be used here, or None when it can."""
        return None

    @classmethod
    def advice(cls) -> str:
        """What to install or to type where the backend is missing."""
        return cls.profile.install

    @classmethod
    def count(cls) -> int:
        """How many devices of an available backend there are."""
        return 1

    @classmethod
    def operators(cls) -> OperatorTable | None:
        """What is known of the backend's operators, the same table every time; None where all of torch's
        run.
        """
        path = FACTS / f"{cls.profile.name}.json"
        return _table(str(path)) if path.is_file() else None

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.profile.torch_type, self.index)

    def hardware(self) -> str:
        """What the maker calls it; "" where nobody tells."""
        return ""

    def describe(self) -> str:
        """A name for people."""
        own, hardware = f"{self.profile.name}:{self.index}", self.hardware()
        return f"{own} ({hardware})" if hardware else own

    def versions(self) -> dict[str, str]:
        """What a report should name besides torch: plug-in, driver, toolkit."""
        plugin = self.profile.plugin
        try:
            return {plugin: version(plugin)} if plugin else {}
        except PackageNotFoundError:
            return {}

    def region(self, phase: Phase) -> AbstractContextManager[Any]:
        """Marks what runs on the device, so that an emulated one judges that and not the host's work."""
        return nullcontext()

    def host(self) -> AbstractContextManager[Any]:
        """Marks work on the host inside a region."""
        return nullcontext()

    def decline(self, setting: str, instead: str, *, strict: bool) -> None:
        """Say that the device lacks what ``setting`` asks for, why, and what is done ``instead``.

        Raises DeviceError with ``strict``.
        """
        reason = f"{setting}=True: {self.profile.limit(setting)}"
        if strict:
            raise DeviceError(
                reason, where="device", hint=f"Use {setting}=False, or strict=False for a notice instead."
            )
        console.current().warn(f"{reason}; {instead}")

    def remarks(self) -> list[str]:
        """What there is to say after the work was done: operators that fell back, and the like."""
        return []

    def to(self, thing: Movable) -> Movable:
        """Move a tensor, module, Targets: anything with ``.to(device)``."""
        return thing.to(self.torch_device)  # type: ignore[no-any-return]

    def prepare(self, model: Module) -> Module:
        """Move a model and give it the memory layout this backend is fastest with."""
        model = model.to(self.torch_device)
        if self.profile.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def arrange(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in the memory layout that ``prepare`` gave the model. Cheapest while still uint8."""
        return images.contiguous(memory_format=torch.channels_last) if self.profile.channels_last else images

    def images_at_once(self, size_hw: tuple[int, int]) -> int:
        """How many pictures of this size an inference should take in one go; 0 for as many as there are."""
        return 0

    def fused_convolution(self, conv: nn.Conv2d, activation: nn.Module) -> nn.Module | None:
        """``activation(conv(x))`` as one operator for inference, equal up to rounding, or None."""
        return None

    def compile(self, model: Module) -> Module:
        """``torch.compile`` in place, so that the weights keep their names. Raises DeviceError where that
        does not work here, for want of a compiler say; found out with an addition, not in the first epoch.
        """
        try:
            torch.compile(lambda x: x + 1)(torch.zeros(2, device=self.torch_device))
        except Exception as error:  # torch lets through whatever its compilers throw
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
            raise DeviceError(
                f"torch.compile does not work here: {lines[0]}", where="compile", hint="Use compile=False."
            ) from error
        model.compile()
        return model

    def autocast(self, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
        """Mixed precision in ``dtype``; nothing for None and float32."""
        if dtype is None or dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.torch_device.type, dtype=dtype)

    def scaler(self, dtype: torch.dtype | None) -> Scaler:
        if dtype != torch.float16:
            return Scaler()
        return TorchScaler(self.torch_device.type) if self.profile.grad_scaler else PlainScaler()

    def optimizer_options(self) -> dict[str, bool]:
        """Keyword arguments for torch.optim classes that are safe here."""
        return {"fused": True} if self.profile.fused else {"foreach": self.profile.foreach}

    def lacks(self, operator: str) -> bool:
        """Whether an operator (``lerp.Scalar``) is known not to run on the device itself."""
        table = self.operators()
        return table is not None and table.lacks(operator)

    def synchronize(self) -> None:
        """Wait for the work that was queued."""

    def memory(self) -> Memory | None:
        """What this process may still take, and all there is; None where nobody tells."""
        return None

    def held_bytes(self) -> int | None:
        """Of this device's memory, what this process holds; None where nobody tells."""
        return None

    def watch_memory(self) -> AbstractContextManager[Peak]:
        """The most that ``held_bytes`` is inside the block, known after it; None where nobody tells."""
        return nullcontext(Peak())

    def empty_cache(self) -> None:
        """Give back what is kept for later tensors."""

    def seed(self, seed: int) -> None:
        """Seed python, numpy, torch and the device."""
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)

    def rng_state(self) -> Tensor | None:
        """The device's own generator, for a bit-exact resume; None where the CPU's generator is used."""
        return None

    def set_rng_state(self, state: Tensor | None) -> None:
        pass

    def exhausted(self, error: BaseException) -> bool:
        """Whether ``error`` says that this device ran out of memory."""
        return "out of memory" in str(error).lower()


@cache
def _table(path: str) -> OperatorTable:
    from pathlib import Path

    return OperatorTable.load(Path(path))
