"""``network.py``: the network up to its raw maps, in Python 3.5 and PyTorch 1.3, with every size fixed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from anyolo.errors import ExportError
from anyolo.export.porting.program import Program, float32
from anyolo.export.porting.tape import Step, Tape, Value

# Functions that PyTorch 1.3 lacks, written with operators that every backend has.
_HELPERS = {
    "silu": "    return x * torch.sigmoid(x)",
    "hardsigmoid": "    return F.hardtanh(x + 3.0, 0.0, 6.0) * (1.0 / 6.0)",
    "hardswish": "    return x * (F.hardtanh(x + 3.0, 0.0, 6.0) * (1.0 / 6.0))",
}

_TEXT = '''"""{title}

Input: {input}, float32, as postprocess.prepare makes it.
Output: the raw maps of the head, {outputs}.
postprocess.py makes boxes of them on the host. Written by anyolo; {convolutions} convolutions, no loop, no
shape that depends on data. Plain PyTorch 1.3 and Python 3.5.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

INPUT_SHAPE = {shape}

{helpers}
class Network(nn.Module):
    def __init__(self):
        super(Network, self).__init__()
{declarations}

    def forward(self, images):
{lines}
        return {results}
'''


class NetworkProgram(Program):
    """``names`` are those of the model's tensors, by ``id``; the weights of ``model.0.conv`` become those of
    the attribute ``model_0_conv``.
    """

    language = "PyTorch 1.3"
    forms: ClassVar[Mapping[str, str]] = {
        "silu": "silu({self})",
        "hardswish": "hardswish({self})",
        "hardsigmoid": "hardsigmoid({self})",
        "sigmoid": "torch.sigmoid({self})",
        "relu": "F.relu({self})",
        "leaky_relu": "F.leaky_relu({self}, {negative_slope})",
        "hardtanh": "F.hardtanh({self}, {min_val}, {max_val})",
        "add.Tensor": "{self} + {other}",
        "mul.Tensor": "{self} * {other}",
        "cat": "torch.cat({tensors}, {dim})",
        "mean.dim": "torch.mean({self}, {dim}, {keepdim})",
        "max_pool2d_with_indices": "F.max_pool2d({self}, {kernel_size}, {stride}, {padding})",
        "avg_pool2d": "F.avg_pool2d({self}, {kernel_size}, {stride}, {padding})",
        "upsample_nearest2d": 'F.interpolate({self}, size={output_size}, mode="nearest")',
        "view": "{self}.reshape({shape})",
        "_unsafe_view": "{self}.reshape({shape})",
        "transpose.int": "{self}.transpose({dim0}, {dim1})",
        "permute": "{self}.permute({dims})",
        "clone": "{self}.contiguous()",
    }

    # whole factors, as the blocks of the house have them, follow from the sizes
    implied = Program.implied | {"scales_h", "scales_w"}

    def __init__(self, tape: Tape, names: Mapping[int, str]) -> None:
        self.weights: OrderedDict[str, Tensor] = OrderedDict()
        self._declarations: dict[str, str] = {}
        self._tensor_names = names
        super().__init__(tape, ["images"])

    def constant(self, value: Value) -> str:
        raise ExportError("a constant that is no weight of a convolution has no counterpart in PyTorch 1.3")

    def write(self, step: Step) -> None:
        if step.operator == "convolution":
            self.inline(step.outputs[0], self._convolution(step))
        else:
            super().write(step)

    def text(self, title: str) -> str:
        shape = self.tape.inputs[0].shape
        helpers = [
            f"\ndef {name}(x):\n{body}\n\n" for name, body in _HELPERS.items() if name in self.used_forms
        ]
        return _TEXT.format(
            title=title,
            input=" x ".join(map(str, shape)),
            outputs=", ".join("x".join(map(str, value.shape)) for value in self.tape.outputs),
            convolutions=len(self._declarations),
            shape=shape,
            helpers="".join(helpers),
            declarations="\n".join(f"        self.{n} = {made}" for n, made in self._declarations.items()),
            lines="\n".join(f"        {line}" for line in self.lines),
            results=self.results,
        )

    def _convolution(self, step: Step) -> str:
        arguments = step.arguments
        weight, bias = self._tensor(arguments["weight"]), self._tensor(arguments["bias"])
        if weight is None or arguments["transposed"]:
            raise self.refusal(step, " with computed weights" if weight is None else " transposed")
        own = self._tensor_names.get(id(weight), "").removesuffix(".weight")
        name = own.replace(".", "_") or f"convolution_{len(self._declarations)}"
        made = _declaration(weight, bias, arguments)
        if self._declarations.setdefault(name, made) != made:
            raise self.refusal(step, f" of {own} with two settings")
        self.weights[f"{name}.weight"] = float32(weight, self.language)
        if bias is not None:
            self.weights[f"{name}.bias"] = float32(bias, self.language)
        return f"self.{name}({self.name(arguments['input'])})"

    def _tensor(self, argument: Any) -> Tensor | None:
        return self.tape.constants.get(argument) if isinstance(argument, Value) else None


def _declaration(weight: Tensor, bias: Tensor | None, arguments: Mapping[str, Any]) -> str:
    c_out, c_in = weight.shape[0], weight.shape[1] * arguments["groups"]
    words = [str(c_in), str(c_out), str(tuple(weight.shape[2:]))]
    for name, plain in (("stride", 1), ("padding", 0), ("dilation", 1)):
        if any(number != plain for number in arguments[name]):
            words.append(f"{name}={tuple(arguments[name])}")
    if arguments["groups"] != 1:
        words.append(f"groups={arguments['groups']}")
    if bias is None:
        words.append("bias=False")
    return f"nn.Conv2d({', '.join(words)})"
