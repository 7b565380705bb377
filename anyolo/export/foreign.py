"""Another program's exported detector, without a manifest, understood by the shapes of its ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyolo.errors import ExportError
from anyolo.export import EXPORTERS
from anyolo.export.base import ForeignNetwork, ForeignOpener, require
from anyolo.export.opened import format_of
from anyolo.structures import Predictions, Preprocess
from anyolo.types import PathLike, SizeHW

FLOATS = ("float32", "float16")


class OpenedForeign:
    """``predict`` maps (B, 3, H, W) uint8 RGB on the host to Predictions, in batches of any length.

    The network takes them as floats 0..1 and gives decoded maps, (B, 4 + K, N) or (B, 5 + K, N) or the same
    transposed: cx, cy, w, h in input pixels, with 5 + K an objectness, scores 0..1. ``preprocess`` is that
    of the model it is compared with, in RGB.
    """

    def __init__(
        self, network: ForeignNetwork, names: Sequence[str], preprocess: Preprocess, *, where: str
    ) -> None:
        self.network, self.names, self.where = network, tuple(names), where
        self.preprocess = replace(preprocess, channels="rgb", scale=1 / 255, mean=(), std=())
        shape, type_ = network.input_shape, network.input_type
        if len(shape) != 4 or shape[1] not in {3, -1} or type_ not in FLOATS:
            raise ExportError(
                f"its input is {type_} {_words(shape)}",
                where=where,
                hint="A rival takes pictures as float32 or float16 (B, 3, H, W), RGB, 0..1.",
            )
        self.laps_ms: Mapping[str, float] = {}
        """Of the last call: what the host did before and behind the network."""

    @property
    def input_hw(self) -> SizeHW | None:
        """The only size it takes, or None for any."""
        height, width = self.network.input_shape[2:]
        return None if min(height, width) < 1 else (height, width)

    @property
    def batch(self) -> int | None:
        """The only batch it takes, or None for any."""
        own = self.network.input_shape[0]
        return own if own > 0 else None

    def predict(self, images: Tensor) -> Predictions:
        """Raises ExportError for outputs that are no decoded maps; names their shapes."""
        clock = [perf_counter()]
        given = images.numpy().astype(self.network.input_type)
        given /= 255
        clock.append(perf_counter())
        outputs = self._run(given)
        clock.append(perf_counter())
        found = self._decoded(outputs)
        clock.append(perf_counter())
        self.laps_ms = {"before": (clock[1] - clock[0]) * 1e3, "behind": (clock[3] - clock[2]) * 1e3}
        return found

    def _run(self, given: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """In batches of the one length it takes; the last is filled up and cut off again."""
        own = self.batch
        if own is None or len(given) == own:
            return self.network.run(given)
        parts = []
        for start in range(0, len(given), own):
            part = given[start : start + own]
            whole = np.concatenate((part, np.repeat(part[:1], own - len(part), 0)))
            parts.append([output[: len(part)] for output in self.network.run(whole)])
        return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))

    def _decoded(self, outputs: Sequence[NDArray[Any]]) -> Predictions:
        for output in outputs:
            if (maps := _with_channels_last(output, len(self.names))) is not None:
                tensor = torch.from_numpy(np.ascontiguousarray(maps, np.float32))
                centre, half = tensor[..., :2], tensor[..., 2:4] / 2
                boxes = torch.cat((centre - half, centre + half), -1)
                if maps.shape[2] == 4 + len(self.names):
                    return Predictions(boxes, tensor[..., 4:])
                return Predictions(boxes, tensor[..., 5:], tensor[..., 4])
        classes = len(self.names)
        raise ExportError(
            f"its outputs are {', '.join(_words(output.shape) for output in outputs)}",
            where=self.where,
            hint=f"For {classes} classes a rival gives decoded maps, (B, {4 + classes}, N) or "
            f"(B, N, {5 + classes}): cx, cy, w, h in input pixels and scores 0..1.",
        )


def open_foreign(
    path: PathLike, names: Sequence[str], preprocess: Preprocess, *, threads: int = 0
) -> OpenedForeign:
    """Open a file of another exporter in the runtime of its kind.

    Raises:
        ExportError: no such file, of no kind that can be opened without a manifest, or with another input.
        MissingPackage: its runtime is not installed.
    """
    format = format_of(path)
    if not isinstance(format, ForeignOpener):
        able = [own.suffix for own in map(EXPORTERS.get, EXPORTERS) if isinstance(own, ForeignOpener)]
        raise ExportError(
            "no file that can be run without a manifest", where=str(path), hint=f"Endings: {', '.join(able)}."
        )
    if not Path(path).is_file():
        raise ExportError("no such file", where=str(path), hint="Check the path.")
    require(format.requires, extra=format.name)
    return OpenedForeign(format.open_foreign(Path(path), threads=threads), names, preprocess, where=str(path))


def _with_channels_last(output: NDArray[Any], classes: int) -> NDArray[Any] | None:
    """(B, N, 4 + K) or (B, N, 5 + K); None for any other output."""
    if output.ndim != 3:
        return None
    wanted = {4 + classes, 5 + classes}
    places = [axis for axis in (1, 2) if output.shape[axis] in wanted]
    if not places:
        return None
    axis = min(places, key=lambda axis: output.shape[axis])  # there are more points than classes
    return output if axis == 2 else output.transpose(0, 2, 1)


def _words(shape: Sequence[int]) -> str:
    return f"({', '.join('any' if side < 0 else str(side) for side in shape)})"
