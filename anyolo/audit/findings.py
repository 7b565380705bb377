"""What an examination found: one line for people, one object for programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``id`` is stable (``operator.wrong``), ``where`` names the operator, layer or part of the machine, and
    ``message`` says what was seen and what to do.
    """

    id: str
    severity: Severity
    where: str
    message: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first; the order within a severity stays."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
