"""``batch=-1`` and ``batch=0.8``: the batch size, found by trying steps of growing size before the run."""

from __future__ import annotations

import gc
import json
from dataclasses import replace

from anyolo import console
from anyolo.config.schema import TrainVerb
from anyolo.data.loader import host_bytes
from anyolo.data.workers import plan_workers
from anyolo.devices import Device
from anyolo.evaluate import draw_batches
from anyolo.nn.model import Detector
from anyolo.train.batch_search import Choice, Room, search
from anyolo.train.batch_trial import Trial, worst_sizes
from anyolo.train.folder import write_text
from anyolo.train.precision import Precision
from anyolo.train.prepare import Job
from anyolo.train.state import capture_random, restore_random

UNMEASURED = 16
LARGEST = 1024
# What -1 may take of the memory that is free or ours; the rest is for what no trial meets: others that grow,
# memory that crumbles over thousands of steps of changing size.
AUTOMATIC_SHARE = 0.85
# What a run on the host holds beside its steps and its loaders: the libraries of evaluation and drawing, and
# a checkpoint while it is written.
RUN_BYTES = 256 << 20
GIB = 2**30


def settle_batch(job: Job, model: Detector) -> Job:
    """The job with a number of pictures for ``batch``, written into the run's settings, so that a resumed run
    keeps it. ``model`` and all random states are left as they were.
    """
    if job.config.data.batch_size:
        return job
    # of several processes the first searches alone, and each then takes as many as it found
    own, precision = job.group.first(lambda: _find(job, model))
    batch = own * job.group.world
    args = {**job.args, "batch": batch}
    if job.group.is_first:
        job.folder.write_args({**args, "explicit": sorted(job.explicit)})
    config = replace(job.config, data=replace(job.config.data, batch=batch))
    return replace(job, config=config, args=args, precision=precision)


def _find(job: Job, model: Detector) -> tuple[int, Precision | None]:
    """Pictures of one process, and the number type if that was measured on the way."""
    room = _look(job, model)
    if room is None:
        return UNMEASURED, None
    random = capture_random(job.device)
    trial = Trial(job, model)
    limit = max(1, min(LARGEST, len(job.train_index) // job.group.world))
    choice = search(trial, room, limit=limit, is_filling=job.config.data.batch != -1)
    precision = trial.precision
    del trial
    gc.collect()
    job.device.empty_cache()
    restore_random(job.device, random)
    _tell(job, choice)
    return choice.batch, precision


def _look(job: Job, model: Detector) -> Room | None:
    """The room before anything is tried; None, with a warning, where the device does not tell."""
    device, asked = job.device, job.config.data.batch
    gc.collect()
    device.empty_cache()
    memory, held = device.memory(), device.held_bytes()
    with device.watch_memory() as peak:
        pass
    if memory is None or held is None or peak.peak_bytes is None:
        console.current().warn(
            f"batch={asked:g}: {device.profile.name} does not tell what memory it has and what a step takes; "
            f"batch={UNMEASURED} is used. Give the number yourself if that is too many or too few"
        )
        return None
    share = AUTOMATIC_SHARE if asked == -1 else asked
    if device.profile.shares_host:
        share /= job.group.world
    room = Room(memory=memory, held_bytes=held, share=share, beside=lambda batch: beside(job, model, batch))
    _warn_of_workers(job.config, device, room)
    return room


def beside(job: Job, model: Detector, batch: int) -> int:
    """Bytes of the device's memory that the run holds beside its steps: on a device that shares the host's
    memory the loaders, their workers and the batches that wait for an update; nothing elsewhere.
    """
    if not job.device.profile.shares_host:
        return 0
    config, data, augment = job.config, job.config.data, job.config.augment
    train_hw, val_hw = worst_sizes(config, job.size_hw, max(model.strides))
    mixes = not data.rect and bool(augment.mosaic or augment.mixup)
    pictures = len(job.train_index), len(job.val_index)
    pin = job.device.profile.pin_memory
    loaders = host_bytes(
        job.size_hw, batch=batch, workers=data.workers, mixes=mixes, pin=pin, pictures=pictures[0]
    ) + host_bytes(val_hw, batch=batch, workers=data.workers, mixes=False, pin=pin, pictures=pictures[1])
    gathered = max(batch, config.optim.nbs) * 3 * train_hw[0] * train_hw[1]
    kept = sum(pictures) * 3 * job.size_hw[0] * job.size_hw[1] if data.cache in {True, "ram"} else 0
    return RUN_BYTES + loaders + gathered + kept


def _warn_of_workers(config: TrainVerb, device: Device, room: Room) -> None:
    """Say that the loader takes what the steps could use. Nothing is changed: the user may want it so."""
    own = room.beside(1)
    if own > room.budget_bytes / 2:
        count, _ = plan_workers(config.data.workers, apart=device.profile.pin_memory)
        console.current().warn(
            f"{count} loader workers and the run's own libraries may hold {_gib(own)} of the "
            f"{_gib(room.budget_bytes)} there is for all; fewer workers=, no cache=ram leave more for steps"
        )


def _tell(job: Job, choice: Choice) -> None:
    asked, report, device = job.config.data.batch, console.current(), job.device.profile.name
    report.line(sentence(choice, asked, device))
    for one in choice.tried:
        if one.peak_bytes is None:
            report.warn(f"a step of batch {one.batch} ran out of memory while the batch was searched")
    write_text(
        job.folder.root / "autobatch.json", json.dumps(document(choice, asked, device), indent=1) + "\n"
    )
    if job.config.run.plots:
        fitted = [one for one in choice.tried if one.peak_bytes is not None]
        draw_batches(
            [(one.batch, choice.room.beside(one.batch) + (one.peak_bytes or 0)) for one in fitted],
            [(one.batch, one.images_per_s) for one in fitted],
            [one.batch for one in choice.tried if one.peak_bytes is None],
            need=choice.needed_bytes,
            budget_bytes=choice.room.budget_bytes,
            chosen=choice.batch,
            path=job.folder.root / "autobatch.png",
        )


def sentence(choice: Choice, asked: float, device: str) -> str:
    memory, own, budget = choice.room.memory, choice.room.held_bytes, choice.room.budget_bytes
    others = max(0, memory.total_bytes - memory.free_bytes - own)
    return (
        f"batch={asked:g}: {device} has {_gib(memory.total_bytes)}, {_gib(own)} reserved by this run, "
        f"{_gib(others)} used by others, {_gib(memory.free_bytes)} free; batch {choice.batch} takes at most "
        f"{_gib(choice.needed_bytes(choice.batch))} of {_gib(budget)} that it may: {choice.why}"
    )


def document(choice: Choice, asked: float, device: str) -> dict[str, object]:
    """The same for programs: ``autobatch.json`` in the run's folder."""
    memory, line = choice.room.memory, choice.line
    return {
        "asked": asked,
        "batch": choice.batch,
        "why": choice.why,
        "device": device,
        "total_bytes": memory.total_bytes,
        "free_bytes": memory.free_bytes,
        "reserved_bytes": choice.room.held_bytes,
        "budget_bytes": choice.room.budget_bytes,
        "needed_bytes": choice.needed_bytes(choice.batch),
        "bytes_per_picture": line.slope if line else None,
        "tried": [
            {
                "batch": one.batch,
                "peak_bytes": one.peak_bytes,
                "beside_bytes": choice.room.beside(one.batch),
                "images_per_s": one.images_per_s,
            }
            for one in choice.tried
        ],
    }


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
