"""Loss of heads whose boxes are distributions: task-aligned assignment, class BCE, CIoU, focal sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from anyolo.assign.tal import TaskAligned
from anyolo.config.schema import LossConfig
from anyolo.devices.distributed import at_least_one, shared_counts
from anyolo.loss.positives import positives_and_classes, slots, take
from anyolo.loss.terms import distribution_focal
from anyolo.nn.heads.dfl import BINS, SIDES, DFLHead
from anyolo.nn.model import Detector
from anyolo.ops.iou import ciou
from anyolo.ops.tiles import images_at_once
from anyolo.structures import HeadOutput, LossReport, Targets


@dataclass(frozen=True, slots=True)
class Positives:
    """The points that answer for true boxes, in S slots per image (``loss.positives.slots``): ``point_BS``
    and ``slot_BA``, the true rows ``true_BS5``, their scores and centres, and by what to divide: the sum of
    all scores, at least 1, and the images.
    """

    point_BS: Tensor
    slot_BA: Tensor
    true_BS5: Tensor
    score_BS: Tensor
    centre_BS3: Tensor
    normaliser: Tensor
    images: Tensor | int


class DFLCriterion(nn.Module):
    """``(HeadOutput, Targets) -> LossReport``: the total sums over the images of a batch, items are per
    image.

    Auxiliary maps give the same terms, weighted by ``config.aux``, with an assignment of their own or, where
    ``config.aux_follows``, the main one. ``everywhere`` as in ``TaskAligned``. Everything runs in float32,
    whatever the maps come in. Holds nothing that is trained.
    """

    def __init__(self, model: Detector, config: LossConfig, *, everywhere: bool = False) -> None:
        super().__init__()
        self.gains = {"box": config.box, "cls": config.cls, "dfl": config.dfl}
        self.aux, self.aux_follows = config.aux, config.aux_follows
        self.assign = TaskAligned(min_side=config.tal_min_side, everywhere=everywhere)
        self._head = (cast(DFLHead, model.head),)  # in a tuple: its weights are not the criterion's

    def forward(self, output: HeadOutput, targets: Targets) -> LossReport:
        (head,) = self._head
        maps = head.flatten(output.levels)
        positives = self._find(maps, output.levels, targets)
        terms = self._terms(maps, positives)
        if output.aux:
            maps = head.flatten(output.aux)
            own = positives if self.aux_follows else self._find(maps, output.aux, targets)
            terms = {name: terms[name] + term * self.aux for name, term in self._terms(maps, own).items()}
        items = {name: terms[name] * gain for name, gain in self.gains.items()}
        total = (items["box"] + items["cls"] + items["dfl"]) * positives.images
        return LossReport(total=total, items={name: item.detach() for name, item in items.items()})

    @torch.no_grad()
    def _find(self, maps: Tensor, levels: tuple[Tensor, ...], targets: Targets) -> Positives:
        (head,) = self._head
        centres = head.centres(levels)
        sides, logits = torch.split(maps, [SIDES, head.nc], 2)
        tiles = torch.split(sides, images_at_once(sides, len(centres) * SIDES))
        boxes = torch.cat([head.boxes(tile.float(), centres) for tile in tiles])
        sizes_hw = [(x.shape[2], x.shape[3]) for x in levels]
        found = self.assign(targets, boxes, logits, centres[:, :2], sizes_hw)
        # a true box has at most topk points, ties at its last place aside
        most = min(len(centres), self.assign.topk * targets.most())
        point_BS, slot_BA = slots(found.score_BA, most)
        score_sum, images = shared_counts(found.score_BA.sum(), len(targets.mask))
        return Positives(
            point_BS,
            slot_BA,
            take(targets.labels, found.owner_BA.gather(1, point_BS)),
            found.score_BA.gather(1, point_BS),
            centres.index_select(0, point_BS.flatten()).view(*point_BS.shape, 3),
            at_least_one(score_sum),
            images,
        )

    def _terms(self, maps: Tensor, positives: Positives) -> dict[str, Tensor]:
        """Box, class and distribution loss over the sum of all scores, before gains."""
        (head,) = self._head
        score, true, point = positives.score_BS, positives.true_BS5, positives.centre_BS3
        rows, classes = positives_and_classes(maps, positives.point_BS, positives.slot_BA, SIDES)
        sides, logits = torch.split(rows, [SIDES, head.nc], 2)
        ids = torch.arange(head.nc, device=rows.device, dtype=rows.dtype)
        wanted = (true[..., :1] == ids).float() * score.unsqueeze(2)
        centre, stride = torch.split(point, [2, 1], 2)
        low, high = torch.split(true[..., 1:], 2, 2)
        distances = torch.cat((centre - low, high - centre), 2) / stride
        overlap = ciou(head.boxes(sides, point) / stride, true[..., 1:] / stride)
        focal = distribution_focal(sides.reshape(*score.shape, 4, BINS), distances).mean(2)
        return {
            "box": (score - overlap * score).sum() / positives.normaliser,
            "cls": (classes - (logits * wanted).sum()) / positives.normaliser,
            "dfl": (focal * score).sum() / positives.normaliser,
        }
