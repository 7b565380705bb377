"""Which line of a program called an operator, and in which part of its work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

HOST = "host"
"""The phase of work that never reaches a device: what a data loader does."""
OTHER = "other"

_TORCH = str(Path(torch.__file__).parent) + os.sep
_LIBRARIES = (
    _TORCH,
    str(Path(torch.__file__).parent.with_name("torchvision")) + os.sep,
    __file__,
    str(Path(__file__).with_name("emulation.py")),
    "<frozen",
    "<eval_with_key",
)
_AUTOGRAD = (os.path.join(_TORCH, "autograd", "__init__.py"), os.path.join(_TORCH, "autograd", "graph.py"))
_UPDATES = (
    os.path.join(_TORCH, "optim", ""),
    os.path.join(_TORCH, "amp", "grad_scaler.py"),
    os.path.join(_TORCH, "nn", "utils", "clip_grad.py"),
)
_MODULE = os.path.join(_TORCH, "nn", "modules", "module.py")
_LOADING = os.path.join(_TORCH, "utils", "data", "")


def calling_line() -> str:
    """``file:line`` of the program, outside torch and the emulation; in a backward pass the line of the
    forward that it belongs to, where anomaly mode kept that. "" where there is none.
    """
    node = _backward_node()
    kept = node.metadata.get("traceback_") if node is not None else None
    if kept and (line := _last_line(kept)):
        return line
    for frame in _frames():
        name = frame.f_code.co_filename
        if not name.startswith(_LIBRARIES):
            return f"{name}:{frame.f_lineno}"
    return ""


def phase_of_call() -> str:
    """``forward``, ``backward``, ``optimizer``, ``host`` or ``other``, by the parts of torch on the stack."""
    if _backward_node() is not None:
        return "backward"
    for frame in _frames():
        name = frame.f_code.co_filename
        if not name.startswith(_TORCH):
            continue
        if name == _MODULE and frame.f_code.co_name == "_call_impl":
            return "forward"
        if name.startswith(_UPDATES):
            return "optimizer"
        if name in _AUTOGRAD:
            return "backward"
        if name.startswith(_LOADING):
            return HOST
    return OTHER


def _backward_node() -> Any:
    """The step of the backward pass that runs in this thread now, or None."""
    find = getattr(torch._C, "_current_autograd_node", None)
    return find() if find is not None else None


def _frames() -> Iterator[FrameType]:
    """The stack, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _last_line(traceback: Sequence[str]) -> str:
    """``file:line`` of the innermost frame outside torch, of the lines that anomaly mode keeps."""
    for entry in reversed(traceback):
        head = entry.strip().partition("\n")[0]
        name, _, rest = head.removeprefix('File "').partition('", line ')
        if rest and not name.startswith(_LIBRARIES):
            return f"{name}:{rest.partition(',')[0]}"
    return ""
