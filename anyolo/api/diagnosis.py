"""The verb ``doctor``: does this device compute right, and what makes this machine slow?"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from anyolo import console
from anyolo.api.models import open_model
from anyolo.audit import doctor_report as report
from anyolo.audit.doctor import Diagnosis, examine
from anyolo.audit.findings import Finding
from anyolo.audit.reference import Subject
from anyolo.audit.scene import draw_batch, enliven
from anyolo.config.load import load
from anyolo.config.schema import DoctorVerb
from anyolo.devices import Device, open_device
from anyolo.errors import ConfigError
from anyolo.ops.letterbox import input_size
from anyolo.train.folder import write_text

WIDTH = 110
"""Longer lines are hard to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorResult:
    """``report`` is the file to attach to an issue. ``ok``: no finding is an error."""

    findings: tuple[Finding, ...]
    report: Path
    diagnosis: Diagnosis

    @property
    def errors(self) -> int:
        return self.diagnosis.count("error")

    @property
    def warnings(self) -> int:
        return self.diagnosis.count("warning")

    @property
    def ok(self) -> bool:
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        return {
            "device": self.diagnosis.device,
            "findings": [finding.to_json() for finding in self.findings],
            "errors": self.errors,
            "warnings": self.warnings,
            "machine": self.diagnosis.facts,
            "report": str(self.report),
        }


def run_doctor(values: Mapping[str, Any]) -> DoctorResult:
    """Settings as in ``anyolo doctor --help``."""
    config = load(DoctorVerb, values).config
    wishes = config.device
    device = open_device(wishes.device, threads=wishes.threads, strict=wishes.strict)
    return diagnose(device, config)


def diagnose(device: Device, config: DoctorVerb) -> DoctorResult:
    """Examine an open device, show what was found and write the report."""
    date = datetime.now()
    path = _report_path(config.output, device, date)
    words = f"anyolo doctor device={config.device.device} model={Path(config.model.model).name}"

    def write(diagnosis: Diagnosis) -> None:
        text = report.markdown(diagnosis, command=words, date=f"{date:%Y-%m-%d %H:%M}")
        write_text(path, text)

    say = console.current()
    subject = _subject(config)
    _try_writing(path)
    say.line(f"{device.describe()} against the CPU in float64")
    diagnosis = examine(
        device,
        subject,
        [torch.float32, *(device.profile.autocast_dtypes if config.device.amp else ())],
        runs=Path(config.run.project),
        watch=write,
    )
    result = DoctorResult(findings=tuple(diagnosis.findings), report=path, diagnosis=diagnosis)
    _show(result, say)
    return result


def _subject(config: DoctorVerb) -> Subject:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = open_model(config.model)
    size_hw = input_size(config.imgsz, found.preprocess.stride)
    batch = draw_batch(found.preprocess, size_hw, classes=found.model.nc)
    model = found.model
    if found.meta.get("random"):
        model = enliven(model, found.preprocess.normalise(batch.images))
    return Subject(model=model, spec=found.spec, preprocess=found.preprocess, batch=batch)


def _report_path(output: str, device: Device, date: datetime) -> Path:
    """``output``, or a file in the current folder, where somebody who attaches it to an issue finds it."""
    if output and not Path(output).is_dir():
        return Path(output)
    name = re.sub(r"\W+", "-", device.profile.name)
    return Path(output) / f"doctor-{name}-{date:%Y-%m-%d-%H%M}.md"


def _try_writing(path: Path) -> None:
    """Before the work, not after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise ConfigError(
            f"cannot write the report: {error.strerror}",
            where=str(path),
            hint="Give output= a file in a folder that you may write to.",
        ) from error


def _show(result: DoctorResult, say: console.Reporter) -> None:
    diagnosis = result.diagnosis
    say.table("", ("machine", ""), report.main_facts(diagnosis))
    say.table("", report.OPERATOR_COLUMNS, report.operator_rows(diagnosis))
    say.table("", report.NETWORK_COLUMNS, report.network_rows(diagnosis))
    if diagnosis.timings:
        columns = ("speed at 640 x 640", "device ms", f"{diagnosis.rival} ms", "ratio")
        say.table("", columns, report.speed_rows(diagnosis))
    if diagnosis.findings:
        say.line(report.findings_text(diagnosis, min(WIDTH, shutil.get_terminal_size().columns)))
    say.line(f"{report.summary(diagnosis)}; all of it in {result.report}")
