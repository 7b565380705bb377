"""From what a user typed for ``model=`` to a network with weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from anyolo import console
from anyolo.config.schema import ModelConfig
from anyolo.errors import CheckpointError, ConfigError, UnknownName
from anyolo.export import is_artifact, read_foreign
from anyolo.families import build_model, find_model
from anyolo.families.checkpoints import Checkpoint, load_model
from anyolo.families.folded import load_folded
from anyolo.nn.model import Detector, build
from anyolo.train.prepare import transfer

WEIGHTS = {".pt", ".pth", ".safetensors"}
ROWS = {".yaml", ".yml"}


def open_model(config: ModelConfig, *, spare_anchors: Sequence[float] | None = None) -> Checkpoint:
    """What ``model=``, ``cfg=`` and ``pretrained=`` say: a weights file, a model name, a YAML of rows.

    With the anchors of ``anchors=``, or with ``spare_anchors`` where the file is nothing but weights.
    """
    found = _open(config)
    is_bare = found.meta.get("found_under") == ""
    if config.preprocess:
        found = _fed_otherwise(found, config.preprocess)
    anchors = spare_anchors if config.anchors is None and is_bare else config.anchors
    if anchors is not None:
        use_anchors(found.model, anchors)
    return found


def _fed_otherwise(found: Checkpoint, variant: str) -> Checkpoint:
    """With the family's other input contract of that name, which training and export then keep."""
    variants = found.spec.variants
    if variant not in variants:
        raise UnknownName("preprocess", variant, variants, where="preprocess")
    spec = dataclasses.replace(found.spec, preprocess=variants[variant])
    return dataclasses.replace(found, spec=spec, preprocess=spec.preprocess)


def use_anchors(model: Detector, sides: Sequence[float]) -> None:
    """Give the model the anchors w, h, w, h, ... in input pixels; ConfigError if it has others in number."""
    own = model.head.read_anchors()
    if own is None:
        raise ConfigError("this model has no anchors", where="anchors", hint="Leave anchors= out.")
    levels, count, _ = own.shape
    if len(sides) != own.numel() or min(sides) <= 0:
        raise ConfigError(
            f"{len(sides)} numbers given, but the model has {levels} levels of {count} anchors",
            where="anchors",
            hint=f"Give {own.numel()} numbers above 0: w,h of every anchor in input pixels, finest level "
            "first. anchors=None keeps the model's own.",
        )
    model.head.write_anchors(torch.tensor(list(sides), dtype=own.dtype).view_as(own))


def _open(config: ModelConfig) -> Checkpoint:
    name = config.model or config.cfg
    if not name:
        raise ConfigError(
            "no model given", where="model", hint="For example model=yolov8n, or model=path/to/weights.pt."
        )
    if config.cfg and config.model:
        return _with_weights(_fresh(config.cfg), load_weights(config.model, config.family))
    if Path(name).suffix.lower() in WEIGHTS or is_artifact(name):
        found = load_weights(name, config.family)
        return _rebuilt(found) if config.pretrained is False else found
    fresh = _fresh(name)
    if isinstance(config.pretrained, str):
        return _with_weights(fresh, load_weights(config.pretrained, config.family))
    return fresh


def load_weights(path: str, family: str = "") -> Checkpoint:
    """Read a weights file, or the weights of another program's exported one; a missing one is never fetched
    from anywhere.
    """
    own = check_weights_file(path)
    if (foreign := read_foreign(own)) is not None:
        tensors = [(torch.from_numpy(own.weight), torch.from_numpy(own.bias)) for own in foreign]
        return load_folded(tensors, where=path, family=family)
    return load_model(own, family=family)


def check_weights_file(path: str) -> Path:
    """``path``, if it is a file; CheckpointError if not."""
    if not path:
        raise ConfigError("no model given", where="model", hint="For example model=path/to/weights.pt.")
    if not Path(path).is_file():
        stem = Path(path).stem
        raise CheckpointError(
            "no such weights file",
            where=path,
            hint=f"anyolo never downloads. Give a file you have, or model={stem} for random weights.",
        )
    return Path(path)


def _fresh(name: str) -> Checkpoint:
    if Path(name).suffix.lower() in ROWS and not Path(name).is_file():
        raise ConfigError(
            "no such file", where=name, hint="Give the path of a YAML of rows, or a model name like yolov8n."
        )
    spec, model = build_model(name)
    size = model.size or (find_model(name)[1] if not Path(name).suffix else "")
    names = tuple(f"class{number}" for number in range(model.nc))
    return Checkpoint(
        model=model.eval(),
        spec=spec,
        size=size,
        names=names,
        preprocess=spec.preprocess,
        imgsz=None,
        meta={"random": True},
    )


def _rebuilt(found: Checkpoint) -> Checkpoint:
    """The same rows with random weights (``pretrained=False``)."""
    model = build(found.model.rows, size=found.size, nc=found.model.nc, batch_norm=found.spec.batch_norm)
    console.current().line("pretrained=False: the rows of the weights file, with random weights")
    return dataclasses.replace(found, model=model.eval(), meta={"random": True})


def _with_weights(fresh: Checkpoint, weights: Checkpoint) -> Checkpoint:
    console.current().line(f"from the weights file: {transfer(fresh.model, weights.model)}")
    return dataclasses.replace(fresh, meta={})
