"""YOLOX: names and files, the two input contracts, the last phase, the memory of its loss."""

from __future__ import annotations

import pytest
import torch

from anyolo.api.models import open_model
from anyolo.config.schema import LossConfig, ModelConfig
from anyolo.errors import CheckpointError, UnknownName
from anyolo.families import FAMILIES, build_model, find_model
from anyolo.families.checkpoints import load_model, model_record, save_atomic
from anyolo.families.folded import load_folded
from anyolo.loss.phase import set_phase
from anyolo.nn.demand import order_of_demand
from anyolo.structures import HeadOutput, Targets

SPEC = FAMILIES.get("yolox")


@pytest.mark.parametrize("size", SPEC.sizes())
@pytest.mark.parametrize("nc", [1, 7])
def test_a_file_of_upstream_names(size, nc, tmp_path):
    torch.manual_seed(0)
    _, model = build_model(f"yolox_{size}", nc=nc)
    theirs = dict(SPEC.export_weights(model.state_dict()))
    assert next(iter(theirs)) == "backbone.backbone.stem.conv.conv.weight"
    torch.save({"start_epoch": 3, "model": theirs, "optimizer": None, "best_ap": 0.1}, tmp_path / "a.pth")
    found = load_model(tmp_path / "a.pth")
    assert (found.spec.name, found.size, found.model.nc) == ("yolox", size, nc)
    side = 416 if size in ("nano", "tiny") else 640
    assert found.imgsz == (side, side)
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor)


def test_recipes_of_the_sizes():
    assert find_model("yolox-nano")[1] == "nano"
    small, large = SPEC.recipe_of("tiny"), SPEC.recipe_of("l")
    assert (small["imgsz"], small["mixup"], small["lrf"]) == (416, 0.0, 0.05)
    assert ("imgsz" in large, large["mixup"], large["close_mosaic"]) == (False, 1.0, 15)


def test_the_older_input_is_a_name_and_stays_with_the_weights(tmp_path):
    found = open_model(ModelConfig(model="yolox-nano", preprocess="legacy"))
    assert (found.preprocess.channels, found.preprocess.scale) == ("rgb", 1 / 255)
    assert found.spec.preprocess == found.preprocess != SPEC.preprocess
    white = found.preprocess.normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))
    assert white.flatten().tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-4)
    record = model_record(found.model, found.spec, found.names, imgsz=(416, 416), metrics={})
    save_atomic(record, tmp_path / "a.pt")
    again = load_model(tmp_path / "a.pt")
    assert again.preprocess == found.preprocess == again.spec.preprocess
    with pytest.raises(UnknownName, match="legacy"):
        open_model(ModelConfig(model="yolox-nano", preprocess="legacyy"))


def test_the_last_phase_adds_the_distance():
    torch.manual_seed(0)
    criterion = SPEC.criterion(build_model("yolox-nano", nc=3)[1], LossConfig())
    maps = HeadOutput(tuple(torch.randn(1, 8, side, side) for side in (8, 4, 2)))
    targets = Targets(torch.tensor([[[1.0, 8, 8, 40, 40]]]), torch.ones(1, 1))
    before = criterion(maps, targets)
    set_phase(criterion, is_last=True)
    after = criterion(maps, targets)
    assert float(before.items["l1"]) == 0 < float(after.items["l1"])
    assert float(after.total - before.total) == pytest.approx(float(after.items["l1"]), rel=1e-4)
    set_phase(torch.nn.Sequential(criterion), is_last=False)
    assert torch.equal(criterion(maps, targets).total, before.total)


def folded(model):
    """Convolutions as an exported graph has them, in the order of demand."""
    for name in order_of_demand(model):
        conv = model.get_submodule(name)
        if conv.bias is not None:
            yield conv.weight.detach(), conv.bias.detach()
            continue
        norm = model.get_submodule(name.removesuffix("conv") + "bn")
        gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
        yield conv.weight.detach() * gain.view(-1, 1, 1, 1), norm.bias.detach() - norm.running_mean * gain


def test_folded_convolutions_give_the_model_back():
    torch.manual_seed(0)
    _, model = build_model("yolox-nano", nc=3)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
    parts = list(folded(model.eval()))
    found = load_folded(parts, where="a.onnx")
    assert (found.spec.name, found.size, found.model.nc, found.imgsz) == ("yolox", "nano", 3, (416, 416))
    x = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        pairs = zip(found.model(x).levels, model(x).levels, strict=True)
        assert all(torch.allclose(own, theirs, atol=1e-4) for own, theirs in pairs)
    with pytest.raises(CheckpointError, match="no known model has these 112 convolutions"):
        load_folded(parts[1:], where="a.onnx")
