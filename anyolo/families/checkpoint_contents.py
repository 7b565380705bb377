"""What lies in an inert object tree: tensors under their state_dict names, and plain settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from anyolo.errors import CheckpointError
from anyolo.families.safe_globals import read_array
from anyolo.families.safe_values import Global, Stub, shown
from anyolo.types import JSONValue

MAX_VALUES = 100_000  # settings or tensors of one file; a shared list could otherwise be walked for ever
MAX_DEPTH = 100
MAX_LISTED = 4096  # a longer array is described instead
MAX_TEXT = 65536  # and a longer text
MAX_NAME = 1000  # letters of a tensor's name
TEXT_STEP = 64  # letters that count as one more value
_ACTIVATIONS = "torch.nn.modules.activation."
MAX_BLOCKS = 1000  # of the rows in a file; the largest published model has about 300
MAX_CHANNELS = 65536


def is_module(value: Any) -> bool:
    """Whether this stub was an ``nn.Module``."""
    return isinstance(value, Stub) and isinstance(value.attributes.get("_modules"), dict)


def is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


def find_weights(content: Any) -> tuple[str, Any]:
    """The module or state_dict of a file and the key it lay under; the averaged weights where there are both.

    Raises:
        CheckpointError: neither; says what there is.
    """
    if is_module(content) or is_state_dict(content):
        return "", content
    if isinstance(content, dict):
        for key in ("ema", "model", "weights", "state_dict"):
            value = content.get(key)
            if isinstance(value, list | tuple) and value:  # some files keep (module, number of updates)
                value = value[0]
            if is_module(value) or is_state_dict(value):
                return key, value
    kind = content.name if isinstance(content, Stub) else type(content).__name__
    keys = f" with the keys {shown(', '.join(map(str, content)))}" if isinstance(content, dict) else ""
    raise CheckpointError(
        f"no model in it, only a {shown(kind)}{keys}",
        hint="A weights file holds a model, its ema or a state_dict.",
    )


def unwrap(module: Stub) -> Stub:
    """The module inside a data-parallel wrapper, else the module itself."""
    for _ in range(MAX_DEPTH):
        attributes = module.attributes
        children = attributes["_modules"]
        if list(children) != ["module"] or not is_module(children["module"]) or attributes.get("_parameters"):
            break
        module = children["module"]
    return module


def module_tensors(module: Stub) -> dict[str, Tensor]:
    """Parameters and persistent buffers as ``module.state_dict()`` would name and order them."""
    found: dict[str, Tensor] = {}
    walk = _Walk("modules")

    def visit(stub: Stub, prefix: str, depth: int) -> None:
        walk.step(depth)
        attributes = stub.attributes
        transient = attributes.get("_non_persistent_buffers_set")
        if not isinstance(transient, set):
            transient = set()
        if len(prefix) > MAX_NAME:
            raise CheckpointError(f"a module of a name of {len(prefix)} letters: {shown(prefix)}")
        for kind in ("_parameters", "_buffers"):
            for name, tensor in (attributes.get(kind) or {}).items():
                walk.step(depth)
                if tensor is None or (kind == "_buffers" and name in transient):
                    continue
                if not isinstance(tensor, Tensor):
                    raise CheckpointError(f"{shown(prefix)}{shown(name)} is no tensor")
                found[f"{prefix}{name}"] = tensor
        for name, child in attributes["_modules"].items():
            if is_module(child):
                visit(child, f"{prefix}{name}.", depth + 1)
            elif child is not None:
                raise CheckpointError(f"{shown(prefix)}{shown(name)} is no module")

    visit(module, "", 0)
    return found


def module_activation(module: Stub) -> str:
    """How a model file would write the activation of the module's plain convolutions; "" for SiLU, and where
    they have several. Model files do not always say it: it may have been changed in the program.
    """
    kinds: set[str] = set()
    walk = _Walk("modules")

    def visit(stub: Stub, depth: int) -> None:
        walk.step(depth)
        children = stub.attributes["_modules"]
        act = children.get("act")
        if stub.name.endswith(".Conv") and is_module(act) and act.name.startswith(_ACTIVATIONS):
            slope = act.attributes.get("negative_slope")
            arguments = str(slope) if isinstance(slope, float) else ""
            kinds.add(f"nn.{act.name.removeprefix(_ACTIVATIONS)}({arguments})")
        for child in children.values():
            if is_module(child):
                visit(child, depth + 1)

    visit(module, 0)
    return kinds.pop() if len(kinds) == 1 and kinds != {"nn.SiLU()"} else ""


def plain(value: Any) -> JSONValue:
    """Settings as JSON knows them; what has no such form (a big array, a class) becomes a short description.

    Numeric keys stay numbers. Raises CheckpointError for settings without end.
    """
    walk = _Walk("settings")

    def convert(item: Any, depth: int) -> Any:
        walk.step(depth)
        if isinstance(item, str):
            walk.step(depth, len(item[:MAX_TEXT]) // TEXT_STEP)
            return item if len(item) <= MAX_TEXT else f"<text of {len(item)} letters>"
        if item is None or isinstance(item, bool | int | float):
            return item
        if isinstance(item, Mapping):
            keys = (key if isinstance(key, str | int | float) else str(key) for key in item)
            return {
                convert(key, depth): convert(own, depth + 1)
                for key, own in zip(keys, item.values(), strict=True)
            }
        if isinstance(item, list | tuple):
            return [convert(own, depth + 1) for own in item]
        if isinstance(item, set):
            walk.step(depth, len(item))
            return [convert(own, depth + 1) for own in sorted(item, key=str)]
        if isinstance(item, Tensor):
            return _listed("tensor", item, walk, depth)
        if isinstance(item, Stub):
            return convert(_of_stub(item, walk, depth), depth + 1)
        return item.name if isinstance(item, Global) else f"<{type(item).__name__}>"

    converted: JSONValue = convert(value, 0)
    return converted


def check_rows(rows: Mapping[str, Any]) -> None:
    """CheckpointError for model rows too large to be true: they are built before they meet their tensors."""
    depths = [rows.get("depth_multiple", 1), *(scale[0] for scale in (rows.get("scales") or {}).values())]
    written = [*(rows.get("backbone") or ()), *(rows.get("head") or ())]
    blocks = sum(row[1] for row in written) * max(1, *depths)
    widest = max(
        (abs(value) for row in written for value in row[3] if isinstance(value, int | float)), default=0
    )
    if not blocks <= MAX_BLOCKS or not widest <= MAX_CHANNELS:
        raise CheckpointError(f"a model of {blocks} blocks with up to {widest} channels")


class _Walk:
    """Counts the steps of a walk through an untrusted structure, which may be endless or branch for ever."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._steps = 0

    def step(self, depth: int, values: int = 1) -> None:
        self._steps += values
        if depth > MAX_DEPTH or self._steps > MAX_VALUES:
            raise CheckpointError(f"its {self._what} lie in each other without end")


def _of_stub(stub: Stub, walk: _Walk, depth: int) -> Any:
    if stub.name == "numpy.ndarray" and isinstance(stub.state, tuple):
        return _listed("array", read_array(stub), walk, depth)
    if stub.entries is not None:
        return stub.entries
    if stub.name.endswith("Namespace"):
        return stub.attributes
    return f"<{stub.name}>"


def _listed(kind: str, values: Tensor | np.ndarray[Any, Any], walk: _Walk, depth: int) -> Any:
    """The numbers of a short array, the size of a long one."""
    listed = math.prod(max(side, 1) for side in values.shape)  # nothing at all in a million rows is long, too
    if listed > MAX_LISTED or "complex" in str(values.dtype):
        return f"<{kind} {'x'.join(map(str, values.shape))}>"
    walk.step(depth, listed)
    return values.tolist()
