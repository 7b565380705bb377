"""A run that lacks memory in its second epoch goes on, and ends with the weights of one that had enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from anyolo import api
from anyolo.data.synth import write_dataset
from anyolo.devices import open_device
from anyolo.errors import OutOfMemory
from anyolo.families.checkpoints import read_record
from anyolo.structures import Batch, Targets
from anyolo.train import memory
from anyolo.train import run as runs

TINY = """
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
def settings(tmp_path: Path) -> dict[str, Any]:
    model = tmp_path / "tiny.yaml"
    model.write_text(TINY)
    data = write_dataset(tmp_path / "data", train=14, val=4, size=160)
    return {
        "model": str(model), "data": str(data), "imgsz": 96, "batch": 4, "nbs": 8, "epochs": 3, "workers": 0,
        "plots": False, "amp": False, "optimizer": "SGD", "device": "cpu", "project": str(tmp_path),
    }  # fmt: skip


def weights(result: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read_record(result.last)["weights"]
    return found


def fail_in_second_epoch(monkeypatch: pytest.MonkeyPatch, *, above: int) -> list[int]:
    """Updates of the second epoch with pieces of more pictures than ``above`` run out of memory, behind a
    forward pass that has moved the batch norms. Returns the sizes that failed, as they do.
    """
    failed: list[int] = []
    step: Callable[..., Any] = runs._step

    def scarce(run: Any, pieces: list[Batch]) -> Any:
        largest = max(len(piece.images) for piece in pieces)
        if run.epoch >= 1 and largest > above:
            run.model(run.step.preprocess.normalise(pieces[0].images))
            failed.append(largest)
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(run, pieces)

    monkeypatch.setattr(runs, "_step", scarce)
    return failed


def test_the_update_is_repeated_in_smaller_pieces_and_none_is_lost(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failed = fail_in_second_epoch(patch, above=1)
        scarce = api.train(**settings, name="scarce")
    assert failed == [4, 2]

    # the same pieces from the same update on, by plan
    def planned(self: memory.Pieces, *words: Any) -> Any:
        run = words[0].args[0]
        self.most = 1 if run.epoch >= 1 else 0
        return whole(self, *words)

    whole = memory.Pieces.run
    with monkeypatch.context() as patch:
        patch.setattr(memory.Pieces, "run", planned)
        plain = api.train(**settings, name="plain")
    one, other = weights(scarce), weights(plain)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert read_record(scarce.last)["training"]["epoch"] == 3


def test_without_room_for_one_picture_the_run_ends_and_can_go_on(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        failed = fail_in_second_epoch(patch, above=0)
        with pytest.raises(OutOfMemory, match="out of memory with one picture") as caught:
            api.train(**settings, name="scarce")
    assert failed == [4, 2, 1]
    assert caught.value.where == "epoch 2, batch 1 of 4"
    assert "resume=" in caught.value.hint
    resumed = api.train(resume=str(tmp_path / "scarce"))
    assert resumed.epochs == 3


def test_evaluation_goes_on_in_halves() -> None:
    seen: list[int] = []

    def look(batch: Batch) -> int:
        if len(batch.images) > 2:
            raise RuntimeError("out of memory")
        seen.append(len(batch.images))
        return int(batch.images.sum())

    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
    batch = Batch(images, Targets(torch.zeros(5, 1, 5), torch.zeros(5, 1)), ())
    assert sum(memory.halving(open_device("cpu"), look, batch)) == 10
    assert seen == [2, 1, 2]
