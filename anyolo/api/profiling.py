"""The verb ``profile``, the function of that name for one's own modules, and the figures loggers take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from anyolo import console
from anyolo.api.models import open_model
from anyolo.api.using import open_for_use, run_info
from anyolo.config.load import load
from anyolo.config.schema import DeviceConfig, ModelConfig, ProfileVerb
from anyolo.deploy.profiling import (
    OperatorRow,
    ProfileRow,
    profile_all,
    profile_one,
    profile_operators,
    profile_rows,
)
from anyolo.devices import open_device
from anyolo.export import open_artifact
from anyolo.ops.letterbox import input_size

COLUMNS = ("", "input", "parameters", "GFLOPs", "memory MB", "forward ms", "backward ms", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileResult:
    """``by`` says what the rows are: layers, operators, model, or the user's own."""

    device: str
    by: str
    rows: Sequence[ProfileRow | OperatorRow]
    ok: bool = True

    def to_json(self) -> dict[str, Any]:
        return {"device": self.device, "by": self.by, "rows": [row.to_json() for row in self.rows]}


def run_profile(values: Mapping[str, Any]) -> ProfileResult:
    """Settings as in ``anyolo profile --help``."""
    config = load(ProfileVerb, values).config
    found, wishes = open_model(config.model), config.device
    device = open_device(wishes.device, threads=wishes.threads, strict=wishes.strict)
    size_hw = input_size(config.imgsz, found.preprocess.stride)
    model, images = found.model, torch.zeros(config.batch, found.model.channels, *size_hw)
    rows: Sequence[ProfileRow | OperatorRow]
    if config.by == "layers":
        rows = profile_rows(model, images, device, config.n)
    elif config.by == "operators":
        rows = profile_operators(model, images, device, config.n)
    else:
        rows = [profile_one(config.model.model, model, images, device, config.n)]
    return _told(ProfileResult(device=device.describe(), by=config.by, rows=rows))


def profile(
    inputs: Any, operations: Any, *, n: int = 10, device: str = "auto", threads: int = 0
) -> ProfileResult:
    """Time modules and functions of one's own, forward and backward: each of ``operations`` with each input.

    ``inputs`` is a tensor or a list of them (a tuple is one input of several tensors), ``operations`` one
    callable or a list.
    """
    opened = open_device(device, threads=threads)
    each: list[Any] = inputs if isinstance(inputs, list) else [inputs]
    work: list[Callable[..., Any]] = operations if isinstance(operations, list) else [operations]
    rows = profile_all(each, work, opened, n)
    return _told(ProfileResult(device=opened.describe(), by="own", rows=rows))


def logger_info(
    model: str, *artifacts: Any, imgsz: int = 640, device: str = "cpu", n: int = 5
) -> dict[str, float]:
    """What run loggers show of a model: parameters, GFLOPs, and milliseconds per picture of the weights and
    of each exported file, under the names of the field.
    """
    totals = run_info({"model": model, "imgsz": imgsz})
    wishes, size_hw = DeviceConfig(device=device), input_size(imgsz, 1)
    opened = open_for_use(ModelConfig(model=str(model)), wishes)
    figures = {
        "model/parameters": float(totals.parameters),
        "model/GFLOPs": totals.gflops,
        "model/speed_PyTorch(ms)": _speed_ms(opened.predict, size_hw, n),
    }
    for path in artifacts:
        artifact = open_artifact(path)
        own_hw = artifact.input_hw or size_hw
        figures[f"model/speed_{artifact.manifest.format}(ms)"] = _speed_ms(artifact.predict, own_hw, n)
    return figures


def _speed_ms(predict: Callable[[torch.Tensor], Any], size_hw: tuple[int, int], n: int) -> float:
    """Median of ``n`` blank pictures, their boxes on the host, after two that do not count."""
    images, spent = torch.zeros(1, 3, *size_hw, dtype=torch.uint8), []
    for _ in range(n + 2):
        start = time.perf_counter()
        predict(images).boxes_xyxy.cpu()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent[2:]) * 1e3


def _told(result: ProfileResult) -> ProfileResult:
    lines: list[tuple[Any, ...]] = []
    for row in result.rows:
        if isinstance(row, OperatorRow):
            lines.append((row.name, row.calls, row.ms, f"{row.share:.1%}"))
        else:
            lines.append(tuple(row.to_json().values()))
    columns = ("operator", "calls", "ms", "share") if result.by == "operators" else COLUMNS
    console.current().table(f"on {result.device}", columns, lines)
    return result
