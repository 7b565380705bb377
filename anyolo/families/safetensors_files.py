"""The safetensors layout: tensors and text, no pickle. A record of ours keeps its settings in the header.

Source: the layout's description in the package's README (8 bytes length, JSON header, the numbers).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch

from anyolo.errors import CheckpointError
from anyolo.families.safe_values import shown
from anyolo.types import PathLike

SUFFIX = ".safetensors"
MAX_TENSORS = 100_000
PLAIN_TEXT = ("family", "size", "license_note", "format")
"""Settings that stand in the header as they are, for people and other programs; all others are JSON."""


def is_safetensors(path: PathLike) -> bool:
    """By its beginning, not its name; False where there is no such file."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
            return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= os.fstat(file.fileno()).st_size
    except OSError:
        return False


def read_safetensors(path: PathLike) -> dict[str, Any]:
    """The record of ours as ``record_bytes`` took it; of a file of others the tensors.

    Raises:
        CheckpointError: damaged, or with settings that are no JSON.
    """
    where = os.fspath(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            settings: Mapping[str, str] = file.metadata() or {}
            names = file.keys()
            if len(names) > MAX_TENSORS:
                raise CheckpointError(f"{len(names)} tensors", where=where)
            # a copy of each: the file is mapped, and may be replaced or cut while the model lives
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"the file is damaged ({shown(error)})", where=where) from error
    if "anyolo" not in settings:
        return tensors
    try:
        kept = {key: text if key in PLAIN_TEXT else json.loads(text) for key, text in settings.items()}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its settings are no JSON ({shown(error)})", where=where) from error
    kept.pop("format", None)
    return {**kept, "weights": tensors}


def record_bytes(record: Mapping[str, Any]) -> bytes:
    """A record of ours (``checkpoints.model_record``) as a file."""
    settings = {
        key: value if key in PLAIN_TEXT else json.dumps(value)
        for key, value in record.items()
        if key != "weights"
    }
    # readers of the field ask for "format", which says whose tensors these were
    return safetensors.torch.save(dict(record["weights"]), {"format": "pt", **settings})
