"""A child process that is asked in JSON lines; its death is an answer like another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from signal import Signals
from typing import Any

_CHILD = "import sys; sys.path[:] = {path!r}; from anyolo.api.benchmark_worker import work; work()"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Lost(Exception):
    """What a child could not do, in words; ``hint`` as errors have it."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint


class Child:
    """Started with its ``job``; ``threads`` are what it may use. Ends when its pipe does."""

    def __init__(self, job: Mapping[str, Any], threads: int) -> None:
        self.heard: list[str] = []
        """Its warnings so far."""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the child)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, **dict.fromkeys(_THREADS, str(threads))},
            start_new_session=True,  # Ctrl-C in the terminal is the parent's business
        )
        try:
            self._ask(job)
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **words: Any) -> dict[str, Any]:
        """Raises Lost where it fails or dies."""
        return self._ask({"do": do, **words})

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise Lost(self._obituary())
        answer: dict[str, Any] = json.loads(line)
        self.heard += answer.pop("heard")
        if "error" in answer:
            where = f"{answer['where']}: " if answer["where"] else ""
            raise Lost(where + answer["error"], answer["hint"])
        return answer

    def _obituary(self) -> str:
        """How it ended, and the last it said."""
        code = self._process.wait()
        how = f"killed by {Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f"its process died ({how})" + (f": {lines[-1].strip()}" if lines else "")
