"""A run in progress: its parts, its position, and the loop over epochs and updates."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from anyolo import console
from anyolo.config.schema import TrainVerb
from anyolo.data.index import AnnotationIndex
from anyolo.data.loader import Loader
from anyolo.devices import Device, Scaler
from anyolo.devices.distributed import Group
from anyolo.errors import TrainingError
from anyolo.families.base import FamilySpec
from anyolo.loss.phase import set_phase
from anyolo.nn.model import Detector
from anyolo.structures import Batch
from anyolo.train.ema import WeightAverage
from anyolo.train.folder import RunFolder
from anyolo.train.memory import Pieces
from anyolo.train.schedule import Schedule
from anyolo.train.step import Criterion, StepConfig, StepReport, train_step

if TYPE_CHECKING:
    from anyolo.train.communication import Traffic


@dataclass(kw_only=True)
class Run:
    """``epoch`` and ``index`` name the next batch; they and all that ``state.capture`` takes move on.

    ``forward`` is what training calls: ``model``, or what averages its gradients over the processes, whose
    ``traffic`` is counted.
    """

    spec: FamilySpec
    names: tuple[str, ...]
    config: TrainVerb
    args: Mapping[str, Any]
    choices: Mapping[str, Any]
    folder: RunFolder
    device: Device
    model: Detector
    forward: nn.Module
    ema: WeightAverage[Detector]
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    scaler: Scaler
    schedule: Schedule
    step: StepConfig
    pieces: Pieces
    loader: Loader
    val_loader: Loader
    val_index: AnnotationIndex
    traffic: Traffic | None = None

    epoch: int = 0
    index: int = 0
    updates: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    last_losses: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best_fitness: float = -1.0
    best_epoch: int = -1
    elapsed_before_s: float = 0.0
    stop_reason: str = ""
    interrupted: str = ""
    started_s: float = field(default_factory=time.perf_counter)

    @property
    def elapsed_s(self) -> float:
        return self.elapsed_before_s + time.perf_counter() - self.started_s

    @property
    def group(self) -> Group:
        return self.step.group

    @property
    def epochs(self) -> int:
        return self.config.schedule.epochs

    def mean_losses(self) -> dict[str, float]:
        """Loss items per image over the epoch so far."""
        images = max(float(self.sums.get("images", torch.ones(()))), 1.0)
        return {name: float(value) / images for name, value in self.sums.items() if name != "images"}


class Hook(Protocol):
    """What happens around the updates: averaging, evaluation, checkpoints, pictures; in order."""

    def on_start(self, run: Run) -> None: ...

    def after_step(self, run: Run, report: StepReport, batches: Sequence[Batch]) -> None: ...

    def after_epoch(self, run: Run) -> None:
        """``run.epoch`` is the number of finished epochs here."""

    def on_end(self, run: Run) -> None: ...


class QuietHook:
    """A hook that does nothing, to be overridden where something is to be done."""

    def on_start(self, run: Run) -> None:
        pass

    def after_step(self, run: Run, report: StepReport, batches: Sequence[Batch]) -> None:
        pass

    def after_epoch(self, run: Run) -> None:
        pass

    def on_end(self, run: Run) -> None:
        pass


def fit(run: Run, hooks: Sequence[Hook]) -> None:
    """Train from the run's position to its last epoch, or until ``stop_reason`` or ``interrupted`` is set."""
    for hook in hooks:
        hook.on_start(run)
    while run.epoch < run.epochs and not run.stop_reason:
        if not _train_epoch(run, hooks):
            return
        parts = run.group.gather(run.mean_losses())
        losses = {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}
        if any(not math.isfinite(value) for value in losses.values()):
            raise TrainingError(
                f"the loss is no longer a number in epoch {run.epoch + 1}",
                hint=f"{run.folder.last} holds the last good epoch. Lower lr0, or use amp=False.",
            )
        run.last_losses, run.sums = losses, {}
        run.epoch, run.index = run.epoch + 1, 0
        for hook in hooks:
            hook.after_epoch(run)
    for hook in hooks:
        hook.on_end(run)


def _train_epoch(run: Run, hooks: Sequence[Hook]) -> bool:
    """The rest of the epoch, from ``run.index`` on, under one progress bar; whether it was finished."""
    _set_training(run)
    set_phase(run.criterion, is_last=run.epoch >= run.epochs - run.config.augment.close_mosaic)
    batch = run.config.data.batch_size
    with console.current().progress(
        f"epoch {run.epoch + 1}/{run.epochs}", len(run.loader.dataset), "img"
    ) as bar:
        bar.advance(run.index * batch)
        for index, batches in _updates(run):
            run.schedule.apply(run.optimizer, run.epoch, index)
            report = run.pieces.run(partial(_step, run), batches, run.optimizer)
            images = sum(len(batch.images) for batch in batches)
            _add(run, report, images)
            run.index = index + 1
            for hook in hooks:
                hook.after_step(run, report, batches)
            losses = "  ".join(f"{name} {value:.3f}" for name, value in run.mean_losses().items())
            bar.describe(f"epoch {run.epoch + 1}/{run.epochs}  {losses}")
            bar.advance(min(images * run.group.world, len(run.loader.dataset)))
            if run.interrupted:
                return False
    return True


def _step(run: Run, pieces: list[Batch]) -> StepReport:
    return train_step(run.forward, run.criterion, pieces, run.optimizer, run.device, run.scaler, run.step)


def _updates(run: Run) -> Iterator[tuple[int, list[Batch]]]:
    """Groups of batches that make one update, with the index of the last; a short group closes the epoch."""
    group: list[Batch] = []
    wanted, last = 1, len(run.loader) - 1
    for index, batch in enumerate(run.loader.epoch(run.epoch, run.index), run.index):
        if not group:
            wanted = run.schedule.accumulate(run.epoch, index)
        group.append(_resized(run, batch, index))
        if len(group) >= wanted or index == last:
            yield index, group
            group = []


def _add(run: Run, report: StepReport, images: int) -> None:
    run.updates += 1
    with run.device.region("other"):
        for name, value in {**report.items, "images": torch.ones((), device=report.norm.device)}.items():
            own = value.detach() * images
            run.sums[name] = run.sums[name] + own if name in run.sums else own


def _set_training(run: Run) -> None:
    """Train mode, except in rows where every parameter is frozen: their statistics must not drift either."""
    run.model.train()
    for row in run.model.model:
        parameters = list(row.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            row.eval()


def _resized(run: Run, batch: Batch, index: int) -> Batch:
    """``multi_scale``: the whole batch at another size, the same for the same seed, epoch and batch."""
    reach = run.config.schedule.multi_scale
    if not reach:
        return batch
    generator = torch.Generator().manual_seed(hash((run.config.schedule.seed, run.epoch, index)) % 2**63)
    factor = 1 + reach * (2 * float(torch.rand((), generator=generator)) - 1)
    stride = max(run.model.strides)
    height, width = (max(stride, round(side * factor / stride) * stride) for side in batch.images.shape[2:])
    images = nn.functional.interpolate(
        batch.images.float(), size=(height, width), mode="bilinear", align_corners=False
    )
    gain_y, gain_x = height / batch.images.shape[2], width / batch.images.shape[3]
    labels = batch.targets.labels * torch.tensor([1, gain_x, gain_y, gain_x, gain_y])
    targets = replace(batch.targets, labels=labels)
    return Batch(images.round().to(torch.uint8), targets, batch.records)
