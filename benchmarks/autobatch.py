"""``batch=-1`` in a memory control group, against an exhaustive sweep of batch sizes in the same group.

    python benchmarks/autobatch.py                         yolov8n and yolov5n at 640 in 6 GiB, as root
    python benchmarks/autobatch.py --models yolov8n --sizes 1,2,4 --repeats 2      a short trial

For each model a run of one epoch with ``batch=-1`` on a few pictures is started inside the group: it must end
well, and the group's own counter says how much it held at most. Then every batch size that fits trains on
noise with the same labels, in turn, up and down; what counts is the images per second of whole updates
(gradients gathered up to ``nbs`` pictures, optimizer, average), median of the repeats. The claim is the ratio
of the chosen size's rate to the best one's. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GIB = 2**30
SIZES = "1,2,3,4,6,8,12,16,24,32,48,64"


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """A control group with this limit and without swap, version 1 or 2, removed at the end."""
    top = Path("/sys/fs/cgroup")
    first = (top / "memory" / "memory.limit_in_bytes").exists()
    folder = (top / "memory" if first else top) / f"anyolo-autobatch-{os.getpid()}"
    try:
        if not first:
            (top / "cgroup.subtree_control").write_text("+memory")
        folder.mkdir()
    except OSError as error:
        raise SystemExit(f"cannot make a memory control group ({error}): it takes root and {top}") from None
    try:
        (folder / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(limit_bytes))
        with contextlib.suppress(OSError):
            name, value = ("memory.swappiness", "0") if first else ("memory.swap.max", "0")
            (folder / name).write_text(value)
        yield folder
    finally:
        for _ in range(50):
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.1)


def run_inside(group: Path, words: list[str], threads: int) -> tuple[int, str]:
    """The exit code and stdout of a Python process that starts its life in the group."""
    enter = "import os,sys,runpy; open(sys.argv[1],'w').write(str(os.getpid())); sys.argv[:]=sys.argv[2:]; "
    command = [sys.executable, "-c", f"{enter}runpy.run_path(sys.argv[0], run_name='__main__')"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        [*command, str(group / "cgroup.procs"), str(HERE / "autobatch.py"), *words],
        stdout=subprocess.PIPE, text=True, env=environment, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def peak_bytes(group: Path) -> int:
    """The most the group held, with files that the kernel could have dropped; 0 where it does not tell."""
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        with contextlib.suppress(OSError):
            return int((group / name).read_text())
    return 0


def kills(group: Path) -> int:
    for name in ("memory.oom_control", "memory.events"):
        with contextlib.suppress(OSError):
            lines = (group / name).read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def settings(options: argparse.Namespace, model: str, folder: str) -> dict[str, Any]:
    return {
        "model": str(options.shared / "weights" / f"{model}.pt"),
        "data": str(options.shared / "data" / options.data),
        "imgsz": options.imgsz, "fraction": options.fraction, "epochs": 1, "device": "cpu",
        "workers": options.workers, "threads": options.threads, "project": folder, "batch": -1,
    }  # fmt: skip


def train(options: argparse.Namespace) -> None:
    """In the group: a whole run with ``batch=-1``; the last line is what it chose."""
    from anyolo import api, console

    with console.use(console.RichReporter(sys.stderr)):
        result = api.train(**settings(options, options.models, options.folder))
    print(json.dumps({"batch": result.batch, "run": str(result.run)}))


def sweep(options: argparse.Namespace) -> None:
    """In the group: whole updates at every size that fits, in turn."""
    from anyolo.api.models import open_model
    from anyolo.config.load import dump, load
    from anyolo.config.schema import TrainVerb
    from anyolo.train.autobatch import AUTOMATIC_SHARE
    from anyolo.train.batch_trial import Trial
    from anyolo.train.folder import RunFolder
    from anyolo.train.prepare import fit_classes, settle
    from anyolo.train.schedule import Schedule
    from anyolo.train.step import train_step

    values = settings(options, options.models, options.folder)
    opened = open_model(load(TrainVerb, values).config.model)
    recipe = (f"recipe of {opened.spec.name}", opened.spec.recipe_of(opened.size))
    config = load(TrainVerb, values, layers=[recipe]).config
    job = settle(
        opened.spec, config, dump(config), frozenset(), lambda: RunFolder(Path(options.folder) / "sweep")
    )
    trial = Trial(job, fit_classes(opened.model, opened.spec, job.train_index.nc))
    rates: dict[int, list[float]] = {}
    peaks: dict[int, int] = {}
    per_picture = 0.0
    for size in options.sizes:  # growing: none is tried that the sizes before it say is too large
        memory, held = job.device.memory(), job.device.held_bytes()
        assert memory is not None and held is not None
        budget = AUTOMATIC_SHARE * (memory.free_bytes + held)
        if peaks and peaks[max(peaks)] + per_picture * (size - max(peaks)) > budget:
            break
        tried = trial.measure(size)
        if tried.peak_bytes is None:
            break
        peaks[size], rates[size] = tried.peak_bytes, []
        per_picture = (peaks[size] - held) / size
    for number in range(options.repeats):
        for size in peaks if number % 2 else reversed(peaks):
            schedule = Schedule(config=config.optim, epochs=1, batches=1, batch=size)
            gathered = max(1, round(config.optim.nbs / schedule.batch))
            batch = trial.worst_batch(size, trial.train_hw)
            trial.rate(batch)
            start = time.perf_counter()
            train_step(
                trial.model, trial.criterion, [batch] * gathered, trial.optimizer, trial.device,
                trial.device.scaler(trial.precision.dtype), trial.step,
            )  # fmt: skip
            trial.ema.update(trial.model)
            rates[size].append(gathered * size / (time.perf_counter() - start))
            print(f"  {number + 1}/{options.repeats} batch {size}: {rates[size][-1]:.2f}/s", file=sys.stderr)
    print(json.dumps({"rates": rates, "peaks": peaks, "precision": trial.precision.reason}))


def judge(options: argparse.Namespace, model: str) -> dict[str, Any]:
    words = [
        *("--imgsz", str(options.imgsz), "--fraction", str(options.fraction), "--data", options.data),
        *("--workers", str(options.workers), "--threads", str(options.threads), "--models", model),
        *("--shared", str(options.shared), "--repeats", str(options.repeats)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        with memory_group(options.limit) as group:
            began = time.perf_counter()
            code, text = run_inside(group, [*words, "--part", "train", "--folder", folder], options.threads)
            seconds, most, killed = time.perf_counter() - began, peak_bytes(group), kills(group)
        if code or killed:
            return {"model": model, "exit": code, "killed": killed, "peak_bytes": most, "output": text}
        chosen = json.loads(text.splitlines()[-1])
        search = json.loads((Path(chosen["run"]) / "autobatch.json").read_text(encoding="utf-8"))
        # the chosen size belongs to the sweep, whatever the list says
        sizes = sorted({*map(int, options.sizes.split(",")), chosen["batch"]})
        tail = ["--part", "sweep", "--folder", folder, "--sizes", ",".join(map(str, sizes))]
        with memory_group(options.limit) as group:
            code, text = run_inside(group, [*words, *tail], options.threads)
        if code:
            return {"model": model, "exit": code, "search": search, "output": text}
    swept = json.loads(text.splitlines()[-1])
    medians = {int(size): statistics.median(rates) for size, rates in swept["rates"].items() if rates}
    best = max(medians, key=lambda size: medians[size])
    return {
        "model": model, "exit": 0, "killed": killed, "batch": chosen["batch"], "best_batch": best,
        "ratio": round(medians[chosen["batch"]] / medians[best], 4), "medians": medians,
        "run_seconds": round(seconds, 1), "peak_bytes": most, "limit_bytes": options.limit,
        "search": search, "sweep": swept,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="yolov8n,yolov5n")
    parser.add_argument("--data", default="coco128")
    parser.add_argument("--fraction", type=float, default=0.5)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--gib", type=float, default=6.0)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--shared", type=Path, default=HERE.parent.parent / "shared")
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--part", choices=["all", "train", "sweep"], default="all", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.limit = int(options.gib * GIB)
    if options.part != "all":
        options.sizes = [int(size) for size in options.sizes.split(",")]
        (train if options.part == "train" else sweep)(options)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves no control group behind
    results = [judge(options, model) for model in options.models.split(",")]
    for one in results:
        print(
            json.dumps(
                {key: one.get(key) for key in ("model", "exit", "killed", "batch", "best_batch", "ratio")}
            )
        )
    today = datetime.date.today().isoformat()
    path = options.output or HERE / "results" / f"autobatch-{today}.json"
    path.parent.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "threads": options.threads, "limit_gib": options.gib}
    document = {"date": today, "machine": machine, "results": results}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"written {path}")
    if any(one.get("ratio", 0) < 0.9 for one in results):
        raise SystemExit("below 0.9 of the best rate, or the run did not end well")


if __name__ == "__main__":
    main()
