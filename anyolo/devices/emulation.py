"""A backend's rules on a plain CPU: the same calls, judged as the card would judge them.

Operators that torch makes of others (BCE with logits, foreach updates, matrix times vector) are taken apart
as they are on a device without a kernel of its own, so that what they are made of is judged too.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anyolo.devices.base import Device, Phase
from anyolo.devices.operators import Judgement, OperatorTable, Verdict, composite_key, full_name
from anyolo.errors import DeviceError

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__))


@dataclass(frozen=True, slots=True)
class Call:
    """One line of an inventory. ``where`` is ``file:line`` outside torch, ``within`` the operator that the
    program called where torch made this one of it.
    """

    op: str
    phase: str
    verdict: Verdict
    where: str = ""
    within: str = ""
    message: str = ""


class Emulation(TorchDispatchMode):
    """Judges every operator called while it is entered.

    ``record`` lets calls through that the backend would refuse, to list them all; otherwise they raise the
    backend's own error. ``strict`` raises for falls back to the CPU too. ``locate`` finds file and line of
    every call and not only of those that are not native (an inventory is slower for it).
    """

    def __init__(
        self, table: OperatorTable, *, record: bool = False, strict: bool = False, locate: bool = False
    ) -> None:
        super().__init__()
        self.table, self.record, self.strict, self.locate = table, record, strict, locate
        self.phase: str = "other"
        self.calls: Counter[Call] = Counter()
        self._within: list[str] = []

    def count(self, verdict: Verdict) -> int:
        """Calls with this verdict so far."""
        return sum(number for call, number in self.calls.items() if call.verdict == verdict)

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        refused = self.table.judge_dtypes(tree_leaves((args, kwargs)))
        judgement = refused or self.table.judge(func, args, kwargs)
        if judgement is None:
            return self._take_apart(func, args, kwargs)
        self._note(func, judgement)
        result = func(*args, **kwargs)
        if judgement is not refused and (refused := self.table.judge_dtypes(tree_leaves(result))):
            self._note(func, refused)
        return result

    def _take_apart(self, func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        self._within.append(full_name(func))
        try:
            with self:
                return func._op_dk(composite_key(func), *args, **kwargs)
        finally:
            self._within.pop()

    def _note(self, func: OpOverload, judgement: Judgement) -> None:
        is_fine = judgement.verdict in {"native", "unknown"}
        where = self._where() if self.locate or not is_fine else ""
        within = self._within[0] if self._within else ""
        call = Call(full_name(func), self.phase, judgement.verdict, where, within, judgement.message)
        self.calls[call] += 1
        if is_fine or self.record:
            return
        if judgement.verdict == "unsupported":
            raise judgement.raised()
        if self.strict:
            raise DeviceError(judgement.message, where=where, hint="strict=True forbids falling back.")
        if self.calls[call] == 1:
            warnings.warn(f"{judgement.message} ({where})", stacklevel=2)

    def _where(self) -> str:
        """The line of the program: outside torch and this file; in backward passes the line of the forward."""
        node = torch._C._current_autograd_node() if hasattr(torch._C, "_current_autograd_node") else None
        traceback = node.metadata.get("traceback_") if node is not None else None
        if traceback:
            return _last_line(traceback)
        frame = sys._getframe(2)
        while frame is not None:
            name = frame.f_code.co_filename
            if not name.startswith((_TORCH, _HERE, "<")):
                return f"{name}:{frame.f_lineno}"
            frame = frame.f_back  # type: ignore[assignment]
        return ""


def _last_line(traceback: Sequence[str]) -> str:
    """``file:line`` of the innermost frame outside torch, of the lines that anomaly mode keeps."""
    for entry in reversed(traceback):
        head = entry.strip().partition("\n")[0]
        name, _, rest = head.removeprefix('File "').partition('", line ')
        if rest and not name.startswith((_TORCH, _HERE, "<")):
            return f"{name}:{rest.partition(',')[0]}"
    return ""


class EmulatedDevice(Device):
    """The CPU under another backend's rules and with that backend's abilities."""

    def __init__(self, backend: type[Device], *, threads: int = 0, strict: bool = False) -> None:
        super().__init__(0, threads=threads)
        table = backend.operators()
        if table is None:
            raise DeviceError(
                f"nothing is known of {backend.profile.name}'s operators, so it cannot be emulated"
            )
        self.backend = backend
        self.profile = replace(
            backend.profile, name=f"emulate:{backend.profile.name}", pin_memory=False, fused=False
        )
        self.emulation = Emulation(table, strict=strict)

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu")

    def describe(self) -> str:
        return f"cpu under the rules of {self.backend.profile.name}"

    @contextmanager
    def region(self, phase: Phase) -> Iterator[None]:
        self.emulation.phase = phase
        with self.emulation:
            yield

    def lacks(self, operator: str) -> bool:
        return self.emulation.table.lacks(operator)

    def remarks(self) -> list[str]:
        counts = {verdict: self.emulation.count(verdict) for verdict in ("native", "unknown", "fallback")}
        line = f"{self.profile.name}: {counts['native']:,} operator calls native"
        if counts["unknown"]:
            line += f", {counts['unknown']:,} not known (no list of its operators was published)"
        lines = [f"{line}, {counts['fallback']:,} fell back to the CPU"]
        worst = Counter(
            {
                (call.op, call.where): number
                for call, number in self.emulation.calls.items()
                if call.verdict == "fallback"
            }
        )
        return lines + [f"  {number:,} x {op} at {where}" for (op, where), number in worst.most_common(10)]
