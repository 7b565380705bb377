"""The verb ``benchmark``: a model and its exported files side by side, and what each costs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from anyolo import console
from anyolo.api.benchmark_contest import Contest, contestants
from anyolo.api.models import open_model
from anyolo.audit.host import usable_cores
from anyolo.audit.machine import versions
from anyolo.config.load import dump, load
from anyolo.config.schema import BenchmarkVerb
from anyolo.data import open_data
from anyolo.data.synth import write_dataset
from anyolo.deploy.benchmark import KEY, STAGES, WHOLE, BenchmarkRow, to_csv
from anyolo.errors import ConfigError, DataError
from anyolo.evaluate.report import draw_benchmark
from anyolo.export import is_artifact, picture_paths, read_foreign
from anyolo.families.checkpoints import Checkpoint
from anyolo.ops.image import read_image
from anyolo.ops.letterbox import input_size
from anyolo.train.folder import RunFolder, write_text
from anyolo.types import PathLike

DRAWN = 4
BUSY = 0.5
"""Load average per core above which figures are not to be trusted."""
SPEED = ("format", "decode", "prepare", "network", "post", "total", "p95", "to model")
SAME = ("format", "verified", "max box px", "max score", KEY, "size MB")
COST = ("format", "load ms", "first call", "memory MB", "images/s", "at best")
"""Three tables, because one would not fit into 80 columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """The first row is the model itself. ``facts``: threads, size and machine that all rows share."""

    rows: Sequence[BenchmarkRow]
    run: Path
    facts: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Whether anything was measured: a format that cannot be had says so in its row."""
        return any(row.samples for row in self.rows)

    def documents(self) -> list[dict[str, Any]]:
        return [row.to_json(self.rows[0]) for row in self.rows]

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.documents(), "run": str(self.run), **self.facts}


def run_benchmark(values: Mapping[str, Any]) -> BenchmarkResult:
    """Settings as in ``anyolo benchmark --help``."""
    loaded = load(BenchmarkVerb, values)
    config, named = loaded.config, loaded.config.model.model
    if is_artifact(named) and read_foreign(named) is None:
        raise ConfigError(
            "this is an exported file",
            where="model",
            hint="Give its weights: every format is written anew.",
        )
    found, wishes = open_model(config.model), config.benchmark
    imgsz = found.imgsz if found.imgsz and "imgsz" not in loaded.explicit else wishes.imgsz
    size_hw = input_size(imgsz, found.preprocess.stride)
    threads = config.device.threads or torch.get_num_threads()
    _check_data(wishes.data, found)
    entered = contestants(named, wishes.formats, wishes.rival)
    run = config.run
    folder = RunFolder.create(run.project, run.name, "benchmark", exist_ok=run.exist_ok)
    settled = replace(
        config,
        benchmark=replace(wishes, imgsz=size_hw),
        device=replace(config.device, threads=threads),
    )
    folder.write_args(dump(settled))
    job = {
        "values": dump(settled),
        "family": found.spec.name,
        "names": found.names,
        "preprocess": found.preprocess.to_json(),
        "pictures": _pictures(wishes.source or wishes.data, named, found, folder.root),
    }
    facts = {
        "model": named,
        "imgsz": list(size_hw),
        "threads": threads,
        "rounds": wishes.rounds,
        "passes_per_round": wishes.n,
        "pictures": len(job["pictures"]),
        "data": wishes.data or None,
        "load_average": _load_average(),
        "versions": versions(),
    }
    result = BenchmarkResult(rows=[one.row for one in entered], run=folder.root, facts=facts)
    contest = Contest(
        entered, settled.benchmark, job, folder.root, threads=threads, keep=lambda: _write(result)
    )
    _warn_of_load()
    try:
        contest.run()
    except KeyboardInterrupt:
        measured = _conclude(result, "stopped before it was measured", plots=run.plots)
        raise KeyboardInterrupt(f"stopped; {measured} measured rows are in {folder.root}") from None
    _conclude(result, plots=run.plots)
    return result


def _check_data(data: str, found: Checkpoint) -> None:
    """A slip of the pen is answered before anything is written."""
    if data and len(names := open_data(data, "val").names) != len(found.names):
        raise DataError(
            f"the model has {len(found.names)} classes, the data {len(names)}",
            where=data,
            hint="Give the data.yaml the model was trained with, or leave data= out.",
        )


def _pictures(source: str, weights: PathLike, found: Checkpoint, folder: Path) -> list[str]:
    """Files that can be read: the user's, those of the training's data, else drawn ones."""
    paths = picture_paths(source, weights, found.meta)
    if not paths and not source:
        console.current().warn("timing drawn pictures; source=my/pictures times yours")
        drawn = write_dataset(folder / "drawn", train=0, val=DRAWN, size=640)
        paths = picture_paths(str(drawn))
    good = []
    for path in paths:
        try:
            read_image(path)
        except DataError as error:
            console.current().warn(f"skipped: {error}")
        else:
            good.append(str(Path(path).absolute()))
    if not good:
        raise DataError(
            "no picture to time with", where=source, hint="Give a file, folder, glob or data.yaml."
        )
    return good


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _warn_of_load() -> None:
    load_average, cores = _load_average(), usable_cores()
    if load_average is not None and load_average > BUSY * cores:
        console.current().warn(
            f"the machine is busy (load {load_average:g} on {cores:g} cores): times get longer, less even"
        )


def _conclude(result: BenchmarkResult, missing: str = "", *, plots: bool) -> int:
    """Tables, files and the plot; how many rows have figures. ``missing``: the reason of those without."""
    for row in result.rows:
        if not row.samples and not row.reason:
            row.reason = missing
    _write(result)
    _tell(result)
    if plots:
        draw_benchmark(
            [_bar(row) for row in result.rows], STAGES, _title(result.facts), result.run / "benchmark.png"
        )
    console.current().line(f"results in {result.run}")
    return sum(bool(row.samples) for row in result.rows)


def _write(result: BenchmarkResult) -> None:
    write_text(result.run / "benchmark.csv", to_csv(result.documents()))
    document = json.dumps(result.to_json(), indent=2, ensure_ascii=False)
    write_text(result.run / "benchmark.json", document + "\n")


def _bar(row: BenchmarkRow) -> tuple[str, list[float], tuple[float, float], str]:
    """As ``draw_benchmark`` takes it."""
    name = f"rival: {row.format}" if row.is_rival else row.format
    spreads, whole = [row.spread(stage) for stage in STAGES], row.spread(WHOLE)
    stages = [spread.median for spread in spreads if spread]
    return name, stages, (whole.median, whole.p95) if whole else (0, 0), row.reason


def _title(facts: Mapping[str, Any]) -> str:
    height, width = facts["imgsz"]
    threads = "1 thread" if facts["threads"] == 1 else f"{facts['threads']} threads"
    return f"{Path(facts['model']).name} at {height}x{width}, batch 1, {threads}"


def _tell(result: BenchmarkResult) -> None:
    report, documents, facts = console.current(), result.documents(), result.facts
    passes = facts["rounds"] * facts["passes_per_round"]
    title = f"{_title(facts)}: medians of {passes} passes, ms"
    report.table(title, SPEED, [_speed(row) for row in documents])
    report.table("compared with the model", SAME, [_same(row) for row in documents])
    report.table("what it takes", COST, [_cost(row) for row in documents])
    for row in documents:
        if row["device"]:
            report.line(f"{row['format']} runs on {row['device']}, exported files on the CPU")
        if row["reason"]:
            report.line(f"{row['format']}: {'' if row['passes'] else 'not measured: '}{row['reason']}")
        for note in row["notes"]:
            report.line(f"{row['format']}: {note}")


def _speed(row: Mapping[str, Any]) -> tuple[str, ...]:
    keys = (*STAGES, WHOLE)
    times = [_figure(row[f"{key}_ms"], ".1f") for key in keys]
    return _name(row), *times, _figure(row[f"{WHOLE}_p95_ms"], ".1f"), _figure(row["ratio"], ".2f")


def _same(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        _name(row),
        {None: "-", True: "yes", False: "NO"}[row["verified"]],
        _figure(row["max_box_error_px"], ".1g"),
        _figure(row["max_score_error"], ".1g"),
        _figure(row[KEY], ".4f"),
        _figure(row["size_bytes"], ".1f", 1e6),
    )


def _cost(row: Mapping[str, Any]) -> tuple[str, ...]:
    best = _figure(row["best_images_per_s"], ".1f")
    return (
        _name(row),
        _figure(row["load_ms"], ".0f"),
        _figure(row["warmup_ms"], ".0f"),
        _figure(row["memory_bytes"], ".0f", 1e6),
        _figure(row["images_per_s"], ".1f"),
        f"{best} ({row['best_batch']})" if row["best_batch"] else best,
    )


def _name(row: Mapping[str, Any]) -> str:
    return f"rival: {row['format']}" if row["rival"] else str(row["format"])


def _figure(value: float | None, pattern: str, unit: float = 1) -> str:
    return "-" if value is None else format(value / unit, pattern)
