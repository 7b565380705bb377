"""DOOR: the only room that knows vendors.

``open_device("auto")`` gives a ``Device`` that answers everything the other rooms ask; adding a backend is
one file and one line of ``DEVICES`` (or an entry point of the group ``anyolo.devices``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyolo.devices.base import Device, DeviceProfile, Memory
from anyolo.devices.names import IDLEST, DeviceName, parse
from anyolo.errors import ConfigError, DeviceError
from anyolo.registry import Registry

if TYPE_CHECKING:
    from anyolo.devices.emulation import EmulatedDevice

DEVICES: Registry[type[Device]] = Registry(
    "device",
    {
        "cpu": "anyolo.devices.cpu:CPU",
        "cuda": "anyolo.devices.cuda:CUDA",
        "mps": "anyolo.devices.mps:MPS",
        "xpu": "anyolo.devices.xpu:XPU",
        "npu": "anyolo.devices.npu:NPU",
        "mlu": "anyolo.devices.mlu:MLU",
        "directml": "anyolo.devices.directml:DirectML",
        "mlu270": "anyolo.devices.mlu270:MLU270",
        "catch16": "anyolo.devices.catch16:CATCH16",
    },
    aliases={"gpu": "cuda", "rocm": "cuda", "dml": "directml", "privateuseone": "directml"},
    group="anyolo.devices",
)

__all__ = ["DEVICES", "Device", "DeviceProfile", "Memory", "available", "emulate", "open_device"]


def open_device(name: str = "auto", *, threads: int = 0, strict: bool = False) -> Device:
    """Open what ``names.parse`` understands: ``cpu``, ``cuda:1``, ``0``, ``-1``, ``auto``, ``emulate:mlu``.

    Raises UnknownName for a word nobody knows, DeviceError for a device that is not here (what is missing,
    what to install, what there is). ``strict``: an emulated device raises where the card would fall back.
    """
    wanted = parse(name)
    if wanted.is_emulated:
        return emulate(wanted.backend, threads=threads, strict=strict)
    kind = _backend(wanted, name)
    if len(wanted.indices) > 1:
        raise DeviceError(
            f"{name!r} names {len(wanted.indices)} devices: this version of anyolo uses one",
            hint=f"Use device={kind.profile.name}:{wanted.indices[0]}.",
        )
    index = wanted.indices[0] if wanted.indices else 0
    if index == IDLEST:
        index = _idlest(kind)
    elif kind is not DEVICES.get("cpu") and index >= kind.count():
        here = ", ".join(f"{kind.profile.name}:{number}" for number in range(kind.count()))
        raise DeviceError(f"there is no {kind.profile.name}:{index}", hint=f"Devices here: {here}.")
    return kind(index, threads=threads)


def emulate(name: str, *, threads: int = 0, strict: bool = False, record: bool = False) -> EmulatedDevice:
    """The CPU under the rules of a backend. ``record``: list what the backend would refuse, with the lines,
    and go on. Raises ConfigError where nothing is known of its operators.
    """
    from anyolo.devices.emulation import EmulatedDevice

    kind = DEVICES.get(name) if name else None
    if kind is None or kind.operators() is None:
        known = ", ".join(f"emulate:{own}" for own in DEVICES if DEVICES.get(own).operators() is not None)
        raise ConfigError(f"{name!r} cannot be emulated", where="device", hint=f"There are {known}.")
    return EmulatedDevice(kind, threads=threads, strict=strict, record=record)


def available() -> tuple[str, ...]:
    """Names of the backends that can be used here."""
    return tuple(name for name in DEVICES if DEVICES.get(name).unavailable() is None)


def _backend(wanted: DeviceName, typed: str) -> type[Device]:
    if wanted.backend:
        kind = DEVICES.get(wanted.backend)
        if reason := kind.unavailable():
            raise DeviceError(f"device {typed!r} is not available: {reason}", hint=_advice(kind.profile))
        return kind
    for name in (name for name in DEVICES if name != "cpu"):
        kind = DEVICES.get(name)
        # a plug-in that may crash is not asked before its package is there
        if kind.unavailable() is None:
            return kind
    if wanted.indices:
        raise DeviceError(
            f"device {typed!r} means an accelerator, and there is none here",
            hint="Use device=cpu; anyolo devices says what every backend lacks.",
        )
    return DEVICES.get("cpu")


def _advice(profile: DeviceProfile) -> str:
    needs = f"It needs {profile.install}. " if profile.install else ""
    return f"{needs}Here you can use: {', '.join(f'device={name}' for name in available())}."


def _idlest(kind: type[Device]) -> int:
    """The device with most free memory."""

    def free(index: int) -> Any:
        memory = kind(index).memory()
        return memory.total_bytes - memory.used_bytes if memory else 0

    return max(range(kind.count()), key=free)
