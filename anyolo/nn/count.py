"""How large a model is, and each of its rows."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from anyolo.nn.model import Detector
from anyolo.types import SizeHW


@dataclass(frozen=True, slots=True)
class RowCount:
    """One row: ``sources`` are the rows it reads (-1 the picture), ``outputs`` the shapes of its maps."""

    index: int
    block: str
    sources: tuple[int, ...]
    parameters: int
    gflops: float
    outputs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class ModelCount:
    """``parameters`` includes frozen ones (such as the 16 bins of a distribution head), ``gradients`` does
    not.

    ``gflops`` counts a multiply and an add as two, of convolutions and matrix products, for one picture;
    ``layers`` are the modules without children.
    """

    parameters: int
    gradients: int
    gflops: float
    layers: int
    rows: tuple[RowCount, ...] = ()


def count(model: Detector, size_hw: SizeHW) -> ModelCount:
    """Count at an input size, by torch's own counter, on shapes alone: no time, no memory, no device."""
    shapes = copy.deepcopy(model).to("meta").eval()
    outputs: list[tuple[tuple[int, ...], ...]] = []
    for block in shapes.model:
        block.register_forward_hook(lambda _, __, given: outputs.append(shapes_of(given)))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        shapes(torch.zeros(1, model.channels, *size_hw, device="meta"))
    found = counter.get_flop_counts()
    prefix = type(shapes).__name__
    rows = tuple(
        RowCount(
            index=index,
            block=type(block).__name__,
            sources=model.sources(index),
            parameters=count_parameters(block),
            gflops=sum(found.get(f"{prefix}.model.{index}", {}).values()) / 1e9,
            outputs=outputs[index],
        )
        for index, block in enumerate(model.model)
    )
    return ModelCount(
        parameters=count_parameters(model),
        gradients=count_gradients(model),
        gflops=counter.get_total_flops() / 1e9,
        layers=sum(1 for m in model.modules() if not any(True for _ in m.children())),
        rows=rows,
    )


def count_parameters(model: nn.Module) -> int:
    """Numbers in all parameters."""
    return sum(p.numel() for p in model.parameters())


def count_gradients(model: nn.Module) -> int:
    """Numbers in the parameters that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor of what a module gave: tensors, lists, mappings and dataclasses of them."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for own in value:
            yield from tensors_in(own)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif is_dataclass(value):
        yield from tensors_in([getattr(value, field.name) for field in fields(value)])


def shapes_of(value: Any) -> tuple[tuple[int, ...], ...]:
    """The shape of every tensor in ``value``."""
    return tuple(tuple(tensor.shape) for tensor in tensors_in(value))
