"""Export: prepare, write, reopen, compare, publish. Nothing counts until it ran."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from anyolo import __version__, console
from anyolo.config.schema import ExportConfig
from anyolo.errors import ConfigError, VerificationFailed
from anyolo.export import EXPORTERS
from anyolo.export.base import (
    NMS,
    WISHES,
    Decoded,
    Exportable,
    Format,
    Images,
    Runner,
    Suppression,
    WriteOptions,
    require,
)
from anyolo.export.compare import (
    ENOUGH_BOXES,
    SUPPRESSION,
    Tolerance,
    Verification,
    compare,
    compare_suppression,
    confidence_of,
    is_same,
    to_predictions,
)
from anyolo.export.divergence import first_difference
from anyolo.export.golden import Golden, make_golden
from anyolo.export.lines import lines_to_run
from anyolo.export.manifest import Manifest
from anyolo.export.opened import OpenedArtifact
from anyolo.export.pictures import network_inputs, pictures_for
from anyolo.export.precision import KEY, Judge, differs, evaluation_settings
from anyolo.export.publish import publish, staged, target_of
from anyolo.families.checkpoints import Checkpoint
from anyolo.nn.activations import swap_activations
from anyolo.nn.fuse import fuse
from anyolo.ops.letterbox import input_size
from anyolo.structures import Predictions
from anyolo.types import PathLike, SizeHW


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """``lines`` is Python with which the artefact alone gives final boxes, "" where it gives decoded maps."""

    artifact: Path
    format: str
    manifest: Path
    verification: Verification | None
    lines: str
    ok: bool = True

    @property
    def verified(self) -> bool:
        return self.verification is not None and self.verification.verified

    def to_json(self) -> dict[str, Any]:
        found = self.verification
        return {
            "artifact": str(self.artifact),
            "format": self.format,
            "verified": self.verified,
            "max_box_error_px": None if found is None else found.max_box_error_px,
            "max_score_error": None if found is None else found.max_score_error,
            "manifest": str(self.manifest),
            "verification": None if found is None else found.to_json(),
        }


def export_model(checkpoint: Checkpoint, config: ExportConfig, *, weights: PathLike = "") -> ExportResult:
    """Write ``checkpoint`` in ``config.format``, beside ``weights`` unless ``config.output`` says where.

    The model itself is left as it is. An artefact that is wrong never takes the name that was asked for.

    Raises:
        UnknownName: a format nobody knows. MissingPackage: its packages are not installed.
        ConfigError: a size or option the format cannot have.
        ExportError: it cannot be written or reopened.
        VerificationFailed: it was reopened and differs, or too little could be compared to tell.
    """
    name = EXPORTERS.resolve(config.format)
    format = EXPORTERS.get(name)
    _refuse(config, format)
    if config.activation:
        checkpoint = _with_activation(checkpoint, config.activation)
    versions = {"anyolo": __version__, "torch": torch.__version__, **require(format.requires, extra=name)}
    job = _Job(checkpoint, config, format, input_size(config.imgsz, checkpoint.preprocess.stride), weights)
    target = target_of(config.output, Path(weights), checkpoint, format.suffix)
    manifest = job.manifest(versions)
    with staged(target) as place:
        job.write(place, manifest)
        verification = job.verify(place) if config.verify else None
        if verification is not None and verification.verified and config.data:
            verification = job.compare_precision(place, manifest, verification)
        final, golden = target, None
        if verification is not None and verification.verified:
            golden = job.golden(place, manifest)
        elif verification is not None:
            final = target.with_name(f"{target.name.removesuffix(format.suffix)}.unverified{format.suffix}")
        found = None if verification is None else verification.to_json()
        beside = publish(place, final, manifest, found, golden)
    if verification is not None:
        _tell(final, verification)
    if format.remark:
        console.current().line(f"{final}: {format.remark}")
    lines = lines_to_run(manifest, format, final.name) if config.nms else ""
    return ExportResult(artifact=final, format=name, manifest=beside, verification=verification, lines=lines)


class _Job:
    """One model on its way into one format."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: ExportConfig,
        format: Format,
        size_hw: SizeHW,
        weights: PathLike,
    ) -> None:
        self.checkpoint, self.config, self.format, self.size_hw = checkpoint, config, format, size_hw
        self.weights = weights
        self.gives_boxes = config.nms and NMS in format.abilities
        self.suppression = Suppression(
            conf=config.conf,
            iou=config.iou,
            max_det=config.max_det,
            agnostic=config.agnostic_nms,
            where="graph" if NMS in format.abilities else "host",
        )
        # the judge is the model as it was trained: not fused, sizes computed from its maps
        self.judge = Decoded(checkpoint.model, checkpoint.preprocess).eval()

    def manifest(self, versions: Mapping[str, str]) -> Manifest:
        checkpoint, config = self.checkpoint, self.config
        least = np.zeros((1, 3, *(checkpoint.preprocess.stride,) * 2), np.uint8)
        return Manifest(
            format=self.format.name,
            family=checkpoint.spec.name,
            model_size=checkpoint.size,
            names=tuple(checkpoint.names),
            preprocess=checkpoint.preprocess,
            size_hw=self.size_hw,
            batch=config.batch,
            is_dynamic=config.dynamic,
            has_objectness=self.reference(least).objectness is not None,
            suppression=self.suppression if config.nms else None,
            versions=versions,
            activation=config.activation,
        )

    def prepared(self) -> Decoded:
        """A copy of the model in the form that is written."""
        detector = fuse(copy.deepcopy(self.checkpoint.model).requires_grad_(False))
        detector.fix_size(None if self.config.dynamic else self.size_hw)
        return Decoded(detector, self.checkpoint.preprocess).eval()

    def write(
        self, path: Path, manifest: Manifest, *, part: nn.Module | None = None, is_twin: bool = False
    ) -> None:
        """The model, or a ``part`` of it; ``is_twin``: no integer scales, it is written to be compared."""
        # with two, a dynamic batch cannot be mistaken for a constant
        batch = max(2, self.config.batch) if self.config.dynamic else self.config.batch
        options = WriteOptions(
            example=torch.full(
                (batch, 3, *self.size_hw), self.checkpoint.preprocess.pad_value, dtype=torch.uint8
            ),
            is_dynamic=self.config.dynamic,
            simplify=self.config.simplify,
            opset=self.config.opset,
            metadata=manifest.to_json(),
            calibration=self.calibration() if self.config.int8 and not is_twin else (),
        )
        inside = manifest.suppression if self.gives_boxes else None
        self.format.write(Exportable(part or self.prepared(), inside).eval(), path, options)

    def reference(self, images: Images) -> Predictions:
        with torch.no_grad():
            return to_predictions(tuple(t.numpy() for t in self.judge(torch.from_numpy(images))))

    @cached_property
    def pictures(self) -> list[Images]:
        return pictures_for(self.config.source, self.weights, self.checkpoint.meta)

    def batches(self, pictures: Sequence[Images]) -> list[Images]:
        config = self.config
        return list(
            network_inputs(
                pictures,
                self.checkpoint.preprocess,
                self.size_hw,
                batch=config.batch,
                is_dynamic=config.dynamic,
            )
        )

    def calibration(self) -> list[Images]:
        own = self.config.calibrate
        return self.batches(pictures_for(own, "", {}) if own else self.pictures)

    def verify(self, path: Path) -> Verification:
        tolerance = Tolerance()
        batches = self.batches(self.pictures)
        runner = self.format.open(path)
        verification = compare(
            self.reference,
            runner,
            console.track(batches, "comparing boxes", "batches"),
            self.suppression,
            inside=self.gives_boxes,
            tolerance=tolerance,
        )
        if self.gives_boxes and not verification.reasons and not verification.is_conclusive:
            return self._verify_unsure(path, batches, runner, verification, tolerance)
        if verification.reasons and not verification.first_difference:
            return replace(verification, first_difference=self._first_difference(path, batches[0]))
        return verification

    def compare_precision(self, path: Path, manifest: Manifest, verification: Verification) -> Verification:
        """With the mAP of both on ``data=``; a difference is a reason to fail."""
        spec = self.checkpoint.spec
        judge = Judge(
            data=self.config.data,
            preprocess=self.checkpoint.preprocess,
            names=tuple(self.checkpoint.names),
            size_hw=self.size_hw,
            settings=evaluation_settings(spec.evaluation),
        )
        opened = OpenedArtifact(self.format.open(path), manifest)
        figures = judge.both(lambda images: self.reference(images.numpy()), opened)
        reason = differs(figures)
        return replace(
            verification,
            mean_precision=figures,
            reasons=(*verification.reasons, reason) if reason else verification.reasons,
        )

    def _first_difference(self, path: Path, images: Images) -> str:
        """In words; "" where no part of the model can be written alone."""
        console.current().line("the artefact differs from the model: looking for the first row that does")
        prepared, manifest = self.prepared(), replace(self.manifest({}), suppression=None)
        with torch.no_grad():
            fused = to_predictions(tuple(t.numpy() for t in prepared(torch.from_numpy(images))))
        if not is_same(self.reference(images), fused, Tolerance()):
            return "the model itself differs once its batch norms are folded, before anything is written"

        def write(part: nn.Module, place: Path) -> None:
            self.write(place, manifest, part=part, is_twin=True)

        try:
            return first_difference(prepared, write, self.format.open, path, images)
        except Exception as error:  # the report of the failure comes first, whatever a part happens to raise
            console.current().warn(f"the first row could not be found: {type(error).__name__}: {error}")
            return ""

    def golden(self, path: Path, manifest: Manifest) -> Golden | None:
        opened = OpenedArtifact(self.format.open(path), manifest)
        return make_golden(opened, self.pictures, self.suppression)

    def _verify_unsure(
        self,
        path: Path,
        batches: Sequence[Images],
        runner: Runner,
        verification: Verification,
        tolerance: Tolerance,
    ) -> Verification:
        """The network agrees, but finds next to nothing: its suppression is proved at a lower confidence.

        A twin is written with the same code and weights, and with a confidence that lets boxes through.
        """
        shown = [decoded for images in batches[:4] if (decoded := runner.decoded(images)) is not None]
        if not shown:
            return verification
        own = f"{verification.matched} boxes above conf {self.suppression.conf:g} on these pictures"
        for rank in (100, 300, 1000):
            lower = replace(self.suppression, conf=confidence_of(map(to_predictions, shown), rank))
            twin = path.with_name(f"twin{rank}{self.format.suffix}")
            self.write(twin, replace(self.manifest({}), suppression=lower), is_twin=True)
            found = compare_suppression(self.format.open(twin), batches, lower, tolerance=tolerance)
            if found.matched >= ENOUGH_BOXES or not found.agrees:
                break
        note = f"only {own}: the suppression was compared at conf {lower.conf:.3g} ({found.matched} boxes)"
        return replace(
            verification,
            boxes=found.boxes,
            matched=found.matched,
            missing=found.missing,
            extra=found.extra,
            is_conclusive=found.matched >= ENOUGH_BOXES,
            reasons=() if found.agrees else ("the suppression gives other boxes than an exact one",),
            first_difference="" if found.agrees else SUPPRESSION,
            notes=(note,),
        )


def _refuse(config: ExportConfig, format: Format) -> None:
    """Settings that the format cannot fulfil are errors, never silence."""
    for wish in WISHES:
        if getattr(config, wish) and wish not in format.abilities:
            able = [name for name in EXPORTERS if wish in EXPORTERS.get(name).abilities]
            raise ConfigError(
                f"format={format.name} cannot be written with {wish}=True",
                where=wish,
                hint=f"Leave it out. Formats that can: {', '.join(able)}.",
            )
    if config.data and not config.verify:
        raise ConfigError(
            "data= compares the mAP of what was verified", where="data", hint="Leave verify=False out."
        )
    if config.calibrate and not config.int8:
        raise ConfigError(
            "calibrate= names pictures for integer scales", where="calibrate", hint="Add int8=True."
        )


def _with_activation(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """A copy with ``name`` in place of its smooth activations; says what that means."""
    model = copy.deepcopy(checkpoint.model)
    count = swap_activations(model, name)
    if not count:
        raise ConfigError(
            "the model has no SiLU to replace", where="activation", hint="Leave activation= out."
        )
    console.current().warn(
        f"activation={name} replaces {count} others: the weights were not trained with it and find other "
        "boxes; train on with it before use. The file is compared with the changed model"
    )
    return replace(checkpoint, model=model)


def _tell(final: Path, verification: Verification) -> None:
    """One line for people; VerificationFailed where the artefact cannot be trusted."""
    for note in verification.notes:
        console.current().warn(note)
    if verification.verified:
        console.current().line(
            f"{final}: verified on {verification.pictures} pictures, {verification.matched} boxes matched; "
            f"largest difference {verification.max_box_error_px:.2g} px, "
            f"{verification.max_score_error:.2g} in score"
        )
        if figures := verification.mean_precision:
            console.current().line(
                f"{KEY} {figures['artifact']:.4f} on {figures['data']}, the model's {figures['model']:.4f}"
            )
        return
    if verification.reasons:
        found = filter(None, (*verification.reasons, verification.first_difference))
        reason = f"the artefact differs from the model: {'; '.join(found)}"
        hint = "Do not use it. Another opset=, simplify=False or nms=False may help; please report it."
    else:
        reason = f"only {verification.matched} boxes matched, {ENOUGH_BOXES} are needed to tell"
        hint = "source= takes pictures on which the model finds something."
    raise VerificationFailed(reason, where=str(final), hint=hint)
