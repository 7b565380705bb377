"""One weights file as another: the same tensors, bit for bit, in a layout that other programs read."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from anyolo.errors import CheckpointError, UnknownName
from anyolo.families.checkpoint_writing import storable, write_atomic
from anyolo.families.checkpoints import LICENSE_NOTE, SCHEMA, StoredModel, read_file, read_model
from anyolo.families.safetensors_files import record_bytes
from anyolo.types import PathLike


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """``ending`` is what the file's stem gets. ``is_whole``: all settings are kept, else tensors alone, under
    upstream's names.
    """

    ending: str
    is_whole: bool
    write: Callable[[Any, IO[bytes]], object]


def _save(content: Any, file: IO[bytes]) -> None:
    torch.save(content, file)


def _save_legacy(content: Any, file: IO[bytes]) -> None:
    """As PyTorch wrote before 1.6: no zip archive, and a pickle that every Python 3 reads."""
    torch.save(content, file, pickle_protocol=2, _use_new_zipfile_serialization=False)


def _save_safetensors(content: Any, file: IO[bytes]) -> None:
    file.write(record_bytes(content))


LAYOUTS: Mapping[str, Layout] = {
    "anyolo": Layout(ending="-anyolo.pt", is_whole=True, write=_save),
    "safetensors": Layout(ending=".safetensors", is_whole=True, write=_save_safetensors),
    "state_dict": Layout(ending="-state_dict.pt", is_whole=False, write=_save),
    "legacy": Layout(ending="-legacy.pt", is_whole=False, write=_save_legacy),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What was written: ``tensors`` how many, ``dtype`` of its floats, all of them named where mixed."""

    output: Path
    format: str
    family: str
    size: str
    tensors: int
    dtype: str
    size_bytes: int


def find_layout(name: str) -> Layout:
    """Raises UnknownName with the nearest layouts."""
    if name not in LAYOUTS:
        raise UnknownName("weights format", name, LAYOUTS, where="format")
    return LAYOUTS[name]


def convert(
    path: PathLike, output: PathLike, layout: str, *, family: str = "", half: bool = False
) -> Conversion:
    """Write the model of ``path`` in another layout, read it again, compare every bit, put it in place.

    ``half`` stores floats as float16, but for the head's own constants (anchors). The optimizer and whatever
    else only a training run needs are left out.

    Raises:
        CheckpointError: ``path`` cannot be read; ``output`` cannot be written; or the layout would lose
            something, such as anchors that upstream keeps outside its files.
    """
    form = find_layout(layout)
    stored = _rounded(read_model(path, family=family), str(path), half)
    content: Any = _record(stored) if form.is_whole else _named_as_upstream(stored, str(path))
    tensors: Mapping[str, Tensor] = content["weights"] if form.is_whole else content

    def check(written: Path) -> None:
        found = read_model(written).weights if form.is_whole else read_file(written).tensors
        _compare(found, tensors, written)

    target = Path(output)
    write_atomic(target, lambda file: form.write(content, file), check=check)
    kinds = {str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.is_floating_point()}
    return Conversion(
        output=target,
        format=layout,
        family=stored.spec.name,
        size=stored.size,
        tensors=len(tensors),
        dtype=", ".join(sorted(kinds)),
        size_bytes=target.stat().st_size,
    )


def _rounded(stored: StoredModel, where: str, half: bool) -> StoredModel:
    """With its weights checked against its rows, in their order, each owning its memory."""
    model = stored.build(where)
    constants = {
        name for name, buffer in model.named_buffers() if buffer in set(model.head.buffers(recurse=False))
    }
    weights = {
        name: storable(stored.weights[name], torch.float16 if half and name not in constants else None)
        for name in model.state_dict()
    }
    return replace(stored, size=model.size or stored.size, rows=model.rows, weights=weights)


def _record(stored: StoredModel) -> dict[str, Any]:
    """As ``checkpoints.model_record`` makes it of a model."""
    return {
        "anyolo": SCHEMA,
        "family": stored.spec.name,
        "size": stored.size,
        "nc": stored.nc,
        "names": list(stored.names),
        "rows": json.loads(json.dumps(stored.rows)),
        "preprocess": stored.preprocess.to_json(),
        "imgsz": list(stored.imgsz) if stored.imgsz else None,
        "metrics": stored.meta.get("metrics", {}),
        "weights": dict(stored.weights),
        "license_note": stored.meta.get("license_note", LICENSE_NOTE),
    }


def _named_as_upstream(stored: StoredModel, where: str) -> OrderedDict[str, Tensor]:
    spec = stored.spec
    named = OrderedDict((name, storable(t, None)) for name, t in spec.export_weights(stored.weights).items())
    try:
        _compare(spec.import_weights(named), stored.weights, Path(where))
    except CheckpointError as error:
        raise CheckpointError(
            f"upstream's files have no place for all of it: {error.message}",
            where=where,
            hint="format=safetensors and format=anyolo keep everything.",
        ) from error
    return named


def _compare(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: Path) -> None:
    """CheckpointError unless both have the same tensors, bit for bit."""
    odd = [name for name in expected if name not in found or not is_same(found[name], expected[name])]
    odd += [name for name in found if name not in expected]
    if odd:
        raise CheckpointError(f"{len(odd)} tensors came back changed, first {odd[0]}", where=str(where))


def is_same(first: Tensor, second: Tensor) -> bool:
    """Whether type, shape and every bit agree, those of NaN too."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    one, other = (t.contiguous().reshape(-1).view(torch.uint8) for t in (first, second))
    return torch.equal(one, other)
