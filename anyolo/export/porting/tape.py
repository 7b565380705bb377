"""What a function of tensors does, as the list of operators it calls: from it programs are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from anyolo.errors import ExportError


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor on a tape."""

    number: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One call. ``operator`` is the name without ``aten::`` (``convolution``, ``add.Tensor``).

    ``arguments`` are all of the schema by name, tensors as Values; ``defaults`` names those that have the
    schema's default value.
    """

    operator: str
    arguments: Mapping[str, Any]
    defaults: frozenset[str]
    outputs: tuple[Value, ...]


@dataclass(slots=True)
class Tape:
    """``constants`` are tensors that were read and do not depend on the inputs, weights among them."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...] = ()
    steps: list[Step] = field(default_factory=list)
    constants: dict[Value, Tensor] = field(default_factory=dict)


def record(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Tape:
    """Call ``function`` with ``inputs`` and note what it does to them.

    What is computed of constants alone becomes a constant itself. Shapes are those of the inputs given.

    Raises:
        ExportError: a tensor is changed in place, or a result does not come of the inputs.
    """
    recorder = _Recorder()
    tape = Tape(tuple(recorder.value_of_new(tensor) for tensor in inputs))
    recorder.tape = tape
    with torch.no_grad(), recorder:
        results = function(*inputs)
    tape.outputs = tuple(recorder.value(tensor) for tensor in results)
    if not tape.constants.keys().isdisjoint(tape.outputs):
        raise ExportError("a result of the model does not depend on its input")
    return tape


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    tape: Tape

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known: Any = WeakIdKeyDictionary()  # tensors live as long as the function itself keeps them
        self._count = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Otherwise the first call imports torch's compiler, which takes six seconds."""
        return False

    def value_of_new(self, tensor: Tensor) -> Value:
        found = Value(self._count, tuple(tensor.shape))
        self._count += 1
        self._known[tensor] = found
        return found

    def value(self, tensor: Tensor) -> Value:
        """The value of a tensor; one that no step made is a constant."""
        found: Value | None = self._known.get(tensor)
        if found is None:
            found = self.value_of_new(tensor)
            self.tape.constants[found] = tensor
        return found

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(self._is_computed(leaf) for leaf in tree_leaves((args, kwargs))):
            self._note(func, args, kwargs, result)
        return result

    def _is_computed(self, leaf: Any) -> bool:
        if not isinstance(leaf, Tensor):
            return False
        found = self._known.get(leaf)
        return found is not None and found not in self.tape.constants

    def _note(self, func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        arguments, defaults = {}, set()
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                raise ExportError(f"{func} changes a tensor in place, which cannot be written as a program")
            default = argument.default_value if argument.has_default_value() else ...
            value = args[place] if place < len(args) else kwargs.get(argument.name, default)
            arguments[argument.name] = tree_map(self._plain, value)
            if default is not ... and not isinstance(value, Tensor) and value == default:
                defaults.add(argument.name)
        outputs = tuple(self.value_of_new(t) for t in tree_leaves(result) if isinstance(t, Tensor))
        name = str(func).removeprefix("aten.").removesuffix(".default")
        self.tape.steps.append(Step(name, arguments, frozenset(defaults), outputs))

    def _plain(self, leaf: Any) -> Any:
        return self.value(leaf) if isinstance(leaf, Tensor) else leaf
