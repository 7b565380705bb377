"""What the hooks say that they send is what follows from the shapes of the gradients; a run shows it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from anyolo.families.checkpoints import load_model
from tests.distributed.test_processes import job, torchrun
from tests.distributed.test_runs import start, words

TRAFFIC = Path(__file__).with_name("traffic_job.py")
NUMBER, PLACE = 4, 4
"""Bytes of a float32 and of the place it belongs to."""

__all__ = ["words"]


def shapes() -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in job(TRAFFIC).network().parameters()]


def numbers() -> int:
    """27 x 16 + 16, two of 16, 144 x 40 + 40, 40 x 2 + 2."""
    return 448 + 32 + 5800 + 82


def low_rank_numbers(rank: int = 2) -> int:
    """Of an n x m gradient rank * (n + m), where that is less than half of n * m; others are sent whole.

    Source: Vogels et al. 2019, arXiv:1905.13727, section 3; the half is torch's min_compression_rate=2.
    """
    total = 0
    for rows, *others in shapes():
        columns = 1
        for other in others:
            columns *= other
        low = rank * (rows + columns)
        total += low if others and 2 * low < rows * columns else rows * columns
    return total


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    out = tmp_path_factory.mktemp("traffic") / "sent.json"
    done = torchrun(str(TRAFFIC), str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[int]] = json.loads(out.read_text())
    return found


@pytest.mark.parametrize("hook, bytes_each", [("none", 4), ("fp16", 2), ("bf16", 2)])
def test_every_number_of_every_update_is_sent(sent: dict[str, list[int]], hook: str, bytes_each: int) -> None:
    assert set(sent[hook]) == {bytes_each * numbers()}


def test_topk_sends_fewer_from_third_to_third_of_the_warm_up(sent: dict[str, list[int]]) -> None:
    kept = [numbers() // 4, numbers() // 16, numbers() // 64, *[numbers() // 100] * (len(sent["topk"]) - 3)]
    assert sent["topk"] == [count * (NUMBER + PLACE) for count in kept]


def test_powersgd_sends_whole_gradients_then_their_factors(sent: dict[str, list[int]]) -> None:
    *whole, last = sent["powersgd"]
    assert set(whole) == {NUMBER * numbers()} and len(whole) == 13
    assert last == NUMBER * low_rank_numbers()
    assert low_rank_numbers() == 2 * (16 + 27) + 16 + 32 + 2 * (40 + 144) + 40 + 82


@pytest.mark.slow
def test_a_run_shows_what_it_sends(words: list[str], tmp_path: Path) -> None:
    run = start([*words, "epochs=1", "comm_hook=fp16", "--json"])
    out, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors[-3000:]
    model = load_model(tmp_path / "run/weights/last.pt").model
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert json.loads(out)["sent_bytes_per_update"] == 2 * parameters
    (row,) = csv.DictReader((tmp_path / "run/results.csv").read_text().splitlines())
    assert float(row["sent_bytes_per_update"]) == pytest.approx(2 * parameters, rel=1e-5)
    assert f"sent {2 * parameters / 1e6:.3g} MB of gradients per update" in errors
