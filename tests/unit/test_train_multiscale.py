"""``multi_scale``: whole batches at other sizes, boxes with them, for every family's network and loss."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anyolo.config.load import load
from anyolo.config.schema import TrainVerb
from anyolo.families import FAMILIES, build_model
from anyolo.structures import Batch, Targets
from anyolo.train.run import _resized

SIZE = 128


def batch_of(generator):
    """A grey batch with a white square per picture, and its box."""
    images = torch.full((2, 3, SIZE, SIZE), 40, dtype=torch.uint8)
    boxes = []
    for number in range(2):
        left, top = (int(v) for v in torch.randint(0, 60, (2,), generator=generator))
        images[number, :, top : top + 48, left : left + 64] = 255
        boxes.append(np.array([[number, left, top, left + 64, top + 48]], np.float32))
    return Batch(images, Targets.pad(boxes), ())


def run_of(model, reach, epoch=3):
    schedule = SimpleNamespace(multi_scale=reach, seed=0)
    return SimpleNamespace(config=SimpleNamespace(schedule=schedule), epoch=epoch, model=model)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_family_trains_at_every_size(family):
    torch.manual_seed(0)
    spec = FAMILIES.get(family)
    _, model = build_model(next(iter(spec.models)), nc=2)
    config = load(TrainVerb, {}, layers=[("recipe", spec.recipe)]).config
    criterion = spec.criterion(model.train(), config.loss)
    generator, sizes = torch.Generator().manual_seed(1), set()
    for index in range(6):
        batch = _resized(run_of(model, 0.5), batch_of(generator), index)
        height, width = batch.images.shape[2:]
        sizes.add((height, width))
        assert batch.images.dtype == torch.uint8 and height % max(model.strides) == 0
        assert SIZE * 0.5 <= height <= SIZE * 1.5
        for image, labels in zip(batch.images, batch.targets.labels, strict=True):
            ys, xs = torch.nonzero(image[0] > 147, as_tuple=True)
            edges = torch.stack((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)).float()
            torch.testing.assert_close(labels[0, 1:], edges, rtol=0, atol=1.0)
        model.zero_grad()
        report = criterion(model(spec.preprocess.normalise(batch.images)), batch.targets)
        report.total.backward()
        assert torch.isfinite(report.total) and report.total > 0
        gradients = [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]
        assert gradients and all(torch.isfinite(g).all() for g in gradients)
    assert len(sizes) >= 3


def test_the_size_follows_from_seed_epoch_and_batch_alone():
    _, model = build_model("yolov8n", nc=2)
    batch = batch_of(torch.Generator().manual_seed(0))
    sizes = [tuple(_resized(run_of(model, 0.5), batch, index).images.shape[2:]) for index in range(8)]
    torch.rand(5)
    assert sizes == [tuple(_resized(run_of(model, 0.5), batch, index).images.shape[2:]) for index in range(8)]
    other = [tuple(_resized(run_of(model, 0.5, 4), batch, index).images.shape[2:]) for index in range(8)]
    assert sizes != other
    assert _resized(run_of(model, 0.0), batch, 0) is batch
