"""OpenVINO: a folder with the network and its suppression, whose loop OpenVINO keeps as a loop.

Converted by OpenVINO's own front end for TorchScript, and not by ``openvino.convert_model``, which is the
same front end behind a report to its maker over the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anyolo.errors import ExportError
from anyolo.export.base import (
    BOXES,
    DECODED,
    INPUT,
    NMS,
    AllOutputs,
    Arrays,
    Exportable,
    Images,
    WriteOptions,
    quiet,
)

NETWORK = "model.xml"
METADATA_KEY = "anyolo"
HIDDEN = tuple(f"decoded/{name}" for name in DECODED)
"""Names of the decoded maps inside a network that gives boxes: the front end uses the plain words itself."""
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
"""Left to itself it computes in bfloat16 where the processor can, and boxes move by pixels."""


class OpenVinoFormat:
    name = "openvino"
    suffix = "_openvino_model"
    requires = ("openvino",)
    abilities = frozenset({NMS, "dynamic"})
    remark = ""

    def write(self, model: Exportable, path: Path, options: WriteOptions) -> None:
        import openvino

        with quiet(), torch.no_grad():
            whole = AllOutputs(model).eval()
            traced = torch.jit.trace(whole, options.example, check_trace=False)  # type: ignore[no-untyped-call]
            network = _convert(traced)
        batch, channels, *size_hw = options.example.shape
        shape = (-1, channels, -1, -1) if options.is_dynamic else (batch, channels, *size_hw)
        source = network.inputs[0]
        source.get_node().set_partial_shape(openvino.PartialShape(list(shape)))
        source.get_tensor().set_names({INPUT})
        network.validate_nodes_and_infer_types()
        _name_outputs(network, gives_boxes=model.suppression is not None)
        network.set_rt_info(json.dumps(dict(options.metadata)), METADATA_KEY)
        path.mkdir()
        openvino.save_model(network, str(path / NETWORK), compress_to_fp16=False)

    def convolutions(self, path: Path) -> None:
        return None

    def open(self, path: Path, *, threads: int = 0) -> OpenVinoRunner:
        return OpenVinoRunner(path, threads)

    def calling_code(self, file_name: str) -> tuple[str, str]:
        place = f"{file_name}/{NETWORK}"
        compiled = f"openvino.Core().compile_model({place!r}, 'CPU', {EXACT})"
        return "openvino", f"{compiled}(images)[0]"


class OpenVinoRunner:
    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._settings: dict[str, Any] = dict(EXACT)
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._network = _read(path)
        self._compiled = self._compile(self._network)
        self._showing: Any = None
        inside = self._network.has_rt_info(METADATA_KEY)
        text = self._network.get_rt_info(METADATA_KEY).value if inside else ""
        self.metadata: Mapping[str, Any] = json.loads(text) if text else {}

    def run(self, images: Images) -> Arrays:
        return _run(self._compiled, images)

    def decoded(self, images: Images) -> Arrays | None:
        if BOXES not in self._compiled.outputs[0].get_names():
            return self.run(images)
        if self._showing is None:
            self._showing = self._show_decoded()
        return None if self._showing is None else _run(self._showing, images)[1:]

    def _show_decoded(self) -> Any:
        """The same network with its inner tensors as outputs too; None where they have no names."""
        network = self._network.clone()
        known = {name for op in network.get_ops() for out in op.outputs() for name in out.get_names()}
        names = [name for name in HIDDEN if name in known]
        if len(names) < 2:
            return None
        network.add_outputs(names)
        return self._compile(network)

    def _compile(self, network: Any) -> Any:
        import openvino

        try:
            return openvino.Core().compile_model(network, "CPU", self._settings)
        except RuntimeError as error:
            raise ExportError(f"OpenVINO cannot run it: {_reason(error)}", where=str(self._path)) from error


def _convert(traced: Any) -> Any:
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    front_end = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced)  # asked again while converting, so it has to live as long
    try:
        return front_end.convert(front_end.load(decoder))
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot express the model: {_reason(error)}") from error


def _name_outputs(network: Any, *, gives_boxes: bool) -> None:
    """The house's names. Where final boxes are given, nothing else is; the rest keeps its names inside."""
    outputs = list(network.outputs)
    for output, name in zip(outputs, (BOXES,) if gives_boxes else DECODED, strict=False):
        output.get_tensor().set_names({name})
    for output, name in zip(outputs[1:] if gives_boxes else (), HIDDEN, strict=False):
        output.get_node().input_value(0).get_tensor().add_names({name})  # an output takes its own name along
        network.remove_result(output.get_node())


def _read(path: Path) -> Any:
    import openvino

    place = path / NETWORK
    if not place.is_file() or b"<net" not in place.read_bytes()[:400]:  # other front ends would try, and log
        raise ExportError(f"no OpenVINO folder: {NETWORK} is missing or none of OpenVINO's", where=str(path))
    try:
        network = openvino.Core().read_model(str(place))
    except RuntimeError as error:
        raise ExportError(f"no network that OpenVINO can read: {_reason(error)}", where=str(place)) from error
    if not network.outputs:
        raise ExportError("no network that OpenVINO can read: it is empty", where=str(place))
    return network


def _run(compiled: Any, images: Images) -> Arrays:
    found = compiled([np.ascontiguousarray(images)])
    return tuple(np.array(found[place]) for place in range(len(compiled.outputs)))


def _reason(error: RuntimeError) -> str:
    """The last line that says something; those before it name places in OpenVINO's own sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


FORMAT = OpenVinoFormat()
