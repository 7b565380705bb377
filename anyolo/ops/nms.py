"""Greedy non-maximum suppression, twice: ``host_nms`` on arrays, ``graph_nms`` as tensor operators to export.

Both give exactly what the textbook loop gives: take the best box, drop every box of the same class whose IoU
with it is strictly greater than the threshold, repeat. Equal scores: the lower index first. Classes are
compared directly: shifting boxes by class, the usual trick, rounds float32 coordinates (0.06 px at class 79)
and so changes what is kept.

``host_nms`` works in numpy (2 ms for 2,000 candidates of 80 classes, 3 ms for 8,000, 300 kept). After
``NUMBA_PAYS_AFTER`` candidates it turns to the same loop compiled by numba where that is installed (0.3 ms
and 1 ms): loading numba costs a second, compiling four, and small jobs shall not pay that.

Source: the loop is Neubeck and Van Gool 2006, "Efficient Non-Maximum Suppression". The parallel form iterates
``keep = valid and not any(keep and suppresses)``: only better boxes suppress, so the box of rank n is settled
after n rounds, the fixed point is unique and it is the greedy answer.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUMBA_PAYS_AFTER = 600_000
PAIRS_AT_ONCE = 25_000
TINY = float(np.finfo(np.float32).tiny)

_candidates_seen = 0


def host_nms(
    boxes_xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int64],
    *,
    iou: float,
    max_det: int,
    agnostic: bool = False,
) -> NDArray[np.int64]:
    """Indices of the boxes kept, best first, at most ``max_det``.

    ``boxes_xyxy`` is (N, 4) in any unit, ``classes`` (N,) holds indices from 0 up. Inputs are not changed.
    With ``agnostic`` boxes of different classes suppress each other too. No boxes in, no indices out.
    """
    global _candidates_seen
    order = np.argsort(-scores, kind="stable")
    if not len(order) or max_det < 1:
        return order[:0]
    _candidates_seen += len(order)
    ranked = _with_area(boxes_xyxy[order])
    ranked_classes = np.zeros_like(order) if agnostic else classes[order].astype(np.int64, copy=False)
    compiled = _compiled_greedy() if _candidates_seen > NUMBA_PAYS_AFTER else None
    greedy = compiled or _greedy_in_rounds
    kept: NDArray[np.int64] = order[greedy(ranked, ranked_classes, np.float32(iou), max_det)]
    return kept


def graph_nms(
    boxes_xyxy: Tensor,
    scores: Tensor,
    *,
    conf: float,
    iou: float,
    max_det: int,
    max_candidates: int | Tensor,
    agnostic: bool = False,
) -> Tensor:
    """(B, A, 4) and (B, A, K) to (B, max_det, 6): x1 y1 x2 y2 score class, best first, zero rows as padding.

    Every box takes part with its best class, if that scores above ``conf``; the ``max_candidates`` best enter
    the suppression (memory grows with the square; a scalar tensor lets the graph itself say how many). Shapes
    are static otherwise, and ``torch.jit.trace`` and the TorchScript based ONNX exporter keep the loop as a
    loop, so the graph stays exact for every input.
    """
    best = scores.float().amax(-1)
    ranked, order = _sort_best_first(torch.where(best > conf, best, torch.zeros_like(best)))
    ranked, order = ranked[:, :max_candidates], order[:, :max_candidates]
    boxes = boxes_xyxy.float().gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    classes = scores.gather(1, order.unsqueeze(-1).expand(-1, -1, scores.shape[2])).argmax(-1)
    rank = torch.arange(order.shape[1], device=order.device)
    better_row = rank.unsqueeze(1) < rank.unsqueeze(0)
    suppresses = _overlap_pairs(boxes, iou) & better_row
    if not agnostic:
        suppresses = suppresses & (classes.unsqueeze(2) == classes.unsqueeze(1))
    kept = _settle()(suppresses.to(boxes.dtype), (ranked > 0).to(boxes.dtype))
    rows = torch.cat((boxes, ranked.unsqueeze(-1), classes.unsqueeze(-1).to(boxes.dtype)), -1)
    return _first_kept(rows, kept, max_det)


def _sort_best_first(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Values and indices of each row (B, A), best first, equal scores by index.

    ONNX has no stable sort, but its TopK breaks ties by index by definition; those of torch do not.
    """
    if torch.onnx.is_in_onnx_export():
        return torch.sort(scores, dim=1, descending=True)
    return torch.sort(scores, dim=1, descending=True, stable=True)


def _first_kept(rows: Tensor, kept: Tensor, max_det: int) -> Tensor:
    """The first ``max_det`` rows (B, N, 6) whose ``kept`` (B, N) is 1, padded with zeros."""
    rows = torch.cat((rows, rows.new_zeros((1, 1, 1)).expand(rows.shape[0], max_det, rows.shape[2])), 1)
    kept = torch.cat((kept, kept.new_zeros((1, 1)).expand(kept.shape[0], max_det)), 1)
    from_the_end = torch.arange(
        rows.shape[1], 0, -1, device=rows.device
    )  # distinct: topk has no ties to break
    key, chosen = torch.topk(kept * from_the_end.to(kept.dtype), max_det, dim=1)
    rows = rows.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 6))
    return rows * (key > 0).to(rows.dtype).unsqueeze(-1)


def _overlap_pairs(boxes: Tensor, iou: float) -> Tensor:
    """(B, N, 4) to (B, N, N): is the IoU greater than ``iou``."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    area = (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)
    width = torch.minimum(x2.unsqueeze(2), x2.unsqueeze(1)) - torch.maximum(x1.unsqueeze(2), x1.unsqueeze(1))
    height = torch.minimum(y2.unsqueeze(2), y2.unsqueeze(1)) - torch.maximum(y1.unsqueeze(2), y1.unsqueeze(1))
    inter = width.clamp(min=0) * height.clamp(min=0)
    union = (area.unsqueeze(2) + area.unsqueeze(1) - inter).clamp(min=TINY)
    above: Tensor = inter / union > iou
    return above


def _to_fixed_point(suppresses: Tensor, valid: Tensor) -> Tensor:
    """``suppresses`` (B, N, N), strictly upper triangular, and ``valid`` (B, N), 0 or 1, to kept (B, N)."""
    kept = valid
    changed = True
    while changed:
        hits = torch.bmm(kept.unsqueeze(1), suppresses).squeeze(1)
        settled = valid * (hits < 0.5).to(valid.dtype)
        changed = bool((settled != kept).any())
        kept = settled
    return kept


@cache
def _settle() -> Any:
    """The loop as a script function: tracing would unroll a Python loop to the length of the example."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(_to_fixed_point)


def _with_area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 4) to (N, 5) float32, the area behind the corners; turned-over boxes have none."""
    rows = np.empty((len(boxes), 5), np.float32)
    rows[:, :4] = boxes
    rows[:, 4] = np.maximum(rows[:, 2] - rows[:, 0], 0) * np.maximum(rows[:, 3] - rows[:, 1], 0)
    return rows


def _greedy_in_rounds(
    ranked: NDArray[np.float32], classes: NDArray[np.int64], iou: np.float32, max_det: int
) -> NDArray[np.int64]:
    """Positions kept among ``ranked`` rows (best first), in numpy.

    A round settles the best boxes of every class, all classes at once, and drops what they suppress. Of very
    many boxes the best few mostly give ``max_det`` already; they are tried first.
    """
    few = 4 * max_det
    if len(ranked) > 2 * few:
        kept = _greedy_in_rounds(ranked[:few], classes[:few], iou, max_det)
        if len(kept) == max_det:
            return kept
    columns = np.ascontiguousarray(ranked.T)
    left = np.argsort(classes, kind="stable")  # class by class, best first in each
    kept = left[:0]
    with np.errstate(invalid="ignore", over="ignore"):
        while len(left):
            rank, groups = _rank_in_class(classes[left])
            all_at_once = rank.sum() <= 2 * PAIRS_AT_ONCE
            is_near = rank < (len(left) if all_at_once else max(8, int((2 * PAIRS_AT_ONCE / groups) ** 0.5)))
            near, rest = left[is_near], left[~is_near]
            fresh = near[_settle_near(columns.take(near, 1), rank[is_near], iou)]
            kept = np.concatenate((kept, fresh))
            left = rest[_is_free(columns, classes, fresh, rest, iou)]
    return np.sort(kept)[:max_det]


def _rank_in_class(classes: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """For (N,) classes in order: the place of each in its class, and how many classes there are."""
    starts = np.flatnonzero(np.append(True, classes[1:] != classes[:-1]))
    counts = np.diff(np.append(starts, len(classes)))
    return np.arange(len(classes)) - np.repeat(starts, counts), len(starts)


def _settle_near(columns: NDArray[np.float32], rank: NDArray[np.int64], iou: np.float32) -> NDArray[np.bool_]:
    """(5, N) boxes, class by class with their ``rank`` in it, to the kept (N,): all pairs of a class."""
    places = np.arange(len(rank))
    worse = np.repeat(places, rank)
    better = np.arange(len(worse)) - np.repeat(np.cumsum(rank) - places, rank)
    overlapping = _overlaps(columns.take(better, 1), np.repeat(columns, rank, 1), iou)
    better, worse = better[overlapping], worse[overlapping]
    kept = np.ones(len(rank), np.bool_)
    while True:
        settled = np.ones(len(rank), np.bool_)
        settled[worse[kept[better]]] = False
        if np.array_equal(settled, kept):
            return kept
        kept = settled


def _is_free(
    columns: NDArray[np.float32],
    classes: NDArray[np.int64],
    kept: NDArray[np.int64],
    rest: NDArray[np.int64],
    iou: np.float32,
) -> NDArray[np.bool_]:
    """Which of ``rest`` no box of ``kept`` suppresses; both are places, class by class."""
    free = np.ones(len(rest), np.bool_)
    kept_classes, rest_classes = classes[kept], classes[rest]
    for index in np.unique(rest_classes).tolist():
        own = slice(*np.searchsorted(rest_classes, (index, index + 1)))
        above = kept[slice(*np.searchsorted(kept_classes, (index, index + 1)))]
        hits = _overlaps(columns[:, above, None], columns[:, None, rest[own]], iou)
        free[own] = ~hits.any(0)
    return free


def _overlaps(first: NDArray[np.float32], second: NDArray[np.float32], iou: np.float32) -> NDArray[np.bool_]:
    """Is the IoU greater than ``iou``, for columns (5, ...) that broadcast. The steps of the other two."""
    inter = np.minimum(first[2], second[2]) - np.maximum(first[0], second[0])
    height = np.minimum(first[3], second[3]) - np.maximum(first[1], second[1])
    np.maximum(inter, 0, out=inter)
    inter *= np.maximum(height, 0, out=height)
    union = np.add(first[4], second[4], out=height)
    union -= inter
    inter /= np.maximum(union, np.float32(TINY), out=union)
    above: NDArray[np.bool_] = inter > iou
    return above


@cache
def _compiled_greedy() -> Any:
    """``_greedy`` compiled, or None where numba is not installed."""
    if importlib.util.find_spec("numba") is None:
        return None
    import numba

    try:
        return numba.njit(cache=True)(_greedy)
    except RuntimeError:  # no folder to keep the compiled code in: compile for this process
        return numba.njit(_greedy)


def _greedy(
    ranked: NDArray[np.float32], classes: NDArray[np.int64], iou: np.float32, max_det: int
) -> NDArray[np.int64]:
    """The textbook loop for the compiler; kept boxes of one class form a chain, newest first."""
    slots = min(len(ranked), max_det)
    kept = np.empty(slots, np.int64)
    older = np.empty(slots, np.int64)
    newest = np.full(classes.max() + 1, -1, np.int64)
    count = 0
    for place in range(len(ranked)):
        x1, y1, x2, y2, area = ranked[place]
        link = newest[classes[place]]
        while link >= 0:
            other = kept[link]
            width = min(x2, ranked[other, 2]) - max(x1, ranked[other, 0])
            height = min(y2, ranked[other, 3]) - max(y1, ranked[other, 1])
            if width > 0 and height > 0:
                inter = width * height
                if inter / max(ranked[other, 4] + area - inter, np.float32(TINY)) > iou:
                    break
            link = older[link]
        if link < 0:
            kept[count] = place
            older[count] = newest[classes[place]]
            newest[classes[place]] = count
            count += 1
            if count == max_det:
                break
    return kept[:count]
