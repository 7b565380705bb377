"""What somebody must know to run an artefact without anyolo, as JSON beside it and inside it.

The one beside it is sealed: it holds the hash of every file of the artefact, and one over itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from anyolo.errors import ExportError
from anyolo.export.base import BOXES, DECODED, INPUT, Suppression
from anyolo.structures import Preprocess
from anyolo.types import SizeHW

SCHEMA = 2
"""2 added ``files``, ``golden`` and the seal; what an older anyolo wrote still opens."""
SEAL = "manifest_sha256"

_PLACEMENT = {
    "letterbox": "gain = min(H/h, W/w); resize (bilinear) to round(h*gain), round(w*gain); "
    "top = round((H-rows)/2 - 0.1), left = round((W-columns)/2 - 0.1); pad the rest",
    "letterbox_topleft": "gain = min(H/h, W/w); resize (bilinear) to int(h*gain), int(w*gain); "
    "pad right and below",
    "stretch": "resize (bilinear) to H, W",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """``size_hw`` is the input an artefact was made for, its only one unless ``is_dynamic``.

    ``sha256`` (of each of ``files`` and of all), ``size_bytes``, ``verification`` and ``golden`` are known
    only after writing: they stand in the file beside the artefact, not in the copy inside it. ``activation``
    is what replaced the model's own, if any.
    """

    format: str
    family: str
    model_size: str
    names: tuple[str, ...]
    preprocess: Preprocess
    size_hw: SizeHW
    batch: int
    is_dynamic: bool
    has_objectness: bool
    suppression: Suppression | None
    versions: Mapping[str, str]
    activation: str = ""
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    artifact: str = ""
    sha256: str = ""
    size_bytes: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    verification: Mapping[str, Any] | None = None
    golden: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "artifact": self.artifact,
            "format": self.format,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "files": dict(self.files),
            "family": self.family,
            "size": self.model_size,
            "nc": len(self.names),
            "names": list(self.names),
            "preprocess": self.preprocess.to_json(),
            "input": self._input(),
            "outputs": self._outputs(),
            "nms": None if self.suppression is None else asdict(self.suppression),
            "activation": self.activation or None,
            "versions": dict(self.versions),
            "verification": None if self.verification is None else dict(self.verification),
            "golden": None if self.golden is None else dict(self.golden),
            "created": self.created,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any], *, where: str = "") -> Manifest:
        """Raises ExportError for what is no manifest, or one of a later schema."""
        try:
            return Manifest(
                format=str(data["format"]),
                family=str(data["family"]),
                model_size=str(data["size"]),
                names=tuple(str(name) for name in data["names"]),
                preprocess=Preprocess.from_json(data["preprocess"]),
                size_hw=(int(data["input"]["size_hw"][0]), int(data["input"]["size_hw"][1])),
                batch=int(data["input"]["batch"]),
                is_dynamic=bool(data["input"]["dynamic"]),
                has_objectness=any(output["name"] == DECODED[2] for output in data["outputs"]),
                suppression=None if data["nms"] is None else Suppression(**data["nms"]),
                versions=dict(data["versions"]),
                activation=str(data.get("activation") or ""),
                created=str(data["created"]),
                artifact=str(data["artifact"]),
                sha256=str(data["sha256"]),
                size_bytes=int(data["size_bytes"]),
                files=dict(data.get("files") or {}),
                verification=data["verification"],
                golden=data.get("golden"),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ExportError(
                f"no manifest of anyolo: {type(error).__name__}: {error}",
                where=where,
                hint="Export the model again.",
            ) from error

    @property
    def gives_boxes(self) -> bool:
        """Whether the artefact itself gives final boxes; decoded maps if not."""
        return self.suppression is not None and self.suppression.where == "graph"

    def _input(self) -> dict[str, Any]:
        return {
            "name": INPUT,
            "dtype": "uint8",
            "layout": "BCHW",
            "range": [0, 255],
            "channels": self.preprocess.channels,
            "batch": self.batch,
            "size_hw": list(self.size_hw),
            "dynamic": self.is_dynamic,
            "stride": self.preprocess.stride,
            "placement": _PLACEMENT[self.preprocess.fit],
            "pad_value": self.preprocess.pad_value,
            "normalisation": "inside the graph",
        }

    def _outputs(self) -> list[dict[str, Any]]:
        batch = "batch" if self.is_dynamic else self.batch
        if self.suppression is not None and self.gives_boxes:
            return [
                {
                    "name": BOXES,
                    "shape": [batch, self.suppression.max_det, 6],
                    "columns": ["x1", "y1", "x2", "y2", "score", "class"],
                    "units": "input pixels, score 0..1, class number",
                    "padding": "rows of zeros behind the last box (score 0)",
                }
            ]
        shapes: Sequence[tuple[str, list[Any], str]] = (
            (DECODED[0], [batch, "points", 4], "x1 y1 x2 y2 in input pixels"),
            (DECODED[1], [batch, "points", len(self.names)], "class scores, 0..1"),
            (
                DECODED[2],
                [batch, "points"],
                "objectness, 0..1; a box's score is class score times objectness",
            ),
        )
        shown = shapes if self.has_objectness else shapes[:2]
        return [{"name": name, "shape": shape, "units": units} for name, shape, units in shown]

    def of_file(
        self, path: Path, verification: Mapping[str, Any] | None, golden: Mapping[str, Any] | None
    ) -> Manifest:
        """With what is known of the artefact once it is written."""
        return replace(
            self,
            artifact=path.name,
            sha256=digest(path),
            size_bytes=size_of(path),
            files=digests(path),
            verification=verification,
            golden=golden,
        )


def manifest_path(artifact: Path) -> Path:
    """``best.onnx.json`` beside ``best.onnx``."""
    return artifact.with_name(artifact.name + ".json")


def write_manifest(manifest: Manifest, path: Path) -> None:
    document = manifest.to_json()
    text = json.dumps({**document, SEAL: seal_of(document)}, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def seal_of(document: Mapping[str, Any]) -> str:
    """SHA-256 of all entries but the seal: as JSON without spaces, keys sorted, ASCII."""
    rest = {key: value for key, value in document.items() if key != SEAL}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_beside(artifact: Path) -> Manifest | None:
    """The manifest beside the artefact, if there is one.

    Raises:
        ExportError: it is none, was edited, or belongs to other bytes.
    """
    beside = manifest_path(artifact)
    if not beside.is_file():
        return None
    try:
        data = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ExportError(
            f"cannot be read: {error}", where=str(beside), hint="Export the model again."
        ) from error
    if _check_schema(data, str(beside)) > 1:  # the first schema had no seal
        _check_seal(data, str(beside))
    manifest = Manifest.from_json(data, where=str(beside))
    _check_bytes(artifact, manifest, str(beside))
    return manifest


def read_inside(artifact: Path, found: Mapping[str, Any]) -> Manifest:
    """The manifest ``found`` inside the artefact; ExportError if there is none."""
    if not found:
        raise ExportError(
            "nothing says how this file is to be fed",
            where=str(artifact),
            hint=f"Put its manifest {manifest_path(artifact).name} beside it, or export it with anyolo.",
        )
    _check_schema(found, str(artifact))
    return Manifest.from_json(found, where=str(artifact))


def _check_schema(data: Any, where: str) -> int:
    schema = data.get("schema") if isinstance(data, Mapping) else None
    if not isinstance(schema, int):
        raise ExportError(
            "no manifest of anyolo: it has no schema", where=where, hint="Export the model again."
        )
    if schema > SCHEMA:
        raise ExportError(
            f"the manifest has schema {schema}, known is {SCHEMA}",
            where=where,
            hint="It was written by a newer anyolo; update this one.",
        )
    return schema


def _check_seal(data: Mapping[str, Any], where: str) -> None:
    own, found = data.get(SEAL), seal_of(data)
    if own != found:
        raise ExportError(
            f"the manifest was changed after it was written: its SHA-256 is {found[:16]}..., "
            f"{SEAL} says {str(own)[:16] + '...' if own else 'nothing'}",
            where=where,
            hint="Undo the change, or export the model with the settings you want.",
        )


def _check_bytes(artifact: Path, manifest: Manifest, where: str) -> None:
    found = digest(artifact)
    if found == manifest.sha256:
        return
    own = digests(artifact)
    changed = [name for name in manifest.files if own.get(name) != manifest.files[name]]
    strange = [name for name in own if name not in manifest.files] if manifest.files else []
    of_folder = f", in it {', '.join(changed + strange)}" if artifact.is_dir() and changed + strange else ""
    raise ExportError(
        f"{artifact.name} is not the file this manifest was written for (its SHA-256 differs{of_folder}): "
        f"{found[:16]}... of {size_of(artifact)} bytes, "
        f"not {manifest.sha256[:16]}... of {manifest.size_bytes} bytes",
        where=where,
        hint="Export the model again, or remove the manifest to use the copy inside the file.",
    )


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder."""
    total = hashlib.sha256()
    for file in _files(path):
        if path.is_dir():
            total.update(file.relative_to(path).as_posix().encode() + b"\0")
        total.update(file.read_bytes())
    return total.hexdigest()


def digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file, by its name in the folder or its own."""
    base = path if path.is_dir() else path.parent
    return {
        file.relative_to(base).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in _files(path)
    }


def size_of(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> list[Path]:
    """Not what Python leaves behind where a program of the folder was run."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
