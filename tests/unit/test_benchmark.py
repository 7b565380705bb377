"""What a benchmark's figures are: stages and their sum, medians, shares of a reference, rivals understood."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from anyolo.api.benchmark_child import Lost
from anyolo.api.benchmark_contest import Contest, Contestant, contestants
from anyolo.config.schema import BenchmarkConfig, PredictConfig
from anyolo.deploy.benchmark import STAGES, WHOLE, BenchmarkRow, time_pass, to_csv
from anyolo.deploy.predictor import Predictor
from anyolo.errors import ExportError, UnknownName
from anyolo.evaluate.report import draw_benchmark
from anyolo.export import EXPORTERS
from anyolo.export.foreign import OpenedForeign, open_foreign
from anyolo.structures import Predictions, Preprocess

NETWORK_S, BEFORE_S = 0.03, 0.01
NAMES = ("a", "b", "c")


def sleepy(images: torch.Tensor) -> Predictions:
    time.sleep(NETWORK_S)
    boxes = torch.tensor([[[1.0, 1, 9, 9]]]).expand(len(images), -1, -1)
    return Predictions(boxes, torch.full((len(images), 1, 3), 0.9))


def sample(network: float, rest: float = 1.0) -> dict[str, float]:
    return {**dict.fromkeys(STAGES, rest), "network": network, WHOLE: network + 3 * rest}


def test_the_stages_are_the_whole(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.jpg") for number in range(3)]
    for path in paths:
        cv2.imwrite(path, np.full((480, 640, 3), 99, np.uint8))
    predictor = Predictor(sleepy, Preprocess(), NAMES, PredictConfig(imgsz=320, rect=False, batch=3))
    time_pass(predictor, paths)  # what is done once only
    found = time_pass(predictor, paths)
    assert set(found) == {*STAGES, WHOLE}
    assert NETWORK_S <= found["network"] / 1e3 < NETWORK_S + 0.02, "three pictures, one call"
    assert sum(found[stage] for stage in STAGES) == pytest.approx(found[WHOLE], rel=0.05, abs=1)
    assert found["decode"] > 0.5 and found["preprocess"] > 0.05

    moved = time_pass(predictor, paths, lambda: {"before": BEFORE_S * 1e3, "behind": 5.0})
    assert moved["network"] < NETWORK_S * 1e3 + 20 - 15 and moved["preprocess"] >= BEFORE_S * 1e3
    assert sum(moved[stage] for stage in STAGES) == pytest.approx(moved[WHOLE], rel=0.05, abs=1)


def test_medians_percentiles_and_ratios() -> None:
    model, row = BenchmarkRow(format="pytorch"), BenchmarkRow(format="quick", verified=True)
    model.add([sample(17.0)] * 4)
    row.add([sample(7.0) for _ in range(10)])
    row.add([sample(7.0) for _ in range(9)] + [sample(47.0)])
    row.images_per_s[8] = 160.0
    found = row.to_json(model)
    assert (found["network_ms"], found["latency_ms"], found["decode_p95_ms"]) == (7.0, 10.0, 1.0)
    assert found["network_p95_ms"] == pytest.approx(np.percentile([7.0] * 19 + [47.0], 95))
    assert found["ratio"] == 0.5 and found["passes"] == 20 and found["images_per_s"] == 100.0
    assert (found["best_batch"], found["best_images_per_s"]) == (8, 160.0)
    assert model.to_json(model)["ratio"] == 1.0


def test_csv_and_json_agree() -> None:
    row = BenchmarkRow(format="quick", precision=0.25, notes=["one", "two"], size_bytes=12)
    row.add([sample(1 / 3), sample(2 / 3)])
    documents = [row.to_json(), BenchmarkRow(format="lost", reason="no, not here").to_json()]
    table = list(csv.DictReader(io.StringIO(to_csv(documents))))
    for document, line in zip(json.loads(json.dumps(documents)), table, strict=True):
        assert list(document) == list(line)
        for key, value in document.items():
            if isinstance(value, float):
                assert float(line[key]) == value
            elif key != "notes":
                assert line[key] == ("" if value is None else str(value))
    assert table[0]["notes"] == "one; two" and table[1]["reason"] == "no, not here"
    assert table[1]["latency_ms"] == "" and documents[1]["images_per_s"] is None


def test_every_format_is_entered_and_a_slip_is_named() -> None:
    entered = contestants("none.pt", ("all",), "their/best.onnx")
    assert [one.name for one in entered] == ["pytorch", *EXPORTERS, "best.onnx"]
    assert [one.row.is_rival for one in entered] == [False] * (len(entered) - 1) + [True]
    assert [one.name for one in contestants("", ("TS", "onnx", "torchscript"), "")][1:] == [
        "torchscript",
        "onnx",
    ]
    with pytest.raises(UnknownName, match="formats: unknown export format 'onx'"):
        contestants("", ("onx",), "")


class FakeChild:
    """Answers as a child does; ``dies_at`` names what it dies of, by verb and number of the asking."""

    is_alive = True

    def __init__(self, log: list[str], dies_at: str = "") -> None:
        self.log, self.dies_at, self.heard, self.closed = log, dies_at, [], False

    def ask(self, do: str, **words: Any) -> dict[str, Any]:
        self.log.append(do)
        if do == self.dies_at:
            raise Lost("its process died (killed by SIGSEGV)")
        if do == "export":
            return {"artifact": f"{words['folder']}/{words['format']}"}
        if do == "open":
            self.heard = ["a warning"]
            return {"takes_any_batch": words["kind"] == "model", "load_ms": 1.0, "warmup_ms": 2.0}
        if do == "turn":
            return {"samples": [sample(7.0 * words["batch"])] * words["passes"]}
        return {"precision": 0.5}

    def close(self) -> None:
        self.closed = True


def held(dies_at: str = "", stop: Callable[[], None] = lambda: None) -> tuple[list[Contestant], list[str]]:
    entered, log = contestants("", ("torchscript",), ""), []
    children: list[FakeChild] = []

    class Rehearsed(Contest):
        def _start(self) -> Any:
            # the model's, the writer's, the artefact's
            child = FakeChild(log, dies_at if len(children) == 2 else "")
            children.append(child)
            return child

    wishes = BenchmarkConfig(rounds=3, n=4, rest=0, data="some", batches=(1, 2))
    Rehearsed(entered, wishes, {}, Path("run"), threads=1, keep=stop).run()
    assert all(child.closed for child in children)
    return entered, log


def test_turns_batches_and_mean_precision() -> None:
    (model, artifact), log = held()
    assert model.row.images_per_s == artifact.row.images_per_s == {1: 100.0, 2: pytest.approx(2000 / 17)}
    assert len(model.row.samples) == len(artifact.row.samples) == 12
    assert (artifact.row.precision, artifact.row.load_ms, artifact.row.reason) == (0.5, 1.0, "")
    assert artifact.row.artifact == "run/torchscript"
    # the fixed artefact is written and opened again for its other batch
    assert log.count("export") == 2 and log.count("open") == 3 and log.count("judge") == 2


@pytest.mark.parametrize(("dies_at", "passes"), [("open", 0), ("turn", 0), ("judge", 12)])
def test_whoever_is_lost_is_named_and_the_others_go_on(dies_at: str, passes: int) -> None:
    (model, artifact), _ = held(dies_at)
    assert model.row.precision == 0.5 and len(model.row.samples) == 12
    said = artifact.row.reason or artifact.row.notes[0]
    assert "killed by SIGSEGV" in said and len(artifact.row.samples) == passes
    assert artifact.row.precision is None


class FakeNetwork:
    """Gives these maps for any picture; keeps what it was given."""

    input_type = "float32"

    def __init__(self, *outputs: np.ndarray, shape: Sequence[int] = (1, 3, 64, 64)) -> None:
        self.outputs, self.input_shape, self.given = outputs, tuple(shape), []

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        self.given.append(images)
        return tuple(np.repeat(output, len(images), 0) for output in self.outputs)


def foreign(*outputs: np.ndarray, **words: Any) -> OpenedForeign:
    return OpenedForeign(
        FakeNetwork(*outputs, **words), NAMES, Preprocess(channels="bgr"), where="their.onnx"
    )


def test_a_rival_is_understood_by_its_shapes() -> None:
    rng = np.random.default_rng(0)
    boxes = rng.random((1, 20, 4), np.float32) * 32
    scores, objectness = rng.random((1, 20, 3), np.float32), rng.random((1, 20, 1), np.float32)
    corners = np.concatenate((boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2), 2)
    plain, product = np.concatenate((boxes, scores), 2), np.concatenate((boxes, objectness, scores), 2)
    pictures = torch.full((3, 3, 64, 64), 51, dtype=torch.uint8)
    levels = np.zeros((1, 3, 8, 8, 8), np.float32)  # raw maps beside the decoded ones, as some give them
    for output in (plain, plain.transpose(0, 2, 1), product, product.transpose(0, 2, 1)):
        opened = foreign(levels, output)
        found = opened.predict(pictures)
        np.testing.assert_allclose(found.boxes_xyxy.numpy(), np.repeat(corners, 3, 0), rtol=1e-6)
        np.testing.assert_array_equal(found.scores.numpy()[2], scores[0])
        assert (found.objectness is None) == (output.shape[1:] in {(20, 7), (7, 20)})
        given = opened.network.given
        assert [part.shape for part in given] == [(1, 3, 64, 64)] * 3 and given[0].dtype == np.float32
        np.testing.assert_allclose(given[0], 0.2)
        assert opened.preprocess.channels == "rgb" and opened.input_hw == (64, 64)
        assert set(opened.laps_ms) == {"before", "behind"}
    whole = foreign(plain, shape=(-1, 3, -1, -1))
    whole.predict(pictures)
    assert whole.input_hw is None and whole.network.given[0].shape == (3, 3, 64, 64)


def test_a_rival_that_is_not_understood(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"its input is float32 \(1, 64, 64, 3\)") as caught:
        foreign(shape=(1, 64, 64, 3))
    assert "RGB, 0..1" in caught.value.hint
    with pytest.raises(ExportError, match=r"its outputs are \(1, 300, 6\), \(1, 2\)") as caught:
        foreign(np.zeros((1, 300, 6)), np.zeros((1, 2))).predict(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert "(B, 7, N) or (B, N, 8)" in caught.value.hint and caught.value.where == "their.onnx"
    for path, words in ((tmp_path / "a.pt", "without a manifest"), (tmp_path / "a.onnx", "no such file")):
        with pytest.raises(ExportError, match=words):
            open_foreign(path, NAMES, Preprocess())


def test_the_plot_is_drawn_with_rows_that_failed(tmp_path: Path) -> None:
    bars = [
        ("pytorch", [2.0, 1.0, 60.0, 1.5], (64.5, 70.0), ""),
        ("lost", [], (0, 0), "needs the package 'x', which is not installed. " * 3),
    ]
    draw_benchmark(bars, STAGES, "a.pt at 64x64", tmp_path / "all.png")
    draw_benchmark(bars[1:], STAGES, "none", tmp_path / "none.png")
    picture = cv2.imread(str(tmp_path / "all.png"))
    blue = (picture == (173, 92, 11)).all(2)  # the network's colour, BGR
    columns = np.nonzero(blue)[1]
    assert columns.size > 1000 and np.ptp(columns) > 0.6 * picture.shape[1]
    assert (tmp_path / "none.png").is_file()
