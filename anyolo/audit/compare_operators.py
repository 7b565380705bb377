"""Every operator on the device against float64 on the CPU, there and back."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from anyolo.audit.cases import PHASES, Case, Draw
from anyolo.audit.findings import SEVERITIES, Finding, Severity
from anyolo.audit.foreign_cases import foreign_cases
from anyolo.audit.host import Host
from anyolo.audit.layer_cases import layer_cases
from anyolo.audit.listening import first_lines, listening, texts
from anyolo.audit.numerics import SHORT_MANTISSA, TOLERANCES, describe, difference, type_name
from anyolo.audit.tensor_cases import tensor_cases
from anyolo.devices import Device, emulate
from anyolo.errors import ConfigError

Verdict = Literal["right", "inexact", "wrong", "raised"]
Results = list[tuple[str, Tensor]]
Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one case gave. ``error`` and ``host_error`` are distances from the truth, ``allowed`` the most
    that rounding explains; ``inexact`` is more than that and less than wrong. ``heard`` is what the backend
    said by warnings, ``foreseen`` what its table of facts says of this call.
    """

    case: Case
    dtype: torch.dtype
    verdict: Verdict
    error: float = 0.0
    host_error: float = 0.0
    allowed: float = 0.0
    detail: str = ""
    heard: tuple[str, ...] = ()
    foreseen: str = ""

    @property
    def severity(self) -> Severity | None:
        """None where nothing is to be said.

        What anyolo calls must work. Elsewhere a refusal is loud and a fault on record is known; a silent
        fault that nobody has on record is an error wherever it is.
        """
        if self.verdict == "right":
            return None
        if self.verdict == "inexact":
            return "info" if self.case.multiplies else "warning"
        is_grave = self.case.is_used or (self.verdict == "wrong" and not self.foreseen)
        return "error" if is_grave else "warning"


def all_cases() -> list[Case]:
    return [*layer_cases(), *tensor_cases(), *foreign_cases()]


def cases_for(device: Device, dtype: torch.dtype) -> list[Case]:
    """What a device is tested with: in half precision only layers of networks, and on a device that does not
    train only what inference needs.
    """
    cases = [_as_used(case, device) for case in all_cases()]
    if dtype != torch.float32:
        cases = [case for case in cases if case.in_half]
    return cases if device.profile.trains else [case for case in cases if case.part in {"network", "decode"}]


def _as_used(case: Case, device: Device) -> Case:
    """What anyolo avoids on this device is nothing that it calls."""
    is_avoided = case.unless_lacking and device.lacks(case.unless_lacking)
    return replace(case, part="other") if is_avoided else case


def compare_operators(
    device: Device, dtype: torch.dtype, cases: Iterable[Case], announce: Announce = lambda text: None
) -> Iterator[Outcome]:
    """One outcome per case; ``announce`` is told the name of each before it runs. Never raises for what the
    device does.
    """
    for case in cases:
        announce(f"{case.name}, {type_name(dtype)}")
        yield _judge(case, device, dtype)


def _judge(case: Case, device: Device, dtype: torch.dtype) -> Outcome:
    inputs = _rounded(case.make(Draw()), dtype)
    if not device.profile.trains:
        case = replace(case, has_gradient=False)
    truth = _run(case, tuple(x.double() if x.is_floating_point() else x for x in inputs), Host())
    with listening() as own_words:
        host = _run(case, tuple(_single(x) for x in inputs), Host())
    with listening() as words:
        try:
            found = _run(case, inputs, device, dtype)
        except Exception as error:
            detail = f"{type(error).__name__}: {first_lines(error)}"
            return Outcome(case=case, dtype=dtype, verdict="raised", detail=detail, heard=texts(words))
    heard = tuple(text for text in texts(words) if text not in texts(own_words))
    worst = Outcome(case=case, dtype=dtype, verdict="right", heard=heard)
    for (label, ours), (_, plain), (_, true) in zip(found, host, truth, strict=True):
        outcome = _weigh(case, dtype, label, ours, plain, true, heard)
        if _rank(outcome) > _rank(worst):
            worst = outcome
    if worst.verdict != "wrong":
        return worst
    return _with_record(worst, inputs, device)


def _weigh(
    case: Case,
    dtype: torch.dtype,
    label: str,
    found: Tensor,
    host: Tensor,
    truth: Tensor,
    heard: tuple[str, ...],
) -> Outcome:
    error, host_error = difference(found, truth), difference(host, truth)
    tolerance = TOLERANCES[dtype]
    allowed = max(tolerance.operator, tolerance.spread * host_error)
    is_single = dtype == torch.float32
    verdict: Verdict = "right"
    if error > allowed:
        verdict = "inexact" if is_single and error <= SHORT_MANTISSA else "wrong"
    if is_single and found.dtype != host.dtype:
        verdict, error = "wrong", math.inf
        detail = f"{label} is {type_name(found.dtype)} instead of {type_name(host.dtype)}"
    else:
        detail = f"{label}: {describe(found, truth)}" if verdict != "right" else ""
    return Outcome(
        case=case,
        dtype=dtype,
        verdict=verdict,
        error=error,
        host_error=host_error,
        allowed=allowed,
        detail=detail,
        heard=heard,
    )


def _rank(outcome: Outcome) -> tuple[int, float]:
    return ("right", "inexact", "wrong").index(outcome.verdict), outcome.error


def _run(case: Case, inputs: tuple[Tensor, ...], device: Device, dtype: torch.dtype | None = None) -> Results:
    """Results and gradients, on the host. The gradient is of a fixed random weighting of the results."""
    moved = tuple(device.to(x) for x in inputs)
    if case.has_gradient:
        moved = tuple(x.detach().requires_grad_() if x.is_floating_point() else x for x in moved)
    with torch.set_grad_enabled(case.has_gradient), device.region(PHASES[case.part]), device.autocast(dtype):
        given = case.run(*moved)
    outputs = (given,) if isinstance(given, Tensor) else tuple(given)
    results = [(f"result {number}" if number else "result", x) for number, x in enumerate(outputs)]
    found = [(label, x.detach().cpu()) for label, x in results]
    ends = [x for x in outputs if x.requires_grad]
    if not ends:
        return found
    weights = [device.to(Draw(1).normal(*x.shape).to(x.dtype)) for x in ends]
    starts = [x for x in moved if x.requires_grad]
    with device.region("backward"):
        gradients = torch.autograd.grad(ends, starts, weights, allow_unused=True)
    return found + [
        (f"gradient of input {number}", x.detach().cpu())
        for number, x in enumerate(gradients)
        if x is not None
    ]


def _rounded(inputs: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Numbers that ``dtype`` can hold, the first input in that type: weights stay float32 under autocast."""
    if dtype == torch.float32:
        return inputs
    first = next((x for x in inputs if x.is_floating_point()), None)
    return tuple(
        x.to(dtype) if x is first else x.to(dtype).float() if x.is_floating_point() else x for x in inputs
    )


def _single(x: Tensor) -> Tensor:
    """float32, and untouched where it is that already: its memory layout may be what is tested."""
    return x.float() if x.is_floating_point() else x


def _with_record(outcome: Outcome, inputs: tuple[Tensor, ...], device: Device) -> Outcome:
    """The same with what the backend's table of facts says of this call, if anything."""
    try:
        rules = emulate(device.profile.name)
    except ConfigError:  # nothing is known of this backend
        return outcome
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _run(outcome.case, inputs, rules, outcome.dtype)
        except Exception as error:
            return replace(outcome, foreseen=first_lines(error))
    return outcome


def operator_findings(outcomes: Iterable[Outcome]) -> list[Finding]:
    """One finding per operator and kind of trouble, as grave as its gravest form."""
    groups: dict[tuple[str, Verdict], list[Outcome]] = {}
    total: Counter[str] = Counter()
    voices: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        total[outcome.case.operator] += 1
        if outcome.severity is not None:
            groups.setdefault((outcome.case.operator, outcome.verdict), []).append(outcome)
        for text in outcome.heard:
            voices.setdefault(text, []).append(outcome)
    found = [
        Finding(
            id=f"operator.{verdict}",
            severity=min((o.severity for o in members if o.severity), key=SEVERITIES.index),
            where=f"operator {operator}",
            message=_sentence(members, total[operator]),
        )
        for (operator, verdict), members in groups.items()
    ]
    return found + list(_voiced(voices))


def _sentence(members: list[Outcome], tests: int) -> str:
    worst = max(members, key=lambda outcome: (outcome.case.is_used, outcome.error))
    types = ", ".join(dict.fromkeys(type_name(outcome.dtype) for outcome in members))
    place = f"{worst.case.form}: " if worst.case.form else ""
    share = f"in {len(members)} of {tests} tests ({types})"
    use = "" if worst.case.is_used else f" {_UNUSED}"
    if worst.verdict == "raised":
        return f"refused {share}; {place}{worst.detail.rstrip('.')}.{use}"
    amount = f"{worst.error:.2g} of the largest value, rounding explains {worst.allowed:.1g}"
    if not math.isfinite(worst.error):
        amount = "not a matter of rounding"
    if worst.verdict == "inexact" and worst.case.multiplies:
        return (
            f"multiplies float32 with 11 bits (TF32 or the like) {share}: off by {amount}. Usual on "
            "accelerators and enough for training; the backend has a switch for full float32."
        )
    known = f" On record: {worst.foreseen.rstrip('.')}." if worst.foreseen else ""
    places = ", ".join(dict.fromkeys(o.case.seen for o in members if o.case.seen))
    seen = f" Seen before: {places}." if places else ""
    return f"{worst.verdict} {share}, off by {amount}; {place}{worst.detail.rstrip('.')}.{known}{seen}{use}"


def _voiced(voices: Mapping[str, list[Outcome]]) -> Iterator[Finding]:
    """What the backend said: one finding for all that it said in the same words of different operators."""
    same: dict[tuple[str, bool], dict[str, list[Outcome]]] = {}
    for text, members in voices.items():
        is_used = any(outcome.case.is_used for outcome in members)
        subject = _QUOTED.search(text)
        words = text.replace(subject[0], "'...'") if subject else text
        same.setdefault((words, is_used), {})[subject[1] if subject else ""] = members
    for (words, is_used), subjects in same.items():
        cases = dict.fromkeys(o.case.operator for members in subjects.values() for o in members)
        of = f" of {', '.join(filter(None, subjects))}" if any(subjects) else ""
        use = "" if is_used else f" {_UNUSED}"
        yield Finding(
            id="operator.warned",
            severity="warning" if is_used else "info",
            where=f"operator {', '.join(list(cases)[:3])}"
            + (f" and {len(cases) - 3} more" if len(cases) > 3 else ""),
            message=f"the backend says{of}: {words.rstrip('.')}.{use}",
        )


_QUOTED = re.compile(r"'([\w:.]+)'")
_UNUSED = "anyolo does not call it so; your own code might."
