"""A backend's rules on a plain CPU: the same calls, judged as the card would judge them.

Operators that torch makes of others (BCE with logits, foreach updates, matrix times vector) are taken apart
as they are on a device without a kernel of its own, so that what they are made of is judged too.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from anyolo.devices.base import Device, Phase
from anyolo.devices.operators import Judgement, OperatorTable, Verdict, bind, composite_key, full_name
from anyolo.devices.origin import HOST, calling_line, phase_of_call
from anyolo.errors import DeviceError


@dataclass(frozen=True, slots=True)
class Call:
    """One line of an inventory. ``where`` is ``file:line`` outside torch, ``within`` the operator that the
    program called where torch made this one of it, ``message`` the backend's own text, ``source`` where that
    is known from.
    """

    op: str
    phase: str
    verdict: Verdict
    where: str = ""
    within: str = ""
    message: str = ""
    source: str = ""


class Emulation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Judges every operator called while it is entered.

    ``record`` lets calls through that the backend would refuse, to list them all, and leaves every result to
    the bit what it is on the CPU; otherwise they raise the backend's own error. ``strict`` raises for falls
    back to the CPU too. ``locate`` finds file and line of every call and not only of those that are not
    native (an inventory is slower for it). ``phase`` is what is being done; while it is "", it is found by
    the parts of torch on the stack, and work of torch's data loaders is left alone.
    """

    def __init__(
        self, table: OperatorTable, *, record: bool = False, strict: bool = False, locate: bool = False
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.table, self.record, self.strict, self.locate = table, record, strict, locate
        self.phase: str = ""
        self.calls: Counter[Call] = Counter()
        self._within: list[str] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Otherwise the first call imports torch's compiler, which takes six seconds."""
        return False

    def count(self, verdict: Verdict) -> int:
        """Calls with this verdict so far."""
        return sum(number for call, number in self.calls.items() if call.verdict == verdict)

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        phase = self.phase or phase_of_call()
        if phase == HOST or not _is_about_tensors(func):
            return func(*args, **kwargs)
        if self._within:
            args = _with_tensors(func, args)
        refused = self.table.judge_dtypes(tree_leaves((args, kwargs)))
        judgement = refused or self.table.judge(func, args, kwargs)
        if judgement is None:
            return self._take_apart(func, args, kwargs)
        self._note(func, judgement, phase)
        result = func(*args, **kwargs)
        if judgement is not refused and (refused := self.table.judge_dtypes(tree_leaves(result))):
            self._note(func, refused, phase)
        return result

    def _take_apart(self, func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if self.record:
            with _untouched(func, args, kwargs) as (own_args, own_kwargs):
                self._run_parts(func, own_args, own_kwargs)
            return func(*args, **kwargs)
        return self._run_parts(func, args, kwargs)

    def _run_parts(self, func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        self._within.append(full_name(func))
        try:
            with self:
                return func._op_dk(composite_key(func), *args, **kwargs)
        finally:
            self._within.pop()

    def _note(self, func: OpOverload, judgement: Judgement, phase: str) -> None:
        is_fine = judgement.verdict in {"native", "unknown"}
        where = calling_line() if self.locate or not is_fine else ""
        within = self._within[0] if self._within else ""
        call = Call(
            full_name(func), phase, judgement.verdict, where, within, judgement.message, judgement.source
        )
        self.calls[call] += 1
        if is_fine or self.record:
            return
        if judgement.verdict == "unsupported":
            raise judgement.raised()
        if self.strict:
            raise DeviceError(judgement.message, where=where, hint="strict=True forbids falling back.")
        if self.calls[call] == 1:
            warnings.warn(f"{judgement.message} ({where})", stacklevel=2)


@cache
def _is_about_tensors(func: OpOverload) -> bool:
    """Not so: marks for profilers, questions for versions."""
    return "Tensor" in str(func._schema)


def _with_tensors(func: OpOverload, args: Sequence[Any]) -> Sequence[Any]:
    """Numbers as tensors where ``func`` takes tensors: C++ wraps them (``x % 4`` calls remainder.Tensor), and
    torch unwraps them on their way here.
    """
    return [
        torch.tensor(value) if type(value) in {bool, int, float} and place in _tensor_places(func) else value
        for place, value in enumerate(args)
    ]


@cache
def _tensor_places(func: OpOverload) -> frozenset[int]:
    kinds = [str(argument.type) for argument in func._schema.arguments]
    return frozenset(place for place, kind in enumerate(kinds) if kind in {"Tensor", "Optional[Tensor]"})


@contextmanager
def _untouched(
    func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[Sequence[Any], Mapping[str, Any]]]:
    """Arguments to try ``func`` with: what it writes to is a copy, and random numbers are put back."""
    written = {a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write}
    if not written and torch.Tag.nondeterministic_seeded not in func.tags:
        yield args, kwargs
        return
    names = [argument.name for argument in func._schema.arguments]
    own_args = [
        tree_map(_copied, value) if name in written else value
        for name, value in zip(names, args, strict=False)
    ]
    own_kwargs = {
        name: tree_map(_copied, value) if name in written else value for name, value in kwargs.items()
    }
    generator = bind(func, args, kwargs).get("generator") or torch.default_generator
    state = generator.get_state()
    yield own_args, own_kwargs
    generator.set_state(state)


def _copied(value: Any) -> Any:
    """A tensor that lies in a copy of its memory as it lay in its own; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    storage = value.untyped_storage().clone()  # type: ignore[no-untyped-call]
    copy = torch.empty(0, dtype=value.dtype, device=value.device)
    return copy.set_(storage, value.storage_offset(), value.size(), value.stride())


_NOT_COMPILED = "an emulated backend judges operators one by one, and compiled code has none"


class EmulatedDevice(Device):
    """The CPU under another backend's rules and with that backend's abilities."""

    def __init__(
        self, backend: type[Device], *, threads: int = 0, strict: bool = False, record: bool = False
    ) -> None:
        super().__init__(0, threads=threads)
        table = backend.operators()
        if table is None:
            raise DeviceError(
                f"nothing is known of {backend.profile.name}'s operators, so it cannot be emulated"
            )
        self.backend = backend
        own = backend.profile
        self.profile = replace(
            own,
            name=f"emulate:{own.name}",
            pin_memory=False,
            fused=False,
            compile=False,
            limits=own.limits if not own.compile else (*own.limits, ("compile", _NOT_COMPILED)),
        )
        self.emulation = Emulation(table, strict=strict, record=record, locate=record)

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

    @contextmanager
    def host(self) -> Iterator[None]:
        before, self.emulation.phase = self.emulation.phase, HOST
        try:
            yield
        finally:
            self.emulation.phase = before

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
