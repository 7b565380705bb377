"""One line of an inventory."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass

PHASES = ("forward", "loss", "decode", "backward", "optimizer", "average", "other")
SEVERITY = ("unsupported", "fallback", "unknown", "native")
"""Verdicts, worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """``count`` calls of one operator from one line of the program.

    ``where`` is ``file:line`` outside torch; for the backward pass, the line of the forward that it belongs
    to. ``within`` is the operator that the program called, where torch makes this one of it. ``message`` is
    the backend's own text where it has one, ``source`` how that is known.
    """

    op: str
    count: int
    phase: str
    verdict: str
    where: str = ""
    within: str = ""
    message: str = ""
    source: str = ""


def calls(rows: Iterable[Row]) -> int:
    return sum(row.count for row in rows)


def findings(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows that the same thing is said of, together: what occurs most often first, also inside."""
    together: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        together.setdefault((row.message or row.op, row.source), []).append(row)
    for own in together.values():
        own.sort(key=lambda row: (-row.count, row.where))
    return sorted(together.values(), key=lambda own: (-calls(own), own[0].op))


def number_of(number: int, thing: str) -> str:
    """``1 call``, ``1,200 calls``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def place(where: str) -> str:
    """``file:line`` as short as it stays clear: from the working folder, or from the installed packages."""
    for root in (os.getcwd(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        if where.startswith(root + os.sep):
            return where[len(root) + 1 :]
    return where
