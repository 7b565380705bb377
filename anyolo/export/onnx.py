"""ONNX, written by the TorchScript based exporter (it keeps the suppression's loop), run by onnxruntime."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyolo import console
from anyolo.errors import ConfigError, ExportError
from anyolo.export.base import (
    BOXES,
    DECODED,
    INPUT,
    NMS,
    AllOutputs,
    Arrays,
    Exportable,
    FoldedConvolution,
    Images,
    WriteOptions,
    quiet,
)
from anyolo.export.onnx_weights import read_convolutions

OPSETS = range(12, 21)
DEFAULT_OPSET = 17
METADATA_KEY = "anyolo"
NUMPY_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


class OnnxFormat:
    name = "onnx"
    suffix = ".onnx"
    requires = ("onnx", "onnxruntime", "onnxslim")
    abilities = frozenset({NMS, "dynamic"})
    remark = ""

    def write(self, model: Exportable, path: Path, options: WriteOptions) -> None:
        import onnx

        opset = options.opset or DEFAULT_OPSET
        if opset not in OPSETS:
            raise ConfigError(
                f"opset={opset} cannot be written",
                where="opset",
                hint=f"Choose {OPSETS[0]} to {OPSETS[-1]}, or leave it out for {DEFAULT_OPSET}.",
            )
        try:
            graph = onnx.load_from_string(_trace(model, options, opset))
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ExportError(
                f"the ONNX exporter gave up: {reason}", hint="A higher opset= may help."
            ) from error
        _state_shapes(graph, model, options)
        if options.simplify:
            graph = _simplify(graph, options.example)
        _hide_decoded(graph)
        onnx.helper.set_model_props(graph, {METADATA_KEY: json.dumps(dict(options.metadata))})
        graph.producer_name = "anyolo"
        onnx.checker.check_model(graph, full_check=True)
        path.write_bytes(graph.SerializeToString())

    def convolutions(self, path: Path) -> list[FoldedConvolution] | None:
        return read_convolutions(path, ours=METADATA_KEY)

    def open(self, path: Path, *, threads: int = 0) -> OnnxRunner:
        return OnnxRunner(path, threads)

    def open_foreign(self, path: Path, *, threads: int = 0) -> ForeignOnnx:
        return ForeignOnnx(path, threads)

    def calling_code(self, file_name: str) -> tuple[str, str]:
        session = f"onnxruntime.InferenceSession({file_name!r}, providers=['CPUExecutionProvider'])"
        return "onnxruntime", f"{session}.run(None, {{{INPUT!r}: images}})[0]"


def _trace(model: Exportable, options: WriteOptions, opset: int) -> bytes:
    whole, buffer = AllOutputs(model), io.BytesIO()
    with quiet(), torch.no_grad():
        count = len(whole(options.example))
        names = list(DECODED[:count] if model.suppression is None else (BOXES, *DECODED[: count - 1]))
        axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: "points"} for name in names}
        axes[BOXES] = {0: "batch"}
        axes[INPUT] = {0: "batch", 2: "height", 3: "width"}
        torch.onnx.export(
            whole,
            (options.example,),
            buffer,  # type: ignore[arg-type]  # taken, and a full disk is then met by Python
            input_names=[INPUT],
            output_names=names,
            opset_version=opset,
            dynamic_axes={k: v for k, v in axes.items() if k in {INPUT, *names}}
            if options.is_dynamic
            else None,
            dynamo=False,
        )
    return buffer.getvalue()


def _state_shapes(graph: Any, model: Exportable, options: WriteOptions) -> None:
    """The exporter loses the shape of what went through a loop; runtimes and people want to know it."""
    if model.suppression is not None:
        batch = "batch" if options.is_dynamic else options.example.shape[0]
        output = next(o for o in graph.graph.output if o.name == BOXES)
        for place, size in enumerate((batch, model.suppression.max_det, 6)):
            axis = output.type.tensor_type.shape.dim[place]
            if isinstance(size, str):
                axis.dim_param = size
            else:
                axis.dim_value = size


def _hide_decoded(graph: Any) -> None:
    """Where final boxes are given, nothing else is; the decoded tensors keep their names inside."""
    outputs = list(graph.graph.output)
    if outputs[0].name == BOXES:
        del graph.graph.output[1:]
        graph.graph.value_info.extend(o for o in outputs[1:] if o.name not in _named(graph))


def _named(graph: Any) -> set[str]:
    return {value.name for value in graph.graph.value_info}


def _simplify(graph: Any, example: Tensor) -> Any:
    """The simplified graph, if it gives the same numbers as the graph it came from."""
    import onnx
    import onnxslim

    images = example.numpy()
    try:
        with quiet():
            slim = onnxslim.slim(onnx.ModelProto.FromString(graph.SerializeToString()))
        before, after = (_run(_session(g.SerializeToString()), images) for g in (graph, slim))
    except Exception as error:  # the simplifier raises whatever its passes happen to raise
        console.current().warn(f"the graph is left unsimplified: {type(error).__name__}: {error}")
        return graph
    if all(np.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(before, after, strict=True)):
        return slim
    console.current().warn("the graph is left unsimplified: its simplified form gave other numbers")
    return graph


def _session(model: str | bytes, threads: int = 0) -> Any:
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run(session: Any, images: Images, names: list[str] | None = None) -> Arrays:
    found: list[NDArray[np.float32]] = session.run(names, {session.get_inputs()[0].name: images})
    return tuple(found)


class OnnxRunner:
    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._session = _readable(path, lambda: _session(str(path), threads))
        self._showing: Any = None
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        self.metadata: Mapping[str, Any] = json.loads(text) if text else {}

    def run(self, images: Images) -> Arrays:
        return _run(self._session, images)

    def decoded(self, images: Images) -> Arrays | None:
        outputs = [output.name for output in self._session.get_outputs()]
        if outputs[0] != BOXES:
            return self.run(images)
        if self._showing is None:
            self._showing = self._show_decoded()
        return None if self._showing is None else _run(self._showing[0], images, self._showing[1])

    def _show_decoded(self) -> tuple[Any, list[str]] | None:
        """A session of the same file with its inner tensors as outputs too, and their names."""
        import onnx

        graph = _readable(self._path, lambda: onnx.load(str(self._path)))
        made = {name for node in graph.graph.node for name in node.output}
        names = [name for name in DECODED if name in made]
        if names != list(DECODED[: len(names)]) or len(names) < 2:
            return None
        graph.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
        )
        return _session(graph.SerializeToString(), self._threads), names


class ForeignOnnx:
    """Any file with one input."""

    def __init__(self, path: Path, threads: int) -> None:
        self._session = _readable(path, lambda: _session(str(path), threads))
        given = self._session.get_inputs()
        if len(given) != 1:
            names = ", ".join(f"{one.name} {one.shape}" for one in given)
            raise ExportError(f"takes {len(given)} inputs ({names}), not pictures alone", where=str(path))
        self.input_shape = tuple(side if isinstance(side, int) else -1 for side in given[0].shape)
        self.input_type = NUMPY_TYPES.get(given[0].type, given[0].type)

    def run(self, images: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        return tuple(self._session.run(None, {self._session.get_inputs()[0].name: images}))


def _readable(path: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        reason = str(error).partition("\n")[0]
        raise ExportError(f"no ONNX file that onnxruntime can run: {reason}", where=str(path)) from error


FORMAT = OnnxFormat()
