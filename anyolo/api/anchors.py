"""The verb ``anchors``: what a model's anchors are worth on a data set, and what fitted ones would be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyolo import console
from anyolo.api.data_files import read_data_layer
from anyolo.api.models import open_model
from anyolo.config.load import Layer, Loaded, load
from anyolo.config.schema import AnchorsVerb
from anyolo.data import open_data
from anyolo.data.anchorfit import ENOUGH_RECALL, AnchorScore, Sizes, fit_anchors, label_sizes, score_anchors
from anyolo.errors import ConfigError, DataError
from anyolo.evaluate import draw_anchors
from anyolo.families.checkpoints import Checkpoint
from anyolo.ops.letterbox import input_size
from anyolo.structures import Preprocess
from anyolo.train.folder import RunFolder
from anyolo.types import SizeHW

PRESENT, FITTED = "present", "fitted"
WITHOUT_MODEL = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorsResult:
    """``sets`` name the present anchors (where there is a model) and the fitted ones, (A, 2) input pixels."""

    boxes: int
    size_hw: SizeHW
    fit: str
    anchor_t: float
    sets: Mapping[str, Sizes]
    scores: Mapping[str, AnchorScore]
    plot: Path | None
    ok: bool = True

    def to_json(self) -> dict[str, Any]:
        rows = [
            {"anchors": name, **dataclasses.asdict(self.scores[name]), "anchors_px": own.round(2).tolist()}
            for name, own in self.sets.items()
        ]
        return {
            "boxes": self.boxes,
            "imgsz": list(self.size_hw),
            "fit": self.fit,
            "anchor_t": self.anchor_t,
            "rows": rows,
            "plot": str(self.plot) if self.plot else None,
        }


def run_anchors(values: Mapping[str, Any]) -> AnchorsResult:
    """Settings as in ``anyolo anchors --help``."""
    loaded, found = _settle(values)
    config = loaded.config
    preprocess = found.preprocess if found else Preprocess()
    size_hw = input_size(config.imgsz, preprocess.stride)
    sizes = label_sizes(open_data(config.data, config.split), size_hw, preprocess.fit)
    if not len(sizes):
        raise DataError(
            f"the {config.split} split has no box", where=config.data, hint="Label some, or give split=."
        )
    own = found.model.head.read_anchors() if found else None
    sets = {} if own is None else {PRESENT: own.double().reshape(-1, 2).numpy()}
    count = config.n or (WITHOUT_MODEL if own is None else own[..., 0].numel())
    sets[FITTED] = fit_anchors(
        sizes, count, config.anchor_t, seed=config.seed, generations=config.generations
    )
    plot = None
    if config.run.plots:
        folder = RunFolder.create(
            config.run.project, config.run.name, "anchors", exist_ok=config.run.exist_ok
        )
        plot = folder.root / "anchors.png"
        draw_anchors(sizes, sets, config.anchor_t, plot)
    result = AnchorsResult(
        boxes=len(sizes),
        size_hw=size_hw,
        fit=preprocess.fit,
        anchor_t=config.anchor_t,
        sets=sets,
        scores={name: score_anchors(sizes, anchors, config.anchor_t) for name, anchors in sets.items()},
        plot=plot,
    )
    _tell(result)
    return result


def _settle(values: Mapping[str, Any]) -> tuple[Loaded[AnchorsVerb], Checkpoint | None]:
    """Settings, with those of the model's family and of the data file beneath; and the model, if any."""
    typed = load(AnchorsVerb, values)
    beside = read_data_layer(typed.config.data, only={"imgsz", "anchors", "model"})
    loaded = load(AnchorsVerb, values, layers=[beside.layer])
    model = loaded.config.model
    if not (model.model or model.cfg):
        return loaded, None
    found = open_model(model)
    if found.model.head.read_anchors() is None:
        raise ConfigError(
            "this model has no anchors", where=model.model or model.cfg, hint="Leave model= out to fit some."
        )
    recipe = Layer(f"recipe of {found.spec.name}", found.spec.recipe_of(found.size), tolerant=True)
    trained = Layer("the weights file", {"imgsz": found.imgsz} if found.imgsz else {})
    return load(AnchorsVerb, values, layers=[recipe, trained, beside.layer]), found


def _tell(result: AnchorsResult) -> None:
    report, (height, width) = console.current(), result.size_hw
    size = f"{height}" if height == width else f"{height},{width}"
    title = f"{result.boxes} boxes at imgsz={size} ({result.fit}), anchor_t={result.anchor_t:g}"
    columns = ("anchors", "fitness", "best possible recall", "anchors per box", "width,height in pixels")
    report.table(
        title,
        columns,
        [
            (name, score.fitness, f"{score.recall:.2%}", score.anchors_per_box, _written(result.sets[name]))
            for name, score in result.scores.items()
        ],
    )
    present = result.scores.get(PRESENT)
    if present is not None and present.recall <= ENOUGH_RECALL:
        report.line(
            f"the present ones reach less than {ENOUGH_RECALL:.0%}: training fits new ones, unless given"
        )
    report.line(f"to train with the fitted ones: anchors={_written(result.sets[FITTED]).replace(' ', ',')}")
    if result.plot:
        report.line(f"plot in {result.plot}")


def _written(anchors: Sequence[Sequence[float]] | Sizes) -> str:
    return " ".join(f"{width:.2f},{height:.2f}" for width, height in anchors)
