"""A run that is killed and resumed ends with the very weights of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from anyolo.data.synth import write_dataset

ROOT = Path(__file__).resolve().parents[2]
TINY = """
nc: 4
scales: {n: [0.33, 0.125, 256]}
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 1, C2f, [128, True]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 1, C2f, [256, True]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 1, Conv, [1024, 3, 2]]
head:
  - [[4, 5, 6], 1, Detect, [nc]]
"""
WITH_ANCHORS = (
    TINY.replace("C2f", "C3").replace("[nc]", "[nc, anchors]")
    + "anchors: [[10, 13, 16, 30], [30, 61, 62, 45], [80, 60, 60, 90]]\n"
)
# Trains, and dies by its own SIGKILL after the update given (0: lives), saving after every update when told
# to.
PROGRAM = """
import os, signal, sys
from anyolo import api
from anyolo.train import hooks
die_after, save_always = int(sys.argv[1]), sys.argv[2] == "1"
if save_always:
    hooks.SAVE_EVERY_S = 0.0
save = hooks.CheckpointHook.after_step
def after_step(self, run, report, batches):
    save(self, run, report, batches)
    if run.updates == die_after:
        os.kill(os.getpid(), signal.SIGKILL)
hooks.CheckpointHook.after_step = after_step
api.train(**dict(word.split("=", 1) for word in sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("resume")
    data = write_dataset(folder / "data", train=14, val=4, size=192)
    model = folder / "tiny.yaml"
    model.write_text(TINY)
    return [
        f"model={model}", f"data={data}", "imgsz=96", "batch=4", "nbs=8", "epochs=4", "workers=2",
        "mixup=0.5", "multi_scale=0.3", "plots=False", "amp=False", "optimizer=SGD", "device=cpu",
    ]  # fmt: skip


def start(words: list[str], *, die_after: int = 0, save_always: bool = False) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, str(die_after), str(int(save_always)), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE)


def finish(words: list[str], **options: object) -> int:
    process = start(words, **options)  # type: ignore[arg-type]
    _, errors = process.communicate()
    assert process.returncode in {0, -signal.SIGKILL}, errors.decode()
    return process.returncode


def weights(folder: Path) -> dict[str, torch.Tensor]:
    record = torch.load(folder / "weights" / "last.pt", weights_only=True)
    assert record["training"]["finished"]
    return {**record["weights"]}


def assert_equal(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    rows = [[r.split(",") for r in (f / "results.csv").read_text().splitlines()] for f in (first, second)]
    time_column = rows[0][0].index("time")
    assert [[v for k, v in enumerate(r) if k != time_column] for r in rows[0]] == [
        [v for k, v in enumerate(r) if k != time_column] for r in rows[1]
    ]


def test_killed_in_the_middle_of_an_epoch(job: list[str], tmp_path: Path) -> None:
    assert finish([*job, f"project={tmp_path}/whole"]) == 0
    # with nbs 8 and batches of 4, update 5 lies inside the second epoch
    assert finish([*job, f"project={tmp_path}/killed"], die_after=5, save_always=True) == -signal.SIGKILL
    assert finish([f"resume={tmp_path}/killed/train"]) == 0
    assert_equal(tmp_path / "whole" / "train", tmp_path / "killed" / "train")


def test_what_the_loss_learned_goes_on_too(job: list[str], tmp_path: Path) -> None:
    model = tmp_path / "anchors.yaml"
    model.write_text(WITH_ANCHORS)
    words = [*job, f"model={model}", "autobalance=True"]
    assert finish([*words, f"project={tmp_path}/whole"]) == 0
    assert finish([*words, f"project={tmp_path}/killed"], die_after=5, save_always=True) == -signal.SIGKILL
    (kept,) = torch.load(tmp_path / "killed/train/weights/last.pt", weights_only=True)["training"][
        "criterion"
    ]
    assert kept.shape == (3,) and kept[1] == 1 and kept.tolist() != pytest.approx([4.0, 1.0, 0.4], abs=1e-5)
    assert finish([f"resume={tmp_path}/killed/train"]) == 0
    assert_equal(tmp_path / "whole" / "train", tmp_path / "killed" / "train")


@pytest.mark.slow
def test_killed_three_times_at_random_moments(job: list[str], tmp_path: Path) -> None:
    began = time.monotonic()
    assert finish([*job, f"project={tmp_path}/whole", "epochs=24"]) == 0
    # three of these are less than the whole run, however fast the machine
    longest = 0.3 * (time.monotonic() - began)
    words = [*job, f"project={tmp_path}/killed", "epochs=24"]
    for _ in range(3):
        process = start(words)
        settings = tmp_path / "killed" / "train" / "args.yaml"
        while not settings.is_file() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(random.uniform(0.0, longest))
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, f"not killed: {errors.decode()}"
        words = [f"resume={tmp_path}/killed/train"]
    assert finish(words) == 0
    assert_equal(tmp_path / "whole" / "train", tmp_path / "killed" / "train")


def test_resuming_a_finished_run_says_so(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from anyolo import api, console

    with console.use(console.RichReporter()):
        values = dict(word.split("=", 1) for word in job)
        first = api.train(**{**values, "epochs": 1, "workers": 0, "project": str(tmp_path)})
        capsys.readouterr()
        again = api.train(resume=str(first.last))
        assert "finished (1 epochs): nothing to resume" in capsys.readouterr().out
        assert again.run == first.run and dict(again.metrics) == pytest.approx(dict(first.metrics), abs=1e-6)
        more = api.train(resume=str(first.last), epochs=2)
        assert "fine-tuning its weights for 1 more" in capsys.readouterr().out
    assert more.run != first.run and more.epochs == 1
