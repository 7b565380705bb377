"""From settings to a finished run: gather the parts, fit, judge the best weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anyolo import console
from anyolo.config.schema import TrainVerb
from anyolo.errors import OutOfMemory
from anyolo.evaluate import draw_report
from anyolo.families.base import FamilySpec
from anyolo.families.checkpoints import load_model
from anyolo.nn.model import Detector
from anyolo.train.anchors import check_anchors, check_small_boxes
from anyolo.train.autobatch import settle_batch
from anyolo.train.folder import RunFolder
from anyolo.train.hooks import CheckpointHook, StopHook, default_hooks, judge
from anyolo.train.prepare import Job, assemble, fit_classes, freeze_rows, open_loaders, settle, unfold
from anyolo.train.run import Run, fit


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """``metrics`` are fractions, measured on best.pt in float32; ``stopped`` says why a run ended early;
    ``sent_bytes_per_update`` are the gradients each process handed over in the last epoch, 0 if it was alone.
    """

    run: Path
    best: Path
    last: Path
    epochs: int
    stopped: str
    batch: int
    device: str
    metrics: Mapping[str, float]
    sent_bytes_per_update: float = 0.0
    ok: bool = True

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> TrainResult:
        paths = {name: Path(values[name]) for name in ("run", "best", "last")}
        return TrainResult(**{**values, **paths})

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["ok"]
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def train(
    spec: FamilySpec,
    model: Detector,
    config: TrainVerb,
    args: Mapping[str, Any],
    *,
    explicit: Iterable[str] = (),
    make_folder: Callable[[], RunFolder],
    is_random: bool = False,
    is_folded: bool = False,
    resume: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train ``model`` as ``config`` says. Its weights are the start; ``is_random``: they mean nothing,
    ``is_folded``: its batch norms are in its convolutions.

    ``args`` is the flat form of ``config``, stored for a resume, and ``explicit`` what of it the user typed.
    ``resume`` is the ``training`` part of a last.pt, whose averaged weights ``model`` then holds. Raises
    KeyboardInterrupt after a clean stop by the user.
    """
    job = settle(spec, config, args, frozenset(explicit), make_folder)
    try:
        return _train(job, model, is_random=is_random, is_folded=is_folded, resume=resume)
    finally:
        job.group.leave()


def _train(
    job: Job, model: Detector, *, is_random: bool, is_folded: bool, resume: Mapping[str, Any] | None
) -> TrainResult:
    spec, config = job.spec, job.config
    model = fit_classes(model, spec, len(job.train_index.names), is_random=is_random)
    if resume is None:
        check_anchors(job, model)
        check_small_boxes(job, model)
    freeze_rows(model, config.optim.freeze)
    job = settle_batch(job, model)
    stop = StopHook()
    with open_loaders(job) as (loader, val_loader):
        if is_folded and resume is None:
            unfold(job, model, loader)
        run = assemble(job, model, loader, val_loader, resume)
        with stop.signals():
            plots, writes = config.run.plots, job.group.is_first
            with _kept(run):
                fit(run, default_hooks(job.train_index, stop, plots=plots, writes=writes))
        if run.interrupted:
            place = f"epoch {run.epoch + 1}, batch {run.index} of {len(loader)}"
            how = f"go on with: anyolo train resume={job.folder.last}"
            raise KeyboardInterrupt(f"stopped at {place}, all saved; {how}")
        return _finish(run)


@contextmanager
def _kept(run: Run) -> Iterator[None]:
    """A run that lacks memory leaves a last.pt of its last whole update."""
    try:
        yield
    except OutOfMemory as error:
        if error.is_whole and run.group.is_alone:
            CheckpointHook().save_last(run)
        place = f"epoch {run.epoch + 1}, batch {run.index + 1} of {len(run.loader)}"
        raise OutOfMemory(
            error.message, where=place, hint=f"{error.hint} Go on with: anyolo train resume={run.folder.last}"
        ) from error


def _finish(run: Run) -> TrainResult:
    """Judge best.pt as a user would, in float32, and draw the report."""
    best = run.ema.model
    if run.config.schedule.save and run.group.is_first:
        best = load_model(run.folder.best).model
    run.group.share(best.state_dict().values())
    evaluation, _ = judge(run, best, torch.float32)
    report = console.current()
    report.table("best weights on the validation pictures", evaluation.columns, evaluation.rows())
    if run.config.run.plots and run.group.is_first:
        draw_report(evaluation, run.folder.root)
    if run.stop_reason:
        report.line(f"stopped after epoch {run.epoch}: {run.stop_reason}")
    sent = run.history[-1].get("sent_bytes_per_update", 0.0)
    if run.traffic is not None:
        report.line(f"each process sent {sent / 1e6:.3g} MB of gradients per update (last epoch)")
    for line in run.device.remarks():
        report.line(line)
    report.line(f"results in {run.folder.root}")
    return TrainResult(
        run=run.folder.root,
        best=run.folder.best,
        last=run.folder.last,
        epochs=run.epoch,
        stopped=run.stop_reason,
        batch=run.config.data.batch_size,
        device=run.device.describe(),
        metrics=dict(evaluation.metrics),
        sent_bytes_per_update=sent,
    )
