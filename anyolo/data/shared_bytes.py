"""Bytes that a process and its workers see alike, and that vanish with them, even when they are killed.

Neither needs ``/dev/shm``, which containers make small: Linux has anonymous memory files, Windows named
memory, other systems a temporary file without a name.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import uuid
from typing import Any

import numpy as np

from anyolo.ops.image import Pixels


class SharedBytes:
    """``array`` (size,) uint8, zero at first. Pickle it into a worker started with ``inherited()``."""

    def __init__(self, size: int) -> None:
        self.size = max(size, 1)
        self.handle: int | str = (
            f"anyolo-{uuid.uuid4().hex}" if sys.platform == "win32" else _nameless_file(self.size)
        )
        self._open()

    def _open(self) -> None:
        if isinstance(self.handle, str):
            self._map = mmap.mmap(-1, self.size, tagname=self.handle)  # type: ignore[call-arg, unused-ignore]
        else:
            self._map = mmap.mmap(self.handle, self.size)
        self.array: Pixels = np.frombuffer(self._map, np.uint8)

    def inherited(self) -> tuple[int, ...]:
        """File numbers a worker process must be given (``pass_fds``)."""
        return () if isinstance(self.handle, str) else (self.handle,)

    def __getstate__(self) -> dict[str, Any]:
        return {"size": self.size, "handle": self.handle}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.size, self.handle = state["size"], state["handle"]
        self._open()

    def __del__(self) -> None:
        # the mapping itself goes with the last array that looks at it
        handle = getattr(self, "handle", "")
        if isinstance(handle, int):
            os.close(handle)


def _nameless_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("anyolo", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            number = os.dup(file.fileno())
    os.ftruncate(number, size)
    return number
