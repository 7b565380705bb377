"""Code of a folder that somebody hands over: run only if it says nothing but what a port needs to say.

The house executes no file of others (SECURITY.md). ``network.py`` and ``postprocess.py`` are programs, so
they are read as text first, and every statement, name and attribute of them must be in the closed vocabulary
below: arithmetic on arrays and tensors, and one ``np.load`` without pickles. There is no way from there to
files, processes or the interpreter.
"""

from __future__ import annotations

import ast
import builtins
import os
from importlib.abc import InspectLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from anyolo.errors import ExportError

_STATEMENTS: tuple[type[ast.AST], ...] = (
    *(ast.Module, ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AugAssign),
    *(ast.Return, ast.Expr, ast.If, ast.For, ast.While, ast.With, ast.withitem, ast.Pass),
    *(ast.arguments, ast.arg, ast.alias, ast.keyword, ast.comprehension, ast.expr_context),
    *(ast.Call, ast.Name, ast.Attribute, ast.Constant, ast.Subscript, ast.Slice, ast.IfExp),
    *(ast.Tuple, ast.List, ast.Dict, ast.ListComp, ast.DictComp),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
_IMPORTS = {
    *("os", "numpy as np", "torch", "torch.nn as nn", "torch.nn.functional as F"),
    *("typing.Dict", "typing.List", "typing.Tuple"),
}
_MODULES = {"os", "np", "torch", "nn", "F"}
# What a name of the vocabulary may be looked up on; an attribute that a model gives itself must be on none.
_REACHED = (os, os.path, np, np.ndarray, torch, torch.Tensor, nn, nn.Module, functional)
_BUILTINS = {"bool", "float", "int", "len", "max", "min", "range", "round", "str", "super", "__file__"}
# Of numpy, os.path and arrays, then of torch.
_ATTRIBUTES = {
    "abspath", "all", "append", "arange", "argmax", "argsort", "array", "ascontiguousarray", "astype",
    "broadcast_to", "clip", "concatenate", "dirname", "exp", "expand_dims", "files", "finfo", "flatnonzero",
    "float32", "floor", "full", "int64", "isfinite", "join", "max", "maximum", "minimum", "ndarray", "path",
    "reshape", "shape", "squeeze", "stack", "sum", "swapaxes", "take", "tiny", "transpose", "uint8", "zeros",
    "Conv2d", "Module", "avg_pool2d", "cat", "contiguous", "hardtanh", "interpolate", "leaky_relu",
    "max_pool2d", "mean", "permute", "relu", "sigmoid",
}  # fmt: skip


def load_code(path: Path, text: str) -> ModuleType:
    """A module of ``text``, the content of ``path``. Nothing is written and no module is registered.

    Raises:
        ExportError: it is no Python, or says something outside the vocabulary; names file and line.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise ExportError(f"no Python: {error}", where=str(path)) from error
    loads = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_plain_load(node)}
    for node in ast.walk(tree):
        if problem := _problem(node, loads):
            line = getattr(node, "lineno", 0)
            raise ExportError(
                f"{problem} is nothing that a network or its postprocessing needs",
                where=f"{path}:{line}",
                hint="This folder was not written by anyolo. Do not run its files before you have read them.",
            )
    spec = spec_from_loader(f"_anyolo_{path.stem}_{id(tree):x}", _Text(text), origin=str(path))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    module.__file__ = str(path)
    spec.loader.exec_module(module)
    return module


def _problem(node: ast.AST, loads: set[int]) -> str:
    """What is wrong with one node, or "". ``loads`` are the nodes ``np.load`` that are called harmlessly."""
    if not isinstance(node, _STATEMENTS):
        return f"'{type(node).__name__}'"
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.decorator_list:
        return "a decorator"
    if isinstance(node, ast.Import | ast.ImportFrom):
        return next((f"import {name}" for name in _imported(node) if name not in _IMPORTS), "")
    if isinstance(node, ast.Attribute) and id(node) not in loads and not _is_known(node):
        return f"the attribute {node.attr!r}"
    if isinstance(node, ast.Name) and not _is_free(node):
        return f"the name {node.id!r}"
    if isinstance(node, ast.arg) and node.arg in _MODULES:
        return f"the argument {node.arg!r}"
    return "" if not isinstance(node, ast.keyword) or node.arg else "'**'"


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    base = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    return [base + name.name + (f" as {name.asname}" if name.asname else "") for name in node.names]


def _is_known(node: ast.Attribute) -> bool:
    if isinstance(node.value, ast.Name) and node.value.id == "self":
        return not any(hasattr(thing, node.attr) for thing in _REACHED)
    is_super = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super"
    return node.attr in _ATTRIBUTES or (is_super and node.attr == "__init__")


def _is_free(node: ast.Name) -> bool:
    if node.id in _MODULES:
        return isinstance(node.ctx, ast.Load)
    return node.id in _BUILTINS or not (hasattr(builtins, node.id) or node.id.startswith("__"))


def _is_plain_load(call: ast.Call) -> bool:
    """``np.load(path, allow_pickle=False)`` and nothing else."""
    return (
        isinstance(call.func, ast.Attribute)
        and (call.func.attr, getattr(call.func.value, "id", "")) == ("load", "np")
        and len(call.args) == 1
        and [keyword.arg for keyword in call.keywords] == ["allow_pickle"]
        and isinstance(call.keywords[0].value, ast.Constant)
        and call.keywords[0].value.value is False
    )


class _Text(InspectLoader):
    def __init__(self, text: str) -> None:
        self._text = text

    def get_source(self, fullname: str) -> str:
        return self._text

    def is_package(self, fullname: str) -> bool:
        return False
