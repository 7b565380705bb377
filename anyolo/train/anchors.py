"""What is looked at at the start of a run: whether anchors, and points, can answer for the boxes.

Before the run is assembled, not in a hook: the average of the weights, a loss on the host and a compiled
model are copies, made then.
"""

from __future__ import annotations

import torch

from anyolo import console
from anyolo.assign.tal import TaskAligned
from anyolo.data.anchorfit import ENOUGH_RECALL, fit_anchors, label_sizes, score_anchors
from anyolo.nn.model import Detector
from anyolo.train.prepare import Job

FEW = 0.01
"""Share of boxes that may go unlearned without a word."""


def check_anchors(job: Job, model: Detector) -> None:
    """Give the model new anchors where its own reach too few boxes and new ones reach more; says which.

    A model without anchors, pictures without boxes and ``autoanchor=False`` are left alone. Anchors that the
    user gave are judged, never replaced.
    """
    own = model.head.read_anchors()
    if own is None or not job.config.schedule.autoanchor:
        return
    sizes = label_sizes(job.train_index, job.size_hw, job.spec.preprocess.fit)
    if not len(sizes):
        return
    report, threshold = console.current(), job.config.loss.anchor_t
    before = score_anchors(sizes, own.double().reshape(-1, 2).numpy(), threshold)
    said = f"anchors: {before.recall:.1%} of the boxes within reach (fitness {before.fitness:.3f})"
    if before.recall > ENOUGH_RECALL:
        report.line(f"{said}, kept")
        return
    if job.config.model.anchors is not None:
        report.warn(f"{said}; kept as given, anchors=None would fit better ones")
        return
    fitted = fit_anchors(sizes, own[..., 0].numel(), threshold, seed=job.config.schedule.seed)
    after = score_anchors(sizes, fitted, threshold)
    if after.recall <= before.recall:
        report.line(f"{said}; new ones reach no more, kept")
        return
    model.head.write_anchors(torch.from_numpy(fitted).view_as(own))
    report.line(
        f"{said}; new ones fitted: {after.recall:.1%} (fitness {after.fitness:.3f}). "
        "autoanchor=False keeps the old ones"
    )


def check_small_boxes(job: Job, model: Detector) -> None:
    """Say how many boxes are too small for the loss to give them to any point, and what helps."""
    assign = getattr(job.spec.criterion(model, job.config.loss), "assign", None)
    if not isinstance(assign, TaskAligned):
        return
    sizes = label_sizes(job.train_index, job.size_hw, job.spec.preprocess.fit)
    stride = min(model.strides)
    if (share := assign.left_out(sizes, stride)) > FEW:
        console.current().warn(
            f"about {share:.0%} of the boxes are too small to be learned at this size: the loss gives a box "
            f"to points inside it, {stride:g} pixels apart. tal_min_side={2 * stride:g} lets those beside it "
            "answer; a larger imgsz or tiles help too"
        )
