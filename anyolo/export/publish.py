"""Where an artefact goes, and how it gets there: all of it, or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anyolo.errors import ExportError
from anyolo.export.golden import Golden, golden_paths
from anyolo.export.manifest import Manifest, manifest_path, write_manifest
from anyolo.families.checkpoints import Checkpoint


def target_of(output: str, weights: Path, checkpoint: Checkpoint, suffix: str) -> Path:
    """Where the artefact goes: ``output`` as a file or folder, else beside the weights."""
    stem = weights.stem or f"{checkpoint.spec.name}{checkpoint.size}"
    if not output:
        return (weights.parent if weights.is_file() else Path()) / (stem + suffix)
    path = Path(output)
    if path.name.endswith(suffix):
        return path
    return path / (stem + suffix) if path.is_dir() or not path.suffix else path.with_name(path.stem + suffix)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A place beside ``target`` on the same disk, gone afterwards. A disk that fails is an ExportError."""
    folder = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".anyolo-export-", dir=target.parent))
        yield folder / target.name
    except OSError as error:
        raise ExportError(
            f"cannot be written: {error.strerror or error}",
            where=str(target),
            hint="Is the disk full or the folder closed? output= takes another place.",
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def publish(
    staged: Path,
    final: Path,
    manifest: Manifest,
    verification: Mapping[str, Any] | None,
    golden: Golden | None,
) -> Path:
    """Artefact, golden vectors and manifest under their names, the artefact in one step. Returns the
    manifest's path.
    """
    named = staged.rename(staged.with_name(final.name))
    shown = None if golden is None else golden.write(named)
    beside = manifest_path(named)
    write_manifest(manifest.of_file(named, verification, shown), beside)
    if final.is_dir():
        shutil.rmtree(final)
    os.replace(named, final)
    for own, path in zip(golden_paths(named), golden_paths(final), strict=True):
        if own.exists():
            os.replace(own, path)
        else:
            path.unlink(missing_ok=True)  # of an earlier export of that name
    os.replace(beside, manifest_path(final))
    return manifest_path(final)
