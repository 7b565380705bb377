"""Door: the model families. One family is one ``.py`` with its ``.yaml`` and one line of ``FAMILIES``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from anyolo.errors import ModelError, UnknownName
from anyolo.families.base import FamilySpec
from anyolo.families.shapes import skeleton
from anyolo.nn.model import Detector, build
from anyolo.nn.reduce import reduce
from anyolo.registry import Registry

FAMILIES: Registry[FamilySpec] = Registry(
    "model family",
    {
        "yolov8": "anyolo.families.yolov8:SPEC",
        "yolov9": "anyolo.families.yolov9:SPEC",
        "yolov5": "anyolo.families.yolov5:SPEC",
        "yolov7": "anyolo.families.yolov7:SPEC",
        "yolov5lite": "anyolo.families.yolov5lite:SPEC",
        "fastestv2": "anyolo.families.fastestv2:SPEC",
        "yolox": "anyolo.families.yolox:SPEC",
    },
    aliases={"v5lite": "yolov5lite", "yolov5-lite": "yolov5lite", "yolo-fastestv2": "fastestv2"},
    group="anyolo.family",
)


def find_model(name: str) -> tuple[FamilySpec, str]:
    """The family and size behind a name users type, such as ``yolov8n`` or ``yolov8n.yaml``.

    Raises:
        UnknownName: with the nearest known models.
    """
    stem = name.removesuffix(".yaml").removesuffix(".yml").lower().replace("_", "-")
    known: list[str] = []
    for family in FAMILIES:
        spec = FAMILIES.get(family)
        if stem in spec.models:
            return spec, spec.models[stem]
        known += spec.models
    raise UnknownName("model", name, known)


def build_model(model: str, *, nc: int | None = None) -> tuple[FamilySpec, Detector]:
    """An untrained network from a model name or the path of a YAML of rows.

    The size of a YAML with ``scales`` is the letter in its file name (``yolov8s-mine.yaml``), else its
    ``scale``, else its first. ``nc`` replaces the number of classes written there.

    Raises:
        UnknownName: neither a known model nor a file.
        ModelError: rows that cannot be built, or whose head no family answers for.
    """
    path = Path(model)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        mapping = read_rows(path.read_text(encoding="utf-8"), where=str(path))
        size = _size_in_name(path.stem, mapping)
        spec = family_of(mapping, size=size, where=str(path))
        return spec, build(mapping, size=size, nc=nc, batch_norm=spec.batch_norm, where=str(path))
    spec, size = find_model(model)
    where = spec.file_of(size)
    mapping = read_rows(spec.rows_text(size), where=where)
    return spec, build(mapping, size=size, nc=nc, batch_norm=spec.batch_norm, where=where)


def to_inference_form(spec: FamilySpec, model: Detector) -> Detector:
    """Without what only training needs (an auxiliary branch): the same boxes from fewer tensors, named as
    files of that form name them, and ``size`` as that form is called. There is no way back.

    Weights are shared with ``model``, which is the answer itself where there is nothing to leave out.
    """
    form = reduce(model)
    if form is not model:
        identity = spec.identify(spec.export_weights(form.state_dict()), form.rows)
        form.size = identity.size if identity else ""
    return form


def family_of(rows: Mapping[str, Any], *, size: str = "", where: str = "model") -> FamilySpec:
    """The family that answers for a model mapping, found by the tensors the rows give."""
    model = skeleton(rows, size=size, where=where)
    tensors = model.state_dict()
    for family in FAMILIES:
        spec = FAMILIES.get(family)
        if spec.identify(tensors, model.rows):
            return spec
    raise ModelError("no model family has such a head", where=where, hint=f"Families: {', '.join(FAMILIES)}.")


def read_rows(text: str, *, where: str) -> dict[str, Any]:
    """A model YAML as a mapping; ModelError with the line where it is no YAML."""
    try:
        mapping = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ModelError(f"not a YAML file: {problem}", where=f"{where}{line}") from None
    if not isinstance(mapping, dict):
        raise ModelError("not a model file: expected keys nc, backbone and head", where=where)
    return mapping


def _size_in_name(stem: str, mapping: Mapping[str, Any]) -> str:
    scales = mapping.get("scales")
    found = re.search(r"\d([a-z])(?![a-z])", stem.lower())
    if found is None or not isinstance(scales, Mapping):
        return ""
    return next((str(scale) for scale in scales if str(scale).rpartition("-")[2] == found[1]), "")
