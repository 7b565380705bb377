"""Judge drawn pictures with a predictor that nearly knows them; by torchrun the figures are the same.

judge_job.py DATA OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from anyolo.config.schema import EvalConfig
from anyolo.data import DetectionDataset, make_loader, open_data
from anyolo.devices import open_device
from anyolo.devices.distributed import Group, join
from anyolo.evaluate import evaluate
from anyolo.structures import Predictions, Preprocess
from anyolo.train.hooks import WatchedLoader


def judged(data: str, group: Group) -> dict[str, float]:
    index = open_data(data, "val")
    dataset = DetectionDataset(index, Preprocess(), imgsz=160, augment=None, rect=True, batch=4)
    watched = WatchedLoader(make_loader(dataset, batch=4, workers=0, shuffle=False, seed=0, group=group))

    def predict(images: Tensor) -> Predictions:
        """The true boxes, moved by up to 3 pixels, each with a score of its own."""
        assert watched.batch is not None
        labels, mask = watched.batch.targets.labels, watched.batch.targets.mask
        moved, scores = [], []
        for record, own in zip(watched.batch.records, labels, strict=True):
            generator = torch.Generator().manual_seed(record.index)
            moved.append(own[:, 1:] + torch.rand((300, 4), generator=generator)[: len(own)] * 3)
            scores.append(torch.rand(300, generator=generator)[: len(own)])
        hot = (labels[..., :1] == torch.arange(4)).float()
        return Predictions(torch.stack(moved), hot * (torch.stack(scores) * mask).unsqueeze(2))

    return dict(evaluate(predict, watched, index, EvalConfig(), group=group).metrics)


if __name__ == "__main__":
    group = join(open_device("cpu"))
    found = judged(sys.argv[1], group)
    if not group.is_first:  # the last process knows as much as the first
        Path(sys.argv[2]).write_text(json.dumps(found))
    group.leave()
