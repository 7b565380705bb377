"""An inventory for a terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from anyolo.audit.rows import Row, calls, findings, number_of, place

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
    for found in findings(rows):
        counts: Counter[tuple[str, str, str]] = Counter()
        operators = Counter({row.op: 0 for row in found})
        for row in found:
            counts[row.phase, row.where, row.within] += row.count
            operators[row.op] += row.count
        yield _title([name for name, _ in operators.most_common()], calls(found), width)
        yield from textwrap.wrap(found[0].message, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
        if found[0].source.startswith("http"):
            yield f"      {found[0].source}"
        places = counts.most_common()
        for (phase, where, within), number in places[:PLACES]:
            part = f"  (of {within})" if within else ""
            yield f"   {number:>6,}  {phase:<9}  {place(where) or '(no line of the program)'}{part}"
        if rest := places[PLACES:]:
            yield f"   {sum(number for _, number in rest):>6,}  in {number_of(len(rest), 'more place')}"


def _title(operators: Sequence[str], count: int, width: int) -> str:
    """As many names as there is room for, and the calls of all."""
    end = number_of(count, "call").rjust(14)
    shown = len(operators)
    while True:
        more = f" and {len(operators) - shown} more" if shown < len(operators) else ""
        start = f"  {', '.join(operators[:shown])}{more}"
        if len(start) + len(end) <= width or shown == 1:
            return start.ljust(width - len(end)) + end
        shown -= 1


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
