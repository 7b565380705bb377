"""DOOR: the only room that knows vendors.

``open_device("auto")`` gives a ``Device`` that answers everything the other rooms ask; adding a backend is
one file and one line of ``DEVICES``.
"""

from __future__ import annotations

from anyolo.devices.base import Device, DeviceProfile, Memory
from anyolo.registry import Registry

DEVICES: Registry[type[Device]] = Registry(
    "device",
    {
        "cpu": "anyolo.devices.cpu:CPU",
        "cuda": "anyolo.devices.cuda:CUDA",
    },
    aliases={"gpu": "cuda"},
    group="anyolo.devices",
)

__all__ = ["DEVICES", "Device", "DeviceProfile", "Memory", "open_device"]


def open_device(name: str = "auto", *, threads: int = 0) -> Device:
    """Open ``cpu``, ``cuda``, ``cuda:1``, ``0`` (an accelerator's number) or ``auto`` (the best that is
    here).

    Raises UnknownName for a word nobody knows and DeviceError for a device that is not here.
    """
    text = name.strip().lower()
    if text in {"", "auto"}:
        for backend in (n for n in DEVICES if n != "cpu"):
            if DEVICES.get(backend).unavailable() is None:
                return DEVICES.get(backend)(0)
        text = "cpu"
    if text.isdigit():
        text = f"cuda:{text}"
    backend, _, index = text.partition(":")
    kind = DEVICES.get(backend)
    if reason := kind.unavailable():
        from anyolo.errors import DeviceError

        raise DeviceError(
            f"device {name!r} is not available: {reason}", hint="Use device=cpu or device=auto."
        )
    return kind(int(index) if index.isdigit() else 0, threads=threads)
