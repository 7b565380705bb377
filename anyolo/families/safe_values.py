"""What a file can make of us and at what cost: inert values, and limits to memory, time and nesting.

An attack that costs time is paid for in bytes here as well, so that there is one allowance to reason about.
None of the limits grows with what a file claims, only with how long it is.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from anyolo.errors import CheckpointError

MAX_OPERATIONS = 1_200_000
MAX_NESTING = 256
MAX_NUMBER_BYTES = 256  # of one integer in a pickle; longer ones make arithmetic and printing slow
MAX_KEY = 512  # letters of a dictionary key or a name: equal ones are compared to the end
MAX_PARTS = 4  # of a tuple that is a key
ALLOWANCE_BYTES = 256 << 20
ITEM_BYTES = 256  # what copying an entry or passing an argument costs
SET_BYTES = 1024  # and making a set
TENSOR_BYTES = 4096  # and making a tensor
ODD_KEY_BYTES = 64 << 10  # and a key whose hash a file can choose: n of equal hash take n**2 comparisons


class Budget:
    """What a file of this length may make us do: pickle operations, bytes of objects and of views.

    All three cost next to nothing in the file. The longest pickle among known files is YOLOv9-t's, with
    190,000 operations in 8 MB, and real files hardly look at a tensor twice.
    """

    def __init__(self, file_bytes: int) -> None:
        self.operations = min(400_000 + file_bytes // 16, MAX_OPERATIONS)
        self._object_bytes = ALLOWANCE_BYTES
        self._view_bytes = 4 * file_bytes + ALLOWANCE_BYTES

    def spend(self, size_bytes: int) -> None:
        """For objects and for time."""
        self._object_bytes -= size_bytes
        if self._object_bytes < 0:
            raise CheckpointError("this file makes far more of its data than weights need")

    def view(self, size_bytes: int) -> None:
        """For the numbers a tensor shows, which whoever uses it copies."""
        self._view_bytes -= size_bytes
        if self._view_bytes < 0:
            raise CheckpointError("this file describes far more data than it holds")


Constructor: TypeAlias = Callable[[tuple[Any, ...], Budget], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A name in a pickle. ``make`` is our own constructor for it, None for a name that can only be a stub."""

    name: str
    make: Constructor | None = None


class Stub:
    """An object of a class nobody imported: its name, constructor arguments, state and items, all inert."""

    __slots__ = ("args", "entries", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...] = (), state: Any = None) -> None:
        self.name = name
        self.args = args
        self.state = state
        self.entries: dict[Any, Any] | list[Any] | None = None

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What would have been its ``__dict__`` (and slots: a pair of dicts); empty for any other state."""
        if isinstance(self.state, dict):
            return self.state
        parts = self.state if isinstance(self.state, tuple) and len(self.state) == 2 else ()
        return ChainMap(*(part for part in parts if isinstance(part, dict)))


SCALARS = (str, int, float, bool, bytes, complex, type(None), Global)
_CONTAINERS = frozenset({dict, list, tuple, set, Stub})


def shown(value: object) -> str:
    """Something of a file made fit for a message: printable ASCII, short.

    Of a container only the type: one that holds the same twice, sixty times over, has no end.
    """
    if isinstance(value, str | bytes):
        value = value[:400]
    elif not isinstance(value, (*SCALARS, BaseException)):
        value = f"<{type(value).__name__}>"
    text = re.sub(r"[^ -~]", "?", str(value)[:400])
    return text if len(text) <= 120 else text[:117] + "..."


def check_key(key: Any, budget: Budget) -> None:
    """Keys are short text, counting numbers, a few other scalars or flat tuples of them.

    Hashing anything else, or many of equal hash, could be made to take for ever.
    """
    kind = type(key)
    if kind is int and 0 <= key < 1 << 20:
        return
    if kind is not str:
        budget.spend(ODD_KEY_BYTES)
    parts = key if kind is tuple and len(key) <= MAX_PARTS else (key,)
    for part in parts:
        if not isinstance(part, SCALARS):
            raise CheckpointError(f"a {type(part).__name__} is used as a dictionary key")
        if isinstance(part, str | bytes) and len(part) > MAX_KEY:
            raise CheckpointError(f"a dictionary key of {len(part)} letters")


def check_nesting(value: Any) -> None:
    """CheckpointError if containers lie deeper than ``MAX_NESTING`` on the shortest ways to them."""
    seen: set[int] = set()
    level = [value]
    for _ in range(MAX_NESTING):
        inside: list[Any] = []
        for item in level:
            kind = type(item)
            if kind in _CONTAINERS and id(item) not in seen:
                seen.add(id(item))
                if kind is dict:
                    inside.extend(item.values())
                elif kind is Stub:
                    inside += (item.args, item.state, item.entries)
                else:
                    inside.extend(item)
        level = inside
        if not level:
            return
    raise CheckpointError(f"nested deeper than {MAX_NESTING}")
