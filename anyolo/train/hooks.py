"""What a run does besides updates: average, talk, evaluate, remember, stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from anyolo import console
from anyolo.data.index import AnnotationIndex
from anyolo.data.loader import Loader
from anyolo.evaluate import Evaluation, draw_batch, draw_labels, draw_training, evaluate
from anyolo.families.checkpoints import model_record, save_atomic
from anyolo.nn.inference import Inference
from anyolo.nn.model import Detector
from anyolo.structures import Batch, Predictions
from anyolo.train.memory import halving
from anyolo.train.run import Hook, QuietHook, Run
from anyolo.train.state import capture
from anyolo.train.step import StepReport

SAVE_EVERY_S = 600.0


def fitness(metrics: Mapping[str, float]) -> float:
    """What "best" means: mostly mAP50-95, a little mAP50 (the field's weights)."""
    return 0.1 * metrics["mAP50"] + 0.9 * metrics["mAP50-95"]


class AverageHook(QuietHook):
    def after_step(self, run: Run, report: StepReport, batches: Sequence[Batch]) -> None:
        with run.device.region("average"):
            run.ema.update(run.model)


class WatchedLoader:
    """A loader that remembers the batch it gave last, so that the validation loss can be had on the way."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.dataset = loader.dataset
        self.batch: Batch | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int, start_batch: int = 0) -> Iterator[Batch]:
        for batch in self.loader.epoch(number, start_batch):
            self.batch = batch
            yield batch


def judge(run: Run, model: Detector, dtype: torch.dtype) -> tuple[Evaluation, dict[str, float]]:
    """Evaluate ``model`` on the validation pictures; also its mean loss items."""
    run.group.share(model.buffers())  # each process has seen other batches
    inference = Inference(model, run.device, run.step.preprocess, dtype=dtype)
    watched = WatchedLoader(run.val_loader)
    sums: dict[str, float] = {}

    def look(batch: Batch) -> Predictions:
        output = inference.raw(batch.images)
        with run.device.region("loss"):
            losses = run.criterion(output, run.device.to(batch.targets))
        found = inference.decode(output)
        for name, value in losses.items.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch.images)
        return found

    def predict(images: Tensor) -> Predictions:
        assert watched.batch is not None
        return Predictions.joined(halving(run.device, look, watched.batch))

    result = evaluate(predict, watched, run.val_index, run.config.evaluation, group=run.group)
    parts = run.group.gather(sums)
    images = max(result.images, 1)
    names = dict.fromkeys(name for part in parts for name in part)
    return result, {name: sum(part.get(name, 0.0) for part in parts) / images for name in names}


class EvaluateHook(QuietHook):
    """Measure the averaged weights after each epoch, and keep the table of all epochs."""

    def after_epoch(self, run: Run) -> None:
        row: dict[str, float] = {"epoch": run.epoch, "time": run.elapsed_s}
        row |= {f"train/{name}_loss": value for name, value in run.last_losses.items()}
        if run.config.schedule.val or run.epoch == run.epochs:
            evaluation, losses = judge(run, run.ema.model, run.step.dtype)
            metrics = run.metrics = dict(evaluation.metrics)
            row |= {
                f"metrics/{name}(B)": metrics[name] for name in ("precision", "recall", "mAP50", "mAP50-95")
            }
            row |= {f"val/{name}_loss": value for name, value in losses.items()}
            run.best_fitness, is_best = (
                max(run.best_fitness, fitness(metrics)),
                fitness(metrics) > run.best_fitness,
            )
            run.best_epoch = run.epoch if is_best else run.best_epoch
            words = "  ".join(
                f"{name} {metrics[name]:.3f}" for name in ("precision", "recall", "mAP50", "mAP50-95")
            )
            console.current().line(f"epoch {run.epoch}/{run.epochs}  {words}{'  best' if is_best else ''}")
        row |= {f"lr/{group['name']}": group["lr"] for group in run.optimizer.param_groups}
        if run.traffic is not None:
            row["sent_bytes_per_update"] = run.traffic.take()
        run.history.append(row)


class StopHook(QuietHook):
    """Early stopping, the time limit, and the user's Ctrl-C."""

    def __init__(self) -> None:
        self.interrupted = ""

    def after_step(self, run: Run, report: StepReport, batches: Sequence[Batch]) -> None:
        self._agree(run)

    def after_epoch(self, run: Run) -> None:
        self._agree(run)
        run.stop_reason = run.group.first(lambda: _why_enough(run))

    def _agree(self, run: Run) -> None:
        """All processes stop after the same update."""
        if run.group.any(bool(self.interrupted)):
            run.interrupted = self.interrupted or "a signal to another process"

    @contextmanager
    def signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM ends the run after the update in progress; the second at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = signal.Signals(number).name
            console.current().line("stopping after this update (once more to stop at once) ...")

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _why_enough(run: Run) -> str:
    """Why the run should end early, or ""."""
    schedule = run.config.schedule
    if schedule.time and run.elapsed_s > schedule.time * 3600:
        return f"time={schedule.time:g} hours are over"
    if schedule.patience and run.best_epoch > 0 and run.epoch - run.best_epoch >= schedule.patience:
        return f"no progress for patience={schedule.patience} epochs"
    return ""


class CheckpointHook(QuietHook):
    """last.pt at the start, after epochs, every ten minutes and when stopped; best.pt when best."""

    def __init__(self) -> None:
        self.saved_s = time.perf_counter()

    def on_start(self, run: Run) -> None:
        self.save_last(run)

    def after_step(self, run: Run, report: StepReport, batches: Sequence[Batch]) -> None:
        if run.interrupted or time.perf_counter() - self.saved_s > SAVE_EVERY_S:
            self.save_last(run)

    def after_epoch(self, run: Run) -> None:
        run.folder.write_results(run.history)
        schedule = run.config.schedule
        if not schedule.save:
            return
        record = self.record(run)
        if run.best_epoch in (run.epoch, -1):
            save_atomic(record, run.folder.best)
        if schedule.save_period > 0 and run.epoch % schedule.save_period == 0:
            save_atomic(record, run.folder.epoch_weights(run.epoch))
        self.save_last(run)

    def on_end(self, run: Run) -> None:
        """A finished run needs no optimizer: last.pt shrinks to the weights and the history."""
        if run.config.schedule.save:
            done = {
                "finished": True,
                "epoch": run.epoch,
                "history": run.history,
                "args": dict(run.args),
            }
            save_atomic({**self.record(run), "training": done}, run.folder.last)

    def save_last(self, run: Run) -> None:
        if run.config.schedule.save:
            save_atomic({**self.record(run), "training": capture(run)}, run.folder.last)
        self.saved_s = time.perf_counter()

    def record(self, run: Run) -> dict[str, Any]:
        size = run.choices["imgsz"]
        return model_record(run.ema.model, run.spec, run.names, imgsz=(size[0], size[1]), metrics=run.metrics)


class PictureHook(QuietHook):
    """labels.jpg and the first training batches, the moment they exist; results.png at the end."""

    def __init__(self, train_index: AnnotationIndex) -> None:
        self.train_index = train_index
        self.drawn = 0

    def on_start(self, run: Run) -> None:
        draw_labels(self.train_index, run.folder.root / "labels.jpg")
        self.drawn = 3 if run.updates else 0

    def after_step(self, run: Run, report: StepReport, batches: Sequence[Batch]) -> None:
        for batch in batches[: max(0, 3 - self.drawn)]:
            labels, mask = batch.targets.labels.numpy(), batch.targets.mask.numpy() > 0
            boxes = [own[kept] for own, kept in zip(labels, mask, strict=True)]
            path = run.folder.root / f"train_batch{self.drawn}.jpg"
            draw_batch(_as_rgb(batch.images, run), boxes, run.names, path)
            self.drawn += 1

    def on_end(self, run: Run) -> None:
        draw_training(run.folder.results, run.folder.root)


def _as_rgb(images: Tensor, run: Run) -> Tensor:
    return images if run.step.preprocess.channels == "rgb" else images.flip(1)


def default_hooks(
    train_index: AnnotationIndex, stop: StopHook, *, plots: bool, writes: bool = True
) -> list[Hook]:
    """In the order in which they must act: average, measure, stop, and for who ``writes``: save, draw."""
    hooks: list[Hook] = [AverageHook(), EvaluateHook(), stop]
    if not writes:
        return hooks
    hooks.append(CheckpointHook())
    return [*hooks, PictureHook(train_index)] if plots else hooks
