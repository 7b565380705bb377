"""The way from raw maps to boxes and scores, in numpy: what the model's ``decode`` does, step for step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from anyolo.export.porting.program import Program, float32
from anyolo.export.porting.tape import Tape, Value

SMALL = 32
"""Numbers of a constant that still stand in the text; larger ones go into a file."""


class DecodeProgram(Program):
    """``arrays`` are the larger constants, the grids of cell centres among them."""

    language = "numpy"
    forms: ClassVar[Mapping[str, str]] = {
        "permute": "np.transpose({self}, {dims})",
        "transpose.int": "np.swapaxes({self}, {dim0}, {dim1})",
        "view": "np.reshape({self}, {shape})",
        "_unsafe_view": "np.reshape({self}, {shape})",
        "expand": "np.broadcast_to({self}, {shape})",
        "unsqueeze": "np.expand_dims({self}, {dim})",
        "squeeze.dim": "np.squeeze({self}, {dim})",
        "clone": "{self}",
        "cat": "np.concatenate({tensors}, {dim})",
        "stack": "np.stack({tensors}, {dim})",
        "sigmoid": "sigmoid({self})",
        "_softmax": "softmax({self}, {dim})",
        "exp": "np.exp({self})",
        "add.Tensor": "{self} + {other}",
        "sub.Tensor": "{self} - {other}",
        "rsub.Scalar": "{other} - {self}",
        "mul.Tensor": "{self} * {other}",
        "div.Tensor": "{self} / {other}",
        "pow.Tensor_Scalar": "{self} ** {exponent}",
        "sum.dim_IntList": "np.sum({self}, {dim}, keepdims={keepdim})",
        "clamp": "np.clip({self}, {min}, {max})",
    }

    def __init__(self, tape: Tape) -> None:
        self.arrays: dict[str, NDArray[np.float32]] = {}
        super().__init__(tape, [f"levels[{number}]" for number in range(len(tape.inputs))])

    def constant(self, value: Value) -> str:
        array: NDArray[np.float32] = float32(self.tape.constants[value], self.language).numpy()
        if array.size <= SMALL:
            numbers = ", ".join(repr(float(number)) for number in array.flatten())
            expression = f"np.array([{numbers}], np.float32)"
            if array.ndim != 1:
                expression = f"np.reshape({expression}, {array.shape})"
        else:
            name = f"c{len(self.arrays)}"
            self.arrays[name] = array
            expression = f'ARRAYS["{name}"]'
        self._names[value] = expression
        return expression

    def text(self) -> str:
        lines = "\n".join(f"    {line}" for line in self.lines)
        return (
            "def decode(levels):\n"
            '    """Raw maps, finest first, to boxes x1 y1 x2 y2 in input pixels, class scores in 0..1 and,\n'
            '    where the model has one, objectness in 0..1."""\n'
            f"{lines}\n"
            f"    return {self.results}\n"
        )
