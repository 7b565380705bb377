"""From settings to a finished run: gather the parts, fit, judge the best weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyolo import console
from anyolo.config.schema import TrainVerb
from anyolo.data import AnnotationIndex, DetectionDataset, make_loader, open_data
from anyolo.data.loader import Loader
from anyolo.devices import Device, open_device
from anyolo.errors import TrainingError
from anyolo.evaluate import draw_report
from anyolo.families.base import FamilySpec
from anyolo.families.checkpoints import load_model
from anyolo.nn.model import Detector, build
from anyolo.ops.letterbox import input_size
from anyolo.train.ema import WeightAverage
from anyolo.train.folder import RunFolder
from anyolo.train.hooks import StopHook, default_hooks, judge
from anyolo.train.optim import build_optimizer, resolve_optimizer
from anyolo.train.precision import Precision, choose_precision
from anyolo.train.run import Run, fit
from anyolo.train.schedule import Schedule
from anyolo.train.state import restore
from anyolo.train.step import StepConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """``metrics`` are fractions, measured on best.pt in float32; ``stopped`` says why a run ended early."""

    run: Path
    best: Path
    last: Path
    epochs: int
    stopped: str
    batch: int
    device: str
    metrics: Mapping[str, float]
    ok: bool = True

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "ok"}
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
    resume: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train ``model`` as ``config`` says. Its weights are the start; ``is_random``: they mean nothing.

    ``make_folder`` is called once the settings and the data have been found good, so that a slip leaves no folder.

    ``args`` is the flat form of ``config`` that is stored for a resume; ``resume`` is the ``training`` part of a
    last.pt, whose averaged weights ``model`` then holds. Raises KeyboardInterrupt after a clean stop by the user.
    """
    device = open_device(config.device.device, threads=config.device.threads)
    device.seed(config.schedule.seed)
    torch.use_deterministic_algorithms(config.schedule.deterministic, warn_only=True)
    input_size(config.data.imgsz, spec.preprocess.stride)
    train_index, val_index = (_open(config, split) for split in ("train", config.evaluation.split))
    model = fit_classes(model, spec, len(train_index.names), is_random=is_random)
    _freeze(model, config.optim.freeze)
    folder = make_folder()
    # before anything that takes time, so that a run killed at any later moment can be started again from its folder
    folder.write_args({**args, "explicit": sorted(explicit)})
    loader, val_loader = _loaders(spec, config, train_index, val_index, device)
    stop = StopHook()
    try:
        run = _assemble(
            spec, model, config, args, explicit, folder, device, loader, val_loader, train_index, val_index, resume
        )
        with stop.signals():
            fit(run, default_hooks(train_index, stop, plots=config.run.plots))
        if run.interrupted:
            place = f"epoch {run.epoch + 1}, batch {run.index} of {len(loader)}"
            raise KeyboardInterrupt(f"stopped at {place}, all saved; go on with: anyolo train resume={folder.last}")
        return _finish(run)
    finally:
        loader.close()
        val_loader.close()


def fit_classes(model: Detector, spec: FamilySpec, nc: int, *, is_random: bool = False) -> Detector:
    """The model with ``nc`` classes: itself, or a new one with every weight that fits, saying what did not."""
    if model.nc == nc and not is_random:
        return model
    # built anew even where the class count fits, so that random weights follow from the run's seed alone
    fresh = build(model.rows, size=model.size, nc=nc, batch_norm=spec.batch_norm)
    if is_random:
        return fresh
    missed = transfer(fresh, model.state_dict())
    shown = ", ".join(missed[:3]) + (" ..." if len(missed) > 3 else "")
    total = len(fresh.state_dict())
    console.current().line(
        f"{model.nc} classes in the weights, {nc} in the data: {total - len(missed)} of {total} tensors carried over, "
        f"{len(missed)} start anew ({shown})"
    )
    return fresh


def transfer(model: Detector, weights: Mapping[str, Tensor]) -> list[str]:
    """Copy what has the same name and shape; the names of what did not fit."""
    own = model.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


def _open(config: TrainVerb, split: str) -> AnnotationIndex:
    data = config.data
    share = data.fraction if split == "train" else 1.0
    return open_data(data.data, split, single_cls=data.single_cls, classes=data.classes, fraction=share)


def _freeze(model: Detector, freeze: int | tuple[int, ...] | None) -> None:
    rows = range(freeze) if isinstance(freeze, int) else freeze or ()
    for row in rows:
        if row >= len(model.model):
            raise TrainingError(f"freeze names row {row}, the model has rows 0 to {len(model.model) - 1}")
        model.model[row].requires_grad_(False)


def _loaders(
    spec: FamilySpec, config: TrainVerb, train_index: AnnotationIndex, val_index: AnnotationIndex, device: Device
) -> tuple[Loader, Loader]:
    data, seed = config.data, config.schedule.seed
    dataset = DetectionDataset(
        train_index, spec.preprocess, imgsz=data.imgsz, augment=config.augment,
        rect=data.rect, batch=data.batch, cache=data.cache, seed=seed,
    )  # fmt: skip
    dataset.mosaic_until_epoch = max(0, config.schedule.epochs - config.augment.close_mosaic)
    val_dataset = DetectionDataset(
        val_index, spec.preprocess, imgsz=data.imgsz, augment=None, rect=True, batch=data.batch, cache=data.cache, seed=seed
    )
    pin = device.profile.pin_memory
    return (
        make_loader(dataset, batch=data.batch, workers=data.workers, shuffle=not data.rect, seed=seed, pin=pin),
        make_loader(val_dataset, batch=data.batch, workers=data.workers, shuffle=False, seed=seed, pin=pin),
    )


def _assemble(
    spec: FamilySpec,
    model: Detector,
    config: TrainVerb,
    args: Mapping[str, Any],
    explicit: Iterable[str],
    folder: RunFolder,
    device: Device,
    loader: Loader,
    val_loader: Loader,
    train_index: AnnotationIndex,
    val_index: AnnotationIndex,
    resume: Mapping[str, Any] | None,
) -> Run:
    """Build every part of the run; what was chosen by timing or by rule comes from ``resume`` where there is one."""
    report = console.current()
    ema = WeightAverage(model)
    model = device.prepare(model)
    device.to(ema.model)
    optim, note = resolve_optimizer(
        config.optim, explicit, images=len(train_index.items), batch=config.data.batch,
        epochs=config.schedule.epochs, nc=model.nc,
    )  # fmt: skip
    criterion = device.to(spec.criterion(model, config.loss))
    if resume is None:
        precision = choose_precision(
            model, criterion, next(iter(loader.epoch(0))), device, spec.preprocess,
            amp=config.device.amp, strict=config.device.strict,
        )  # fmt: skip
    else:
        precision = Precision(getattr(torch, resume["choices"]["dtype"]), resume["choices"]["precision"])
        torch.set_num_threads(resume["choices"]["threads"])
    size = input_size(config.data.imgsz, spec.preprocess.stride)
    choices = {
        "dtype": str(precision.dtype).removeprefix("torch."),
        "precision": precision.reason,
        "threads": torch.get_num_threads(),
        "imgsz": list(size),
        "explicit": sorted(explicit),
    }
    report.line(f"device {device.describe()}; {precision.reason}")
    report.line(note)
    report.line(f"{len(train_index.items)} pictures to train on, {len(val_index.items)} to judge by; run in {folder.root}")
    run = Run(
        spec=spec, names=train_index.names, config=config, args=args, choices=choices, folder=folder, device=device,
        model=model, ema=ema, criterion=criterion, optimizer=build_optimizer(model, optim, device, batch=config.data.batch),
        scaler=device.scaler(precision.dtype),
        schedule=Schedule(config=optim, epochs=config.schedule.epochs, batches=len(loader), batch=config.data.batch),
        step=StepConfig(
            preprocess=spec.preprocess, dtype=precision.dtype, reduction=spec.loss_reduction, clip_norm=optim.clip_norm
        ),
        loader=loader, val_loader=val_loader, val_index=val_index,
    )  # fmt: skip
    if resume is not None:
        restore(run, resume)
        report.line(f"going on with epoch {run.epoch + 1} of {run.epochs}, batch {run.index + 1} of {len(loader)}")
    return run


def _finish(run: Run) -> TrainResult:
    """Judge best.pt as a user would, in float32, and draw the report."""
    source = run.folder.best if run.config.schedule.save else None
    best = load_model(source).model if source else run.ema.model
    evaluation, _ = judge(run, best, torch.float32)
    report = console.current()
    report.table("best weights on the validation pictures", evaluation.columns, evaluation.rows())
    if run.config.run.plots:
        draw_report(evaluation, run.folder.root)
    if run.stop_reason:
        report.line(f"stopped after epoch {run.epoch}: {run.stop_reason}")
    report.line(f"results in {run.folder.root}")
    return TrainResult(
        run=run.folder.root, best=run.folder.best, last=run.folder.last, epochs=run.epoch, stopped=run.stop_reason,
        batch=run.config.data.batch, device=run.device.describe(), metrics=dict(evaluation.metrics),
    )  # fmt: skip
