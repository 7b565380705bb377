"""What a hostile file may cost: two seconds and a gibibyte, each file opened in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from anyolo.errors import CheckpointError, ModelError
from anyolo.families import FAMILIES
from anyolo.families.checkpoints import load_model, model_record, save_atomic
from anyolo.families.safe_reader import read_object
from anyolo.families.shapes import own_rows
from anyolo.nn.model import build
from tests.unit.hostile_files import corpus
from tests.unit.hostile_opcodes import GOOD, archive, storage, tensor, under_model

GIBIBYTE = 1 << 30
CASES = corpus("MARKER")


@pytest.fixture(scope="module")
def trials(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """Of each file of the corpus, and of one that is sound, what opening it gave and took."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("needs Linux: memory is read from /proc and limits are set before a file is opened")
    folder = tmp_path_factory.mktemp("corpus")
    names = [*CASES, "sound"]
    for number, name in enumerate(names):
        (folder / f"{number:04}.pt").write_bytes(CASES[name][0] if name in CASES else GOOD)
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.hostile_trial", str(folder)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(list(folder.iterdir())) == len(names)
    return {names[int(trial["file"][:4])]: trial for trial in found}


@pytest.mark.parametrize("case", CASES)
def test_refused_within_two_seconds_and_a_gibibyte(trials, case):
    trial = trials[case]
    assert trial["kind"] in ("CheckpointError", "UntrustedFile"), trial
    assert trial["seconds"] < 2
    assert trial["growth"] < GIBIBYTE
    assert not trial["events"]
    assert CASES[case][1] in trial["text"]
    assert (
        "MemoryError" not in trial["text"] and "allocate" not in trial["text"]
    )  # by our limits, not by luck


def test_the_trial_itself(trials):
    """It measures something, and does not refuse all there is."""
    assert max(trial["growth"] for trial in trials.values()) > 50 << 20
    assert max(trial["seconds"] for trial in trials.values()) > 0.1
    assert "no known model has these 1 tensors: w (4,)" in trials["sound"]["text"]


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    spec = FAMILIES.get("yolov8")
    model = build(own_rows(spec, "n"), size="n", nc=1, batch_norm=spec.batch_norm)
    return model_record(model, spec, ["a"], imgsz=None, metrics={})


def enlarge(rows: dict[str, Any]) -> None:
    next(row for row in rows["head"] if row[2].endswith("Upsample"))[3][1] = 512


def pad(rows: dict[str, Any]) -> None:
    rows["backbone"][0][3] = [64, 3, 2, 5000]


def repeat(rows: dict[str, Any]) -> None:
    rows["backbone"][2][1] = 100_000


def widen(rows: dict[str, Any]) -> None:
    rows["backbone"][0][3][0] = 1 << 40


@pytest.mark.parametrize(
    ("change", "words"),
    [(enlarge, "268435456 numbers"), (pad, "numbers"), (repeat, "blocks"), (widen, "channels")],
)
def test_rows_that_ask_for_more_than_there_is(tmp_path, record, change: Callable[..., None], words):
    """A file whose tensors all fit, and whose rows would fill the memory when the model is built."""
    rows = json.loads(json.dumps(record["rows"]))
    change(rows)
    save_atomic({**record, "rows": rows}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=words):
        load_model(tmp_path / "a.pt")


def test_maps_joined_with_themselves():
    """Without a single tensor: 2**20 times as many channels, which nothing reads."""
    spec = FAMILIES.get("yolov8")
    rows = json.loads(json.dumps(own_rows(spec, "n")))
    rows["backbone"][:0] = [[[-1], 1, "Concat", [1]], *([[[-1, -1], 1, "Concat", [1]]] * 20)]
    for row in (*rows["backbone"][21:], *rows["head"]):
        row[0] = [s + 21 if s >= 0 else s for s in row[0]] if isinstance(row[0], list) else row[0]
    with pytest.raises(ModelError, match=r"numbers for 64x64 pixels, at Concat"):
        build(rows, size="n", nc=1)


def test_a_model_of_one_number(tmp_path):
    """A tensor may show a number again and again, but not more of it than the allowance."""
    many = archive(under_model(tensor(storage(), [8191, 8191], [0, 0])), {"archive/data/0": b"\0" * 16})
    (tmp_path / "a.pt").write_bytes(many)
    assert read_object(tmp_path / "a.pt")["model"].shape == (8191, 8191)
    more = archive(under_model(tensor(storage(), [8200, 8200], [0, 0])), {"archive/data/0": b"\0" * 16})
    (tmp_path / "a.pt").write_bytes(more)
    with pytest.raises(CheckpointError, match="far more data than it holds"):
        read_object(tmp_path / "a.pt")


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_bytes_shown_as_numbers_count_as_numbers(tmp_path, is_zip):
    """A model is made in float32 of whatever the file has: 4 bytes for each byte shown."""
    tensors = {f"w{n}": torch.zeros(1, dtype=torch.uint8).expand(1 << 24) for n in range(6)}
    torch.save(tensors, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CheckpointError, match="far more data than it holds"):
        read_object(tmp_path / "a.pt")
