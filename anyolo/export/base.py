"""The contract of an export format: ``write`` an artefact, ``open`` it again in its own runtime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from anyolo.errors import MissingPackage
from anyolo.nn.model import Detector
from anyolo.ops.nms import graph_nms
from anyolo.structures import Preprocess

Images: TypeAlias = NDArray[np.uint8]
Arrays: TypeAlias = tuple[NDArray[np.float32], ...]

INPUT = "images"
BOXES = "boxes"
MAX_CANDIDATES = 3000
"""Boxes that may enter the suppression of one picture, best first; memory grows with the square of it."""
WISHES = ("dynamic", "int8")
"""Settings that only some formats can fulfil."""
NMS = "nms"
"""The ability to give final boxes; without it an artefact gives decoded maps, suppressed on the host."""
DECODED = ("boxes_xyxy", "scores", "objectness")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """The non-maximum suppression of an artefact: inside its ``graph``, or behind it on the ``host``."""

    conf: float
    iou: float
    max_det: int
    agnostic: bool = False
    where: Literal["graph", "host"] = "graph"


class Decoded(nn.Module):
    """(B, C, H, W) uint8 pixels to decoded, unfiltered predictions, a tuple in the order of ``DECODED``."""

    def __init__(self, detector: Detector, preprocess: Preprocess) -> None:
        super().__init__()
        self.detector = detector
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.detector.predict(self.preprocess.normalise(images))
        if found.objectness is None:
            return found.boxes_xyxy, found.scores
        return found.boxes_xyxy, found.scores, found.objectness


class Exportable(nn.Module):
    """What is exported: normalisation, network, decoding and, with ``suppression``, final boxes, all inside.

    ``forward`` gives (B, max_det, 6) rows x1 y1 x2 y2 score class in input pixels, zero rows behind the last;
    without ``suppression`` the decoded tuple.
    """

    def __init__(self, decoded: nn.Module, suppression: Suppression | None) -> None:
        super().__init__()
        self.decoded = decoded
        self.suppression = suppression

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        decoded: tuple[Tensor, ...] = self.decoded(images)
        return decoded if self.suppression is None else self.final_boxes(decoded, self.suppression)

    @staticmethod
    def final_boxes(decoded: tuple[Tensor, ...], suppression: Suppression) -> Tensor:
        boxes_xyxy, scores, *objectness = decoded
        if objectness:
            scores = scores * objectness[0].unsqueeze(-1)
        # as many as there are: a handful costs 2 ms, a fixed 1000 would cost 22 (onnxruntime, one thread)
        entering = (scores.amax(-1) > suppression.conf).sum(1).amax(0).clamp(1, MAX_CANDIDATES)
        return graph_nms(
            boxes_xyxy,
            scores,
            conf=suppression.conf,
            iou=suppression.iou,
            max_det=suppression.max_det,
            max_candidates=entering,
            agnostic=suppression.agnostic,
        )


class AllOutputs(nn.Module):
    """Final boxes with the decoded maps beside them, so that those get names and can be shown later."""

    def __init__(self, model: Exportable) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        decoded: tuple[Tensor, ...] = self.model.decoded(images)
        if self.model.suppression is None:
            return decoded
        return (self.model.final_boxes(decoded, self.model.suppression), *decoded)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """``example`` is (B, C, H, W) uint8; ``metadata`` travels inside the file where there is room for it.

    ``calibration`` are batches like it, of pictures to find integer scales with; none without ``int8=True``.
    """

    example: Tensor
    is_dynamic: bool = False
    simplify: bool = True
    opset: int | None = None
    metadata: Mapping[str, Any]
    calibration: Sequence[Images] = ()


class Runner(Protocol):
    """An artefact opened in its own runtime. ``metadata`` is what was written into it, or empty."""

    metadata: Mapping[str, Any]

    def run(self, images: Images) -> Arrays:
        """The artefact's own outputs."""

    def decoded(self, images: Images) -> Arrays | None:
        """What the same file computes before its suppression; None where its runtime cannot show that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedConvolution:
    """``weight`` (O, I, kh, kw) and ``bias`` (O,), 0 where the file has none."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


class Format(Protocol):
    """``suffix`` of the artefact, a file or a folder; ``requires`` the packages of the extra ``name``.

    ``abilities`` are the settings, of those in ``WISHES``, that it can fulfil, and ``NMS`` where final boxes
    fit inside. ``remark`` is what users must be told of every artefact, mostly nothing.
    """

    name: str
    suffix: str
    requires: tuple[str, ...]
    abilities: frozenset[str]
    remark: str

    def write(self, model: Exportable, path: Path, options: WriteOptions) -> None:
        """Raises ExportError for what this format cannot express."""

    def open(self, path: Path, *, threads: int = 0) -> Runner:
        """Raises ExportError for a file its runtime cannot read."""

    def convolutions(self, path: Path) -> list[FoldedConvolution] | None:
        """The weights in another program's file of this format, as the outputs ask for them, in order.

        None for a file that this program wrote, and where the format does not show its weights. Raises
        ExportError for a file that has no such weights.
        """

    def calling_code(self, file_name: str) -> tuple[str, str]:
        """Python for users: the package, and the expression that maps ``images`` to (B, max_det, 6)."""


class ForeignNetwork(Protocol):
    """Another program's file in its runtime. Lengths that are not fixed are -1."""

    input_shape: tuple[int, ...]
    input_type: str
    """As numpy calls it, or the runtime's own word."""

    def run(self, images: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """All its outputs."""


@runtime_checkable
class ForeignOpener(Format, Protocol):
    """A format whose runtime can also run what other programs wrote."""

    def open_foreign(self, path: Path, *, threads: int = 0) -> ForeignNetwork:
        """Raises ExportError for a file its runtime cannot read, or that takes more than pictures."""


def require(packages: tuple[str, ...], *, extra: str) -> dict[str, str]:
    """Versions of the packages; MissingPackage for one that is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            raise MissingPackage(package, extra=extra, needed_for=f"format={extra}") from None
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters warn of their own retirement and log what users cannot act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
