"""TorchScript: a traced network inside a scripted frame, run by libtorch in Python, C++, Java."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from anyolo.errors import ExportError
from anyolo.export.base import NMS, Arrays, Exportable, Images, WriteOptions, quiet

METADATA_FILE = "anyolo.json"


class TorchScriptFormat:
    name = "torchscript"
    suffix = ".torchscript"
    requires = ("torch",)
    abilities = frozenset({NMS, "dynamic"})
    remark = ""

    def write(self, model: Exportable, path: Path, options: WriteOptions) -> None:
        with quiet(), torch.no_grad():
            # the decoded maps stay reachable as a submodule of the very file that gives the boxes
            decoded = _trace(model.decoded, options.example)
            traced = _trace(Exportable(decoded, model.suppression).eval(), options.example)
            frozen = torch.jit.freeze(traced, preserved_attrs=["decoded"])
            buffer = io.BytesIO()  # libtorch's own writer would report a full disk as an internal error
            torch.jit.save(frozen, buffer, {METADATA_FILE: json.dumps(dict(options.metadata))})
        path.write_bytes(buffer.getvalue())

    def convolutions(self, path: Path) -> None:
        return None

    def open(self, path: Path, *, threads: int = 0) -> TorchScriptRunner:
        if threads:
            torch.set_num_threads(threads)
        return TorchScriptRunner(path)

    def calling_code(self, file_name: str) -> tuple[str, str]:
        return "torch", f"torch.jit.load({file_name!r})(torch.from_numpy(images)).numpy()"


class TorchScriptRunner:
    def __init__(self, path: Path) -> None:
        extra = {METADATA_FILE: ""}
        try:
            with quiet():
                self._module = torch.jit.load(str(path), "cpu", extra).eval()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ExportError(f"no TorchScript file: {reason}", where=str(path)) from error
        text = extra[METADATA_FILE]
        self.metadata: Mapping[str, Any] = json.loads(text) if text else {}

    def run(self, images: Images) -> Arrays:
        return _call(self._module, images)

    def decoded(self, images: Images) -> Arrays:
        return _call(cast(nn.Module, self._module.decoded), images)


def _trace(module: nn.Module, example: Tensor) -> Any:
    return torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]


def _call(module: nn.Module, images: Images) -> Arrays:
    with quiet(), torch.no_grad():
        found: Tensor | tuple[Tensor, ...] = module(torch.from_numpy(np.ascontiguousarray(images)))
    tensors = (found,) if isinstance(found, Tensor) else found
    return tuple(t.numpy() for t in tensors)


FORMAT = TorchScriptFormat()
