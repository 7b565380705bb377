"""A folder for the MLU270 and later Cambricon cards: the network in plain PyTorch 1.3, its host side in
numpy, integer scales, and scripts with the vendor's calls.

The folder runs as it is in any PyTorch from 1.3 on, and is proved that way: reopened, compared with the
model, and its network run under the rules of every backend of that vendor. The vendor's scripts cannot be run
here and say so.
"""

from __future__ import annotations

import io
import json
import pprint
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anyolo import console
from anyolo.config.schema import ExportConfig
from anyolo.devices import DEVICES, emulate
from anyolo.errors import ExportError
from anyolo.export.base import NMS, Arrays, Decoded, Exportable, Images, Suppression, WriteOptions
from anyolo.export.porting import quantisation, text_of
from anyolo.export.porting.decode_code import DecodeProgram
from anyolo.export.porting.network_code import NetworkProgram
from anyolo.export.porting.tape import record
from anyolo.export.porting.vetting import load_code
from anyolo.structures import HeadOutput, Preprocess

NETWORK, WEIGHTS, HOST, ARRAYS = "network.py", "weights.pth", "postprocess.py", "constants.npz"
READ = (NETWORK, WEIGHTS, HOST, ARRAYS)
"""What ``open`` reads and runs."""
SCRIPTS = ("detect.py", "calibrate.py", "port_mlu270.py", "port_mlu370.py")
VARIANTS = ((8, False), (8, True), (16, False))
"""Bits, and whether the weights have a scale for every output channel."""


class MLU270Format:
    name = "mlu270"
    suffix = "_mlu270"
    requires = ("torch", "numpy")
    abilities = frozenset({NMS, "int8"})
    remark = (
        "network.py and postprocess.py were run and compared; port_mlu270.py and port_mlu370.py hold "
        "Cambricon's own calls, which cannot be run without Cambricon's software: see README.md in the folder"
    )

    def write(self, model: Exportable, path: Path, options: WriteOptions) -> None:
        decoded = model.decoded
        assert isinstance(decoded, Decoded)
        path.mkdir()
        _write_programs(path, decoded, options, model.suppression)
        for name in SCRIPTS:
            _write_text(path / name, text_of(f"{name}.txt"))
        _write_text(path / "quantisation.py", text_of("quantisation.py"))
        network, host = _load_network(path), load_code(path / HOST, (path / HOST).read_text(encoding="utf-8"))
        inputs = host.normalised(options.example.numpy())
        facts: dict[str, Any] = {
            **options.metadata,
            "network": {
                "input": {"dtype": "float32", "shape": list(inputs.shape), "made_by": f"{HOST}: normalised"},
                "raw_maps": [list(level.shape) for level in quantisation.run(network, inputs)],
            },
            "emulation": {profile: _proved(network, inputs, profile) for profile in _profiles(self.name)},
            "not_run": "port_*.py: with stand-ins only, for want of Cambricon's software and cards",
            "quantisation": _quantised(path, network, host, options.calibration),
            "files": {name: _digest(path / name) for name in READ},
        }
        _write_text(path / "manifest.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        _write_text(path / "README.md", _readme(facts, bool(options.calibration)))

    def convolutions(self, path: Path) -> None:
        return None

    def open(self, path: Path, *, threads: int = 0) -> MLU270Runner:
        if threads:
            torch.set_num_threads(threads)
        return MLU270Runner(path)

    def calling_code(self, file_name: str) -> tuple[str, str]:
        return "runpy", f"runpy.run_path({file_name + '/detect.py'!r})['detect'](images)"


class MLU270Runner:
    """Runs the folder's own network and postprocessing, once their hashes and their words were checked."""

    def __init__(self, path: Path) -> None:
        self.metadata = _checked_manifest(path)
        self._host = load_code(path / HOST, (path / HOST).read_text(encoding="utf-8"))
        self._network = _load_network(path)

    def run(self, images: Images) -> Arrays:
        levels = self._levels(images)
        if self.metadata["nms"] is None:
            return _arrays(self._host.decode(levels))
        return (self._host.boxes(levels),)

    def decoded(self, images: Images) -> Arrays:
        return _arrays(self._host.decode(self._levels(images)))

    def _levels(self, images: Images) -> list[Any]:
        return quantisation.run(self._network, self._host.normalised(images))


def _write_programs(
    path: Path, decoded: Decoded, options: WriteOptions, suppression: Suppression | None
) -> None:
    """The four files of ``READ``."""
    detector, metadata = decoded.detector, options.metadata
    images = decoded.preprocess.normalise(options.example)
    with torch.no_grad():
        levels = detector(images).levels

    def decode(*maps: Tensor) -> Sequence[Tensor]:
        found = detector.decode(HeadOutput(maps))
        parts = (found.boxes_xyxy, found.scores, found.objectness)
        return [part for part in parts if part is not None]

    names = {id(tensor): name for name, tensor in detector.state_dict(keep_vars=True).items()}
    network = NetworkProgram(record(lambda x: detector(x).levels, [images]), names)
    host = DecodeProgram(record(decode, levels))
    _write_text(path / NETWORK, network.text(f"The network of {metadata['family']}{metadata['size']}."))
    (path / WEIGHTS).write_bytes(_legacy_bytes(network.weights))
    usual = ExportConfig()
    wanted = suppression or Suppression(conf=usual.conf, iou=usual.iou, max_det=usual.max_det)
    settings = _settings(metadata, decoded.preprocess, wanted, host)
    _write_text(path / HOST, text_of("host.py") + settings)
    np.savez_compressed(path / ARRAYS, **host.arrays)  # type: ignore[arg-type]  # numpy's stub takes keywords for flags


def _settings(
    metadata: Mapping[str, Any], preprocess: Preprocess, suppression: Suppression, host: DecodeProgram
) -> str:
    return text_of("settings.py.txt").format(
        size_hw=tuple(metadata["input"]["size_hw"]),
        names=pprint.pformat(tuple(metadata["names"]), width=100, compact=True),
        channels=preprocess.channels,
        fit=preprocess.fit,
        pad_value=preprocess.pad_value,
        scale=preprocess.scale,
        mean=tuple(preprocess.mean),
        std=tuple(preprocess.std),
        conf=suppression.conf,
        iou=suppression.iou,
        max_det=suppression.max_det,
        agnostic=suppression.agnostic,
        arrays="arrays_beside(__file__)" if host.arrays else "{}",
        decode=host.text(),
    )


def _legacy_bytes(weights: OrderedDict[str, Tensor]) -> bytes:
    """As PyTorch wrote before 1.6: no zip archive, and a pickle that every Python 3 reads."""
    buffer = io.BytesIO()
    torch.save(weights, buffer, pickle_protocol=2, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _load_network(path: Path) -> nn.Module:
    module = load_code(path / NETWORK, (path / NETWORK).read_text(encoding="utf-8"))
    try:
        network: nn.Module = module.Network()
        network.load_state_dict(torch.load(path / WEIGHTS, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a program and a file that do not fit happen to raise
        reason = str(error).partition("\n")[0]
        raise ExportError(f"the network cannot be built: {reason}", where=str(path)) from error
    return network.eval()


def _profiles(name: str) -> list[str]:
    """Backends of the vendor of ``name`` whose operators are known."""
    vendor = DEVICES.get(name).profile.torch_type
    kinds = {own: DEVICES.get(own) for own in DEVICES}
    return [own for own, kind in kinds.items() if kind.profile.torch_type == vendor and kind.operators()]


def _proved(network: nn.Module, inputs: Any, profile: str) -> dict[str, int]:
    """Operator calls by verdict under the rules of ``profile``, none of them unsupported or on the CPU."""
    device: Any = emulate(profile, strict=True)
    try:
        with torch.no_grad(), device.region("forward"):
            network(torch.from_numpy(inputs))
    except Exception as error:  # the backend's own errors, of whatever type it raises
        raise ExportError(
            f"the network cannot run under the rules of {profile}: {error}",
            hint="Another activation= may help; anyolo audit mode=export lists every operator.",
        ) from error
    return {v: device.emulation.count(v) for v in ("native", "unknown", "fallback", "unsupported")}


def _quantised(
    path: Path, network: nn.Module, host: ModuleType, batches: Sequence[Images]
) -> list[dict[str, Any]]:
    """Writes the scales, reads them again and measures what they cost; nothing for no pictures."""
    if not batches:
        return []
    inputs = [host.normalised(images) for images in batches]
    largest = quantisation.calibrate(network, console.track(inputs, "calibrating", "batches"))
    rows = []
    for bits, per_channel in VARIANTS:
        file = str(path / f"scales_int{bits}.json")
        quantisation.save(quantisation.scales(network, largest, bits), file)
        rounded = quantisation.simulate(network, quantisation.load(file), per_channel)
        cost = quantisation.compare(network, rounded, inputs, host.boxes)
        weights = "channel" if per_channel else "tensor"
        rows.append({"bits": bits, "weight_scales_per": weights, "pictures": sum(map(len, inputs)), **cost})
    columns = ("", "raw error", "boxes found", "extra", "mean px", "largest px", "largest score")
    console.current().table(
        "rounded to integers, simulated on the CPU",
        columns,
        [
            (
                f"int{row['bits']} per {row['weight_scales_per']}",
                f"{row['raw_error']:.2%}",
                f"{row['found']} of {row['boxes']}",
                row["extra"],
                f"{row['mean_box_error_px']:.2f}",
                f"{row['max_box_error_px']:.2f}",
                f"{row['max_score_error']:.3f}",
            )
            for row in rows
        ],
    )
    return rows


def _readme(facts: Mapping[str, Any], has_scales: bool) -> str:
    scales = (
        "; `scales_int8.json` and `scales_int16.json` are from the export's own pictures"
        if has_scales
        else ""
    )
    swapped = facts["activation"]
    note = (
        f"\n**The activation was changed to {swapped}.** The weights were trained with another one: train on "
        "with it before use. The comparison is with the changed model.\n"
    )
    return text_of("README.md.txt").format(
        title=f"{facts['family']}{facts['size']} for the MLU270",
        input=" x ".join(map(str, facts["network"]["input"]["shape"])),
        profiles=", ".join(facts["emulation"]),
        scales=scales,
        activation=note if swapped else "",
    )


def _checked_manifest(path: Path) -> Mapping[str, Any]:
    """The folder's manifest, if every file that is read and run is the one it was written with."""
    try:
        facts: dict[str, Any] = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        known = {name: str(facts["files"][name]) for name in READ}
        changed = [name for name in READ if _digest(path / name) != known[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"no folder that anyolo wrote for the MLU270: {error}",
            where=str(path),
            hint="Export the model again.",
        ) from error
    if changed:
        raise ExportError(
            "is not the file this folder was written with (its SHA-256 differs), and it would be run",
            where=str(path / changed[0]),
            hint="Export the model again.",
        )
    return facts


def _arrays(found: Iterable[Any]) -> Arrays:
    return tuple(np.ascontiguousarray(array, np.float32) for array in found)


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode())


FORMAT = MLU270Format()
