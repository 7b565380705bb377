"""Every operator that a piece of work calls, and what a backend would do with each: on a plain CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from anyolo.audit.page import page_of
from anyolo.audit.rows import PHASES, SEVERITY, Row, calls, number_of
from anyolo.audit.words import text_of
from anyolo.devices import emulate
from anyolo.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from anyolo.devices import EmulatedDevice


WORDS = {
    "unsupported": "unsupported",
    "fallback": "on the CPU instead",
    "unknown": "not known",
    "native": "native",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """``rows`` worst first. ``facts`` says where the backend's list of operators comes from."""

    backend: str
    job: str
    facts: str
    rows: tuple[Row, ...]

    def count(self, verdict: str) -> int:
        """Calls with this verdict."""
        return calls(row for row in self.rows if row.verdict == verdict)

    def operators(self, verdict: str) -> int:
        """Different operators with this verdict."""
        return len({row.op for row in self.rows if row.verdict == verdict})

    @property
    def unsupported(self) -> int:
        """Calls that the backend refuses or computes wrongly."""
        return self.count("unsupported")

    @property
    def fallback(self) -> int:
        """Calls that the backend sends to the CPU and back."""
        return self.count("fallback")

    @property
    def ok(self) -> bool:
        return self.unsupported == 0

    def summary(self) -> str:
        """One sentence."""
        parts = []
        for verdict, words in WORDS.items():
            if self.count(verdict):
                operators, count = self.operators(verdict), self.count(verdict)
                parts.append(f"{number_of(operators, 'operator')} {words} ({number_of(count, 'call')})")
            elif verdict in {"unsupported", "fallback"}:
                parts.append(f"nothing {words}")
        return f"{self.job} under the rules of {self.backend}: {', '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        return {
            "backend": self.backend,
            "job": self.job,
            "torch": torch.__version__,
            "facts": self.facts,
            "ops": [asdict(row) for row in self.rows],
            **{verdict: self.count(verdict) for verdict in SEVERITY},
        }

    def text(self, width: int = 100) -> str:
        """The inventory for a terminal: what is wrong with all its lines, what is native in one."""
        return text_of(self.summary(), self.rows, self.facts, width)

    def html(self) -> str:
        """The inventory as one page that needs nothing beside it."""
        return page_of(self.summary(), self.rows, self.facts)

    def __str__(self) -> str:
        return self.text()


def audit(
    step_fn: Callable[[], object], *, backend: str, phases: Collection[str] = PHASES, job: str = ""
) -> Audit:
    """Run ``step_fn`` once on the CPU and list what ``backend`` would do with every operator it calls.

    Anybody's code will do; its results are to the bit what they are without. Where the code does not say
    what it does (``Device.region``), the phase is ``backward`` inside autograd, ``optimizer`` inside
    torch.optim, ``forward`` inside a module, else ``other``; what torch's data loaders do is host work and
    left out. Operators outside ``phases`` are left out too. Worker processes are not seen.

    Raises:
        UnknownName: a backend nobody knows the operators of, or an unknown phase.
        Anything that ``step_fn`` raises itself.
    """
    if not callable(step_fn):
        raise ConfigError(
            f"step_fn is a {type(step_fn).__name__}, not a function",
            where="audit",
            hint="Give the work itself, not its result: audit(lambda: step(batch), backend=...).",
        )
    for phase in phases:
        if phase not in PHASES:
            raise UnknownName("phase", phase, PHASES, where="phases")
    device = emulated(backend)
    with recording(), device.emulation:
        step_fn()
    return inventory(device, job=job or getattr(step_fn, "__qualname__", "the step"), phases=phases)


def emulated(backend: str) -> EmulatedDevice:
    """The CPU under the rules of ``backend``, writing down every call. Raises UnknownName."""
    try:
        return emulate(backend, record=True)
    except UnknownName as unknown:
        unknown.where = "backend"
        raise


@contextmanager
def recording() -> Iterator[None]:
    """Work inside remembers for every step of the backward pass the line of the forward that asked for it."""
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        yield


def inventory(device: EmulatedDevice, *, job: str, phases: Collection[str] = PHASES) -> Audit:
    """What ``device``, opened with ``record=True``, has seen since it was opened."""
    counts: Counter[Row] = Counter()
    for call, number in device.emulation.calls.items():
        if call.phase in phases:
            row = Row(
                op=call.op,
                count=0,
                phase=call.phase,
                verdict=call.verdict,
                where=call.where,
                within=call.within,
                message=call.message,
                source=call.source,
            )
            counts[row] += number
    rows = [Row(**{**asdict(row), "count": number}) for row, number in counts.items()]
    rows.sort(key=lambda row: (SEVERITY.index(row.verdict), row.op, PHASES.index(row.phase), row.where))
    return Audit(
        backend=device.backend.profile.name,
        job=job,
        facts=device.emulation.table.source,
        rows=tuple(rows),
    )
