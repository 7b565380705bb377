"""The report of an examination: tables for the terminal, one Markdown file to attach to an issue."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from anyolo.audit.compare_network import Measure
from anyolo.audit.compare_operators import Outcome
from anyolo.audit.doctor import Diagnosis
from anyolo.audit.numerics import SHORT_MANTISSA, TOLERANCES, type_name

Row = Sequence[object]
WORST_TENSORS = 12
MAIN_FACTS = {
    *("device", "processor", "device memory", "torch", "python", "system", "cores", "threads"),
    *("vector units", "half precision", "memory", "/dev/shm", "free disk"),
}

OPERATOR_COLUMNS = (
    "operators",
    "tests",
    "right",
    "inexact",
    "wrong",
    "refused",
    "furthest off",
    "by",
    "allowed",
)
NETWORK_COLUMNS = ("network", "type", "off by", "allowed", "", "worst")
FINDING_COLUMNS = ("", "finding", "where", "what to know and do")


def operator_rows(diagnosis: Diagnosis) -> list[Row]:
    rows: list[Row] = []
    for dtype, tests, verdicts, worst in diagnosis.operator_rows():
        shown = (
            ("", "", "") if worst is None else (worst.case.operator, share(worst.error), share(worst.allowed))
        )
        counts = (verdicts[verdict] for verdict in ("right", "inexact", "wrong", "raised"))
        rows.append((dtype, tests, *counts, *shown))
    return rows


def network_rows(diagnosis: Diagnosis) -> list[Row]:
    return [
        (
            measure.stage,
            type_name(measure.dtype),
            share(measure.error) + measure.unit,
            share(measure.allowed) + measure.unit if math.isfinite(measure.allowed) else "?",
            verdict(measure),
            measure.worst,
        )
        for measure in diagnosis.network.measures
    ]


def speed_rows(diagnosis: Diagnosis) -> list[Row]:
    return [
        (
            timing.name,
            "refused" if timing.device_ms is None else f"{timing.device_ms:.3g}",
            f"{timing.host_ms:.3g}",
            "" if timing.ratio is None else f"{timing.ratio:.2f}",
        )
        for timing in diagnosis.timings
    ]


def verdict(measure: Measure) -> str:
    if not math.isfinite(measure.allowed):
        return "not judged"
    return "right" if measure.is_right else "WRONG"


def share(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.1e}" if math.isfinite(value) else "infinite"


def findings_text(diagnosis: Diagnosis, width: int) -> str:
    """Every finding with its place on one line and its message, wrapped, beneath."""
    lines: list[str] = []
    for finding in diagnosis.findings:
        lines.append(f"{finding.severity.upper():9}{finding.where}")
        lines += textwrap.wrap(finding.message, width, initial_indent=" " * 9, subsequent_indent=" " * 9)
    return "\n".join(lines)


def main_facts(diagnosis: Diagnosis) -> list[Row]:
    return [(name, value) for name, value in diagnosis.facts.items() if name in MAIN_FACTS]


def summary(diagnosis: Diagnosis) -> str:
    """One sentence."""
    errors, warnings = diagnosis.count("error"), diagnosis.count("warning")
    if diagnosis.stage:
        return f"UNFINISHED: the process ended during {diagnosis.stage}"
    if not errors:
        tests = len(diagnosis.outcomes) + len(diagnosis.network.measures)
        return f"no errors in {tests} comparisons, {_count(warnings, 'warning')}"
    return f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def markdown(diagnosis: Diagnosis, *, command: str, date: str) -> str:
    """Everything, with the user's home folder taken out; of an examination that still runs, the machine and
    what runs.
    """
    head = [f"# anyolo doctor: {diagnosis.device}", f"{date}, `{command}`: **{summary(diagnosis)}**"]
    if diagnosis.stage:
        return _joined([*head, "## Machine", _table(("", ""), list(diagnosis.facts.items()))])
    parts = [
        *head,
        "## Findings",
        _table(FINDING_COLUMNS, [(f.severity, f.id, f.where, f.message) for f in diagnosis.findings])
        or "Nothing to say.",
        "## Machine",
        _table(("", ""), list(diagnosis.facts.items())),
        "## Operators",
        _operator_text(),
        _table(OPERATOR_COLUMNS, operator_rows(diagnosis)),
        _table(
            ("test", "type", "verdict", "off by", "the CPU's float32", "allowed", ""),
            [_outcome_row(o) for o in diagnosis.outcomes if o.verdict != "right"],
        ),
        "## Network",
        _network_text(),
        _table(NETWORK_COLUMNS, network_rows(diagnosis)),
        *_gradient_tables(diagnosis),
        "## Speed",
        _table(("passes of the network", "device s", "the CPU s"), _pass_rows(diagnosis)),
        _table(("at 640 x 640", "device ms", f"{diagnosis.rival} ms", "ratio"), speed_rows(diagnosis))
        or "Not measured: an emulated device has no speed, and one thread nothing to be compared with.",
        "## What the device says of all these tests" if diagnosis.remarks else "",
        "\n".join(f"    {line}" for line in diagnosis.remarks),
        "## Every operator test",
        "<details><summary>all</summary>\n",
        _table(
            ("test", "type", "verdict", "off by", "the CPU's float32", "allowed", ""),
            [_outcome_row(o) for o in diagnosis.outcomes],
        ),
        "</details>",
    ]
    return _joined(parts)


def _joined(parts: Sequence[str]) -> str:
    text = "\n\n".join(part for part in parts if part)
    home = str(Path.home())
    return (text.replace(home, "~") if len(home) > 1 else text) + "\n"


def _operator_text() -> str:
    lines = [
        "Each operator runs on the device and, in float64, on the CPU; results and gradients are compared. "
        "Off by: the largest difference as a share of the largest value.",
        *(
            f"- {type_name(dtype)}: {tolerance.operator:.0e} is allowed ({tolerance.reason})"
            for dtype, tolerance in TOLERANCES.items()
        ),
        "- a few times the CPU's own error in float32, where that is more",
        f"- up to {SHORT_MANTISSA:.0e} float32 counts as inexact: factors rounded to 11 bits, or the like",
    ]
    return "\n".join(lines)


def _network_text() -> str:
    floors = ", ".join(
        f"{t.network:.0e} in {type_name(d)} (gradients {t.gradient:.0e})" for d, t in TOLERANCES.items()
    )
    return (
        "The truth is the same network in float64. Allowed is a multiple of what the CPU is off in the "
        f"same number type, at least {floors}. Tensors (gradients, updates) by the norm of the difference, "
        "maps by the largest difference. Gradients of untrained networks are mostly rounding error in half "
        "precision: give your own weights (model=best.pt) for a sharper test of it."
    )


def _outcome_row(outcome: Outcome) -> Row:
    return (
        outcome.case.name,
        type_name(outcome.dtype),
        outcome.verdict,
        share(outcome.error),
        share(outcome.host_error),
        share(outcome.allowed),
        " ".join(filter(None, (outcome.detail, *outcome.heard, outcome.foreseen))),
    )


def _gradient_tables(diagnosis: Diagnosis) -> Iterable[str]:
    for dtype, rows in diagnosis.network.gradients.items():
        ranked = sorted(rows.items(), key=lambda item: -item[1][0] / (item[1][1] or 1))[:WORST_TENSORS]
        shown = [(name, share(error), share(allowed)) for name, (error, allowed) in ranked]
        yield _table(
            (f"gradient, {dtype}: the {len(shown)} worst of {len(rows)}", "off by", "allowed"), shown
        )


def _pass_rows(diagnosis: Diagnosis) -> list[Row]:
    return [(name, f"{own:.3f}", f"{host:.3f}") for name, (own, host) in diagnosis.network.seconds.items()]


def _table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
