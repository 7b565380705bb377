"""A whole network on the device against float64 on the CPU: what it sees, and how it learns.

Rounding spoils deep networks in ways no table foresees, so the CPU's own error in the same number type is
measured beside the device's: the device may be so many times (``Tolerance.spread``) as far from the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from anyolo.audit.boxes import Matched, confidence, match
from anyolo.audit.compare_operators import Announce
from anyolo.audit.findings import Finding
from anyolo.audit.listening import first_lines, listening, texts
from anyolo.audit.network_runs import Stepped, Way, decode, judge, look, step
from anyolo.audit.numerics import TOLERANCES, Tolerance, difference, distance, type_name
from anyolo.audit.reference import Reference
from anyolo.devices import Device
from anyolo.structures import Predictions

T = TypeVar("T")
Rows = dict[str, tuple[float, float | None]]
"""By name: the device's distance from the truth, and the CPU's own (None: unknown)."""
SCATTER = 2.0
"""Errors of single tensors scatter that much more than the error of all together."""
VAGUE = 0.9
"""Where rounding explains an error nearly as large as a tensor itself, the tensor cannot be judged alone."""
SHORT_TYPES = (torch.float16, torch.bfloat16)
"""Number types that show what short factors do to a network, the likelier first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One comparison: ``error`` against the most that is ``allowed`` (infinite: could not be judged).

    ``worst`` names the level, loss item or tensor that decides, ``note`` adds a fact about it.
    """

    stage: str
    dtype: torch.dtype
    error: float
    allowed: float
    worst: str
    unit: str = ""
    note: str = ""

    @property
    def is_right(self) -> bool:
        return self.error <= self.allowed


@dataclass(slots=True)
class NetworkReport:
    """``gradients``: per tensor and number type, the distance from the truth and what is allowed."""

    measures: list[Measure] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    gradients: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)


class NetworkComparison:
    """``rounds_products``: the device was seen to multiply float32 with fewer bits, so its float32 is judged
    by what fewer bits do to the network. ``reference`` may be shared between devices.
    """

    def __init__(
        self, reference: Reference, device: Device, announce: Announce, *, rounds_products: bool = False
    ) -> None:
        self.reference, self.device, self.announce = reference, device, announce
        self.subject = reference.subject
        self.rounds_products = rounds_products
        self.report = NetworkReport()

    def run(self, dtypes: Sequence[torch.dtype]) -> NetworkReport:
        """float32 first, then the types of mixed precision. Never raises for what the device does."""
        for dtype in dtypes:
            self._compare_sight(dtype)
            if dtype == torch.float32:
                self._compare_decoding()
            if self.device.profile.trains:
                if dtype == torch.float32:
                    self._compare_loss()
                self._compare_step(dtype)
        for measure in self.report.measures:
            if not measure.is_right:
                self.report.findings.append(_finding(measure))
        return self.report

    def _host_types(self, dtype: torch.dtype) -> tuple[torch.dtype, ...]:
        """The types in which the CPU makes the errors that the device may make."""
        return SHORT_TYPES if dtype == torch.float32 and self.rounds_products else (dtype,)

    def _guard(self, stage: str, dtype: torch.dtype, run: Callable[[], T]) -> T | None:
        """Run on the device; an exception is a finding, and so is what the backend says."""
        self.announce(f"{stage}, {type_name(dtype)}")
        found = None
        with listening() as heard:
            try:
                found = run()
            except Exception as error:
                self._find("raised", "error", stage, dtype, f"{type(error).__name__}: {first_lines(error)}")
        for text in texts(heard):
            self._find("warned", "warning", stage, dtype, f"the backend says: {text}")
        return found

    def _find(self, kind: str, severity: str, stage: str, dtype: torch.dtype, message: str) -> None:
        assert severity in {"error", "warning"}
        self.report.findings.append(
            Finding(
                id=f"network.{kind}",
                severity="error" if severity == "error" else "warning",
                where=f"{stage}, {type_name(dtype)}",
                message=message,
            )
        )

    def _add(self, stage: str, dtype: torch.dtype, rows: Rows) -> None:
        """Judge every row and keep the worst."""
        allowed = {name: self._allowed(stage, dtype, noise) for name, (_, noise) in rows.items()}
        worst = max(rows, key=lambda name: _excess(rows[name][0], allowed[name]))
        wrong = [name for name in rows if rows[name][0] > allowed[name]]
        note = f"{len(wrong)} of {len(rows)} are off" if len(wrong) > 1 else ""
        self.report.measures.append(
            Measure(
                stage=stage,
                dtype=dtype,
                error=rows[worst][0],
                allowed=allowed[worst],
                worst=worst,
                note=note,
            )
        )

    def _tolerance(self, dtype: torch.dtype) -> Tolerance:
        """Of the type in which the device really multiplies."""
        return TOLERANCES[self._host_types(dtype)[0]]

    def _allowed(self, stage: str, dtype: torch.dtype, noise: float | None) -> float:
        if noise is None or not math.isfinite(noise):
            return math.inf
        tolerance = self._tolerance(dtype)
        floor = tolerance.gradient if stage in {"gradients", "updates"} else tolerance.network
        return max(floor, tolerance.spread * noise)

    def _compare_sight(self, dtype: torch.dtype) -> None:
        s = self.subject
        way = Way(self.device, dtype)
        found = self._guard("forward", dtype, lambda: look(s.model, s.preprocess, s.batch.images, way))
        if found is None:
            return
        true, host = self.reference.true_sight, self.reference.sight(self._host_types(dtype))
        rows: Rows = {
            f"level {level + 1} of {len(true.levels)}": (
                difference(found.levels[level], expected),
                None if host is None else difference(host.levels[level], expected),
            )
            for level, expected in enumerate(true.levels)
        }
        self._add("forward", dtype, rows)
        if host is not None:
            self.report.seconds[f"forward, {type_name(dtype)}"] = found.seconds, host.seconds
        self._compare_boxes(dtype, found.predictions, None if host is None else host.predictions)

    def _compare_boxes(self, dtype: torch.dtype, found: Predictions, host: Predictions | None) -> None:
        true = self.reference.true_sight.predictions
        is_single = self._host_types(dtype) == (torch.float32,)

        def against(other: Predictions) -> Matched:
            return match(
                true,
                other,
                conf=confidence(true),
                min_iou=0.99 if is_single else 0.9,
                score_share=1e-3 if is_single else 0.1,
            )

        own, noise = against(found), None if host is None else against(host)
        floor, spread = (0.02 if is_single else 0.1), self._tolerance(dtype).spread
        allowed = math.inf if noise is None else max(floor, spread * noise.unmatched)
        self.report.measures.append(
            Measure(
                stage="boxes",
                dtype=dtype,
                error=own.unmatched,
                allowed=allowed,
                worst=f"{own.matched} of {own.boxes} found again",
            )
        )

    def _compare_decoding(self) -> None:
        expected, model = self.reference.decoded, self.subject.model
        levels = tuple(x.float() for x in self.reference.true_sight.levels)
        found = self._guard("decode", torch.float32, lambda: decode(model, levels, self.device))
        if found is None:
            return
        pixels = (found.boxes_xyxy - expected.boxes_xyxy).abs().nan_to_num(math.inf).max()
        tolerance = TOLERANCES[torch.float32].operator
        self.report.measures += [
            Measure(
                stage="decode",
                dtype=torch.float32,
                error=float(pixels),
                allowed=tolerance * float(expected.boxes_xyxy.abs().max()),
                worst="corners of boxes",
                unit=" px",
            ),
            Measure(
                stage="decode",
                dtype=torch.float32,
                error=difference(found.scores, expected.scores),
                allowed=tolerance,
                worst="scores",
            ),
        ]

    def _compare_loss(self) -> None:
        """The same maps go into the loss on both sides, so that the network's own rounding is left out."""
        s, expected, maps = self.subject, self.reference.judged, self.reference.maps
        found = self._guard(
            "loss", torch.float32, lambda: judge(s.model, s.spec, maps, s.batch.targets, self.device)
        )
        if found is None:
            return
        rows: Rows = {
            f"item {name}": (_relative(found.items[name], x), 0.0) for name, x in expected.items.items()
        }
        pairs = zip(found.gradients, expected.gradients, strict=True)
        rows |= {f"gradient of level {n}": (distance(a, b), 0.0) for n, (a, b) in enumerate(pairs, 1)}
        self._add("loss of given maps", torch.float32, rows)

    def _compare_step(self, dtype: torch.dtype) -> None:
        s = self.subject
        way = Way(self.device, dtype)
        found = self._guard("training step", dtype, lambda: step(s.model, s.spec, s.preprocess, s.batch, way))
        if found is None:
            return
        true, host = self.reference.true_step, self.reference.step(self._host_types(dtype))
        if host is not None:
            self.report.seconds[f"training step, {type_name(dtype)}"] = found.seconds, host.seconds
        rows: Rows = {
            name: (_relative(found.items[name], x), None if host is None else _relative(host.items[name], x))
            for name, x in true.items.items()
        }
        self._add("loss", dtype, rows)
        self._add_tensors("gradients", dtype, found, host, true)
        self._add_tensors("updates", dtype, found, host, true)
        if found.statistics and true.statistics:
            self._add_tensors("statistics", dtype, found, host, true)

    def _add_tensors(
        self, stage: str, dtype: torch.dtype, found: Stepped, host: Stepped | None, true: Stepped
    ) -> None:
        """All tensors together, and each by its name in the weights file where rounding lets it be judged."""
        truth: dict[str, Tensor] = getattr(true, stage)
        ours: dict[str, Tensor] = getattr(found, stage)
        plain: dict[str, Tensor] | None = getattr(host, stage) or None if host is not None else None
        # a tensor far smaller than the rest is rounding error and nothing else
        least = 1e-6 * float(_joined(truth, truth).norm())
        rows: Rows = {}
        for name, expected in truth.items():
            own = ours.get(name, torch.zeros_like(expected))
            noise = SCATTER * distance(plain[name], expected, least=least) if plain else None
            rows[name] = distance(own, expected, least=least), noise
        dead = [n for n, x in truth.items() if float(x.norm()) > least and not ours.get(n, x * 0).any()]
        dead = [name for name in dead if plain is None or plain[name].any()]
        if dead:
            message = f"{len(dead)} of {len(rows)} are all zero and should not be: {', '.join(dead[:3])}"
            self._find("dead", "error", f"{stage}: {dead[0]}", dtype, message)
        if stage == "gradients":
            self.report.gradients[type_name(dtype)] = {
                name: (error, self._allowed(stage, dtype, noise)) for name, (error, noise) in rows.items()
            }
        together = _joined(truth, truth)
        noise = distance(_joined(plain, truth), together) if plain else None
        clear = {
            n: row
            for n, row in rows.items()
            if self._allowed(stage, dtype, row[1]) < VAGUE or math.isinf(row[0])
        }
        self._add(stage, dtype, {"all tensors": (distance(_joined(ours, truth), together), noise), **clear})


def _joined(tensors: Mapping[str, Tensor], names: Iterable[str]) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in names if name in tensors])


def _relative(found: Tensor, expected: Tensor) -> float:
    gap = abs(float(found) - float(expected)) / max(abs(float(expected)), 1e-9)
    return gap if math.isfinite(gap) else math.inf


def _excess(error: float, allowed: float) -> float:
    if math.isinf(allowed):
        return 0.0
    return math.inf if math.isinf(error) else error / allowed


_WORDS = {
    "forward": "the raw maps of the network are off",
    "boxes": "final boxes have no partner on the CPU",
    "decode": "boxes are decoded wrongly from given maps",
    "loss of given maps": "assignment or loss is off although both sides were given the same maps",
    "loss": "the loss of a training step is off",
    "gradients": "the gradient is off",
    "updates": "the optimizer changed the weights differently",
    "statistics": "the running statistics of batch norm are off",
}


def _finding(measure: Measure) -> Finding:
    amount = f"{measure.error:.2g}{measure.unit}" if math.isfinite(measure.error) else "infinitely"
    extra = f"; {measure.note}" if measure.note else ""
    return Finding(
        id=f"network.{measure.stage.split()[0]}",
        severity="error",
        where=f"{measure.stage}: {measure.worst}" if measure.stage != "boxes" else "boxes",
        message=(
            f"{type_name(measure.dtype)}: {_WORDS[measure.stage]}: {amount}, rounding explains "
            f"{measure.allowed:.1g}{measure.unit} ({measure.worst}{extra})"
        ),
    )
