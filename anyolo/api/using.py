"""The verbs that use a trained model: ``val``, ``predict``, ``export``, ``info``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyolo import console
from anyolo.api.data_files import read_data_layer
from anyolo.api.models import open_model
from anyolo.config.load import Layer, load
from anyolo.config.schema import (
    DeviceConfig,
    ExportVerb,
    InfoVerb,
    LookConfig,
    ModelConfig,
    PredictVerb,
    ValVerb,
)
from anyolo.data import DetectionDataset, make_loader, open_data
from anyolo.deploy.augmented import Augmented
from anyolo.deploy.predictor import Predictor
from anyolo.deploy.results import Results
from anyolo.deploy.saving import Saver
from anyolo.devices import Device, open_device
from anyolo.errors import ConfigError, DataError
from anyolo.evaluate import Evaluation, draw_report, evaluate
from anyolo.export import ExportResult, export_model, is_artifact, open_artifact, read_foreign
from anyolo.families import FAMILIES
from anyolo.nn.count import RowCount, count
from anyolo.nn.inference import Inference
from anyolo.ops.letterbox import input_size
from anyolo.structures import Predictions, Preprocess
from anyolo.train.folder import RunFolder
from anyolo.types import SizeHW

Predict = Callable[[Tensor], Predictions]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A model of any kind, ready to look at pictures.

    ``trained_hw`` is the size it was trained at, where known, and ``fixed_hw`` the only one an exported file
    takes. ``evaluation``: the settings its family is judged with.
    """

    predict: Predict
    preprocess: Preprocess
    names: tuple[str, ...]
    evaluation: Layer
    trained_hw: SizeHW | None = None
    fixed_hw: SizeHW | None = None
    notices: Callable[..., list[str]] = lambda **wishes: []
    remarks: Callable[[], list[str]] = list

    def size(self, imgsz: int | SizeHW, *, is_typed: bool) -> SizeHW:
        """The input size: as typed, else the one the model was trained at, else the default.

        Raises:
            ConfigError: a typed size that an exported file cannot take, or that is no stride multiple.
        """
        size_hw = input_size(imgsz, self.preprocess.stride)
        if self.fixed_hw is None:
            return size_hw if is_typed or self.trained_hw is None else self.trained_hw
        if is_typed and size_hw != self.fixed_hw:
            own = f"{self.fixed_hw[0]},{self.fixed_hw[1]}"
            raise ConfigError(
                f"this exported file takes pictures of {own} only",
                where="imgsz",
                hint="Leave imgsz out, or export again with dynamic=True or at that size.",
            )
        return self.fixed_hw

    def looking(self, config: LookConfig) -> Predict:
        """``predict``, several times where ``augment=True`` asks for it."""
        if not config.augment:
            return self.predict
        return Augmented(self.predict, self.preprocess, is_fixed=self.fixed_hw is not None)

    def warn_of(self, *, conf: float, iou: float, max_det: int, agnostic: bool) -> None:
        """Say what of these wishes an exported file with its boxes inside cannot fulfil."""
        for notice in self.notices(conf=conf, iou=iou, max_det=max_det, agnostic=agnostic):
            console.current().warn(notice)


def open_for_use(
    model: ModelConfig, device: DeviceConfig, *, spare_anchors: Sequence[float] | None = None
) -> Opened:
    """Weights, a model name or an exported file. ``spare_anchors`` as ``open_model`` takes them."""
    if is_artifact(model.model) and read_foreign(model.model) is None:
        artifact = open_artifact(model.model, threads=device.threads)
        return Opened(
            predict=artifact.predict,
            preprocess=artifact.preprocess,
            names=artifact.names,
            evaluation=_evaluation_of(artifact.manifest.family),
            fixed_hw=artifact.input_hw,
            notices=artifact.notices,
        )
    found = open_model(model, spare_anchors=spare_anchors)
    opened = open_device(device.device, threads=device.threads, strict=device.strict)
    inference = Inference(found.model, opened, found.preprocess, dtype=half_dtype(device, opened))
    return Opened(
        predict=inference,
        preprocess=found.preprocess,
        names=found.names,
        evaluation=_evaluation_of(found.spec.name),
        trained_hw=found.imgsz,
        remarks=opened.remarks,
    )


def _evaluation_of(family: str) -> Layer:
    """Beneath what is typed; nothing for a family that this installation does not know."""
    known = FAMILIES.get(family).evaluation if family in FAMILIES else {}
    return Layer(f"evaluation of {family}", known)


def half_dtype(config: DeviceConfig, device: Device) -> torch.dtype:
    """The number type for ``half=``; a notice, or with ``strict`` an error, where the device has none."""
    if not config.half:
        return torch.float32
    if device.profile.autocast_dtypes:
        return device.profile.autocast_dtypes[0]
    device.decline("half", "float32 is used", strict=config.strict)
    return torch.float32


@dataclass(frozen=True, slots=True, kw_only=True)
class ValResult:
    metrics: Mapping[str, float]
    evaluation: Evaluation
    run: Path
    ok: bool = True

    def to_json(self) -> dict[str, Any]:
        return {**self.evaluation.to_json(), "run": str(self.run)}


def run_val(values: Mapping[str, Any]) -> ValResult:
    """Settings as in ``anyolo val --help``."""
    typed = load(ValVerb, values)
    beside = read_data_layer(typed.config.data.data, only={"imgsz", "anchors"})
    # anchors of the data file are for weights that have none; the typed ones hold in any case
    spare_anchors = load(ValVerb, values, layers=[beside.layer]).config.model.anchors
    opened = open_for_use(typed.config.model, typed.config.device, spare_anchors=spare_anchors)
    loaded = load(ValVerb, values, layers=[opened.evaluation, beside.layer])
    config = loaded.config
    data, split = config.data, config.evaluation.split
    index = open_data(
        data.data, split, single_cls=data.single_cls, classes=data.classes, fraction=data.fraction
    )
    if len(opened.names) != len(index.names):
        raise DataError(
            f"the model has {len(opened.names)} classes, the data {len(index.names)}",
            where=data.data,
            hint="Train on this data first, or give the data.yaml the model was trained with.",
        )
    wishes = config.evaluation
    opened.warn_of(conf=wishes.conf, iou=wishes.iou, max_det=wishes.max_det, agnostic=wishes.agnostic_nms)
    dataset = DetectionDataset(
        index,
        opened.preprocess,
        imgsz=opened.size(data.imgsz, is_typed="imgsz" in loaded.explicit),
        augment=None,
        rect=data.rect and opened.fixed_hw is None,
        batch=data.batch,
        cache=data.cache,
    )
    loader = make_loader(dataset, batch=data.batch, workers=data.workers, shuffle=False, seed=0)
    run = config.run
    folder = RunFolder.create(run.project, run.name, "val", exist_ok=run.exist_ok)
    try:
        evaluation = evaluate(opened.looking(config.look), loader, index, config.evaluation)
    finally:
        loader.close()
    console.current().table("", evaluation.columns, evaluation.rows())
    if run.plots:
        draw_report(evaluation, folder.root)
    if config.evaluation.save_json:
        evaluation.write_predictions(folder.root / "predictions.json")
    for line in opened.remarks():
        console.current().line(line)
    console.current().line(f"results in {folder.root}")
    return ValResult(metrics=evaluation.metrics, evaluation=evaluation, run=folder.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictResult:
    """``results`` in the order of the source; ``problems`` names the files that could not be read."""

    results: list[Results]
    problems: tuple[str, ...] = ()
    run: Path | None = None
    ok: bool = True

    def to_json(self) -> dict[str, Any]:
        return {"images": [result.to_dict() for result in self.results], "problems": list(self.problems)}


def run_predict(values: Mapping[str, Any]) -> PredictResult:
    """Settings as in ``anyolo predict --help``; ``source`` may be any object the predictor takes."""
    typed = {key: value for key, value in values.items() if key != "source"}
    source = values.get("source", "")
    loaded = load(PredictVerb, {**typed, "source": source} if isinstance(source, str) else typed)
    config = loaded.config
    if isinstance(source, str) and not source:
        raise DataError(
            "no source given",
            where="source",
            hint="For example source=picture.jpg, source=folder/ or source=0.",
        )
    opened = open_for_use(config.model, config.device)
    return predict_with(opened, source, config, has_size="imgsz" in loaded.explicit)


def predict_with(opened: Opened, source: Any, config: PredictVerb, *, has_size: bool) -> PredictResult:
    """Predict with a model that is open already; ``has_size``: the user typed an input size."""
    job = PredictJob(opened, source, config, has_size=has_size)
    results = list(job)
    folder = job.folder.root if job.folder else None
    return PredictResult(results=results, problems=tuple(job.problems), run=folder, ok=bool(results))


class PredictJob:
    """Iterate to get the results one by one, each saved as ``config`` says; no picture is kept."""

    def __init__(self, opened: Opened, source: Any, config: PredictVerb, *, has_size: bool) -> None:
        wishes = replace(config.predict, imgsz=opened.size(config.predict.imgsz, is_typed=has_size))
        opened.warn_of(conf=wishes.conf, iou=wishes.iou, max_det=wishes.max_det, agnostic=wishes.agnostic_nms)
        self.opened, self.source, self.config = opened, source, config
        self.predictor = Predictor(
            opened.looking(config.look), opened.preprocess, opened.names, wishes, input_hw=opened.fixed_hw
        )
        saving, run = config.save, config.run
        writes = saving.save or saving.save_txt or saving.save_crop or saving.save_frames
        self.folder = (
            RunFolder.create(run.project, run.name, "predict", exist_ok=run.exist_ok) if writes else None
        )

    @property
    def problems(self) -> list[str]:
        """Files that could not be read."""
        return self.predictor.problems

    def __iter__(self) -> Iterator[Results]:
        saving, report = self.config.save, console.current()
        root = self.folder.root if self.folder else Path()
        with Saver(saving, root, vid_stride=self.config.predict.vid_stride) as saver:
            for result in self.predictor.stream(self.source):
                if self.folder or saving.show:
                    saver.add(result)
                if self.config.run.verbose:
                    report.line(f"{result.path}: {result.verbose()}")
                yield result
        for line in self.opened.remarks():
            report.line(line)
        if self.folder:
            report.line(f"results in {self.folder.root}")


def run_export(values: Mapping[str, Any]) -> ExportResult:
    """Settings as in ``anyolo export --help``."""
    loaded = load(ExportVerb, values)
    model, wishes = loaded.config.model, loaded.config.export
    found = open_model(model)
    if found.imgsz and "imgsz" not in loaded.explicit:
        wishes = replace(wishes, imgsz=found.imgsz)
    result = export_model(found, wishes, weights=model.model)
    report = console.current()
    report.line(f"written {result.artifact}")
    if result.lines:
        report.line(f"Final boxes from this file alone:\n\n{result.lines}")
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoResult:
    family: str
    size: str
    parameters: int
    gradients: int
    gflops: float
    layers: int
    classes: tuple[str, ...] = field(default=())
    rows: tuple[RowCount, ...] = ()
    ok: bool = True

    def to_json(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "size": self.size,
            "parameters": self.parameters,
            "gradients": self.gradients,
            "gflops": self.gflops,
            "layers": self.layers,
            "classes": list(self.classes),
            **({"rows": [asdict(row) for row in self.rows]} if self.rows else {}),
        }


def run_info(values: Mapping[str, Any]) -> InfoResult:
    """Settings as in ``anyolo info --help``."""
    config = load(InfoVerb, values).config
    found = open_model(config.model)
    size = input_size(config.imgsz, found.spec.preprocess.stride)
    totals = count(found.model, size)
    result = InfoResult(
        family=found.spec.name,
        size=found.size,
        parameters=totals.parameters,
        gradients=totals.gradients,
        gflops=round(totals.gflops, 3),
        layers=totals.layers,
        classes=found.names,
        rows=totals.rows if config.detailed else (),
    )
    rows = [(key, value) for key, value in result.to_json().items() if key not in {"classes", "rows"}]
    if result.rows:
        console.current().table(
            "rows",
            ("row", "reads", "block", "parameters", "GFLOPs", "maps"),
            [
                (r.index, ",".join(map(str, r.sources)), r.block, r.parameters, r.gflops, str(r.outputs))
                for r in result.rows
            ],
        )
    console.current().table(
        "", ("", f"{config.model.model} at {size[0]}x{size[1]}"), [*rows, ("classes", len(found.names))]
    )
    return result
