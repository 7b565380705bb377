"""An inventory for a terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from anyolo.audit.rows import Row, by_finding, calls, finding, number_of, place

PLACES = 12
"""Lines of the program shown for one operator; the others are counted."""
TITLES = {
    "unsupported": "UNSUPPORTED: the backend refuses these, or computes them wrongly",
    "fallback": "ON THE CPU INSTEAD: the tensors travel there and back at every call",
    "unknown": "NOT KNOWN: no list that was published has them",
}


def text_of(summary: str, rows: Sequence[Row], facts: str, width: int) -> str:
    """What is refused or falls back with all its lines of the program, the rest counted."""
    lines = textwrap.wrap(summary, width)
    for verdict, title in TITLES.items():
        found = [row for row in rows if row.verdict == verdict]
        if found:
            lines += ["", title, *(_names(found, width) if verdict == "unknown" else _findings(found, width))]
    native = [row for row in rows if row.verdict == "native"]
    lines += ["", *_wrapped(f"native: {_phases(native)}", width), *_wrapped(f"facts: {facts}", width)]
    return "\n".join(lines)


def _findings(rows: Sequence[Row], width: int) -> Iterator[str]:
    for (op, message, source), group in groupby(by_finding(rows), key=finding):
        found = list(group)
        yield f"  {op}".ljust(width - 16) + number_of(calls(found), "call").rjust(16)
        yield from textwrap.wrap(message, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
        if source.startswith("http"):
            yield f"      {source}"
        for row in found[:PLACES]:
            part = f"  (of {row.within})" if row.within else ""
            yield f"   {row.count:>6,}  {row.phase:<9}  {place(row.where) or '(no line of the program)'}{part}"
        if rest := found[PLACES:]:
            yield f"   {calls(rest):>6,}  in {number_of(len(rest), 'more place')}"


def _names(rows: Sequence[Row], width: int) -> list[str]:
    """Names and counts: where nothing is known of a whole backend, lines would say nothing."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row.op.removeprefix("aten::")] += row.count
    listed = ", ".join(f"{name} {number:,}" for name, number in counts.most_common())
    return _wrapped(f"  {listed}", width)


def _phases(rows: Sequence[Row]) -> str:
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row.phase] += row.count
    return ", ".join(f"{phase} {number:,}" for phase, number in counts.items()) or "nothing"


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
