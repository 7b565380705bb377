"""Asking a plug-in in a process of its own, because some end the process that asks."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import NamedTuple

TIMEOUT_S = 60.0


class Answer(NamedTuple):
    """``text`` is what was printed. ``problem`` says how the process ended, "" where it ended well;
    ``crashed`` that it was not by an error of Python's.
    """

    text: str
    problem: str = ""
    crashed: bool = False


def ask(code: str, *, timeout_s: float = TIMEOUT_S) -> Answer:
    """Run ``code`` with this Python and its environment; what it prints is the answer."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer("", f"no answer within {timeout_s:g} s", crashed=True)
    if done.returncode == 0:
        return Answer(done.stdout.strip())
    return _ending(done.returncode, done.stderr)


def _ending(code: int, stderr: str) -> Answer:
    if code < 0:
        try:
            return Answer("", signal.Signals(-code).name, crashed=True)
        except ValueError:
            return Answer("", f"signal {-code}", crashed=True)
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    # Python ends with 1 after an error it could tell of; Windows gives a crash a large number
    return Answer("", lines[-1] if lines and code == 1 else f"exit code {code:#x}", crashed=code != 1)
