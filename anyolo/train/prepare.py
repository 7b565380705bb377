"""The parts of a run, made from its settings: model, loaders, optimizer, precision."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anyolo import console
from anyolo.config.schema import TrainVerb
from anyolo.data import AnnotationIndex, DetectionDataset, make_loader, open_data
from anyolo.data.loader import Loader
from anyolo.devices import Device, open_device
from anyolo.devices.distributed import Group, join, placed
from anyolo.errors import DeviceError, TrainingError
from anyolo.families.base import FamilySpec
from anyolo.nn.model import Detector, build
from anyolo.nn.unfold import measure_norms
from anyolo.ops.letterbox import input_size
from anyolo.train.ema import WeightAverage
from anyolo.train.folder import RunFolder
from anyolo.train.host_loss import HostLoss
from anyolo.train.memory import Pieces
from anyolo.train.optim import build_optimizer, resolve_optimizer
from anyolo.train.precision import Precision, choose_precision
from anyolo.train.run import Run
from anyolo.train.schedule import Schedule
from anyolo.train.state import restore
from anyolo.train.step import Criterion, StepConfig
from anyolo.types import SizeHW

UNFOLDING_PICTURES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is settled before anything is built. ``explicit`` are the settings the user typed; ``precision``
    is known already where the batch size was measured.
    """

    spec: FamilySpec
    config: TrainVerb
    args: Mapping[str, Any]
    explicit: frozenset[str]
    folder: RunFolder
    device: Device
    group: Group
    size_hw: SizeHW
    train_index: AnnotationIndex
    val_index: AnnotationIndex
    precision: Precision | None = None


def settle(
    spec: FamilySpec,
    config: TrainVerb,
    args: Mapping[str, Any],
    explicit: frozenset[str],
    make_folder: Callable[[], RunFolder],
) -> Job:
    """Open device and data; the folder is made once all of that is found good, so that a slip leaves none.

    Raises DeviceError for a device that only runs finished graphs.
    """
    wishes = config.device
    place = placed()
    device = open_device(
        wishes.device,
        threads=wishes.threads,
        strict=wishes.strict,
        batch=config.data.batch_size,
        process=None if place.is_alone else place.local_rank,
    )
    if not device.profile.trains:
        raise DeviceError(
            f"{device.profile.name} does not train: {device.profile.limit('train')}",
            where="device",
            hint="Train on another device; predict, val and export take this one.",
        )
    group = join(device)
    device.seed(config.schedule.seed)
    torch.use_deterministic_algorithms(config.schedule.deterministic, warn_only=True)
    # torch then also fills all new memory, to unmask readers of what nobody wrote: a seventh of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    size_hw = input_size(config.data.imgsz, spec.preprocess.stride)
    with group.in_turn():  # the first reads the labels, the others what it noted down of them
        train_index, val_index = (_open(config, split) for split in ("train", config.evaluation.split))
    folder = RunFolder(Path(group.first(lambda: str(make_folder().root))))
    # at once, so that a run killed at any later moment can be started again from its folder
    if group.is_first:
        folder.write_args({**args, "explicit": sorted(explicit)})
    return Job(
        spec=spec,
        config=config,
        args=args,
        explicit=explicit,
        folder=folder,
        device=device,
        group=group,
        size_hw=size_hw,
        train_index=train_index,
        val_index=val_index,
    )


def fit_classes(model: Detector, spec: FamilySpec, nc: int, *, is_random: bool = False) -> Detector:
    """The model with ``nc`` classes: itself, or a new one with every weight that fits; says what did not."""
    if model.nc == nc and not is_random:
        return model
    # built anew even where the class count fits, so that random weights follow from the run's seed alone
    fresh = build(model.rows, size=model.size, nc=nc, batch_norm=spec.batch_norm)
    if is_random:
        own = model.head.read_anchors()
        if own is not None:  # they may be others than those of the rows
            fresh.head.write_anchors(own)
        return fresh
    said = transfer(fresh, model)
    console.current().line(f"{model.nc} classes in the weights, {nc} in the data: {said}")
    return fresh


def transfer(model: Detector, other: Detector) -> str:
    """Copy what has the same name and shape, and of the head what other classes leave as it is.

    Returns what was and what was not, in words.
    """
    own, weights = model.state_dict(), other.state_dict()
    fitting = {
        name: value for name, value in weights.items() if name in own and own[name].shape == value.shape
    }
    model.load_state_dict(fitting, strict=False)
    partly = {f"model.{len(model.model) - 1}.{name}" for name in model.head.adopt(other.head)}
    anew = [name for name in own if name not in fitting and name not in partly]
    said = f"{len(fitting)} of {len(own)} tensors carried over"
    if partly:
        said += f", {len(partly)} in part (boxes and objectness)"
    if anew:
        said += f", {len(anew)} start anew ({', '.join(anew[:3])}{' ...' if len(anew) > 3 else ''})"
    return said


def freeze_rows(model: Detector, freeze: int | tuple[int, ...] | None) -> None:
    """``freeze=10`` holds the first ten rows fixed, ``freeze=0,3`` the rows named."""
    for row in range(freeze) if isinstance(freeze, int) else freeze or ():
        if row >= len(model.model):
            last = len(model.model) - 1
            raise TrainingError(f"there is no row {row}, the last is {last}", where="freeze")
        model.model[row].requires_grad_(False)


def unfold(job: Job, model: Detector, loader: Loader) -> None:
    """Measure the batch norms of a model that came without, on the host, from its first training pictures."""
    batches = itertools.islice(loader.epoch(0), math.ceil(UNFOLDING_PICTURES / job.config.data.batch_size))
    measure_norms(model, (job.spec.preprocess.normalise(batch.images) for batch in batches))
    console.current().line("the weights came without batch norms: measured on the first training pictures")


@contextmanager
def open_loaders(job: Job) -> Iterator[tuple[Loader, Loader]]:
    """The loaders of the training and of the validation pictures, closed at the end."""
    data, seed = job.config.data, job.config.schedule.seed
    dataset = DetectionDataset(
        job.train_index,
        job.spec.preprocess,
        imgsz=data.imgsz,
        augment=job.config.augment,
        rect=data.rect,
        batch=data.batch_size,
        cache=data.cache,
        seed=seed,
    )
    dataset.mosaic_until_epoch = max(0, job.config.schedule.epochs - job.config.augment.close_mosaic)
    judged = DetectionDataset(
        job.val_index,
        job.spec.preprocess,
        imgsz=data.imgsz,
        augment=None,
        rect=True,
        batch=data.batch_size,
        cache=data.cache,
    )
    options: dict[str, Any] = {
        "batch": data.batch_size,
        "workers": data.workers,
        "seed": seed,
        "pin": job.device.profile.pin_memory,
        "group": job.group,
    }
    loader = make_loader(dataset, shuffle=not data.rect, **options)
    try:
        val_loader = make_loader(judged, shuffle=False, **options)
        try:
            yield loader, val_loader
        finally:
            val_loader.close()
    finally:
        loader.close()


def assemble(
    job: Job, model: Detector, loader: Loader, val_loader: Loader, resume: Mapping[str, Any] | None
) -> Run:
    """The run, at its beginning or where ``resume`` (the ``training`` part of a last.pt) left it."""
    config, device, report = job.config, job.device, console.current()
    ema = WeightAverage(model)
    device.to(ema.model)
    model = device.prepare(model)
    forward = job.group.spread(model, device, sync_bn=config.scale.sync_bn)
    job.group.share(ema.model.state_dict().values())
    optim, note = resolve_optimizer(
        config.optim,
        job.explicit,
        images=len(job.train_index.items),
        batch=config.data.batch_size,
        epochs=config.schedule.epochs,
        nc=model.nc,
    )
    criterion = build_criterion(job, model)
    precision = job.group.first(lambda: settle_precision(job, model, criterion, loader, resume))
    if config.schedule.compile:
        _compile(job, model)
    step = StepConfig(
        preprocess=job.spec.preprocess,
        dtype=precision.dtype,
        reduction=job.spec.loss_reduction,
        clip_norm=optim.clip_norm,
        group=job.group,
    )
    epochs, batch = config.schedule.epochs, config.data.batch_size
    others = "" if job.group.is_alone else f", one of {job.group.world}"
    report.line(f"device {device.describe()}{others}; {precision.reason}")
    report.line(note)
    pictures = len(job.train_index.items), len(job.val_index.items)
    report.line(f"{pictures[0]} pictures to train on, {pictures[1]} to judge by; run in {job.folder.root}")
    run = Run(
        spec=job.spec,
        names=job.train_index.names,
        config=config,
        args=job.args,
        choices=_choices(job, precision),
        folder=job.folder,
        device=device,
        model=model,
        forward=forward,
        ema=ema,
        criterion=criterion,
        optimizer=build_optimizer(model, optim, device, batch=batch),
        scaler=device.scaler(precision.dtype),
        schedule=Schedule(config=optim, epochs=epochs, batches=len(loader), batch=batch),
        step=step,
        pieces=Pieces(device, (model, criterion), together=not job.group.is_alone),
        loader=loader,
        val_loader=val_loader,
        val_index=job.val_index,
    )
    if resume is not None:
        restore(run, resume)
        report.line(
            f"going on with epoch {run.epoch + 1} of {epochs}, batch {run.index + 1} of {len(loader)}"
        )
    if not job.group.is_alone:
        from anyolo.train.communication import compress  # lazy: torch may be built without communication

        run.traffic = compress(
            forward, config.scale.comm_hook, lambda: run.schedule.warmth(run.epoch, run.index)
        )
    return run


def _open(config: TrainVerb, split: str) -> AnnotationIndex:
    data = config.data
    share = data.fraction if split == "train" else 1.0
    return open_data(data.data, split, single_cls=data.single_cls, classes=data.classes, fraction=share)


def build_criterion(job: Job, model: Detector) -> nn.Module:
    """On the device; with ``loss_device=cpu`` on the host, with a head of its own there."""
    config, device = job.config, job.device
    if config.loss.loss_device == "auto":
        return device.to(job.spec.criterion(model, config.loss))
    on_host = copy.deepcopy(model).to(torch.device("cpu"))
    return HostLoss(job.spec.criterion(on_host, config.loss), device)


def _compile(job: Job, model: Detector) -> None:
    if job.device.profile.compile:
        console.current().line("compile=True: the first batch of every size waits for the compiler")
        job.device.compile(model)
    else:
        job.device.decline("compile", "the model runs as it is", strict=job.config.device.strict)


def settle_precision(
    job: Job, model: Detector, criterion: Criterion, loader: Loader, resume: Mapping[str, Any] | None
) -> Precision:
    """Chosen by timing once, kept by every resume: another number type would be another run."""
    if resume is not None:
        torch.set_num_threads(resume["choices"]["threads"])
        kept = Precision(getattr(torch, resume["choices"]["dtype"]), resume["choices"]["precision"])
        if kept.dtype in {torch.float32, *job.device.profile.autocast_dtypes}:
            return kept
        job.device.decline("amp", "the run goes on in float32", strict=job.config.device.strict)
        return Precision(torch.float32, f"float32: {job.device.profile.limit('amp')}")
    if job.precision is not None:
        return job.precision
    return choose_precision(
        model,
        criterion,
        next(iter(loader.epoch(0))),
        job.device,
        job.spec.preprocess,
        amp=job.config.device.amp,
        is_asked_for="amp" in job.explicit,
        strict=job.config.device.strict,
    )


def _choices(job: Job, precision: Precision) -> dict[str, Any]:
    """What a resumed run must not choose again."""
    return {
        "dtype": str(precision.dtype).removeprefix("torch."),
        "precision": precision.reason,
        "threads": torch.get_num_threads(),
        "imgsz": list(job.size_hw),
        "explicit": sorted(job.explicit),
    }
