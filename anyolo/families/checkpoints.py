"""Weights files: other people's are read without running them, our own are plain and written atomically.

Reading goes through one reader (``safe_reader``) for both. A file of ours is a dict of tensors and JSON-able
values, so that ``torch.load(path, weights_only=True)`` opens it with nothing but torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from anyolo.errors import AnyoloError, CheckpointError, ModelError
from anyolo.families import FAMILIES
from anyolo.families.base import FamilySpec, Identity
from anyolo.families.checkpoint_contents import (
    check_rows,
    find_weights,
    module_activation,
    module_tensors,
    plain,
    unwrap,
)
from anyolo.families.checkpoint_writing import save_atomic, storable
from anyolo.families.safe_reader import DAMAGE, read_object
from anyolo.families.safe_values import Stub, shown
from anyolo.families.safetensors_files import is_safetensors, read_safetensors
from anyolo.families.shapes import skeleton
from anyolo.nn.model import Detector, build
from anyolo.structures import Preprocess
from anyolo.types import PathLike

__all__ = [
    "Checkpoint",
    "StoredModel",
    "WeightsFile",
    "load_model",
    "model_record",
    "read_file",
    "read_model",
    "read_record",
    "save_atomic",
]

SCHEMA = 1
LICENSE_NOTE = (
    "Written by anyolo, which is Apache-2.0. The weights also follow the terms of the data they "
    "were trained on and of the weights they started from."
)
_BULKY = ("model", "ema", "weights", "state_dict", "optimizer", "training")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """What a foreign file holds. ``tensors`` have the names and types of the file and lie on the CPU.

    ``names``, ``nc`` and ``stride`` are empty, None and empty where the file does not say. ``meta`` is what
    else is JSON-able (epoch, date, training arguments), and as ``found_under`` the key the model lay under.
    """

    tensors: dict[str, Tensor]
    yaml: dict[str, Any]
    names: tuple[str, ...]
    nc: int | None
    stride: tuple[int, ...]
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model ready to predict: float32, evaluating, on the CPU. ``imgsz`` is (height, width) or None."""

    model: Detector
    spec: FamilySpec
    size: str
    names: tuple[str, ...]
    preprocess: Preprocess
    imgsz: tuple[int, int] | None
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model as its file holds it: ``weights`` under our own names, in the file's number types."""

    spec: FamilySpec
    size: str
    nc: int
    names: tuple[str, ...]
    preprocess: Preprocess
    imgsz: tuple[int, int] | None
    rows: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    meta: dict[str, Any]

    def build(self, where: str) -> Detector:
        """The network with these weights, in float32; CheckpointError where they do not fit it."""
        return _filled(self.rows, self.size, self.nc, self.spec, self.weights, where)


def read_file(path: PathLike) -> WeightsFile:
    """Tensors and settings of any YOLO weights file: whole module, training state or bare state_dict.

    Raises:
        UntrustedFile: it asks for code to be run. Nothing was.
        CheckpointError: unreadable, damaged, or without a model.
    """
    return _weights_file(_content(path), str(path))


def read_record(path: PathLike) -> dict[str, Any]:
    """A file of ours as it was given to ``save_atomic``.

    Raises:
        CheckpointError: unreadable, or not written by anyolo, or by a newer one.
    """
    return _own_record(_content(path), str(path))


def read_model(path: PathLike, *, family: str = "") -> StoredModel:
    """What a weights file says of its model, and its tensors as they are; errors as ``load_model``."""
    content = _content(path)
    with _blamed(str(path)):
        if _is_own(content):
            return _own_model(_own_record(content, str(path)), str(path), family)
        return _foreign_model(_weights_file(content, str(path)), str(path), family)


def load_model(path: PathLike, *, family: str = "") -> Checkpoint:
    """The model in a weights file, ours or not; ``family`` decides where several could have written it.

    Raises:
        UntrustedFile: it asks for code to be run. Nothing was.
        CheckpointError: unreadable, of no known family, ambiguous, or its tensors do not fit its model.
    """
    stored = read_model(path, family=family)
    with _blamed(str(path)):
        model = stored.build(str(path))
    return Checkpoint(
        model=model,
        spec=stored.spec,
        size=stored.size,
        names=stored.names,
        preprocess=stored.preprocess,
        imgsz=stored.imgsz,
        meta=stored.meta,
    )


def _content(path: PathLike) -> Any:
    return read_safetensors(path) if is_safetensors(path) else read_object(path)


@contextmanager
def _blamed(where: str) -> Iterator[None]:
    """Errors name the file, whatever damage led to them."""
    try:
        yield
    except CheckpointError as error:
        error.where = error.where or where
        raise
    except DAMAGE as error:
        raise CheckpointError(f"its model is damaged or incomplete: {shown(error)}", where=where) from error


def model_record(
    model: Detector,
    spec: FamilySpec,
    names: Sequence[str],
    *,
    imgsz: tuple[int, int] | None,
    metrics: Mapping[str, float],
    dtype: torch.dtype = torch.float32,
    license_note: str = LICENSE_NOTE,
) -> dict[str, Any]:
    """Everything another program needs to use these weights, as plain values and CPU tensors.

    Tensors that already are on the CPU in ``dtype`` are not copied: save the record before training goes on.
    """
    return {
        "anyolo": SCHEMA,
        "family": spec.name,
        "size": model.size,
        "nc": model.nc,
        "names": [str(name) for name in names],
        "rows": json.loads(json.dumps(model.rows)),
        "preprocess": spec.preprocess.to_json(),
        "imgsz": list(imgsz) if imgsz else None,
        "metrics": {name: float(value) for name, value in metrics.items()},
        "weights": {name: storable(tensor, dtype) for name, tensor in model.state_dict().items()},
        "license_note": license_note,
    }


def _is_own(content: Any) -> bool:
    return isinstance(content, dict) and "anyolo" in content


def _own_record(content: Any, where: str) -> dict[str, Any]:
    if not _is_own(content):
        raise CheckpointError("not a file that anyolo wrote", where=where)
    version = content["anyolo"]
    if not isinstance(version, int) or version > SCHEMA:
        raise CheckpointError(
            f"written by a newer anyolo (layout {shown(version)}, this one knows {SCHEMA})",
            where=where,
            hint="Update anyolo: pip install --upgrade anyolo",
        )
    record: dict[str, Any] = content
    return record


def _own_model(record: dict[str, Any], where: str, family: str) -> StoredModel:
    own: Any = plain({key: value for key, value in record.items() if key not in _BULKY})
    if not isinstance(own["family"], str) or own["family"] not in FAMILIES:
        raise CheckpointError(f"a model of the unknown family {shown(own['family'])}", where=where)
    spec = FAMILIES.get(own["family"])
    if family and FAMILIES.resolve(family) != spec.name:
        raise CheckpointError(f"this is a {spec.name} file, not {family}", where=where)
    names = tuple(map(str, own["names"]))
    _check_names(names, own["nc"], where)
    size_hw = own["imgsz"]
    preprocess = Preprocess.from_json(own["preprocess"])
    if preprocess != spec.preprocess:  # one of the family's variants: training and export go on with it
        spec = replace(spec, preprocess=preprocess)
    return StoredModel(
        spec=spec,
        size=own["size"],
        nc=own["nc"],
        names=names,
        preprocess=preprocess,
        imgsz=(int(size_hw[0]), int(size_hw[1])) if size_hw else None,
        rows=own["rows"],
        weights=record["weights"],
        meta=own,
    )


def _foreign_model(found: WeightsFile, where: str, family: str) -> StoredModel:
    spec, identity = _identify(found, where, family)
    names = found.names or tuple(f"class{number}" for number in range(identity.nc))
    _check_names(names, identity.nc, where)
    side = spec.side_of(identity.size)
    return StoredModel(
        spec=spec,
        size=identity.size,
        nc=identity.nc,
        names=names,
        preprocess=spec.preprocess,
        imgsz=_trained_size(found.meta) or (side, side),
        rows=identity.rows,
        weights=spec.import_weights(found.tensors),
        meta=found.meta,
    )


def _weights_file(content: Any, where: str) -> WeightsFile:
    try:
        key, weights = find_weights(content)
        record = content if isinstance(content, dict) and key else {}
        attributes: Mapping[str, Any] = {}
        if isinstance(weights, Stub):
            weights = unwrap(weights)
            attributes = weights.attributes
            tensors = module_tensors(weights)
        else:
            tensors = _without_wrapper(weights)
        yaml = plain(attributes.get("yaml", record.get("rows")))
        yaml = yaml if isinstance(yaml, dict) else {}
        check_rows(yaml)
        if isinstance(weights, Stub) and (activation := module_activation(weights)):
            yaml = {"activation": activation, **yaml}
        nc = attributes.get("nc", yaml.get("nc", record.get("nc")))
        meta: Any = plain({str(name): value for name, value in record.items() if name not in _BULKY})
        meta |= {"found_under": key}
        if isinstance(weights, Stub):
            meta |= {"model_class": weights.name, "model_args": plain(attributes.get("args"))}
        return WeightsFile(
            tensors=tensors,
            yaml=yaml,
            names=_names(plain(attributes.get("names", record.get("names")))),
            nc=nc if type(nc) is int else None,
            stride=_stride(attributes.get("stride")),
            meta=meta,
        )
    except CheckpointError as error:
        error.where = error.where or where
        raise
    except DAMAGE as error:
        raise CheckpointError(f"its model is damaged: {shown(error)}", where=where) from error


def _without_wrapper(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the ``module.`` that data-parallel training puts before each."""
    wrapped = all(name.startswith("module.") for name in weights)
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in weights.items()}


def _names(found: Any) -> tuple[str, ...]:
    """Class names from a list or a dict ``{0: name}``; empty where there are none."""
    if isinstance(found, dict):
        order = {int(key): value for key, value in found.items()}
        if sorted(order) != list(range(len(order))):
            raise CheckpointError(
                f"class names numbered {shown(str(sorted(order)[:40]))} instead of 0, 1, 2, ..."
            )
        found = [order[number] for number in range(len(order))]
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _stride(found: Any) -> tuple[int, ...]:
    values = plain(found)
    if not isinstance(values, list):
        values = [] if values is None else [values]
    return tuple(int(value) for value in values if isinstance(value, int | float))


def _check_names(names: tuple[str, ...], nc: int, where: str) -> None:
    if len(names) != nc:
        raise CheckpointError(
            f"{len(names)} class names for {nc} classes", where=where, hint="The file does not fit together."
        )


def _identify(found: WeightsFile, where: str, family: str) -> tuple[FamilySpec, Identity]:
    candidates = [family] if family else list(FAMILIES)
    hits: list[tuple[FamilySpec, Identity]] = []
    for name in candidates:
        spec = FAMILIES.get(name)
        try:
            identity = spec.identify(found.tensors, found.yaml)
        except ModelError:  # rows that cannot be built are no model of this family
            identity = None
        if identity:
            hits.append((spec, identity))
    if len(hits) == 1:
        return hits[0]
    if hits:
        fitting = [spec.name for spec, _ in hits]
        raise CheckpointError(
            f"could be {' or '.join(fitting)}", where=where, hint=f"Say which: family={fitting[0]}"
        )
    shapes = [f"{name} {tuple(tensor.shape)}" for name, tensor in found.tensors.items()]
    seen = ", ".join(map(shown, [*shapes[:2], "...", *shapes[-2:]] if len(shapes) > 4 else shapes))
    raise CheckpointError(
        f"no known model has these {len(shapes)} tensors: {seen}"
        + (f" ({shown(found.meta['model_class'])})" if "model_class" in found.meta else ""),
        where=where,
        hint=f"Tried: {', '.join(candidates)}.",
    )


def _filled(
    rows: Mapping[str, Any], size: str, nc: int, spec: FamilySpec, weights: Mapping[str, Tensor], where: str
) -> Detector:
    """The model of these rows with these weights, whatever float type they have; names and shapes must fit.

    They are compared before the model is built: rows can ask for more memory than there is.
    """
    try:
        check_rows(rows)
        faults = _differences(skeleton(rows, size=size, nc=nc, where=where).state_dict(), weights)
        if not faults:
            with _Undrawn():
                model = build(rows, size=size, nc=nc, batch_norm=spec.batch_norm, where=where)
    except AnyoloError as error:
        problem = f"its model cannot be built: {error.message[:600]}"
        raise CheckpointError(problem, where=where, hint=error.hint) from error
    if faults:
        more = f" and {len(faults) - 6} more" if len(faults) > 6 else ""
        listed = "; ".join(map(shown, faults[:6]))
        raise CheckpointError(f"weights and model do not fit: {listed}{more}", where=where)
    model.load_state_dict(dict(weights))
    return model.eval()


def _differences(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    faults = [f"{name} is missing" for name in own if name not in weights]
    faults += [f"{name} is not expected" for name in weights if name not in own]
    return faults + [
        f"{name} is {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]


class _Undrawn(TorchFunctionMode):
    """Leaves out the random first weights of layers: they are overwritten at once.

    Drawing is three quarters of the time of building the largest models (0.6 s), and loading a file must not
    change what a run draws at random afterwards.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


_DRAWS = frozenset(
    {
        torch.Tensor.normal_,
        torch.Tensor.uniform_,
        nn.init.kaiming_normal_,
        nn.init.kaiming_uniform_,
        nn.init.normal_,
        nn.init.uniform_,
    }
)


def _trained_size(meta: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) of the training pictures as the file's training arguments have it."""
    for key in ("train_args", "model_args", "opt", "args"):
        arguments = meta.get(key)
        size = arguments.get("imgsz") if isinstance(arguments, dict) else None
        if isinstance(size, list) and size and all(type(side) is int for side in size):
            return size[0], size[-1]
        if type(size) is int:
            return size, size
    return None
