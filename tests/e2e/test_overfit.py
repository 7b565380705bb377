"""Every size learns: the smallest to know sixteen pictures by heart, the others by one whole step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from anyolo import api
from anyolo.config.schema import LossConfig
from anyolo.devices import open_device
from anyolo.families import FAMILIES, build_model
from anyolo.structures import Batch, Targets
from anyolo.train.step import StepConfig, train_step

TILES = 16
# Learning rates of AdamW: three hundred updates are far fewer than the recipes are for. YOLOv9 trains only
# boxes with an anchor's centre inside, and 73 of the 563 bulbs here (sides of 4 to 7 px) have none.
SMALL: dict[str, dict[str, float]] = {
    "yolov5n": {"lr0": 0.005},
    "yolov8n": {"lr0": 0.005},
    "v5lite-e": {"lr0": 0.01},
    "yolov7-tiny": {"lr0": 0.01},
    "yolov9-t": {"lr0": 0.01, "tal_min_side": 16},
}
OTHERS = sorted(
    name
    for family in FAMILIES
    for name in {size: model for model, size in FAMILIES.get(family).models.items()}.values()
    if name not in SMALL
)
# nothing but the pictures themselves, an update for every batch
PLAIN = {
    "mosaic": 0.0, "scale": 0.0, "translate": 0.0, "fliplr": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0,
    "mixup": 0.0, "nbs": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def tiles(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data.yaml whose training and validation pictures are the same sixteen."""
    folder, data = tmp_path_factory.mktemp("tiles"), shared("data/wrgb")
    lines = (data / "train-split.txt").read_text().split("\n")[:TILES]
    (folder / "tiles.txt").write_text("\n".join(str((data / line.strip()).resolve()) for line in lines))
    (folder / "data.yaml").write_text("train: tiles.txt\nval: tiles.txt\nnames: [w, r, g, b]\n")
    return folder / "data.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("model", SMALL)
def test_sixteen_pictures_are_known_by_heart_after_300_steps(tiles: Path, model: str, tmp_path: Path) -> None:
    """From random weights at 416, judged as they were seen: ``rect`` would move each within its padding."""
    trained = api.train(
        model=model, data=str(tiles), imgsz=416, batch=TILES, epochs=300, val=False, plots=False,
        project=str(tmp_path), optimizer="AdamW", lrf=0.1, warmup_epochs=10, **SMALL[model], **PLAIN,
    )  # fmt: skip
    judged = api.val(
        model=str(trained.best), data=str(tiles), imgsz=416, rect=False, plots=False, project=str(tmp_path)
    )
    print(f"{model}: {judged.metrics['mAP50']:.3f} of mAP50")
    assert judged.metrics["mAP50"] >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("model", OTHERS)
def test_every_other_size_makes_a_step(model: str) -> None:
    """Forward, loss, backward, update: all finite, every weight that has a gradient moved."""
    device = open_device("cpu")
    device.seed(0)
    spec, network = build_model(model, nc=4)
    network = device.prepare(network).train()
    criterion = spec.criterion(network, LossConfig())
    boxes = torch.tensor([[[0, 20.0, 20, 60, 70], [3, 64.0, 40, 120, 90]]])
    batch = Batch(
        torch.randint(0, 255, (2, 3, 128, 128), dtype=torch.uint8),
        Targets(boxes.repeat(2, 1, 1), torch.ones(2, 2)),
        (),
    )
    before = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.01)
    step = StepConfig(preprocess=spec.preprocess, reduction=spec.loss_reduction)
    report = train_step(network, criterion, [batch], optimizer, device, device.scaler(torch.float32), step)
    assert torch.isfinite(report.norm) and report.norm > 0
    assert all(torch.isfinite(item) for item in report.items.values())
    after = dict(network.named_parameters())
    moved = [name for name, old in before.items() if not torch.equal(old, after[name])]
    assert len(moved) > 0.9 * len(before), sorted(set(before) - set(moved))[:5]
