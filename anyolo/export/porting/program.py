"""A tape written as straight-line Python: one line for every step, names x0, x1, ... in order."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch.utils._pytree import tree_leaves

from anyolo.errors import ExportError
from anyolo.export.porting.tape import Step, Tape, Value


class Program:
    """Writes ``lines`` when made.

    ``forms`` maps an operator to its Python, with the operator's arguments and ``shape``, the result's, in
    braces; an argument that a form leaves out must have its default, or be in ``implied``. ``language`` is
    what errors call the whole.
    """

    forms: ClassVar[Mapping[str, str]]
    implied: ClassVar[frozenset[str]] = frozenset({"memory_format", "size"})
    language: ClassVar[str]

    def __init__(self, tape: Tape, inputs: Sequence[str]) -> None:
        self.tape = tape
        self.lines: list[str] = []
        self.used_forms: set[str] = set()
        self._names: dict[Value, str] = dict(zip(tape.inputs, inputs, strict=True))
        self._uses = Counter(tape.outputs)
        steps = []
        for step in reversed(tape.steps):
            if any(output in self._uses for output in step.outputs):
                self._uses.update(filter(_is_value, tree_leaves(dict(step.arguments))))
                steps.append(step)
        for step in reversed(steps):
            self.write(step)

    @property
    def results(self) -> str:
        return ", ".join(self.name(value) for value in self.tape.outputs)

    def name(self, value: Value) -> str:
        return self._names[value] if value in self._names else self.constant(value)

    def constant(self, value: Value) -> str:
        """An expression for a tensor that no step made."""
        raise NotImplementedError

    def write(self, step: Step) -> None:
        parts = list(_parts(step))
        if not parts:
            self.assign(step.outputs[0], self.expression(step))
        for output, part in zip(step.outputs, parts, strict=False):
            self.assign(output, f"{self.name(step.arguments['self'])}[{part}]")

    def assign(self, value: Value, expression: str) -> None:
        if self._uses[value]:
            self._names[value] = f"x{len(self.lines)}"
            self.lines.append(f"{self._names[value]} = {expression}  # {_shown(value.shape)}")

    def inline(self, value: Value, expression: str) -> None:
        """Without a line of its own where only one step reads it."""
        if self._uses[value] == 1 and value not in self.tape.outputs:
            self._names[value] = expression
        else:
            self.assign(value, expression)

    def expression(self, step: Step) -> str:
        form = self.forms.get(step.operator)
        if form is None:
            raise self.refusal(step, "")
        named = {name for _, name, _, _ in string.Formatter().parse(form) if name}
        for name in step.arguments.keys() - named - step.defaults - self.implied:
            if step.arguments[name] not in (None, False):
                raise self.refusal(step, f" with {name}={step.arguments[name]}")
        self.used_forms.add(step.operator)
        arguments = {name: self.shown(value) for name, value in step.arguments.items()}
        return form.format(**arguments, shape=step.outputs[0].shape)

    def shown(self, argument: Any) -> str:
        if _is_value(argument):
            return self.name(argument)
        if isinstance(argument, list | tuple):
            if any(map(_is_value, argument)):
                return f"[{', '.join(map(self.shown, argument))}]"
            return repr(tuple(argument))
        return repr(argument)

    def refusal(self, step: Step, how: str) -> ExportError:
        return ExportError(
            f"the operator {step.operator}{how} has no counterpart in {self.language}",
            hint="Another activation=, or a model without it, can be exported.",
        )


def _is_value(thing: Any) -> bool:
    return isinstance(thing, Value)


def _shown(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "number"


def _parts(step: Step) -> Iterator[str]:
    """The index of every output, for operators that cut: written as slices, which every framework has."""
    arguments = step.arguments
    if step.operator in {"split_with_sizes", "split.Tensor"}:
        start, dim = 0, arguments["dim"] % len(arguments["self"].shape)
        for output in step.outputs:
            end = start + output.shape[dim]
            yield _index(dim, f"{start}:{end}")
            start = end
    elif step.operator == "unbind.int":
        dim = arguments["dim"] % len(arguments["self"].shape)
        yield from (_index(dim, str(place)) for place in range(len(step.outputs)))
    elif step.operator == "select.int":
        yield _index(arguments["dim"] % len(arguments["self"].shape), str(arguments["index"]))
    elif step.operator == "slice.Tensor":
        shape, dim = arguments["self"].shape, arguments["dim"] % len(arguments["self"].shape)
        start = arguments["start"] or 0
        end = shape[dim] if arguments["end"] is None else min(arguments["end"], shape[dim])
        stride = "" if arguments["step"] == 1 else f":{arguments['step']}"
        yield _index(dim, f"{start}:{end}{stride}")


def _index(dim: int, part: str) -> str:
    return ", ".join([":"] * dim + [part])


def float32(tensor: torch.Tensor, program: str) -> torch.Tensor:
    """A plain float32 copy on the host, for a file."""
    if not tensor.is_floating_point():
        raise ExportError(f"a constant of type {tensor.dtype} has no place in {program}")
    return tensor.detach().to("cpu", torch.float32).contiguous().clone()
