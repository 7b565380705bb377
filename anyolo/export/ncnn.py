"""ncnn, written by pnnx: a folder with the network and its decoding; the suppression is done on the host.

ncnn has no operator that suppresses and no loop, so boxes and scores come out apart, decoded. The folder
brings the host's side along: ``postprocess.py``, in numpy alone, and ``detect.py``, which uses it.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anyolo.errors import ExportError
from anyolo.export.base import Arrays, Exportable, Images, WriteOptions, quiet
from anyolo.export.porting import text_of

PARAM, BIN, METADATA_FILE = "model.ncnn.param", "model.ncnn.bin", "metadata.json"
INPUT, OUTPUT = "in0", "out{}"
"""What pnnx calls them."""


class NcnnFormat:
    name = "ncnn"
    suffix = "_ncnn_model"
    requires = ("ncnn", "pnnx")
    abilities: frozenset[str] = frozenset()
    remark = (
        "ncnn gives decoded boxes and scores, one picture at a time; the suppression is done on the host, "
        "as detect.py in the folder does it; anyolo does so too when it opens the folder"
    )

    def write(self, model: Exportable, path: Path, options: WriteOptions) -> None:
        path.mkdir()
        with quiet(), torch.no_grad():
            example = options.example[:1].float()  # ncnn knows floats alone, and no batches
            network: Any = torch.jit.trace(model.decoded, example, check_trace=False)  # type: ignore[no-untyped-call]
            _convert(network, tuple(example.shape), path)
        files = {name: _digest(path / name) for name in (PARAM, BIN)}
        text = json.dumps({**options.metadata, "files": files}, indent=2, ensure_ascii=False)
        (path / METADATA_FILE).write_bytes(text.encode() + b"\n")
        if options.metadata.get("nms"):
            (path / "detect.py").write_bytes(text_of("detect_ncnn.py.txt").encode())
            (path / "postprocess.py").write_bytes(text_of("host.py").encode())

    def convolutions(self, path: Path) -> None:
        return None

    def open(self, path: Path, *, threads: int = 0) -> NcnnRunner:
        return NcnnRunner(path, threads)

    def calling_code(self, file_name: str) -> tuple[str, str]:
        return "runpy", f"runpy.run_path({file_name + '/detect.py'!r})['detect'](images)"


class NcnnRunner:
    def __init__(self, path: Path, threads: int) -> None:
        import ncnn

        self._path, self.metadata = path, _checked_metadata(path)
        self._net = ncnn.Net()
        if threads:
            self._net.opt.num_threads = threads
        if self._net.load_param(str(path / PARAM)) or self._net.load_model(str(path / BIN)):
            raise ExportError(
                "no network that ncnn can read", where=str(path), hint="Export the model again."
            )
        self._outputs = len(self._net.output_names())

    def run(self, images: Images) -> Arrays:
        own, given = tuple(self.metadata["input"]["size_hw"]), images.shape[2:]
        if own != given:  # ncnn itself would run, and put its boxes anywhere
            raise ExportError(
                f"takes pictures of {own[0]}x{own[1]}, not {given[0]}x{given[1]}", where=str(self._path)
            )
        found = [self._one(np.ascontiguousarray(picture, np.float32)) for picture in images]
        return tuple(np.stack(arrays) for arrays in zip(*found, strict=True))

    def decoded(self, images: Images) -> Arrays:
        return self.run(images)

    def _one(self, picture: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """(3, H, W) to (A, 4), (A, K) and, where the family has it, (A,)."""
        import ncnn

        found = []
        with self._net.create_extractor() as extractor:
            given = ncnn.Mat(picture).clone()  # memory of its own: ncnn reads past the end of numpy's
            extractor.input(INPUT, given)
            for number in range(self._outputs):
                code, mat = extractor.extract(OUTPUT.format(number))
                if code:
                    raise ExportError(f"ncnn cannot run it (code {code})", where=str(self._path))
                found.append(np.array(mat, np.float32))  # a copy: the memory goes with the extractor
        points = found[0].size // 4
        shapes = ((points, 4), (points, -1), (points,))
        return [array.reshape(shape) for array, shape in zip(found, shapes, strict=False)]


def _convert(network: Any, shape: tuple[int, ...], path: Path) -> None:
    """Runs pnnx, which writes eight files and a long report, in a place of its own."""
    import pnnx

    with tempfile.TemporaryDirectory(prefix="anyolo-pnnx-") as place:
        folder = Path(place)
        network.save(str(folder / "model.pt"))
        words = (
            f"inputshape=[{','.join(map(str, shape))}]",
            "fp16=0",
            f"ncnnparam={PARAM}",
            f"ncnnbin={BIN}",
        )
        done = subprocess.run(
            [str(pnnx.EXEC_PATH), "model.pt", *words], cwd=folder, capture_output=True, text=True
        )
        report = (done.stderr or done.stdout).strip().splitlines()
        if done.returncode or not (folder / BIN).is_file():
            raise ExportError(f"pnnx gave up: {report[-1] if report else done.returncode}")
        text = (folder / PARAM).read_text(encoding="utf-8")
        if unknown := sorted({kind for kind in _layers(text) if "." in kind or ":" in kind}):
            raise ExportError(
                f"ncnn has no layer for {', '.join(unknown)}", hint="Another format= can have this model."
            )
        for name in (PARAM, BIN):
            (path / name).write_bytes((folder / name).read_bytes())


def _layers(text: str) -> list[str]:
    """The kinds of the layers, from the third line of a .param on."""
    return [line.split()[0] for line in text.splitlines()[2:] if line.strip()]


def _checked_metadata(path: Path) -> Mapping[str, Any]:
    """What the folder says of itself, if its network is the one written with it: ncnn believes any bytes."""
    try:
        facts: dict[str, Any] = json.loads((path / METADATA_FILE).read_text(encoding="utf-8"))
        changed = [name for name in (PARAM, BIN) if _digest(path / name) != facts["files"][name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"no folder that anyolo wrote for ncnn: {error}", where=str(path), hint="Export the model again."
        ) from error
    if changed:
        raise ExportError(
            "is not the file this folder was written with (its SHA-256 differs)",
            where=str(path / changed[0]),
            hint="Export the model again.",
        )
    return facts


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


FORMAT = NcnnFormat()
