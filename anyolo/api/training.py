"""The verb ``train``: a new run, or going on with a stopped one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from anyolo import console
from anyolo.api.data_files import read_data_layer
from anyolo.api.launching import launch, restart_note
from anyolo.api.models import open_model
from anyolo.config.load import Loaded, dump, load
from anyolo.config.schema import TrainVerb
from anyolo.devices import open_device, several
from anyolo.devices.distributed import Group, join, placed
from anyolo.errors import CheckpointError
from anyolo.families.checkpoints import load_model, read_record
from anyolo.train.folder import RunFolder, write_text
from anyolo.train.start import TrainResult, train

# What may change when a run goes on. All else is what it was, or the run would be another one.
CHANGEABLE = {
    "epochs",
    "device",
    "loss_device",
    "strict",
    "workers",
    "patience",
    "time",
    "save_period",
    "plots",
    "verbose",
    "threads",
    "cache",
}


def run_train(values: Mapping[str, Any]) -> TrainResult:
    """Settings as in ``anyolo train --help``."""
    typed = load(TrainVerb, values)
    group = placed()
    processes = several(_device(typed), batch=typed.config.data.batch_size) if group.is_alone else 1
    if processes > 1:
        restarts = typed.config.scale.restarts
        return TrainResult.from_json(launch(values, processes, restarts=restarts))
    with _only_first_speaks(group), _remembered(group):
        if stopped := _restarted(typed, group):
            return _resume(load(TrainVerb, {"resume": stopped, "device": typed.config.device.device}))
        if typed.config.schedule.resume:
            return _resume(typed)
        return _begin(values, typed)


def _begin(values: Mapping[str, Any], typed: Loaded[TrainVerb]) -> TrainResult:
    data = typed.config.data.data
    beside = read_data_layer(data)
    start = open_model(load(TrainVerb, values, layers=[beside.layer]).config.model)
    recipe = (f"recipe of {start.spec.name}", start.spec.recipe_of(start.size))
    loaded = load(TrainVerb, {**values, "data": _absolute(data)}, layers=[recipe, beside.layer])
    beside.tell(loaded.explicit)
    for notice in loaded.notices:
        console.current().warn(notice)
    run = loaded.config.run
    return train(
        start.spec,
        start.model,
        loaded.config,
        dump(loaded.config),
        explicit=loaded.explicit | beside.layer.values.keys(),
        make_folder=lambda: _noted(RunFolder.create(run.project, run.name, "train", exist_ok=run.exist_ok)),
        is_random="random" in start.meta,
        is_folded="folded" in start.meta,
    )


def _device(typed: Loaded[TrainVerb]) -> str:
    """As typed, or of the run that is to go on."""
    schedule, device = typed.config.schedule, typed.config.device.device
    if not schedule.resume or "device" in typed.explicit:
        return device
    file = _last_weights(typed.config).parent.parent / "args.yaml"
    args = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return str(args.get("device", device))


@contextmanager
def _only_first_speaks(group: Group) -> Iterator[None]:
    if group.is_first:
        yield
        return
    with console.use(console.NullReporter()):
        yield


def _note() -> Path:
    return restart_note(os.environ.get("TORCHELASTIC_RUN_ID", ""), launcher=os.getppid())


def _noted(folder: RunFolder) -> RunFolder:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        write_text(_note(), str(folder.root.resolve()))
    return folder


def _restarted(typed: Loaded[TrainVerb], group: Group) -> str:
    """The folder of the run that torchrun starts again, or "": what the first process knows counts for all.

    torch's own count of restarts differs between machines: only the one with the failure counts it.
    """
    if group.is_alone:
        return ""
    join(open_device(_device(typed), process=group.local_rank))
    return group.first(lambda: _note().read_text(encoding="utf-8") if _note().is_file() else "")


@contextmanager
def _remembered(group: Group) -> Iterator[None]:
    """A run that came to its end, or was stopped, needs no note."""
    is_failed = False
    try:
        yield
    except Exception:
        is_failed = True
        raise
    finally:
        if group.is_first and not group.is_alone and not is_failed:
            _note().unlink(missing_ok=True)


def _resume(loaded: Loaded[TrainVerb]) -> TrainResult:
    last = _last_weights(loaded.config)
    folder = RunFolder(last.parent.parent)
    typed = dump(loaded.config)
    changes = {key: typed[key] for key in loaded.explicit if key in CHANGEABLE}
    if ignored := sorted(loaded.explicit - CHANGEABLE - {"resume", "model", "project", "name"}):
        console.current().warn(f"a resumed run keeps its own settings; ignored: {', '.join(ignored)}")
    if not last.is_file():
        return _restart(folder, changes)
    state = read_record(last)["training"]
    args = state["args"]
    if state["finished"]:
        return _beyond(last, state, changes)
    if "epochs" in changes and changes["epochs"] != args["epochs"]:
        console.current().line(
            f"{changes['epochs']} epochs instead of {args['epochs']}: "
            "the learning rate follows the new length from here"
        )
    config = load(TrainVerb, {**args, **changes, "resume": False}).config
    start = load_model(last)
    return train(
        start.spec,
        start.model,
        config,
        dump(config),
        explicit=state["choices"]["explicit"],
        make_folder=lambda: folder,
        resume=state,
    )


def _last_weights(config: TrainVerb) -> Path:
    """The last.pt that ``resume=`` (file or run folder) or ``model=`` means, or the newest run's."""
    named = config.schedule.resume if isinstance(config.schedule.resume, str) else config.model.model
    if named:
        path = Path(named)
        if path.is_dir():
            return path / "weights" / "last.pt"
        if not path.is_file() and not (path.parent.parent / "args.yaml").is_file():
            raise CheckpointError(
                "nothing to resume there", where=named, hint="Give a run's folder or its weights/last.pt."
            )
        return path
    runs = sorted(Path(config.run.project).glob("*/args.yaml"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise CheckpointError(
            "no run to resume",
            where=config.run.project,
            hint="Give the run: anyolo train resume=runs/detect/train/weights/last.pt",
        )
    return runs[-1].parent / "weights" / "last.pt"


def _restart(folder: RunFolder, changes: Mapping[str, Any]) -> TrainResult:
    """Stopped before its first checkpoint: the settings are all there is, and all that is needed."""
    file = folder.root / "args.yaml"
    if not file.is_file():
        raise CheckpointError(
            "nothing to resume there",
            where=str(folder.root),
            hint="Give a run's folder or its weights/last.pt.",
        )
    args = yaml.safe_load(file.read_text(encoding="utf-8"))
    explicit = args.pop("explicit", [])
    config = load(TrainVerb, {**args, **changes, "resume": False}).config
    start = open_model(config.model)
    console.current().line("stopped before its first checkpoint: starting it again")
    is_random = "random" in start.meta
    return train(
        start.spec,
        start.model,
        config,
        dump(config),
        explicit=explicit,
        make_folder=lambda: folder,
        is_random=is_random,
    )


def _beyond(last: Path, state: Mapping[str, Any], changes: Mapping[str, Any]) -> TrainResult:
    """A finished run: say so, or train on from its weights for the epochs asked for beyond its own."""
    done, folder = state["epoch"], RunFolder(last.parent.parent)
    more = changes.get("epochs", done) - done
    if more <= 0:
        console.current().line(
            f"this run is finished ({done} epochs): nothing to resume. Results in {folder.root}"
        )
        return TrainResult(
            run=folder.root,
            best=folder.best,
            last=last,
            epochs=done,
            stopped="finished before",
            batch=state["args"]["batch"],
            device=state["args"]["device"],
            metrics=read_record(folder.best)["metrics"],
        )
    console.current().line(
        f"this run is finished ({done} epochs): fine-tuning its weights for {more} more in a new run"
    )
    args = {key: value for key, value in state["args"].items() if key not in {"name", "exist_ok", "resume"}}
    return run_train({**args, **changes, "epochs": more, "model": str(last)})


def _absolute(data: str) -> str:
    """A path that still holds when the run is resumed from another folder."""
    return str(Path(data).resolve()) if data and Path(data).exists() else data
