"""An artefact opened again, as something that predicts: what the predictor and the evaluator take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anyolo.errors import ConfigError, ExportError
from anyolo.export import EXPORTERS
from anyolo.export.base import Arrays, FoldedConvolution, Format, Images, Runner, require
from anyolo.export.compare import to_predictions
from anyolo.export.manifest import Manifest, manifest_path, read_beside, read_inside
from anyolo.structures import Predictions, Preprocess
from anyolo.types import PathLike, SizeHW


class OpenedArtifact:
    """``predict`` maps (B, 3, H, W) uint8 on the host to Predictions, in batches of any length."""

    def __init__(self, runner: Runner, manifest: Manifest) -> None:
        self.runner, self.manifest = runner, manifest

    @property
    def names(self) -> tuple[str, ...]:
        return self.manifest.names

    @property
    def preprocess(self) -> Preprocess:
        return self.manifest.preprocess

    @property
    def input_hw(self) -> SizeHW | None:
        """The only size it takes, or None for any."""
        return None if self.manifest.is_dynamic else self.manifest.size_hw

    def predict(self, images: Tensor) -> Predictions:
        """Final boxes come back as one candidate each, with a score for their class alone. An artefact that
        is suppressed on the host gives all its candidates, for whatever confidence and overlap are asked for.

        Raises:
            ConfigError: pictures of another size than the artefact takes; names both sizes.
        """
        outputs = self._run(self.runner.run, self._checked(images))
        if not self.manifest.gives_boxes:
            return to_predictions(outputs)
        rows = outputs[0]
        scores = np.zeros((*rows.shape[:2], len(self.names)), np.float32)
        np.put_along_axis(scores, rows[..., 5:].astype(np.int64), rows[..., 4:5], 2)
        return Predictions(torch.from_numpy(rows[..., :4]), torch.from_numpy(scores))

    @property
    def shows_candidates(self) -> bool:
        """Whether ``candidates`` can be asked for."""
        images = np.zeros((self.manifest.batch, 3, *self.manifest.size_hw), np.uint8)
        return self.runner.decoded(images) is not None

    def candidates(self, images: Tensor) -> Predictions:
        """All that the artefact finds before any suppression, as ``predict`` takes pictures."""

        def decoded(images: Images) -> Arrays:
            found = self.runner.decoded(images)
            assert found is not None, "ask shows_candidates first"
            return found

        return to_predictions(self._run(decoded, self._checked(images)))

    def notices(self, *, conf: float, iou: float, max_det: int, agnostic: bool = False) -> list[str]:
        """What of these wishes the artefact cannot fulfil, because its suppression is inside."""
        inside = self.manifest.suppression
        if inside is None or not self.manifest.gives_boxes:
            return []
        found = []
        if conf < inside.conf:
            found.append(f"conf={conf:g}, but boxes below {inside.conf:g} were left out when it was exported")
        if max_det > inside.max_det:
            found.append(f"max_det={max_det}, but it was exported with {inside.max_det}")
        if iou != inside.iou or agnostic != inside.agnostic:
            found.append(
                f"iou={iou:g} agnostic_nms={agnostic}, but it suppresses with iou={inside.iou:g} "
                f"agnostic_nms={inside.agnostic}"
            )
        return [
            f"{self.manifest.artifact or 'the artefact'}: {line}; export again to change it" for line in found
        ]

    def _checked(self, images: Tensor) -> Images:
        size_hw = (int(images.shape[2]), int(images.shape[3]))
        if self.input_hw not in {None, size_hw}:
            own = f"{self.manifest.size_hw[0]}x{self.manifest.size_hw[1]}"
            raise ConfigError(
                f"this artefact takes pictures of {own}, not {size_hw[0]}x{size_hw[1]}",
                where="imgsz",
                hint="Leave imgsz out, or export with dynamic=True or at that size.",
            )
        return images.numpy()

    def _run(self, run: Callable[[Images], Arrays], images: Images) -> Arrays:
        """In batches of the one length the artefact takes; the last is filled up and cut off again."""
        if self.manifest.is_dynamic or len(images) == self.manifest.batch:
            return run(images)
        parts = []
        for start in range(0, len(images), self.manifest.batch):
            part = images[start : start + self.manifest.batch]
            missing = self.manifest.batch - len(part)
            whole = np.concatenate((part, np.repeat(part[:1], missing, 0))) if missing else part
            parts.append([output[: len(part)] for output in run(whole)])
        return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))


def format_of(path: PathLike) -> Format | None:
    """The format whose suffix the name has; None for what is no artefact."""
    name = Path(path).name.lower()
    return next((f for f in map(EXPORTERS.get, EXPORTERS) if name.endswith(f.suffix)), None)


def is_artifact(path: PathLike) -> bool:
    """Whether the name is one of an exported file or folder."""
    return format_of(path) is not None


def read_foreign(path: PathLike) -> list[FoldedConvolution] | None:
    """The convolutions of an exported file that another program wrote; None for any other path.

    Raises:
        ExportError: a file of that kind whose weights cannot be read.
        MissingPackage: its format's packages are not installed.
    """
    own = Path(path)
    format = format_of(own)
    if format is None or not own.is_file() or manifest_path(own).exists():
        return None
    require(format.requires, extra=format.name)
    return format.convolutions(own)


def open_artifact(path: PathLike, *, threads: int = 0) -> OpenedArtifact:
    """Open an exported file in its own runtime, fed as its manifest says.

    Raises:
        ExportError: no such file, not of its format; no manifest, or one that was edited or is of other
            bytes.
        MissingPackage: its runtime is not installed.
    """
    own = Path(path)
    format = format_of(own)
    if format is None:
        known = ", ".join(EXPORTERS.get(name).suffix for name in EXPORTERS)
        raise ExportError("no exported file by its name", where=str(path), hint=f"Known endings: {known}.")
    if not own.exists():
        raise ExportError("no such file", where=str(path), hint="Check the path, or export the model first.")
    require(format.requires, extra=format.name)
    beside = read_beside(
        own
    )  # before its runtime sees the file: a damaged one is told apart from a strange one
    runner = format.open(own, threads=threads)
    return OpenedArtifact(runner, beside or read_inside(own, runner.metadata))
