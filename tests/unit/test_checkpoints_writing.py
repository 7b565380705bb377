"""Writing: the old file or the new one, never a part; and what is written opens with nothing but torch."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from anyolo.errors import CheckpointError
from anyolo.families import checkpoint_writing
from anyolo.families.checkpoints import read_record, save_atomic

TRAINING = {
    "anyolo": 1,
    "epoch": 3,
    "finished": False,
    "none": None,
    "best": -0.5,
    "nested": [{"a": (1, 2.5, "ü")}, [], (), {}],
    "big": 2**60,
    "optimizer": {
        "state": {0: {"momentum_buffer": torch.randn(3, 2), "step": torch.tensor(7.0)}},
        "param_groups": [{"lr": 0.01, "params": [0], "nesterov": True}],
    },
    "random": {"torch": torch.get_rng_state(), "words": torch.arange(625)},
    "weights": {"w": torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last), "n": torch.tensor(5)},
    "types": [
        torch.zeros(2, dtype=t)
        for t in (torch.float16, torch.bfloat16, torch.float64, torch.bool, torch.uint8)
    ],
    "scalar": torch.tensor(1.5),
    "empty": torch.zeros(0, 4),
}


def assert_equal(found, expected):
    """Equal values of equal types, tensors bit for bit."""
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert (
            found.dtype == expected.dtype and found.shape == expected.shape and torch.equal(found, expected)
        )
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for own, other in zip(found, expected, strict=True):
            assert_equal(own, other)
    else:
        assert found == expected


def test_training_state_round_trips(tmp_path):
    path = tmp_path / "new" / "last.pt"
    save_atomic(TRAINING, path)
    assert_equal(read_record(path), TRAINING)
    assert_equal(torch.load(path, weights_only=True), TRAINING)
    assert os.listdir(path.parent) == ["last.pt"]


def test_the_same_content_gives_the_same_bytes(tmp_path):
    save_atomic(TRAINING, tmp_path / "a.pt")
    save_atomic(TRAINING, tmp_path / "b.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_a_file_of_others_or_of_the_future_is_no_record(tmp_path):
    torch.save({"model": {"w": torch.zeros(1)}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not a file that anyolo wrote"):
        read_record(tmp_path / "a.pt")
    torch.save({"anyolo": 99}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"newer anyolo[\s\S]*pip install --upgrade"):
        read_record(tmp_path / "a.pt")


@pytest.mark.parametrize("limit", [0, 1, 5000, 99_000])
def test_a_full_disk_leaves_the_old_file(tmp_path, limit):
    """A limit on file size stands for the full disk: the same kind of error, from the same call."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "last.pt"
    save_atomic({"w": torch.zeros(3)}, path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(CheckpointError, match="cannot be written") as refusal:
            save_atomic({"w": torch.ones(25_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "The previous file is untouched." in refusal.value.hint
    assert "MB free, 0.1 MB are needed" in refusal.value.hint
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.pt"]


def test_the_disk_is_full_while_torch_writes(tmp_path, monkeypatch):
    """/dev/full says what a full disk says."""
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    real = open
    monkeypatch.setattr("builtins.open", lambda path, *args, **named: real("/dev/full", *args, **named))
    with pytest.raises(CheckpointError, match="No space left on device") as refusal:
        save_atomic({"w": torch.zeros(100_000)}, tmp_path / "best.pt")
    monkeypatch.undo()
    assert "Nothing was written." in refusal.value.hint and "0.4 MB are needed" in refusal.value.hint
    assert not (tmp_path / "best.pt").exists()


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path):
    save_atomic({"w": 1}, tmp_path / "a.pt")
    with pytest.raises(Exception, match="pickle"):
        save_atomic({"w": lambda: None}, tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True) == {"w": 1}
    assert os.listdir(tmp_path) == ["a.pt"]


def test_killed_at_any_moment(tmp_path):
    """SIGKILL while it saves over and over: the file is always whole, and each time one of those written."""
    program = textwrap.dedent("""
        import sys, torch
        from anyolo.families.checkpoints import save_atomic
        number = 0
        while True:
            weights = torch.full((300_000,), float(number))
            save_atomic({"anyolo": 1, "number": number, "w": weights}, sys.argv[1])
            print(number, flush=True)
            number += 1
    """)
    path = tmp_path / "last.pt"
    for wait_s in (0.003, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        process.stdout.readline()
        time.sleep(wait_s)
        process.kill()
        process.communicate()
        record = read_record(path)
        assert torch.equal(record["w"], torch.full((300_000,), float(record["number"])))


def test_leftovers_of_killed_runs_are_swept(tmp_path):
    old, fresh, other = (tmp_path / name for name in (".last.pt.1.tmp", ".last.pt.2.tmp", ".best.pt.1.tmp"))
    for leftover in (old, fresh, other):
        leftover.write_bytes(b"x")
    past = time.time() - 2 * checkpoint_writing.STALE_S
    os.utime(old, (past, past))
    os.utime(other, (past, past))
    save_atomic({}, tmp_path / "last.pt")
    assert not old.exists() and fresh.exists() and other.exists()
