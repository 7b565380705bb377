"""The CPU's own operators against torch's plain ones."""

import copy

import pytest
import torch
from torch import nn

from anyolo.devices import open_device
from anyolo.errors import DeviceError, UnknownName
from anyolo.families import build_model
from anyolo.nn.blocks.conv import PlainSiLU
from anyolo.nn.inference import Inference
from anyolo.structures import Preprocess


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.ReLU(), nn.LeakyReLU(0.1), nn.Hardswish()])
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 2, 1), (1, 1, 1), (5, 1, 8)])
def test_fused_convolution_equals_two_operators(
    activation: nn.Module, kernel: int, stride: int, groups: int
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, kernel, stride, kernel // 2, groups=groups)
    one = open_device("cpu").fused_convolution(copy.deepcopy(conv), activation)
    assert one is not None, "this torch is built without oneDNN"
    with torch.no_grad():
        for size in ((1, 8, 20, 20), (3, 8, 13, 27), (1, 8, 64, 64)):
            x = torch.randn(size)
            assert torch.allclose(one(x), activation(conv(x)), atol=2e-6)


def test_unknown_activation_is_left_alone() -> None:
    assert open_device("cpu").fused_convolution(nn.Conv2d(3, 4, 1), nn.Softplus()) is None


def test_inference_equals_the_model_and_leaves_it_alone() -> None:
    torch.manual_seed(0)
    _, model = build_model("yolov8n", nc=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inference = Inference(model, open_device("cpu"), Preprocess())
    model.eval()
    for size in ((64, 96), (96, 64)):
        images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        with torch.no_grad():
            wanted = model.predict(images.float() / 255)
        found = inference(images)
        assert torch.allclose(found.boxes_xyxy, wanted.boxes_xyxy, atol=1e-3)
        assert torch.allclose(found.scores, wanted.scores, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_half_precision_is_near_and_leaves_the_constants_of_a_head_exact() -> None:
    torch.manual_seed(0)
    _, model = build_model("yolov8n", nc=3)
    anchor = torch.tensor([373 / 32])  # bfloat16 would make 11.625 of 11.656
    model.head.register_buffer("anchor", anchor.clone())
    device, images = open_device("cpu"), torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    inference = Inference(model, device, Preprocess(), dtype=torch.bfloat16)
    wanted, found = Inference(model, device, Preprocess()).raw(images), inference.raw(images)
    for exact, half in zip(wanted.levels, found.levels, strict=True):
        assert half.dtype == torch.bfloat16
        assert (half.float() - exact).norm() < 0.02 * exact.norm()
    assert torch.equal(inference.model.head.anchor, anchor)
    assert inference(images).scores.dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_unknown_and_absent_devices_say_so() -> None:
    with pytest.raises(UnknownName, match="unknown device 'cudda'") as caught:
        open_device("cudda")
    assert "cuda" in caught.value.hint
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="not available"):
            open_device("cuda:1")


def test_a_large_batch_in_pieces_gives_what_single_pictures_give(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    _, model = build_model("yolov8n", nc=3)
    device = open_device("cpu")
    assert device.images_at_once((640, 640)) == 3 and device.images_at_once((4096, 4096)) == 1
    monkeypatch.setattr(type(device), "images_at_once", lambda self, size_hw: 2)
    inference = Inference(model, device, Preprocess())
    images = torch.randint(0, 256, (5, 3, 64, 96), dtype=torch.uint8)
    found = inference(images)
    assert found.scores.shape[0] == 5
    for number in range(5):
        alone = inference(images[number : number + 1])
        assert torch.allclose(found.boxes_xyxy[number], alone.boxes_xyxy[0], atol=1e-3)
        assert torch.allclose(found.scores[number], alone.scores[0], atol=1e-5)


def test_silu_spelled_out_is_silu() -> None:
    x = torch.linspace(-90, 90, 1001)
    assert torch.allclose(PlainSiLU()(x), nn.functional.silu(x), atol=1e-6)
