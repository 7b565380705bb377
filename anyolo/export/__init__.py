"""DOOR: export formats. One format is one file that writes and reopens, and one line of ``EXPORTERS``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from anyolo.registry import Registry

if TYPE_CHECKING:
    from anyolo.export.base import Format
    from anyolo.export.engine import ExportResult, export_model
    from anyolo.export.foreign import OpenedForeign, open_foreign
    from anyolo.export.opened import OpenedArtifact, is_artifact, open_artifact, read_foreign
    from anyolo.export.pictures import picture_paths
    from anyolo.export.precision import Judge, evaluation_settings

EXPORTERS: Registry[Format] = Registry(
    "export format",
    {
        "torchscript": "anyolo.export.torchscript:FORMAT",
        "ptl": "anyolo.export.mobile_ptl:FORMAT",
        "onnx": "anyolo.export.onnx:FORMAT",
        "openvino": "anyolo.export.openvino:FORMAT",
        "ncnn": "anyolo.export.ncnn:FORMAT",
        "mlu270": "anyolo.export.mlu270:FORMAT",
    },
    aliases=dict(ts="torchscript", jit="torchscript", mlu="mlu270", mlu220="mlu270", cambricon="mlu270"),
    group="anyolo.export",
)

_PUBLIC = {
    "ExportResult": "anyolo.export.engine",
    "export_model": "anyolo.export.engine",
    "Judge": "anyolo.export.precision",
    "OpenedArtifact": "anyolo.export.opened",
    "OpenedForeign": "anyolo.export.foreign",
    "evaluation_settings": "anyolo.export.precision",
    "is_artifact": "anyolo.export.opened",
    "open_artifact": "anyolo.export.opened",
    "open_foreign": "anyolo.export.foreign",
    "picture_paths": "anyolo.export.pictures",
    "read_foreign": "anyolo.export.opened",
}

__all__ = [
    "EXPORTERS",
    "ExportResult",
    "Judge",
    "OpenedArtifact",
    "OpenedForeign",
    "evaluation_settings",
    "export_model",
    "is_artifact",
    "open_artifact",
    "open_foreign",
    "picture_paths",
    "read_foreign",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'anyolo.export' has no attribute {name!r}")
