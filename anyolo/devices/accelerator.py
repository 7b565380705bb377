"""Verbs of backends whose module looks like ``torch.cuda``: what it lacks is left undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from anyolo.devices.base import Device
from anyolo.devices.host_memory import Memory, Peak


class Accelerator(Device):
    """Asks ``torch.<torch_type>``, which the backend or its plug-in (``profile.plugin``) brings."""

    @classmethod
    def module(cls) -> Any:
        """The backend's module of torch, or None; imports the plug-in where there is one."""
        if cls.profile.plugin and find_spec(cls.profile.plugin) is not None:
            import_module(cls.profile.plugin)
        return getattr(torch, cls.profile.torch_type, None)

    @classmethod
    def unavailable(cls) -> str | None:
        plugin = cls.profile.plugin
        if plugin and find_spec(plugin) is None:
            return f"the package {plugin} is not installed"
        try:
            module = cls.module()
            if module is None:
                return f"this torch ({torch.__version__}) has no {cls.profile.torch_type} backend"
            return None if module.is_available() else f"torch sees no {cls.profile.name} device, or no driver"
        except Exception as error:  # whatever a plug-in throws at import is the reason it is not here
            first = str(error).strip().partition("\n")[0]
            return f"{plugin or cls.profile.torch_type} fails here: {type(error).__name__}: {first}"

    @classmethod
    def count(cls) -> int:
        return int(cls.module().device_count())

    def hardware(self) -> str:
        return str(self._call("get_device_name", self.index) or "")

    def synchronize(self) -> None:
        self._call("synchronize", self.index)

    def memory(self) -> Memory | None:
        try:
            found = self._call("mem_get_info", self.index)
        except (RuntimeError, NotImplementedError):  # some drivers of Arc cards do not tell
            return None
        return Memory(*found) if found else None

    def held_bytes(self) -> int | None:
        held: int | None = self._call("memory_reserved", self.index)
        return held

    @contextmanager
    def watch_memory(self) -> Iterator[Peak]:
        """What torch's allocator took from the card: with what it keeps for later, and without libraries."""
        peak = Peak()
        self.synchronize()
        self._call("reset_peak_memory_stats", self.index)
        yield peak
        self.synchronize()
        peak.peak_bytes = self._call("max_memory_reserved", self.index)

    def empty_cache(self) -> None:
        self._call("empty_cache")

    def seed(self, seed: int) -> None:
        super().seed(seed)
        self._call("manual_seed_all", seed)

    def rng_state(self) -> Tensor | None:
        state: Tensor | None = self._call("get_rng_state", self.index)
        return state

    def set_rng_state(self, state: Tensor | None) -> None:
        if state is not None:
            self._call("set_rng_state", state, self.index)

    def _call(self, name: str, *arguments: Any) -> Any:
        function = getattr(self.module(), name, None)
        return function(*arguments) if function is not None else None
