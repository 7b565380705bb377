"""What a backend's operators can do, as data: a native list and rules with their sources.

``OperatorTable`` answers for one call what the backend would do with it. The facts lie in ``facts/*.json``;
a rule's ``when`` is a closed vocabulary (``PREDICATES``), so that facts stay data.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload

FACTS = Path(__file__).with_name("facts")

Verdict = Literal["native", "fallback", "unsupported", "unknown"]
VERDICTS: tuple[Verdict, ...] = ("native", "unknown", "fallback", "unsupported")
_ERRORS: dict[str, type[Exception]] = {
    "RuntimeError": RuntimeError,
    "TypeError": TypeError,
    "NotImplementedError": NotImplementedError,
}
# Every backend must have these to hold a tensor at all; lists name them differently or not.
_MEMORY = frozenset(
    {
        "empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "copy_", "_to_copy",
        "_copy_from", "resize_", "set_", "detach", "detach_", "alias", "lift", "lift_fresh", "clone",
        "_local_scalar_dense", "is_pinned", "_pin_memory", "item",
    }
)  # fmt: skip
# torch chooses each backend's convolution by hand: the names under which lists carry it.
_CHOSEN = {
    "aten::convolution": {
        "aten::convolution_overrideable", "aten::_convolution", "aten::_mps_convolution",
    },
    "aten::convolution_backward": {
        "aten::convolution_backward_overrideable", "aten::mps_convolution_backward",
    },
}  # fmt: skip
# The functional and in-place forms of these are a call of the out form.
_OF_OUT_FORM = torch._C.DispatchKey.CompositeExplicitAutogradNonFunctional
# In the dispatcher's order of preference for a device without a kernel of its own.
_COMPOSITE_KEYS = (
    "CompositeImplicitAutograd",
    "CompositeExplicitAutogradNonFunctional",
    "CompositeExplicitAutograd",
)


class Judgement(NamedTuple):
    """What the backend does with one call. ``message`` is its own text where it has one."""

    verdict: Verdict
    message: str = ""
    error: type[Exception] = RuntimeError
    source: str = ""

    def raised(self) -> Exception:
        return self.error(self.message)


NATIVE = Judgement("native")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRule:
    """Operators (shell patterns of schema names) that, ``when`` all predicates hold, fail or fall back.

    ``severity``: ``error`` raises ``message`` as ``error``, ``broken`` gives wrong results in silence,
    ``fallback`` runs on the CPU. ``confidence`` says how it is known: hardware, disasm (read out of the
    shipped binary), source, report (of a user), inferred.
    """

    operators: tuple[str, ...]
    severity: Literal["error", "broken", "fallback"]
    message: str = ""
    when: Mapping[str, Any] = field(default_factory=dict)
    error: str = "RuntimeError"
    source: str = ""
    confidence: Literal["hardware", "disasm", "source", "report", "inferred"] = "inferred"

    def __post_init__(self) -> None:
        unknown = set(self.when) - set(PREDICATES)
        if unknown or self.error not in _ERRORS:
            raise ValueError(f"rule for {self.operators}: unknown {unknown or self.error}")

    @property
    def condition(self) -> str:
        """``when`` in words: ``return_counts=True``; "" for always."""
        return ", ".join(_WORDS[word](setting) for word, setting in self.when.items())

    def matches(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.operators)

    def applies(self, values: Mapping[str, Any]) -> bool:
        """``values``: the call's arguments by schema name, defaults included."""
        return all(PREDICATES[word](values, setting) for word, setting in self.when.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTable:
    """All that is known of a backend's operators.

    ``native`` None means that no list was published: what no rule names is then ``unknown``. ``unlisted``
    says what happens to an operator that a published list lacks and that is not made of others.
    """

    backend: str
    source: str = ""
    native: frozenset[str] | None = None
    unlisted: Literal["fallback", "unsupported"] = "fallback"
    unlisted_message: str = "{op} is not implemented for this backend"
    denied_dtypes: Mapping[torch.dtype, str] = field(default_factory=dict)
    rules: tuple[OperatorRule, ...] = ()
    _known: dict[str, tuple[Judgement | None, tuple[OperatorRule, ...]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def load(cls, path: Path) -> OperatorTable:
        """Read one of ``facts/*.json``; raises ValueError for words that it does not know."""
        facts = json.loads(path.read_text(encoding="utf-8"))
        native = facts.pop("native")
        rules = tuple(
            OperatorRule(**{**rule, "operators": tuple(rule["operators"])}) for rule in facts.pop("rules", [])
        )
        denied = {getattr(torch, name): text for name, text in facts.pop("denied_dtypes", {}).items()}
        return cls(
            native=None if native is None else frozenset(map(_with_library, native)),
            rules=rules,
            denied_dtypes=denied,
            **facts,
        )

    def judge(self, func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Judgement | None:
        """What happens to this call; None for an operator that is made of others, to be judged by those."""
        name = full_name(func)
        if name not in self._known:
            self._known[name] = self._status(func, name)
        status, rules = self._known[name]
        if rules:
            values = bind(func, args, kwargs)
            for rule in rules:
                if rule.applies(values):
                    verdict: Verdict = "fallback" if rule.severity == "fallback" else "unsupported"
                    text = rule.message or self.unlisted_message.format(op=name)
                    return Judgement(verdict, text, _ERRORS[rule.error], rule.source)
        return status

    def judge_dtypes(self, values: Sequence[Any]) -> Judgement | None:
        """Unsupported where a tensor among ``values`` has a type the backend lacks (numbers on the host
        apart).
        """
        if not self.denied_dtypes:
            return None
        for value in values:
            if isinstance(value, Tensor) and value.dtype in self.denied_dtypes and value.dim() > 0:
                return Judgement("unsupported", self.denied_dtypes[value.dtype], TypeError, self.source)
        return None

    def lacks(self, name: str) -> bool:
        """Whether ``lerp.Scalar`` and the like would not run natively whatever their arguments. Of operators
        that are made of several others nothing is said: False.
        """
        packet, _, overload = name.partition(".")
        func = getattr(getattr(torch.ops.aten, packet), overload or "default")
        status, rules = self._status(func, full_name(func))
        if status is None and (out := out_form(func)) is not None:
            status, more = self._status(out, full_name(out))
            rules += more
        is_ruled_out = any(not rule.when for rule in rules)
        return is_ruled_out or (status is not None and status.verdict in {"fallback", "unsupported"})

    def _status(self, func: OpOverload, name: str) -> tuple[Judgement | None, tuple[OperatorRule, ...]]:
        schema = func._schema.name
        rules = tuple(rule for rule in self.rules if rule.matches(schema) or rule.matches(name))
        if self.native is not None and name in self.native:
            return NATIVE, rules
        if not schema.startswith("aten::"):
            return Judgement("unknown", "an operator of another library than torch"), rules
        if schema.partition("::")[2] in _MEMORY or _is_view(func):
            return NATIVE, rules
        key = composite_key(func)
        # torch's own way of making it of others comes before another spelling of the backend's
        if schema in _CHOSEN:
            key = None
        if key is not None and key != _OF_OUT_FORM:
            return None, rules
        if self.native is not None and not self.native.isdisjoint(_spellings(func)):
            return NATIVE, rules
        if key is not None:
            return None, rules
        if self.native is None:
            return Judgement("unknown"), rules
        message = self.unlisted_message.format(op=name)
        return Judgement(self.unlisted, message, NotImplementedError, self.source), rules


def _with_library(name: str) -> str:
    return name if "::" in name else f"aten::{name}"


def full_name(func: OpOverload) -> str:
    """``aten::add.Tensor``; the default overload has no suffix."""
    overload = func._schema.overload_name
    return f"{func._schema.name}.{overload}" if overload else str(func._schema.name)


def composite_key(func: OpOverload) -> Any:
    """The dispatcher's key under which torch builds ``func`` of other operators, or None."""
    for key in _COMPOSITE_KEYS:
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key):  # type: ignore[no-untyped-call]
            return getattr(torch._C.DispatchKey, key)
    return None


def bind(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by schema name, defaults included."""
    values: dict[str, Any] = {}
    for place, argument in enumerate(func._schema.arguments):
        if place < len(args):
            values[argument.name] = args[place]
        elif argument.name in kwargs:
            values[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            values[argument.name] = argument.default_value
    return values


def _is_view(func: OpOverload) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


def _spellings(func: OpOverload) -> set[str]:
    """Names of a list that mean ``func``. Its functional, in-place and out forms are one kernel, but an out
    form stands for the others only where torch sends them there: elsewhere they are made of other operators
    (the list of DirectML has ``binary_cross_entropy_with_logits.out``, and the loss never gets there).
    """
    schema, overload = str(func._schema.name), str(func._schema.overload_name)
    names = {full_name(func), *_CHOSEN.get(schema, ())}
    stem = overload.removesuffix("_out") if overload != "out" else ""
    for base in (_root(schema), f"{_root(schema)}_"):
        names.add(f"{base}.{stem}" if stem else base)
    if (out := out_form(func)) is not None:
        names.add(full_name(out))
    return names


def out_form(func: OpOverload) -> OpOverload | None:
    """``mul.out`` for ``mul.Tensor`` and ``mul_.Tensor``, where torch makes these of that (structured
    operators); None elsewhere.
    """
    if composite_key(func) != _OF_OUT_FORM:
        return None
    wanted = [(a.name, str(a.type)) for a in func._schema.arguments]
    packet = getattr(torch.ops.aten, _root(str(func._schema.name)).removeprefix("aten::"))
    for overload in packet.overloads():
        form: OpOverload = getattr(packet, overload)
        read = [(a.name, str(a.type)) for a in form._schema.arguments if not a.is_out]
        if read == wanted and len(read) < len(form._schema.arguments):
            return form
    return None


def _root(schema: str) -> str:
    """The functional name of an in-place one."""
    return schema[:-1] if schema.endswith("_") and not schema.endswith("__") else schema


def _scatter_shape(values: Mapping[str, Any], _: Any) -> bool:
    """Index and input differ in an axis other than ``dim``; a negative ``dim`` excludes no axis."""
    own, index, dim = values["self"], values["index"], values["dim"]
    if own.dim() != index.dim():
        return True
    return any(own.shape[axis] != index.shape[axis] for axis in range(own.dim()) if axis != dim)


def _shapes_differ(values: Mapping[str, Any], names: Sequence[str]) -> bool:
    first, second = (values.get(name) for name in names)
    return isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape != second.shape


def _repeats_index(values: Mapping[str, Any], _: Any) -> bool:
    index, dim = values["index"], values["dim"]
    if index.dim() == 0 or index.numel() == 0:
        return False
    ordered = index.detach().cpu().sort(dim=dim).values
    return bool((ordered.diff(dim=dim) == 0).any())


def _mixes_bool(values: Mapping[str, Any], _: Any) -> bool:
    tensors = [value for value in values.values() if isinstance(value, Tensor)]
    return len({tensor.dtype == torch.bool for tensor in tensors}) == 2


def _writes_part(values: Mapping[str, Any], _: Any) -> bool:
    """The result goes into a part of a larger tensor: ``x[:, :2] = y``."""
    own = values["self"]
    return bool(own.untyped_storage().nbytes() > own.numel() * own.element_size())


def _has_dtype(values: Mapping[str, Any], names: Sequence[str]) -> bool:
    return str(values["self"].dtype).removeprefix("torch.") in names


def _mixes_signs(values: Mapping[str, Any], name: str) -> bool:
    numbers = values[name]
    return any(number < 0 for number in numbers) and any(number > 0 for number in numbers)


def _in_inference_mode(values: Mapping[str, Any], _: Any) -> bool:
    return torch.is_inference_mode_enabled()


PREDICATES: dict[str, Callable[[Mapping[str, Any], Any], bool]] = {
    "equal": lambda values, wanted: all(values.get(name) == value for name, value in wanted.items()),
    "given": lambda values, name: values.get(name) is not None,
    "longer": lambda values, limits: any(len(values[name]) > limit for name, limit in limits.items()),
    "self_dtype": _has_dtype,
    "mixes_bool": _mixes_bool,
    "mixes_signs": _mixes_signs,
    "shapes_differ": _shapes_differ,
    "scatter_shape": _scatter_shape,
    "repeats_index": _repeats_index,
    "writes_part": _writes_part,
    "inference_mode": _in_inference_mode,
}
# The same for people.
_WORDS: dict[str, Callable[[Any], str]] = {
    "equal": lambda wanted: ", ".join(f"{name}={value}" for name, value in wanted.items()),
    "given": lambda name: f"{name} is given",
    "longer": lambda limits: ", ".join(f"more than {limit} {name}" for name, limit in limits.items()),
    "self_dtype": lambda names: f"the tensor is {' or '.join(names)}",
    "mixes_bool": lambda _: "bool meets another type",
    "mixes_signs": lambda name: f"{name} has both signs",
    "shapes_differ": lambda names: f"{' and '.join(names)} differ in shape",
    "scatter_shape": lambda _: "index and tensor differ beside dim, or anywhere if dim is negative",
    "repeats_index": lambda _: "an index is repeated",
    "writes_part": lambda _: "it writes to a part of a tensor",
    "inference_mode": lambda _: "torch.inference_mode is on",
}
