"""host_nms (numpy and compiled) and graph_nms (eager, TorchScript, ONNX) against the textbook loop."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anyolo.ops import nms

Arrays = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


def textbook_nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int64],
    *,
    iou: float,
    max_det: int,
    agnostic: bool = False,
) -> list[int]:
    """Quadratic, one pair at a time, written to be read."""
    kept: list[int] = []
    for index in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        rivals = [k for k in kept if agnostic or classes[k] == classes[index]]
        if all(plain_iou(boxes[k], boxes[index]) <= np.float32(iou) for k in rivals):
            kept.append(index)
    return kept[:max_det]


def plain_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> np.float32:
    zero = np.float32(0)
    inter = max(min(a[2], b[2]) - max(a[0], b[0]), zero) * max(min(a[3], b[3]) - max(a[1], b[1]), zero)
    areas = [max(c[2] - c[0], zero) * max(c[3] - c[1], zero) for c in (a, b)]
    return inter / (areas[0] + areas[1] - inter) if inter > 0 else zero


@pytest.fixture(params=["numpy", "numpy in many rounds", "numba"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """host_nms with one of its two loops."""
    if request.param == "numba":
        pytest.importorskip("numba")
        monkeypatch.setattr(nms, "NUMBA_PAYS_AFTER", 0)
    else:
        monkeypatch.setattr(nms, "_compiled_greedy", lambda: None)
        monkeypatch.setattr(nms, "PAIRS_AT_ONCE", 1 if "many" in request.param else nms.PAIRS_AT_ONCE)
    yield nms.host_nms


@st.composite
def candidates(draw: st.DrawFn) -> Arrays:
    """Crowded boxes with few distinct scores, so that ties and chains are common; a few are degenerate."""
    count = draw(st.integers(0, 150))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    side = draw(st.sampled_from([20.0, 100.0, 2000.0]))
    low = rng.uniform(0, side, (count, 2))
    size = rng.uniform(-2, 60, (count, 2)) if draw(st.booleans()) else rng.integers(0, 6, (count, 2)) * 10.0
    boxes = np.concatenate((low, low + size), 1)
    if draw(st.booleans()):
        boxes = np.round(boxes / 10) * 10  # integers: IoUs that are simple fractions
    steps = draw(st.sampled_from([1, 3, 1000]))
    scores = rng.integers(1, steps + 1, count) / steps
    classes = rng.integers(0, draw(st.sampled_from([1, 3, 90])), count)
    return boxes.astype(np.float32), scores.astype(np.float32), classes.astype(np.int64)


def one_hot(scores: NDArray[np.float32], classes: NDArray[np.int64], nc: int = 90) -> torch.Tensor:
    table = np.zeros((len(scores), nc), np.float32)
    table[np.arange(len(scores)), classes] = scores
    return torch.from_numpy(table)


def rows_of(arrays: Arrays, kept: list[int], max_det: int) -> NDArray[np.float32]:
    boxes, scores, classes = arrays
    rows = np.concatenate((boxes[kept], scores[kept][:, None], classes[kept][:, None]), 1).astype(np.float32)
    return np.concatenate((rows, np.zeros((max_det - len(rows), 6), np.float32)))


def chain(length: int, nc: int = 1) -> Arrays:
    """Each box suppresses only the next: the fixed point needs as many rounds as there are boxes."""
    x = np.arange(length, dtype=np.float32) * 4
    boxes = np.stack((x, np.zeros_like(x), x + 10, np.full_like(x, 10)), 1)
    return boxes, np.linspace(0.99, 0.3, length, dtype=np.float32), np.zeros(length, np.int64) + nc - 1


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    candidates(),
    st.sampled_from([0.0, 0.3, 0.45, 0.5, 0.7, 1.0]),
    st.sampled_from([1, 7, 300]),
    st.booleans(),
)
def test_host_equals_the_textbook(
    host: Callable[..., Any], arrays: Arrays, iou: float, max_det: int, agnostic: bool
) -> None:
    copies = [a.copy() for a in arrays]
    kept = host(*arrays, iou=iou, max_det=max_det, agnostic=agnostic)
    assert kept.tolist() == textbook_nms(*arrays, iou=iou, max_det=max_det, agnostic=agnostic)
    assert kept.dtype == np.int64
    assert all(np.array_equal(a, b) for a, b in zip(arrays, copies, strict=True))


@settings(deadline=None, max_examples=60)
@given(candidates(), st.sampled_from([0.0, 0.45, 0.5, 0.7]), st.sampled_from([1, 7, 300]), st.booleans())
def test_graph_equals_the_textbook(arrays: Arrays, iou: float, max_det: int, agnostic: bool) -> None:
    boxes, scores = torch.from_numpy(arrays[0])[None], one_hot(*arrays[1:])[None]
    before = boxes.clone(), scores.clone()
    rows = nms.graph_nms(
        boxes, scores, conf=0.0, iou=iou, max_det=max_det, max_candidates=200, agnostic=agnostic
    )
    kept = textbook_nms(*arrays, iou=iou, max_det=max_det, agnostic=agnostic)
    np.testing.assert_array_equal(rows[0].numpy(), rows_of(arrays, kept, max_det))
    assert torch.equal(boxes, before[0]) and torch.equal(scores, before[1])


def test_chain_of_300(host: Callable[..., Any]) -> None:
    arrays = chain(300, nc=2)
    expected = list(range(0, 300, 2))
    assert textbook_nms(*arrays, iou=0.4, max_det=300) == expected
    assert host(*arrays, iou=0.4, max_det=300).tolist() == expected
    rows = nms.graph_nms(
        torch.from_numpy(arrays[0])[None],
        one_hot(*arrays[1:])[None],
        conf=0.25,
        iou=0.4,
        max_det=300,
        max_candidates=300,
    )
    np.testing.assert_array_equal(rows[0].numpy(), rows_of(arrays, expected, 300))


def test_threshold_is_strict(host: Callable[..., Any]) -> None:
    """IoU of exactly 1/2, and of exactly 7/10, which no float32 holds, do not suppress."""
    for inner, iou in ((5, 0.5), (7, 0.7)):
        boxes = np.array([[0, 0, 10, 1], [0, 0, inner, 1]], np.float32)
        scores, classes = np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64)
        for threshold, left in ((iou, 2), (iou - 1e-3, 1)):
            assert len(host(boxes, scores, classes, iou=threshold, max_det=9)) == left
            rows = nms.graph_nms(
                torch.from_numpy(boxes)[None],
                torch.from_numpy(scores)[None, :, None],
                conf=0.1,
                iou=threshold,
                max_det=9,
                max_candidates=9,
            )
            assert int((rows[..., 4] > 0).sum()) == left


def test_far_classes_keep_their_precision(host: Callable[..., Any]) -> None:
    """The pair that a shift of 7680 px per class decides wrongly: IoU 0.4500 + 1e-6 in class 79."""
    boxes = np.array([[0.01, 0.02, 30.03, 30.04], [0.01, 0.02, 30.03, 13.53]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    exact = float(plain_iou(boxes[0], boxes[1]))
    for offset in (1e-6, -1e-6):
        expected = 2 if offset > 0 else 1
        for index in (0, 79):
            classes = np.full(2, index, np.int64)
            assert len(host(boxes, scores, classes, iou=exact + offset, max_det=9)) == expected


def test_nothing_in_nothing_out(host: Callable[..., Any]) -> None:
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    assert host(*empty, iou=0.5, max_det=10).tolist() == []
    for points in (0, 5):
        rows = nms.graph_nms(
            torch.zeros(2, points, 4),
            torch.zeros(2, points, 3),
            conf=0.1,
            iou=0.5,
            max_det=10,
            max_candidates=4,
        )
        assert rows.shape == (2, 10, 6) and not rows.any()


def test_only_the_best_candidates_enter() -> None:
    arrays = chain(20)
    rows = nms.graph_nms(
        torch.from_numpy(arrays[0])[None],
        one_hot(*arrays[1:])[None],
        conf=0.25,
        iou=0.4,
        max_det=50,
        max_candidates=5,
    )
    np.testing.assert_array_equal(rows[0].numpy(), rows_of(arrays, [0, 2, 4], 50))


class _Nms(torch.nn.Module):
    def forward(self, boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return nms.graph_nms(boxes, scores, conf=0.25, iou=0.4, max_det=100, max_candidates=300)


def _hard_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of two pictures (one may be empty), of another depth than the one that was traced."""
    rng = np.random.default_rng(5)
    batches = []
    for length in (3, 300):
        boxes, scores, classes = chain(length)
        boxes = np.concatenate((boxes, np.zeros((300 - length, 4), np.float32)))
        scores = np.concatenate((scores, np.zeros(300 - length, np.float32)))
        classes = np.zeros(300, np.int64)
        ties = rng.integers(0, 4, 300).astype(np.float32) / 4
        low = rng.integers(0, 12, (300, 2)) * 8.0
        crowd = np.concatenate((low, low + 20), 1).astype(np.float32)
        crowd_classes = rng.integers(0, 6, 300)
        batches.append(
            (
                torch.from_numpy(np.stack((boxes, crowd))),
                torch.stack((one_hot(scores, classes, 6), one_hot(ties, crowd_classes, 6))),
            )
        )
    return batches


def test_exported_graphs_stay_exact() -> None:
    """Traced on a shallow batch, run on one that needs 300 rounds: an unrolled loop would be wrong."""
    shallow, deep = _hard_batches()
    runtime = pytest.importorskip("onnxruntime")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(_Nms(), shallow)
        names = ["boxes", "scores"]
        torch.onnx.export(
            _Nms(),
            shallow,
            buffer,
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=["rows"],
            dynamic_axes={n: {0: "batch", 1: "points"} for n in names},
        )
    session = runtime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    fewer = tuple(x[:1, :40] for x in deep)
    for boxes, scores in (shallow, deep, fewer):
        eager = _Nms()(boxes, scores)
        assert int((eager[..., 4] > 0).sum()) > 2
        assert torch.equal(traced(boxes, scores), eager)
        feed = {"boxes": boxes.numpy(), "scores": scores.numpy()}
        np.testing.assert_array_equal(session.run(None, feed)[0], eager.numpy())
    boxes, scores = deep
    for picture in range(2):
        best, classes = scores[picture].max(-1)
        above = best.numpy() > 0.25
        arrays = (boxes[picture].numpy()[above], best.numpy()[above], classes.numpy()[above])
        expected = rows_of(arrays, textbook_nms(*arrays, iou=0.4, max_det=100), 100)
        np.testing.assert_array_equal(_Nms()(boxes, scores)[picture].numpy(), expected)
