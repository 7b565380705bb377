"""The weights inside other programs' ONNX files, by their place in the graph: names mean nothing there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyolo.errors import ExportError
from anyolo.export.base import FoldedConvolution

LARGEST_BYTES = 1 << 30  # the largest published detector has 400 MB


def read_convolutions(path: Path, *, ours: str) -> list[FoldedConvolution] | None:
    """The convolutions as the outputs, in order, ask for them: what one reads comes before it.

    None for a file with the property ``ours``.

    Raises:
        ExportError: no ONNX file, weights in other files or computed in the graph, or no convolution.
    """
    import onnx

    if path.stat().st_size > LARGEST_BYTES:
        raise ExportError(f"larger than {LARGEST_BYTES >> 20} MB", where=str(path))
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's exceptions share no base but Exception
        raise ExportError(f"no ONNX file: {type(error).__name__}", where=str(path)) from error
    if any(entry.key == ours for entry in model.metadata_props):
        return None
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found = [
        FoldedConvolution(
            weight=_array(constants, node.input[1], path),
            bias=_array(constants, node.input[2], path) if len(node.input) > 2 else _zeros(constants, node),
        )
        for node in _demanded(graph, makers)
        if node.op_type == "Conv"
    ]
    if not found:
        raise ExportError("no convolution in it", where=str(path))
    return found


def _demanded(graph: Any, makers: Mapping[str, Any]) -> list[Any]:
    """Nodes that the outputs need, depth first, inputs in order."""
    found, seen = [], set()
    waiting = [(output.name, False) for output in reversed(graph.output)]
    while waiting:
        name, is_done = waiting.pop()
        node = makers.get(name)
        if is_done:
            found.append(node)
        elif node is not None and node.output[0] not in seen:
            seen.add(node.output[0])
            waiting.append((name, True))
            waiting += [(before, False) for before in reversed(node.input)]
    return found


def _array(constants: Mapping[str, Any], name: str, path: Path) -> NDArray[np.float32]:
    from onnx import TensorProto, numpy_helper

    tensor = constants.get(name)
    plain = (TensorProto.FLOAT, TensorProto.FLOAT16)
    if tensor is None or tensor.data_location == TensorProto.EXTERNAL or tensor.data_type not in plain:
        raise ExportError(
            f"the weights {name[:80]!r} are no plain numbers of the file",
            where=str(path),
            hint="Export it again with its weights inside, in float32.",
        )
    try:
        return numpy_helper.to_array(tensor).astype(np.float32)
    except ValueError as error:
        raise ExportError(f"the weights {name[:80]!r} are damaged: {error}", where=str(path)) from error


def _zeros(constants: Mapping[str, Any], node: Any) -> NDArray[np.float32]:
    tensor = constants.get(node.input[1])
    return np.zeros(tensor.dims[0] if tensor is not None and tensor.dims else 0, np.float32)
