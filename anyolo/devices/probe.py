"""Asking a plug-in in a process of its own, because some end the process that asks."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import NamedTuple

TIMEOUT_S = 60.0


class Answer(NamedTuple):
    """``text`` is what was printed; ``problem`` says how a process that ``crashed`` ended."""

    text: str
    crashed: bool = False
    problem: str = ""


def ask(code: str) -> Answer:
    """Run ``code`` with this Python; what it prints is the answer."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Answer("", crashed=True, problem=f"no answer within {TIMEOUT_S:.0f} s")
    if done.returncode == 0:
        return Answer(done.stdout.strip())
    return Answer("", crashed=True, problem=_ending(done.returncode, done.stderr))


def _ending(code: int, stderr: str) -> str:
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit code {code}"
