"""The mAP of a model and of its artefact on one data set, at the same settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from anyolo.config.schema import EvalConfig
from anyolo.data import DetectionDataset, make_loader, open_data
from anyolo.errors import DataError
from anyolo.evaluate import evaluate
from anyolo.export.base import Suppression
from anyolo.export.opened import OpenedArtifact
from anyolo.structures import Predictions, Preprocess
from anyolo.types import SizeHW

Predict = Callable[[Tensor], Predictions]
KEY = "mAP50-95"
MOST = 0.001
"""Largest difference of fp32 artefacts: a tenth of a point."""
AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Judges whatever predicts on ``data``, fitted into ``size_hw``; ``settings`` are the family's own."""

    data: str
    preprocess: Preprocess
    names: tuple[str, ...]
    size_hw: SizeHW
    settings: EvalConfig

    def precision(self, predict: Predict, *, inside: Suppression | None = None) -> float:
        """mAP50-95, a share of 1. ``inside``: what gives final boxes can only be judged with these limits."""
        index = open_data(self.data, "val")
        if len(index.names) != len(self.names):
            raise DataError(
                f"the model has {len(self.names)} classes, the data {len(index.names)}",
                where=self.data,
                hint="Give the data.yaml the model was trained with, or leave data= out.",
            )
        dataset = DetectionDataset(index, self.preprocess, imgsz=self.size_hw, augment=None)
        loader = make_loader(dataset, batch=AT_ONCE, workers=0, shuffle=False, seed=0)
        try:
            found = evaluate(predict, loader, index, self._settings(inside))
        finally:
            loader.close()
        return found.metrics[KEY]

    def both(self, model: Predict, artifact: OpenedArtifact) -> dict[str, Any]:
        """Of candidates, suppressed alike on the host, where the artefact shows them; else of final boxes."""
        predict, inside = judged(artifact)
        ours, theirs = self.precision(model, inside=inside), self.precision(predict, inside=inside)
        return {"data": self.data, "model": ours, "artifact": theirs, "difference": theirs - ours}

    def precision_of(self, artifact: OpenedArtifact) -> float:
        """The artefact's side of ``both``."""
        predict, inside = judged(artifact)
        return self.precision(predict, inside=inside)

    def _settings(self, inside: Suppression | None) -> EvalConfig:
        if inside is None:
            return self.settings
        return replace(
            self.settings,
            conf=max(inside.conf, self.settings.conf),
            iou=inside.iou,
            max_det=min(inside.max_det, self.settings.max_det),
            agnostic_nms=inside.agnostic,
            multi_label=False,
        )


def judged(artifact: OpenedArtifact) -> tuple[Predict, Suppression | None]:
    """What of an artefact is judged, and the limits that are inside of it."""
    if artifact.shows_candidates:
        return artifact.candidates, None
    return artifact.predict, artifact.manifest.suppression


def evaluation_settings(own: Mapping[str, Any]) -> EvalConfig:
    """The defaults with those of a family over them."""
    known = {field.name for field in fields(EvalConfig)}
    return EvalConfig(**{key: value for key, value in own.items() if key in known})


def differs(figures: Mapping[str, Any]) -> str:
    """In words, "" for a difference that is none."""
    if abs(figures["difference"]) <= MOST:
        return ""
    return f"{KEY} is {figures['artifact']:.4f} instead of {figures['model']:.4f}"
