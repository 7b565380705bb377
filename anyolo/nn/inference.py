"""A model made ready to look at pictures: fused, on its device, in its number type."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from anyolo.devices import Device
from anyolo.nn.blocks.conv import Chain, PlainSiLU
from anyolo.nn.fuse import fuse
from anyolo.nn.model import Detector
from anyolo.structures import HeadOutput, Predictions, Preprocess


class Inference:
    """Call with (B, C, H, W) uint8 pictures on the host; gives Predictions on the device.

    ``model`` itself is left as it is: a fused copy runs. ``dtype`` is the number type of its weights and
    maps; boxes are decoded in float32 from whatever the maps come in.
    """

    def __init__(
        self, model: Detector, device: Device, preprocess: Preprocess, *, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model = device.prepare(fuse(copy.deepcopy(model)).requires_grad_(False))
        if device.lacks("silu"):
            _replace(self.model, nn.SiLU, PlainSiLU)
        if dtype != torch.float32:
            _convert(self.model, dtype)
        for block in self.model.modules():
            if isinstance(block, Chain):
                block.merge(device.fused_convolution)
        self.device, self.preprocess, self.dtype = device, preprocess, dtype

    @torch.no_grad()
    def raw(self, images: Tensor) -> HeadOutput:
        moved = self.device.arrange(self.device.to(images))
        with self.device.region("forward"):
            x = self.preprocess.normalise(moved)
            output: HeadOutput = self.model(x if self.dtype == torch.float32 else x.to(self.dtype))
        return output

    @torch.no_grad()
    def decode(self, output: HeadOutput) -> Predictions:
        with self.device.region("decode"):
            return self.model.decode(output)

    def __call__(self, images: Tensor) -> Predictions:
        height, width = images.shape[2:]
        some = self.device.images_at_once((height, width)) or len(images)
        return Predictions.joined([self.decode(self.raw(own)) for own in torch.split(images, some)])


def _convert(model: Detector, dtype: torch.dtype) -> None:
    """Weights in ``dtype``, with no conversion left to every call; the head's own constants stay exact."""
    constants = dict(model.head.named_buffers(recurse=False))
    model.to(dtype)
    for name, value in constants.items():
        model.head.register_buffer(name, value)


def _replace(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, old):
                setattr(module, name, new())
