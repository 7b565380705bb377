"""PyTorch Mobile: the same traced network as bytecode for the lite interpreter of phones, run here by it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anyolo import console
from anyolo.errors import ExportError
from anyolo.export.base import NMS, Arrays, Exportable, Images, Suppression, WriteOptions, quiet

METADATA_FILE = "anyolo.json"
MAPS = "decoded_maps"
"""The second method of the file: the decoded maps from which ``forward`` makes the boxes."""


class MobileFormat:
    name = "ptl"
    suffix = ".ptl"
    requires = ("torch",)
    abilities = frozenset({NMS, "dynamic"})
    remark = ""

    def write(self, model: Exportable, path: Path, options: WriteOptions) -> None:
        with quiet(), torch.no_grad():
            network = torch.jit.trace(model.decoded, options.example, check_trace=False)  # type: ignore[no-untyped-call]
            methods = {"forward": options.example, MAPS: options.example}
            traced = torch.jit.trace_module(  # type: ignore[no-untyped-call]
                _Methods(network, model.suppression).eval(), methods, check_trace=False
            )
            frozen = _for_phones(torch.jit.freeze(traced, preserved_attrs=[MAPS]))
            metadata = {METADATA_FILE: json.dumps(dict(options.metadata))}
            data = frozen._save_to_buffer_for_lite_interpreter(_extra_files=metadata)
        path.write_bytes(data)

    def convolutions(self, path: Path) -> None:
        return None

    def open(self, path: Path, *, threads: int = 0) -> MobileRunner:
        if threads:
            torch.set_num_threads(threads)
        return MobileRunner(path)

    def calling_code(self, file_name: str) -> tuple[str, str]:
        load = f"torch.jit.mobile._load_for_lite_interpreter({file_name!r})"
        return "torch.jit.mobile", f"{load}(torch.from_numpy(images)).numpy()"


class _Methods(nn.Module):
    """One network, two ways in: the lite interpreter shows no submodules, but runs any method."""

    def __init__(self, network: nn.Module, suppression: Suppression | None) -> None:
        super().__init__()
        self.network, self.suppression = network, suppression

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        decoded = self.decoded_maps(images)
        return decoded if self.suppression is None else Exportable.final_boxes(decoded, self.suppression)

    def decoded_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        decoded: tuple[Tensor, ...] = self.network(images)
        return decoded


class MobileRunner:
    def __init__(self, path: Path) -> None:
        from torch.jit.mobile import _load_for_lite_interpreter

        try:
            self.metadata: Mapping[str, Any] = _metadata(path)
            with quiet():
                self._module: Any = _load_for_lite_interpreter(str(path), "cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError, OSError, zipfile.BadZipFile) as error:
            reason = str(error).partition("\n")[0].partition(". ")[0]
            raise ExportError(
                f"no file for the lite interpreter of PyTorch: {reason}", where=str(path)
            ) from error

    def run(self, images: Images) -> Arrays:
        return self._call("forward", images)

    def decoded(self, images: Images) -> Arrays:
        return self._call(MAPS, images)

    def _call(self, method: str, images: Images) -> Arrays:
        with torch.no_grad():  # LiteScriptModule.run_method passes its arguments on wrongly (torch 2.13)
            found = self._module._c.run_method(method, (torch.from_numpy(np.ascontiguousarray(images)),))
        return tuple(t.numpy() for t in ((found,) if isinstance(found, Tensor) else found))


def _metadata(path: Path) -> Mapping[str, Any]:
    """What was written into the file. The interpreter itself does not show it."""
    with zipfile.ZipFile(path) as archive:
        inside = [name for name in archive.namelist() if name.endswith(f"/extra/{METADATA_FILE}")]
        found: dict[str, Any] = json.loads(archive.read(inside[0])) if inside else {}
        return found


def _for_phones(module: Any) -> Any:
    """With the kernels of phones where this build has them; without them it runs everywhere all the same."""
    from torch.backends import xnnpack

    if not xnnpack.enabled:  # type: ignore[attr-defined]
        console.current().line(
            "this build of PyTorch has no XNNPACK: the file is written without optimize_for_mobile, "
            "its numbers are the same and its speed on a phone may be lower"
        )
        return module
    from torch.utils.mobile_optimizer import optimize_for_mobile

    return optimize_for_mobile(module, preserved_methods=[MAPS])


FORMAT = MobileFormat()
