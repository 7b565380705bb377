"""The whole examination of one device and its machine, stage by stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from anyolo import console
from anyolo.audit.compare_network import NetworkComparison, NetworkReport
from anyolo.audit.compare_operators import (
    Announce,
    Outcome,
    Verdict,
    cases_for,
    compare_operators,
    operator_findings,
)
from anyolo.audit.findings import Finding, by_severity
from anyolo.audit.host import Host, one_thread
from anyolo.audit.machine import describe_machine, look_at_machine, machine_findings, size, versions
from anyolo.audit.numerics import type_name
from anyolo.audit.reference import Reference, Subject
from anyolo.audit.speed import JOBS, Timing, measure_speed
from anyolo.devices import Device, open_device
from anyolo.devices.base import Phase

SLOWED = 1.3
"""Several threads that take this many times as long as one stand in each other's way."""


@dataclass(slots=True)
class Diagnosis:
    """All that was seen. ``stage`` is what runs at this moment, empty when all is done: should the process
    die of a broken driver, the report on disk names the operator that killed it.
    """

    device: str
    facts: dict[str, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    network: NetworkReport = field(default_factory=NetworkReport)
    timings: list[Timing] = field(default_factory=list)
    rival: str = "the CPU"
    remarks: list[str] = field(default_factory=list)
    machine: list[Finding] = field(default_factory=list)
    stage: str = "starting"

    @property
    def findings(self) -> list[Finding]:
        found = [*operator_findings(self.outcomes), *self.network.findings, *self.machine]
        return by_severity(found)

    def count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def operator_rows(self) -> list[OperatorRow]:
        """One summary per number type."""
        rows = []
        for dtype in dict.fromkeys(outcome.dtype for outcome in self.outcomes):
            own = [outcome for outcome in self.outcomes if outcome.dtype == dtype]
            measured = [outcome for outcome in own if outcome.verdict != "raised"]
            worst = max(measured, key=lambda o: o.error / (o.allowed or 1), default=None)
            verdicts = Counter(outcome.verdict for outcome in own)
            rows.append(OperatorRow(type_name(dtype), len(own), verdicts, worst))
        return rows


class OperatorRow(NamedTuple):
    """How many tests ended how in one number type, and the one furthest from the truth."""

    dtype: str
    tests: int
    verdicts: Counter[Verdict]
    worst: Outcome | None


class Watcher(Protocol):
    """Told what is about to run, with all that was seen before."""

    def __call__(self, diagnosis: Diagnosis) -> None: ...


def examine(
    device: Device,
    subject: Subject,
    dtypes: Sequence[torch.dtype],
    *,
    runs: Path,
    watch: Watcher = lambda diagnosis: None,
) -> Diagnosis:
    """Machine, operators, network, speed. Whatever the device does is a finding, never an exception."""
    diagnosis = Diagnosis(device=device.describe())
    _examine_machine(diagnosis, device, runs)
    plan = [(dtype, cases_for(device, dtype)) for dtype in dtypes]
    with _announcing(diagnosis, watch, "operators", sum(len(cases) for _, cases in plan)) as announce:
        for dtype, cases in plan:
            for outcome in compare_operators(device, dtype, cases, announce):
                diagnosis.outcomes.append(outcome)
    rounds = any(o.verdict == "inexact" and o.case.multiplies for o in diagnosis.outcomes)
    with _announcing(diagnosis, watch, "network", None) as announce:
        reference = Reference(subject, has_one_thread=_is_processor(device))
        comparison = NetworkComparison(reference, device, announce, rounds_products=rounds)
        diagnosis.network = comparison.report
        comparison.run(dtypes)
    if not is_emulated(device) and (torch.get_num_threads() > 1 or not _is_processor(device)):
        with _announcing(diagnosis, watch, "speed", len(JOBS)) as announce:
            _examine_speed(diagnosis, device, announce)
    diagnosis.remarks = device.remarks()
    diagnosis.stage = ""
    watch(diagnosis)
    return diagnosis


def is_emulated(device: Device) -> bool:
    """The processor under another name: its speed says nothing."""
    return _is_processor(device) and device.profile.name != "cpu"


def _is_processor(device: Device) -> bool:
    return device.torch_device == Host().torch_device


def _examine_machine(diagnosis: Diagnosis, device: Device, runs: Path) -> None:
    processor = open_device("cpu")
    machine = look_at_machine(runs, tuple(type_name(t) for t in processor.profile.autocast_dtypes))
    diagnosis.machine = machine_findings(machine)
    memory = device.memory()
    own = {
        "device": diagnosis.device,
        **({"processor": processor.describe()} if not _is_processor(device) else {}),
        **(
            {"device memory": f"{size(memory.total_bytes)}, {size(memory.free_bytes)} free"} if memory else {}
        ),
        **device.versions(),
    }
    diagnosis.facts = {**own, **versions(), **describe_machine(machine)}


def _examine_speed(diagnosis: Diagnosis, device: Device, announce: Announce) -> None:
    is_processor = _is_processor(device)
    threads = torch.get_num_threads()
    diagnosis.rival = "1 thread" if is_processor else "the CPU"
    host = _SingleThreaded() if is_processor else Host()
    diagnosis.timings = list(measure_speed(device, host, announce))
    heavy = [t for t in diagnosis.timings if t.name in {"conv2d 3x3", "matmul 512"} and t.ratio is not None]
    if is_processor and threads > 1 and heavy and all(t.ratio > SLOWED for t in heavy if t.ratio):
        message = (
            f"{threads} threads take {min(t.ratio or 0 for t in heavy):.1f} times as long as one: other "
            "programs use the cores, or fewer are usable than the system says. Use threads=1 and compare."
        )
        diagnosis.machine.append(
            Finding(id="machine.threads.slow", severity="warning", where="threads", message=message)
        )


class _SingleThreaded(Host):
    """The plain CPU with one thread while it works."""

    def region(self, phase: Phase) -> AbstractContextManager[None]:
        return one_thread()


@contextmanager
def _announcing(diagnosis: Diagnosis, watch: Watcher, text: str, total: int | None) -> Iterator[Announce]:
    """A progress bar and the watcher, told together."""
    with console.current().progress(text, total, "test") as bar:

        def announce(stage: str) -> None:
            diagnosis.stage = stage
            bar.advance()
            watch(diagnosis)

        yield announce
