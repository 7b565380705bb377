"""What people type for a device, taken apart."""

from __future__ import annotations

import re
from typing import NamedTuple

from anyolo.errors import ConfigError

EMULATE = "emulate"
IDLEST = -1

_NUMBER = re.compile(r"-?[0-9]+")


class DeviceName(NamedTuple):
    """``backend`` "" means whichever accelerator is here; ``indices`` empty means the first, ``IDLEST``
    the one with most free memory.
    """

    backend: str
    indices: tuple[int, ...] = ()
    is_emulated: bool = False


def parse(text: str) -> DeviceName:
    """``cpu``, ``cuda:1``, ``0``, ``0,1``, ``cuda:0,1``, ``npu:0,npu:1``, ``-1``, ``auto``, ``emulate:NAME``.

    Raises ConfigError for what makes no sense; whether the backend exists is not asked here.
    """
    plain = text.strip().strip("[]()").strip().lower()
    head, _, rest = plain.partition(":")
    if head == EMULATE:
        return DeviceName(rest.strip(), (), True)
    if plain in {"", "auto", "none"}:
        return DeviceName("")
    backend = ""
    indices: list[int] = []
    parts = [part.strip() for part in plain.split(",")]
    for part in parts:
        name, colon, number = (piece.strip() for piece in part.partition(":"))
        if _NUMBER.fullmatch(part):  # 0,1 or the 1 of cuda:0,1
            name, number = backend, part
        elif backend and name != backend:
            raise _nonsense(text, f"mixes {backend} and {name}", "Name devices of one backend.")
        elif indices and not backend:
            raise _nonsense(text, "names a backend behind a number", f"Put it first: device={name}:0,1.")
        backend = name
        if colon or number or len(parts) > 1:
            indices.append(_index(number, text))
    if len(set(indices)) != len(indices):
        raise _nonsense(text, "names a device twice", "Name each once.")
    if IDLEST in indices and len(indices) > 1:
        raise _nonsense(text, f"holds {IDLEST}, the idlest device", "It stands alone: device=-1.")
    return DeviceName(backend, tuple(indices))


def _index(number: str, text: str) -> int:
    if _NUMBER.fullmatch(number) and int(number) >= IDLEST:
        return int(number)
    raise _nonsense(text, f"has {number!r} for a device's number", "For example device=cuda:1 or device=0,1.")


def _nonsense(text: str, problem: str, hint: str) -> ConfigError:
    return ConfigError(f"{text!r} {problem}", where="device", hint=hint)


def shares(batch: int, devices: int) -> int:
    """Pictures per device. Raises ConfigError with the two nearest sizes where it does not come out even."""
    if batch % devices == 0:
        return batch // devices
    lower, upper = batch // devices * devices, (batch // devices + 1) * devices
    sizes = f"batch={lower} or batch={upper}" if lower else f"batch={upper}"
    raise ConfigError(
        f"a batch of {batch} does not divide among {devices} devices", where="batch", hint=f"Use {sizes}."
    )
