"""What people type for a device, taken apart."""

from __future__ import annotations

from typing import NamedTuple

from anyolo.errors import ConfigError

EMULATE = "emulate"
IDLEST = -1


class DeviceName(NamedTuple):
    """``backend`` "" means whichever accelerator is here; ``indices`` empty means the first, ``IDLEST``
    the one with most free memory.
    """

    backend: str
    indices: tuple[int, ...] = ()
    is_emulated: bool = False


def parse(text: str) -> DeviceName:
    """``cpu``, ``cuda:1``, ``0``, ``0,1``, ``cuda:0,1``, ``npu:0,npu:1``, ``-1``, ``auto``, ``emulate:NAME``.

    Raises ConfigError for numbers that make no sense; whether the backend exists is not asked here.
    """
    plain = text.strip().lower()
    head, _, rest = plain.partition(":")
    if head == EMULATE:
        return DeviceName(rest, (), True)
    if plain in {"", "auto"}:
        return DeviceName("")
    if plain == str(IDLEST):
        return DeviceName("", (IDLEST,))
    backend, indices = "", []
    for part in (part.strip() for part in plain.split(",") if part.strip()):
        name, colon, number = part.partition(":")
        if not colon and name.lstrip("-").isdigit():
            name, number = backend, name
        if backend and name != backend:
            raise ConfigError(
                f"{text!r} mixes {backend} and {name}", where="device", hint="Name devices of one backend."
            )
        backend = name
        if number:
            indices.append(_index(number, text))
    if len(set(indices)) != len(indices):
        raise ConfigError(f"{text!r} names a device twice", where="device")
    return DeviceName(backend, tuple(indices))


def _index(number: str, text: str) -> int:
    if number.isdigit() or number == str(IDLEST):
        return int(number)
    raise ConfigError(
        f"{number!r} in {text!r} is no device number", where="device", hint="For example device=cuda:1."
    )


def shares(batch: int, devices: int) -> int:
    """Pictures per device. Raises ConfigError with the two nearest sizes where it does not come out even."""
    if batch % devices == 0:
        return batch // devices
    lower, upper = batch // devices * devices, (batch // devices + 1) * devices
    sizes = f"batch={lower} or batch={upper}" if lower else f"batch={upper}"
    raise ConfigError(
        f"a batch of {batch} does not divide among {devices} devices", where="batch", hint=f"Use {sizes}."
    )
