"""``batch=-1`` and ``batch=0.8`` on drawn pictures: chosen before the run, kept by a resume, nothing else
touched; and 16 with a warning where nothing can be measured.
"""

from __future__ import annotations

import copy
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from anyolo import api
from anyolo.config.load import dump, load
from anyolo.config.schema import TrainVerb
from anyolo.data.synth import write_dataset
from anyolo.devices import Peak
from anyolo.families import FAMILIES, build_model
from anyolo.train import autobatch, batch_search
from anyolo.train.batch_trial import Trial, densest_boxes, worst_sizes
from anyolo.train.folder import RunFolder
from anyolo.train.hooks import CheckpointHook
from anyolo.train.prepare import Job, settle
from tests.e2e.test_train_resume import TINY

GIB = 2**30


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autobatch")
    write_dataset(folder / "data", train=8, val=4, size=160)
    (folder / "tiny.yaml").write_text(TINY)
    return folder


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_search, "ROUNDS", 1)


def settings(place: Path, **changes: object) -> dict[str, object]:
    return {
        "model": str(place / "tiny.yaml"), "data": str(place / "data"), "imgsz": 96, "epochs": 2,
        "workers": 0, "device": "cpu", "amp": False, "plots": False, **changes,
    }  # fmt: skip


def job_of(place: Path, folder: Path, **changes: object) -> Job:
    config = load(TrainVerb, settings(place, **changes)).config
    spec = FAMILIES.get("yolov8")
    return settle(spec, config, dump(config), frozenset({"batch"}), lambda: RunFolder(folder))


def test_the_chosen_number_is_what_the_run_uses_and_resumes_with(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = []
    search = autobatch.search
    monkeypatch.setattr(autobatch, "search", lambda *a, **k: searches.append(1) or search(*a, **k))
    stop = CheckpointHook.after_epoch

    def interrupt(self: CheckpointHook, run: object) -> None:
        stop(self, run)  # type: ignore[arg-type]
        raise InterruptedError

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(CheckpointHook, "after_epoch", interrupt)
        api.train(**settings(place, batch=-1, project=str(tmp_path), plots=True))
    run = tmp_path / "train"
    found = json.loads((run / "autobatch.json").read_text())
    chosen = found["batch"]
    assert 1 <= chosen <= 8 and found["asked"] == -1 and found["why"]
    sizes = [row["batch"] for row in found["tried"]]
    assert chosen in sizes and sizes[:3] == [1, 2, 4]
    assert all(row["images_per_s"] > 0 and row["peak_bytes"] > 0 for row in found["tried"])
    assert found["needed_bytes"] <= found["budget_bytes"] <= found["total_bytes"]
    assert (run / "autobatch.png").stat().st_size > 10_000
    assert yaml.safe_load((run / "args.yaml").read_text())["batch"] == chosen
    kept = torch.load(run / "weights" / "last.pt", weights_only=True)["training"]
    assert kept["args"]["batch"] == chosen
    result = api.train(resume=str(run))
    assert result.batch == chosen == result.to_json()["batch"] and len(searches) == 1


def test_model_and_random_numbers_are_left_as_they_were(place: Path, tmp_path: Path) -> None:
    job = job_of(place, tmp_path, batch=0.5)
    _, model = build_model(str(place / "tiny.yaml"), nc=job.train_index.nc)
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    np.random.seed(3)
    settled = autobatch.settle_batch(job, model)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3)))
    np.testing.assert_array_equal(np.random.rand(3), np.random.RandomState(3).rand(3))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert settled.config.data.batch == settled.args["batch"] == 8  # all pictures there are
    assert settled.precision is not None and settled.config.optim == job.config.optim
    assert autobatch.settle_batch(settled, model) is settled


def test_a_trial_leaves_its_weights_and_dies_as_a_failed_size(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(place, tmp_path, batch=-1, optimizer="AdamW")
    _, model = build_model(str(place / "tiny.yaml"), nc=job.train_index.nc)
    trial = Trial(job, model)
    one, two = trial.measure(1), trial.measure(2)
    assert one.peak_bytes and two.peak_bytes and one.images_per_s > 0
    own, copied = dict(model.named_parameters()), dict(trial.model.named_parameters())
    assert all(torch.equal(own[name].detach(), copied[name].detach()) for name in own)
    batch = trial.worst_batch

    def too_large(size: int, size_hw: tuple[int, int]) -> object:
        if size > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        return batch(size, size_hw)

    monkeypatch.setattr(trial, "worst_batch", too_large)
    assert trial.measure(4).peak_bytes is None and trial.time(4) == 0
    assert trial.measure(2).peak_bytes
    room = autobatch._look(job, model)
    assert room is not None
    choice = autobatch.search(trial, room, limit=8, is_filling=True)
    assert choice.batch <= 3 and any(row.peak_bytes is None for row in choice.tried)
    monkeypatch.setattr(trial, "worst_batch", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        trial.measure(1)


@pytest.mark.parametrize("silent", ["memory", "held_bytes", "watch_memory"])
def test_sixteen_with_a_warning_where_nothing_can_be_measured(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    job = job_of(place, tmp_path, batch=-1)
    answer = nullcontext(Peak()) if silent == "watch_memory" else None
    monkeypatch.setattr(job.device, silent, lambda: answer)
    warnings: list[str] = []
    monkeypatch.setattr(autobatch.console.NullReporter, "warn", lambda self, text: warnings.append(text))
    _, model = build_model(str(place / "tiny.yaml"), nc=job.train_index.nc)
    settled = autobatch.settle_batch(job, model)
    assert settled.config.data.batch == 16 and settled.precision is None
    assert len(warnings) == 1 and "batch=16 is used" in warnings[0]
    assert yaml.safe_load((tmp_path / "args.yaml").read_text())["batch"] == 16


def test_the_worst_that_can_come(place: Path, tmp_path: Path) -> None:
    job = job_of(place, tmp_path, batch=-1, multi_scale=0.5, mixup=0.1)
    counts = sorted((len(item.labels) for item in job.train_index.items), reverse=True)
    config = job.config
    assert len(densest_boxes(job.train_index, config)) == sum(counts[:8])
    plain = replace(config, augment=replace(config.augment, mixup=0.0))
    boxes = densest_boxes(job.train_index, plain)
    assert len(boxes) == sum(counts[:4]) and boxes[:, 1:].min() >= 0 and boxes[:, 1:].max() <= 1
    centres = (boxes[:, 1:3] + boxes[:, 3:]) / 2
    assert (centres > 0.5).all(1).sum() == counts[3]  # the fourth in the last quarter
    rect = replace(plain, data=replace(plain.data, rect=True))
    assert len(densest_boxes(job.train_index, rect)) == counts[0]
    assert worst_sizes(plain, (640, 640), 32) == ((960, 960), (672, 672))
    calm = replace(plain, schedule=replace(plain.schedule, multi_scale=0.0))
    assert worst_sizes(calm, (480, 640), 32) == ((480, 640), (672, 672))


def test_loaders_and_waiting_batches_are_part_of_the_host(place: Path, tmp_path: Path) -> None:
    job = job_of(place, tmp_path, batch=-1, imgsz=640)
    _, model = build_model(str(place / "tiny.yaml"), nc=job.train_index.nc)
    picture = 3 * 640 * 640
    need = [autobatch.beside(job, model, batch) for batch in (1, 64, 128)]
    assert need[0] > autobatch.RUN_BYTES + 64 * picture  # those that wait for an update
    assert need[2] - need[1] > 64 * picture and need[2] < 4 * GIB
    card = copy.copy(job.device)
    card.profile = replace(card.profile, shares_host=False)
    assert autobatch.beside(replace(job, device=card), model, 64) == 0
