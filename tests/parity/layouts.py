"""How upstream lays out what a family's network gives, so that one test compares all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyolo.config.schema import LossConfig
from anyolo.loss.phase import set_phase
from anyolo.ops.boxes import xyxy_to_cxcywh
from anyolo.structures import Predictions

Levels = Sequence[Tensor]
LAST_PHASE = "l1"
"""Upstream's name of a configuration that is that of the last epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """``raw`` makes of the maps (auxiliary ones first, if any) the arrays that upstream gives, ``graw`` those
    whose gradients the golden files have, under the names ``graw_names``, of which a model may have less.
    ``decoded`` makes one array of boxes cx, cy, w, h and scores. ``loss`` maps upstream's configurations to
    ours. An error of a raw number grows to at most ``amplification`` pixels when it is decoded; None for
    sides that are exponentials, where it grows to the largest side (and a centre's to the largest stride).
    """

    raw: Callable[[Levels], list[Tensor]]
    decoded: Callable[[Predictions], Tensor]
    loss: Mapping[str, LossConfig]
    items: tuple[str, ...]
    amplification: float | None
    graw: Callable[[Levels], list[Tensor]]
    graw_names: tuple[str, ...] = ("0", "1", "2")
    raw_names: tuple[str, ...] = field(default=("raw_0", "raw_1", "raw_2"))

    def growth(self, decoded: NDArray[np.float32]) -> float:
        """``amplification`` for decoded rows of boxes cx, cy, w, h and scores."""
        return self.amplification or max(32.0, float(decoded[..., 2:4].max()))


def channels_first(found: Predictions) -> Tensor:
    return torch.cat((xyxy_to_cxcywh(found.boxes_xyxy), found.scores), 2).transpose(1, 2)


def with_objectness(found: Predictions) -> Tensor:
    return torch.cat((xyxy_to_cxcywh(found.boxes_xyxy), found.objectness.unsqueeze(2), found.scores), 2)


def sides_and_classes(levels: Levels) -> list[Tensor]:
    flat = torch.cat([level.flatten(2) for level in levels], 2)
    return list(flat.split((64, flat.shape[1] - 64), 1))


def per_anchor(levels: Levels) -> list[Tensor]:
    """(B, N * (5 + nc), H, W) to (B, N, H, W, 5 + nc)."""
    return [level.unflatten(1, (3, -1)).permute(0, 1, 3, 4, 2) for level in levels]


def boxes_objectness_classes(levels: Levels) -> list[Tensor]:
    return [part for level in levels for part in level.split((12, 3, level.shape[1] - 15), 1)]


def anchors_innermost(found: Predictions) -> Tensor:
    """Rows level, y, x, anchor instead of level, anchor, y, x, for levels of which one has a quarter of the
    cells of the other.
    """
    rows = with_objectness(found)
    cells = rows.shape[1] // 15
    levels = rows.split((12 * cells, 3 * cells), 1)
    return torch.cat([level.unflatten(1, (3, -1)).transpose(1, 2).flatten(1, 2) for level in levels], 1)


def criterion_of(spec, network, config):
    """The loss module of one of upstream's configurations."""
    criterion = spec.criterion(network, LAYOUTS[spec.name].loss[config])
    set_phase(criterion, is_last=config == LAST_PHASE)
    return criterion


PLAIN_GAINS = {"box": 0.05, "cls": 0.5, "obj": 1.0}
PLAIN = Layout(
    raw=per_anchor,
    graw=per_anchor,
    decoded=with_objectness,
    loss={
        "main": LossConfig(**PLAIN_GAINS),
        "scaled_ls": LossConfig(**PLAIN_GAINS, imgsz=128, label_smoothing=0.1),
        "focal": LossConfig(**PLAIN_GAINS, fl_gamma=1.5),
    },
    items=("box", "obj", "cls"),
    amplification=1.2 * 373,  # d (2s)^2 <= 1.2, the largest anchor
)
DECOUPLED = LossConfig(box=5, cls=1, obj=1)
LAYOUTS = {
    "yolov8": Layout(
        raw=list,
        graw=sides_and_classes,
        graw_names=("boxes", "scores"),
        decoded=channels_first,
        loss={"main": LossConfig(), "classic_assigner": LossConfig(tal_min_side=0)},
        items=("box", "cls", "dfl"),
        amplification=100,
    ),
    "yolov9": Layout(  # of the auxiliary branch, where there is one, then of the main one
        raw=list,
        raw_names=tuple(f"raw_{number}" for number in range(6)),
        graw=list,
        graw_names=tuple("012345"),
        decoded=channels_first,
        loss={
            "main": LossConfig(tal_min_side=0),
            "dual": LossConfig(tal_min_side=0),
            "dual_LH": LossConfig(tal_min_side=0, aux_follows=True),
        },
        items=("box", "cls", "dfl"),
        amplification=32,
    ),
    "yolov5": PLAIN,
    "yolov5lite": PLAIN,
    "yolov7": replace(
        PLAIN, loss={"ota": LossConfig(**PLAIN_GAINS, loss_ota=True), "plain": LossConfig(**PLAIN_GAINS)}
    ),
    "fastestv2": Layout(
        raw=boxes_objectness_classes,
        raw_names=tuple(
            f"raw_{level * 3 + part}_{kind}_s{stride}"
            for level, stride in enumerate((16, 32))
            for part, kind in enumerate(("reg", "obj", "cls"))
        ),
        graw=boxes_objectness_classes,
        graw_names=tuple("012345"),
        decoded=anchors_innermost,
        loss={"main": LossConfig(box=3.2, cls=32, obj=64, anchor_t=2)},
        items=("box", "obj", "cls"),
        amplification=1.2 * 280,
    ),
    "yolox": Layout(
        raw=list,
        graw=list,
        decoded=with_objectness,
        loss={"main": DECOUPLED, "l1": DECOUPLED},
        items=("box", "obj", "cls", "l1"),
        amplification=None,
    ),
}
