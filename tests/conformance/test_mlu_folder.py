"""The folder for the MLU270: what is in it, that it runs alone, and that nothing strange is run from it."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import py_compile
import runpy
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from anyolo import console
from anyolo.config.schema import ExportConfig, PredictConfig
from anyolo.deploy.predictor import Predictor
from anyolo.devices import emulate, open_device
from anyolo.errors import ConfigError, ExportError
from anyolo.export import EXPORTERS, export_model, open_artifact
from anyolo.export.engine import ExportResult
from anyolo.families import FAMILIES, build_model
from anyolo.families.checkpoints import Checkpoint, load_model
from anyolo.nn.inference import Inference
from tests.conformance.small_model import NAMES, SIDE, pictures, small_checkpoint

STAND_INS = Path(__file__).resolve().parents[1] / "mlu" / "stand_ins"
PROGRAMS = {"network.py", "postprocess.py", "quantisation.py", "detect.py", "calibrate.py"}
VENDOR = {"port_mlu270.py", "port_mlu370.py"}
DATA = {"weights.pth", "constants.npz", "manifest.json", "README.md"}


def export(out: Path, checkpoint: Checkpoint | None = None, **changes: Any) -> ExportResult:
    config = {"format": "cambricon", "imgsz": SIDE, "output": str(out), "conf": 0.3, "iou": 0.6, **changes}
    return export_model(checkpoint or small_checkpoint(), ExportConfig(**config))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, pixels in enumerate(pictures(4)):
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
    return folder


@pytest.fixture(scope="module")
def exported(source: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return export(tmp_path_factory.mktemp("mlu") / "best_mlu270", source=str(source), int8=True, batch=2)


@pytest.fixture()
def folder(exported: ExportResult, tmp_path: Path) -> Path:
    """A copy that a test may spoil, without the manifest beside it."""
    return Path(shutil.copytree(exported.artifact, tmp_path / exported.artifact.name))


Play = Callable[..., str]


@pytest.fixture()
def play(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Play]:
    """``play(program, *arguments)`` runs one as ``python program`` would and gives what it prints."""
    before, moves = set(sys.modules), (torch.Tensor.to, torch.nn.Module.to)

    def run(program: Path, *arguments: str) -> str:
        for name in set(sys.modules) - before:
            del sys.modules[name]
        monkeypatch.setattr(sys, "argv", [str(program), *arguments])
        monkeypatch.setattr(sys, "path", [str(program.parent), str(STAND_INS), *sys.path])
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
            runpy.run_path(str(program), run_name="__main__")
        return capsys.readouterr().out

    is_recording = torch.is_grad_enabled()
    yield run
    torch.set_grad_enabled(is_recording)
    torch.Tensor.to, torch.nn.Module.to = moves  # type: ignore[method-assign]
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_what_is_in_the_folder(exported: ExportResult) -> None:
    assert exported.verified and exported.artifact.name == "best_mlu270"
    names = {path.name for path in exported.artifact.iterdir()}
    assert names == PROGRAMS | VENDOR | DATA | {"scales_int8.json", "scales_int16.json"}
    for word in ("nowhere: calls only recorded by stand-ins", "No Cambricon card was touched"):
        assert word in (exported.artifact / "README.md").read_text()
    for name in VENDOR:
        _, _, second = (exported.artifact / name).read_text().partition("\n\n")
        assert second.startswith("NOT RUN WHERE THIS WAS WRITTEN.")


def test_every_program_is_python_of_that_time(exported: ExportResult, tmp_path: Path) -> None:
    newer = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.AsyncFunctionDef, ast.Match)
    for name in PROGRAMS | VENDOR:
        text = (exported.artifact / name).read_text()
        tree = ast.parse(text, feature_version=(3, 5))
        assert not [node.lineno for node in ast.walk(tree) if isinstance(node, newer)], name
        assert text.isascii() and "anyolo" not in {
            alias.name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        py_compile.compile(str(exported.artifact / name), cfile=str(tmp_path / "compiled"), doraise=True)


def test_the_network_is_straight(exported: ExportResult) -> None:
    text = (exported.artifact / "network.py").read_text()
    (forward,) = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name == "forward"
    ]
    kinds = {type(node) for node in forward.body}
    assert kinds == {ast.Assign, ast.Return}
    for line in forward.body[:-1]:
        assert isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name), "no slice assignment"
    for word in ("arange", "meshgrid", "full", "SiLU", "for ", "unique", "nonzero"):
        assert word not in text.partition("class Network")[2]
    assert "return x * torch.sigmoid(x)" in text


def test_weights_are_of_the_old_kind(exported: ExportResult) -> None:
    path = exported.artifact / "weights.pth"
    assert path.read_bytes()[:2] == b"\x80\x02" and not zipfile.is_zipfile(path)
    weights = torch.load(path, weights_only=True)
    assert type(weights) is OrderedDict
    assert all(type(t) is torch.Tensor and t.dtype == torch.float32 for t in weights.values())
    assert {t.device.type for t in weights.values()} == {"cpu"} and "model_0_conv.weight" in weights


def test_figures_in_the_manifest(exported: ExportResult) -> None:
    facts = json.loads((exported.artifact / "manifest.json").read_text())
    for profile in ("mlu270", "catch16", "mlu"):
        counts = facts["emulation"][profile]
        assert counts["unsupported"] == counts["fallback"] == 0
        assert counts["native"] > 100 or counts["unknown"] > 100
    assert facts["emulation"]["mlu"]["unknown"] == facts["emulation"]["catch16"]["unknown"] == 0
    assert facts["network"]["input"]["shape"] == [2, 3, SIDE, SIDE]
    assert facts["network"]["raw_maps"] == [[2, 68, SIDE // s, SIDE // s] for s in (8, 16, 32)]
    int8, per_channel, int16 = facts["quantisation"]
    assert [row["bits"] for row in facts["quantisation"]] == [8, 8, 16] and int8["pictures"] == 4
    for row in (int8, per_channel):
        assert 0.2 > row["raw_error"] > 10 * int16["raw_error"] > 0
    assert int16["found"] == int16["boxes"] > 20 and int16["mean_box_error_px"] < 0.05
    scales = json.loads((exported.artifact / "scales_int16.json").read_text())
    convolutions = (exported.artifact / "network.py").read_text().count("nn.Conv2d")
    assert scales["bits"] == 16 and len(scales["steps"]) == convolutions


def test_opened_without_the_manifest_beside(folder: Path) -> None:
    opened = open_artifact(folder)
    assert opened.names == NAMES and opened.input_hw == (SIDE, SIDE)
    config = PredictConfig(imgsz=SIDE, rect=False, conf=0.3, iou=0.6)
    model = small_checkpoint()
    judge = Inference(model.model, open_device("cpu"), model.preprocess)
    ours = Predictor(judge, model.preprocess, NAMES, config)(pictures(3))
    theirs = Predictor(opened.predict, opened.preprocess, opened.names, config)(pictures(3))
    for a, b in zip(ours, theirs, strict=True):
        assert len(a) > 2
        np.testing.assert_allclose(b.boxes.numpy().data, a.boxes.numpy().data, atol=0.01)


@pytest.mark.parametrize("name", ["network.py", "postprocess.py", "weights.pth", "constants.npz"])
def test_a_changed_file_is_refused_before_it_runs(name: str, folder: Path) -> None:
    with open(folder / name, "ab") as file:
        file.write(b"\nraise SystemExit\n")
    with pytest.raises(ExportError, match="SHA-256 differs") as caught:
        open_artifact(folder)
    assert caught.value.where == str(folder / name)


def test_a_hostile_folder_with_right_hashes_is_refused(folder: Path) -> None:
    from hashlib import sha256

    path = folder / "network.py"
    path.write_text(path.read_text() + "\nimport os\nos.remove(__file__)\n")
    facts = json.loads((folder / "manifest.json").read_text())
    facts["files"]["network.py"] = sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(ExportError, match="'remove' is nothing that a network"):
        open_artifact(folder)
    assert path.is_file()


def test_a_folder_without_its_parts(folder: Path) -> None:
    (folder / "weights.pth").unlink()
    with pytest.raises(ExportError, match="no folder that anyolo wrote for the MLU270"):
        open_artifact(folder)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ExportError, match="no folder that anyolo wrote for the MLU270"):
        open_artifact(folder)


def test_detect_alone(folder: Path, source: Path) -> None:
    done = subprocess.run(
        [sys.executable, "detect.py", str(source / "0.png"), str(source / "1.png")],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert said.count("0.png: ") > 2 and "1.png: " in said and any(f": {name} 0." in said for name in NAMES)
    assert not (folder / "__pycache__").exists()


def test_calibrate_alone(folder: Path, source: Path, tmp_path: Path, play: Play) -> None:
    said = play(folder / "calibrate.py", "--pictures", str(source), "--output", str(tmp_path))
    own, made = folder / "scales_int8.json", tmp_path / "scales_int8.json"
    ours, theirs = json.loads(own.read_text())["steps"], json.loads(made.read_text())["steps"]
    assert ours.keys() == theirs.keys()
    for name in ours:  # its pictures were resized by numpy, not by OpenCV
        assert theirs[name]["input"] == pytest.approx(ours[name]["input"], rel=0.05)
        assert theirs[name]["weight_channels"] == pytest.approx(ours[name]["weight_channels"])
    assert "int8 per channel: raw error" in said and "int16 per tensor" in said


Recorded = Callable[..., tuple[str, list[Any]]]


@pytest.fixture()
def recorded(
    play: Play, folder: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Recorded:
    """``recorded(name, *arguments)`` plays a vendor's script with stand-ins: what it says, and its calls."""

    def run(name: str, *arguments: str) -> tuple[str, list[Any]]:
        log = tmp_path / "calls"
        log.write_text("")
        monkeypatch.setenv("RECORDED", str(log))
        said = play(folder / name, *arguments, "--pictures", str(source), "--output", str(tmp_path))
        assert not (folder / "__pycache__").exists()
        return said, [json.loads(line) for line in log.read_text().splitlines()]

    return run


def test_the_calls_of_cambricons_pytorch_13(recorded: Recorded, tmp_path: Path) -> None:
    """With stand-ins, since Cambricon's software cannot be had: the order and the arguments, nothing else."""
    said, calls = recorded("port_mlu270.py")
    spec = {
        "iteration": 2, "use_avg": False, "data_scale": 1.0, "mean": [0, 0, 0], "std": [1, 1, 1],
        "firstconv": False, "per_channel": False,
    }  # fmt: skip
    name = str(tmp_path / "best_mlu270_int8")
    assert calls[:10] == [
        ["quantize_dynamic_mlu", spec, "int8", True],
        ["calibrate", [2, 3, SIDE, SIDE]],
        ["calibrate", [2, 3, SIDE, SIDE]],
        ["quantize_dynamic_mlu", None, None, False],
        ["set_core_number", 4],
        ["set_core_version", "MLU270"],
        ["set_input_format", 0],
        ["save_as_cambricon", name],
        ["mlu_device"],
        ["save_as_cambricon", ""],
    ]
    assert calls[10:] == [["mlu_device"]] * 2, "the comparison on the card"
    assert Path(name + ".pth").is_file() and "mean error 0 of the mean value" in said
    assert "boxes, the float32 network on the CPU finds" in said


def test_the_offline_model_without_a_card(recorded: Recorded) -> None:
    more = ("--no-card", "--dtype", "int16", "--per-channel", "--core-version", "MLU220", "--cores", "2")
    _, calls = recorded("port_mlu270.py", *more)
    names = [call[0] for call in calls if call[0] not in {"calibrate", "quantize_dynamic_mlu"}]
    assert names == [
        *("set_cnml_enabled", "set_device", "set_core_number", "set_core_version", "set_input_format"),
        *("save_as_cambricon", "mlu_device", "save_as_cambricon"),
    ]
    assert calls[0][1]["per_channel"] is True and calls[0][2] == "int16"
    assert ["set_device", -1] in calls and ["set_core_version", "MLU220"] in calls


def test_the_calls_of_todays_torch_mlu(recorded: Recorded) -> None:
    said, calls = recorded("port_mlu370.py", "run")
    assert calls == [["to", "mlu", "Network"], ["to", "mlu", "Tensor"], ["to", "mlu", "Tensor"]]
    assert said.count("torch_mlu, level 2: mean error 0 of the mean value") == 2


def test_the_calls_of_magicmind(recorded: Recorded, tmp_path: Path) -> None:
    said, calls = recorded("port_mlu370.py", "build", "--clusters", "8")
    name = str(tmp_path / "best_mlu270_qint8_mixed_float16.magicmind")
    assert calls == [
        ["Parser", "pytorch"],
        ["set_model_param", "pytorch-input-dtypes", ["float32"]],
        ["parse", "pt"],
        ["set_dimension", [2, 3, SIDE, SIDE]],
        ["parse_from_string", {"archs": [{"mtp_372": [8]}]}],
        ["parse_from_string", {"graph_shape_mutable": False}],
        ["parse_from_string", {"precision_config": {"precision_mode": "qint8_mixed_float16"}}],
        ["parse_from_string", {"precision_config": {"activation_quant_algo": "symmetric"}}],
        ["parse_from_string", {"precision_config": {"weight_quant_granularity": "per_tensor"}}],
        ["set_quantization_algorithm", "linear"],
        ["active", 0],
        ["calibrate", 2],
        ["build_model", "network"],
        ["serialize_to_file", name],
        ["deserialize_from_file", name],
        ["active", 0],
        ["create_i_engine", "MLU"],
        ["enqueue", [2, 3, SIDE, SIDE]],
        ["enqueue", [2, 3, SIDE, SIDE]],
    ]
    assert said.count("MagicMind, level 0: mean error 0 of the mean value") == 2
    _, calls = recorded("port_mlu370.py", "build", "--precision", "force_float16", "--per-channel")
    assert "calibrate" not in {call[0] for call in calls}


def test_what_the_format_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="format=mlu270 cannot be written with dynamic=True"):
        export(tmp_path, dynamic=True)
    with pytest.raises(ConfigError, match="format=onnx cannot be written with int8=True") as caught:
        export(tmp_path, format="onnx", int8=True)
    assert "mlu270" in caught.value.hint
    with pytest.raises(ConfigError, match="calibrate= names pictures"):
        export(tmp_path, calibrate="a")
    assert not list(tmp_path.iterdir())


def test_names_that_users_type(tmp_path: Path) -> None:
    assert {EXPORTERS.resolve(name) for name in ("mlu", "MLU270", "mlu220", "cambricon")} == {"mlu270"}
    assert export(tmp_path / "a.pt", verify=False).artifact == tmp_path / "a_mlu270"
    again = export(tmp_path / "a_mlu270", verify=False, nms=False)
    assert again.artifact == tmp_path / "a_mlu270" and again.lines == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_mlu270", "a_mlu270.json"]
    assert export(tmp_path, verify=False).artifact == tmp_path / "yolov8t_mlu270"


class Ear(console.NullReporter):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "hardswish"])
def test_another_activation_is_said_and_compared(name: str, source: Path, tmp_path: Path) -> None:
    with console.use(Ear()) as ear:
        result = export(tmp_path, activation=name, source=str(source), conf=0.01)
    assert result.verified and result.verification is not None
    assert any(f"activation={name} replaces" in line for line in ear.warnings)
    assert any("which cannot be run without Cambricon's software" in line for line in ear.lines)
    assert json.loads(result.manifest.read_text())["activation"] == name
    text = (result.artifact / "network.py").read_text()
    assert "silu" not in text and ("hardswish" if name == "hardswish" else f"F.{name}") in text
    assert f"changed to {name}" in (result.artifact / "README.md").read_text()
    assert any(type(m).__name__ == "SiLU" for m in small_checkpoint().model.modules()), "left alone"


def test_a_model_without_a_smooth_activation(tmp_path: Path) -> None:
    from anyolo.nn.activations import swap_activations

    small = small_checkpoint()
    model = __import__("copy").deepcopy(small.model)
    assert swap_activations(model, "relu") > 50
    with pytest.raises(ConfigError, match="no SiLU to replace"):
        export(tmp_path, dataclasses.replace(small, model=model), activation="relu")


@pytest.mark.parametrize("family", FAMILIES.names())
def test_every_family_runs_under_the_rules_of_the_cards(family: str, tmp_path: Path) -> None:
    """The prediction graph of each family, from the table: nothing unsupported, nothing on the CPU."""
    name = next(iter(FAMILIES.get(family).models))
    torch.manual_seed(0)
    spec, model = build_model(name)
    names = tuple(f"class{number}" for number in range(model.nc))
    checkpoint = Checkpoint(
        model=model.eval(), spec=spec, size=spec.models[name], names=names, preprocess=spec.preprocess,
        imgsz=None, meta={},
    )  # fmt: skip
    result = export(tmp_path, checkpoint, imgsz=4 * spec.preprocess.stride, verify=False)
    opened: Any = open_artifact(result.artifact)
    images = np.random.default_rng(0).integers(0, 256, (1, 3, *opened.input_hw), dtype=np.uint8)
    for profile in ("mlu270", "catch16"):
        device: Any = emulate(profile, strict=True)
        with device.region("forward"):
            levels = opened.runner._levels(images)
        counts = {v: device.emulation.count(v) for v in ("native", "unknown", "fallback", "unsupported")}
        assert counts["unsupported"] == counts["fallback"] == 0 and sum(counts.values()) > 50, counts
    with torch.no_grad():
        expected = model.predict(spec.preprocess.normalise(torch.from_numpy(images)))
    found = opened.predict(torch.from_numpy(images)) if result.lines == "" else None
    decoded = opened.runner.decoded(images)
    assert found is None and len(levels) == len(model.strides)
    np.testing.assert_allclose(decoded[0], expected.boxes_xyxy.numpy(), rtol=1e-4, atol=0.01)
    np.testing.assert_allclose(decoded[1], expected.scores.numpy(), atol=1e-4)


def test_official_weights(shared: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = load_model(shared("weights/yolov8n.pt"))
    pictures = str(shared("data/demo") / "*.jpg")
    result = export(tmp_path, checkpoint, imgsz=416, conf=0.25, iou=0.7, source=pictures)
    found = result.to_json()
    assert found["verified"] and found["verification"]["matched"] >= 10
    assert found["max_box_error_px"] < 0.01 and found["max_score_error"] < 1e-5
