"""DOOR: the only room that knows vendors.

``open_device("auto")`` gives a ``Device`` that answers everything the other rooms ask; adding a backend is
one file and one line of ``DEVICES`` (or an entry point of the group ``anyolo.devices``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from anyolo.devices.base import Device, DeviceProfile, Memory, Peak
from anyolo.devices.names import IDLEST, DeviceName, parse, shares
from anyolo.devices.operators import OperatorTable
from anyolo.devices.scaling import Scaler
from anyolo.errors import ConfigError, DeviceError, UnknownName
from anyolo.registry import Registry

if TYPE_CHECKING:
    from anyolo.devices.emulation import EmulatedDevice as EmulatedDevice

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
        "other": "anyolo.devices.other:Other",
    },
    aliases={"gpu": "cuda", "rocm": "cuda", "dml": "directml", "privateuseone": "directml"},
    group="anyolo.devices",
)

__all__ = [
    "DEVICES",
    "Backend",
    "Device",
    "DeviceProfile",
    "Memory",
    "OperatorTable",
    "Peak",
    "Scaler",
    "available",
    "emulate",
    "look_at",
    "named_backend",
    "open_device",
    "several",
    "survey",
]


class Backend(NamedTuple):
    """One name of ``DEVICES``: its class (None where its package cannot be imported), and why it cannot be
    used here, "" when it can.
    """

    name: str
    kind: type[Device] | None
    problem: str = ""


def open_device(
    name: str = "auto", *, threads: int = 0, strict: bool = False, batch: int = 0, process: int | None = None
) -> Device:
    """Open what ``names.parse`` understands: ``cpu``, ``cuda:1``, ``0``, ``-1``, ``auto``, ``emulate:mlu``.

    ``strict``: an emulated device raises where the card would fall back. ``batch``: pictures that several
    devices would have to share. ``process``: the number of this process on its machine where each of several
    has a device of its own. Raises UnknownName for a word nobody knows, ConfigError for numbers that make
    no sense, DeviceError for a device that is not here (what is missing, what to install, what there is).
    """
    wanted = parse(name)
    if wanted.is_emulated:
        return emulate(wanted.backend, threads=threads, strict=strict)
    if len(wanted.indices) > 1 and batch:
        shares(batch, len(wanted.indices))
    kind = _backend(wanted, name)
    if process is not None:
        return _own(kind, wanted, process, threads=threads)
    for index in wanted.indices:
        _check(kind, index)
    if len(wanted.indices) > 1:
        raise DeviceError(
            f"{name!r} names {len(wanted.indices)} devices: only training uses several",
            where="device",
            hint=f"Use device={kind.profile.name}:{wanted.indices[0]}.",
        )
    index = wanted.indices[0] if wanted.indices else 0
    return kind(_idlest(kind) if index == IDLEST else index, threads=threads)


def emulate(name: str, *, threads: int = 0, strict: bool = False, record: bool = False) -> EmulatedDevice:
    """The CPU under the rules of a backend. ``record``: list what the backend would refuse, with the lines,
    and go on. Raises UnknownName where nothing is known of its operators.
    """
    from anyolo.devices.emulation import EmulatedDevice as EmulatedDevice

    known = [
        own.name for own in survey(ask=False) if own.kind is not None and own.kind.operators() is not None
    ]
    if name not in DEVICES or DEVICES.resolve(name) not in known:
        raise UnknownName("backend to emulate", name, known, where="device")
    return EmulatedDevice(DEVICES.get(name), threads=threads, strict=strict, record=record)


def survey(*, ask: bool = True) -> list[Backend]:
    """Every backend; ``ask`` each whether it can be used here."""
    return [look_at(name, ask=ask) for name in DEVICES]


def look_at(name: str, *, ask: bool = True) -> Backend:
    """One backend. A package of third parties that cannot be imported spoils nothing but its own line."""
    own = DEVICES.resolve(name)
    try:
        kind = DEVICES.get(own)
        return Backend(own, kind, (ask and kind.unavailable()) or "")
    except Exception as error:
        return Backend(own, None, f"its package fails here: {type(error).__name__}: {error}")


def named_backend(typed: str) -> str:
    """The name in ``DEVICES`` of what ``cuda:1``, ``dml`` or ``emulate:mlu`` speak of.

    Raises UnknownName for a word nobody knows, ConfigError for what names no backend (``0``, ``auto``).
    """
    name = parse(typed).backend
    if not name:
        raise ConfigError(f"{typed!r} names no backend", where="device", hint="For example device=directml.")
    if name not in DEVICES:
        raise _unknown(name)
    return DEVICES.resolve(name)


def several(name: str, *, batch: int = 0) -> int:
    """How many processes training on ``name`` takes, one for each device. Raises as ``open_device``."""
    wanted = parse(name)
    if wanted.is_emulated or len(wanted.indices) < 2:
        return 1
    if batch:
        shares(batch, len(wanted.indices))
    kind = _backend(wanted, name)
    for index in wanted.indices if kind is not DEVICES.get("cpu") else ():
        _check(kind, index)
    return len(wanted.indices)


def available() -> tuple[str, ...]:
    """Names of the backends that can be used here."""
    return tuple(backend.name for backend in survey() if not backend.problem)


def _backend(wanted: DeviceName, typed: str) -> type[Device]:
    if wanted.backend:
        return _named(wanted.backend, typed)
    for name in DEVICES:
        backend = look_at(name) if name != "cpu" else Backend(name, None)
        if backend.kind is not None and not backend.problem:
            return backend.kind
    if wanted.indices:
        raise DeviceError(
            f"{typed!r} means an accelerator, and there is none here",
            where="device",
            hint="Here you can use device=cpu. What each accelerator needs is listed by: anyolo devices",
        )
    return DEVICES.get("cpu")


def _named(name: str, typed: str) -> type[Device]:
    if name not in DEVICES:
        other = look_at("other").kind
        if other is not None and name == other.profile.torch_type:
            return other
        raise _unknown(name)
    backend = look_at(name)
    if backend.kind is None or backend.problem:
        advice = backend.kind.advice() if backend.kind is not None else ""
        raise DeviceError(
            f"{typed!r} is not available: {backend.problem}",
            where="device",
            hint=f"What it takes: {advice}. {_usable()}" if advice else _usable(),
        )
    return backend.kind


def _own(kind: type[Device], wanted: DeviceName, process: int, *, threads: int) -> Device:
    """Of several processes on a machine each has the next of the devices named, or of all there are."""
    if kind is DEVICES.get("cpu"):
        return kind(threads=threads)
    named = wanted.indices if len(wanted.indices) > 1 else range(kind.count())
    if process >= len(named):
        raise DeviceError(
            f"process {process} has no {kind.profile.name} device of its own: there are {len(named)}",
            where="device",
            hint=f"Start at most {len(named)} processes on this machine.",
        )
    _check(kind, named[process])
    return kind(named[process], threads=threads)


def _unknown(name: str) -> UnknownName:
    error = UnknownName("device", name, DEVICES.spellings(), where="device")
    error.hint += f" {_usable()}"
    return error


def _usable() -> str:
    return f"Here you can use: {', '.join(f'device={name}' for name in available())}."


def _check(kind: type[Device], index: int) -> None:
    if index >= kind.count():
        name = kind.profile.name
        here = ", ".join(f"device={name}:{number}" for number in range(kind.count()))
        raise DeviceError(f"there is no {name}:{index}", where="device", hint=f"Here you can use: {here}.")


def _idlest(kind: type[Device]) -> int:
    """The device with most free memory; the first where nobody tells."""

    def free(index: int) -> int:
        memory = kind(index).memory()
        return memory.free_bytes if memory else 0

    return max(range(kind.count()), key=free)
