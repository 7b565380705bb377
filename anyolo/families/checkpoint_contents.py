"""What lies in an inert object tree: tensors under their state_dict names, and plain settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from anyolo.errors import CheckpointError
from anyolo.families.safe_globals import Global, Stub, read_array, shown
from anyolo.types import JSONValue

MAX_VALUES = 100_000  # settings or tensors of one file; a shared list could otherwise be walked for ever
MAX_DEPTH = 100
MAX_LISTED = 4096  # a longer array is described instead
MAX_BLOCKS = 5000  # of the rows in a file; the largest published model has about 300
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
        transient = attributes.get("_non_persistent_buffers_set") or ()
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


def plain(value: Any) -> JSONValue:
    """Settings as JSON knows them; what has no such form (a big array, a class) becomes a short description.

    Numeric keys stay numbers. Raises CheckpointError for settings without end.
    """
    walk = _Walk("settings")

    def convert(item: Any, depth: int) -> Any:
        walk.step(depth)
        if item is None or isinstance(item, bool | int | float | str):
            return item
        if isinstance(item, Mapping):
            keys = (key if isinstance(key, str | int | float) else str(key) for key in item)
            return {key: convert(own, depth + 1) for key, own in zip(keys, item.values(), strict=True)}
        if isinstance(item, list | tuple):
            return [convert(own, depth + 1) for own in item]
        if isinstance(item, set):
            return [convert(own, depth + 1) for own in sorted(item, key=str)]
        if isinstance(item, Tensor):
            small = item.numel() <= MAX_LISTED
            return item.tolist() if small else f"<tensor {'x'.join(map(str, item.shape))}>"
        if isinstance(item, Stub):
            return convert(_of_stub(item), depth + 1)
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

    def step(self, depth: int) -> None:
        self._steps += 1
        if depth > MAX_DEPTH or self._steps > MAX_VALUES:
            raise CheckpointError(f"its {self._what} lie in each other without end")


def _of_stub(stub: Stub) -> Any:
    if stub.name == "numpy.ndarray" and isinstance(stub.state, tuple):
        array: np.ndarray[Any, Any] = read_array(stub)
        return array.tolist() if array.size <= MAX_LISTED else f"<array {array.shape}>"
    if stub.entries is not None:
        return stub.entries
    if stub.name.endswith("Namespace"):
        return stub.attributes
    return f"<{stub.name}>"
