"""Whole runs in several processes: started by ``device=cpu:0,1``, judged, killed, resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from anyolo import api
from anyolo.data.synth import write_dataset
from anyolo.families.checkpoints import read_record

ROOT = Path(__file__).parents[2]
MODEL = """
nc: 4
scales: {n: [0.33, 0.125, 256]}
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 1, C2f, [128, True]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 1, Conv, [1024, 3, 2]]
head:
  - [[3, 4, 5], 1, Detect, [nc]]
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    model = tmp_path / "tiny.yaml"
    model.write_text(MODEL)
    data = write_dataset(tmp_path / "data", train=10, val=5, size=160)
    return [
        f"model={model}", f"data={data}", f"project={tmp_path}", "name=run", "imgsz=96", "batch=4",
        "workers=0", "plots=False", "amp=False", "optimizer=SGD", "device=cpu:0,1",
    ]  # fmt: skip


def start(words: list[str], **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "anyolo.cli", "train", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, **options)


def processes_of(run: subprocess.Popen[str]) -> list[psutil.Process]:
    own = psutil.Process(run.pid).children(recursive=True)
    return [child for child in own if any("api.worker" in word for word in child.cmdline())]


def wait_for(what: Path, run: subprocess.Popen[str], limit_s: float = 120) -> None:
    until = time.monotonic() + limit_s
    while not what.exists() and run.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert what.exists(), run.communicate()[1] if run.poll() is not None else "too slow"


SLOW = [pytest.param(hook, marks=pytest.mark.slow) for hook in ("fp16", "bf16", "powersgd")]


@pytest.mark.parametrize("hook", ["none", "topk", *SLOW])
def test_a_run_in_two_processes_is_judged_as_by_one(words: list[str], hook: str, tmp_path: Path) -> None:
    """Five pictures to judge by, three of one process and two of the other."""
    run = start([*words, "epochs=2", f"comm_hook={hook}", "--json"])
    out, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors[-3000:]
    told = json.loads(out)
    alone = api.val(model=told["best"], data=str(tmp_path / "data/data.yaml"), imgsz=96, plots=False,
                    device="cpu", project=str(tmp_path), conf=0.001)  # fmt: skip
    assert told["batch"] == 4
    assert told["metrics"] == pytest.approx(dict(alone.metrics), abs=1e-9)


def test_when_one_process_is_killed_the_others_end_and_the_run_goes_on(
    words: list[str], tmp_path: Path
) -> None:
    run = start([*words, "epochs=400", "val=False"])
    wait_for(tmp_path / "run/results.csv", run)
    victims = processes_of(run)
    assert len(victims) == 2
    victims[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    _, errors = run.communicate(timeout=120)
    assert time.monotonic() - killed < 60
    assert run.returncode == 1
    assert "a process of this run died" in errors and "signal 9" in errors and "resume" in errors
    assert not any(victim.is_running() for victim in victims)

    done = len((tmp_path / "run/results.csv").read_text().splitlines()) - 1
    resumed = start([f"resume={tmp_path / 'run'}", f"epochs={done + 2}"])
    out, errors = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, errors[-3000:]
    assert "2 processes" in out and f"of {done + 2}, batch 1 of 3" in out


@pytest.mark.slow
def test_torchrun_starts_a_failed_run_again_where_it_was(words: list[str], tmp_path: Path) -> None:
    run = start([*words, "epochs=60", "val=False", "restarts=1"])
    wait_for(tmp_path / "run/results.csv", run)
    processes_of(run)[1].send_signal(signal.SIGKILL)
    out, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors[-3000:]
    assert "going on with epoch" in out
    rows = (tmp_path / "run/results.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, 61))


def test_ctrl_c_stops_all_after_the_same_update(words: list[str], tmp_path: Path) -> None:
    """As a terminal sends it, to every process at once; what was done is saved and goes on."""
    run = start([*words, "epochs=400", "val=False"], start_new_session=True)
    wait_for(tmp_path / "run/results.csv", run)
    workers = processes_of(run)
    os.killpg(run.pid, signal.SIGINT)
    out, errors = run.communicate(timeout=120)
    assert run.returncode == 130, errors[-3000:]
    assert "all saved" in out + errors and "Traceback" not in errors
    assert not any(worker.is_running() for worker in workers)
    saved = read_record(tmp_path / "run/weights/last.pt")["training"]
    resumed = start([f"resume={tmp_path / 'run'}", f"epochs={saved['epoch'] + 1}"])
    out, errors = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, errors[-3000:]
    assert (
        f"going on with epoch {saved['epoch'] + 1} of {saved['epoch'] + 1}, batch {saved['index'] + 1} of 3"
        in out
    )
