"""Writing a file so that it is either the old one or the new one, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from anyolo.errors import CheckpointError
from anyolo.types import PathLike

STALE_S = 3600  # a temporary file this old belongs to nobody who is still writing


class _Sink:
    """Where torch writes. Keeps the first error to itself: torch's zip writer cannot be stopped half-way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None
        self.size_bytes = 0

    def write(self, data: Any) -> int:
        length = memoryview(data).nbytes
        self.size_bytes += length
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return length

    def flush(self) -> None:
        """The file is flushed once, at the end."""


def save_atomic(obj: Any, path: PathLike) -> None:
    """``torch.save`` to a file beside ``path``, brought to the disk, then renamed over it.

    Raises:
        CheckpointError: the file could not be written (full disk, no permission). The old file is untouched.
    """
    write_atomic(path, lambda file: torch.save(obj, file))


def write_atomic(
    path: PathLike, write: Callable[[IO[bytes]], object], *, check: Callable[[Path], object] | None = None
) -> None:
    """As ``save_atomic``, with any writer. ``check`` looks at the new file before it takes the old one's
    place; what it raises leaves the old one.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    needed_bytes = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
        with open(temporary, "wb") as file:
            sink = _Sink(file)
            write(sink)  # type: ignore[arg-type]
            needed_bytes = sink.size_bytes
            if sink.error:
                raise sink.error
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise _not_written(target, error, needed_bytes) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def storable(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """On the CPU, floats in ``dtype`` (None: as they are), owning just the memory it shows: torch saves all
    that a view sees.
    """
    kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    stored = tensor.detach().to("cpu", kind).contiguous()
    return stored if stored.untyped_storage().nbytes() == stored.nbytes else stored.clone()


def _not_written(target: Path, error: OSError, needed_bytes: int) -> CheckpointError:
    room = ""
    with contextlib.suppress(OSError):
        free_mb = shutil.disk_usage(target.parent).free / 1e6
        room = f" {target.parent} has {free_mb:.1f} MB free, {needed_bytes / 1e6:.1f} MB are needed."
    kept = "The previous file is untouched." if target.exists() else "Nothing was written."
    return CheckpointError(
        f"cannot be written: {error.strerror or error}",
        where=str(target),
        hint=f"{kept}{room} Make room or choose another folder (project=...), then resume.",
    )


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where folders can be opened (not on Windows)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove_stale(target: Path) -> None:
    """Temporary files of runs that were killed while writing."""
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > STALE_S:
                leftover.unlink()
