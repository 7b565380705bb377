"""The verb ``audit``: a job of anyolo's own, under another backend's rules, on a plain CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from anyolo import console
from anyolo.api.models import open_model
from anyolo.audit import Audit, emulated, inventory, recording
from anyolo.audit.jobs import JOBS, Work
from anyolo.config.load import load
from anyolo.config.schema import AuditVerb, TrainVerb
from anyolo.errors import ConfigError
from anyolo.ops.letterbox import input_size
from anyolo.train.folder import write_text

WRITERS: dict[str, Callable[[Audit], str]] = {
    ".json": lambda audit: json.dumps(audit.to_json(), indent=1) + "\n",
    ".html": Audit.html,
}


def run_audit(values: Mapping[str, Any]) -> Audit:
    """Settings as in ``anyolo audit --help``."""
    config = load(AuditVerb, values).config
    device = emulated(config.backend)
    output = _checked(config.output)
    start = open_model(config.model)
    recipe = load(
        TrainVerb,
        {"optimizer": config.optimizer},
        layers=[(f"recipe of {start.spec.name}", start.spec.recipe_of(start.size))],
    ).config
    work = Work(
        start=start,
        device=device,
        size_hw=input_size(config.imgsz, start.preprocess.stride),
        loss=recipe.loss,
        optim=recipe.optim,
    )
    report = console.current()
    if config.mode != "export" and not device.profile.trains:
        report.warn(f"{config.backend} runs finished graphs only: mode=export is what it will be given")
    with recording():
        JOBS[config.mode](work)
    result = inventory(device, job=f"anyolo {config.mode} of {config.model.model}")
    report.line(result.text())
    if output is not None:
        _write(output, WRITERS[output.suffix.lower()](result))
        report.line(f"written {output}")
    return result


def _checked(output: str) -> Path | None:
    """``output`` as a path of a kind that can be written, before any work is done."""
    if not output:
        return None
    path = Path(output)
    if path.suffix.lower() not in WRITERS:
        raise ConfigError(
            f"an inventory cannot be written as {path.name!r}",
            where="output",
            hint="Use a name that ends in .html or .json.",
        )
    return path


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(path)) from error
