"""Weights files in other layouts: bit for bit through each, for every family, in halves and in full."""

from __future__ import annotations

import json
import lzma
import pickletools
from pathlib import Path

import pytest
import safetensors
import torch

import anyolo
from anyolo.errors import CheckpointError, ConfigError
from anyolo.families import FAMILIES, build_model
from anyolo.families.checkpoints import load_model, model_record, read_file, read_model, save_atomic
from anyolo.families.conversion import LAYOUTS, convert, is_same
from anyolo.families.safe_reader import LEGACY_MAGIC

SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDEN = sorted(SHARED.glob("golden/*/*/meta.json"))


def random_model(name, seed=0):
    torch.manual_seed(seed)
    spec, model = build_model(name, nc=3)
    for tensor_name, tensor in model.state_dict().items():
        if "running" in tensor_name:
            tensor.uniform_(0.5, 1.5)
    return spec, model.eval()


@pytest.fixture(scope="module")
def record():
    spec, model = random_model("yolov8n")
    return model_record(model, spec, ["a", "b", "c"], imgsz=(320, 416), metrics={"mAP50": 0.5})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_ring_through_every_layout_changes_no_bit(family, dtype, tmp_path):
    spec, model = random_model(next(iter(FAMILIES.get(family).models)))
    made = model_record(model, spec, "abc", imgsz=None, metrics={}, dtype=dtype)
    constants = {f"model.{len(model.model) - 1}.{k}": v for k, v in model.head.named_buffers(recurse=False)}
    made["weights"].update(constants)  # what upstream keeps outside its files is exact in them
    save_atomic(made, tmp_path / "start.pt")
    before, file = read_model(tmp_path / "start.pt"), tmp_path / "start.pt"
    for step, layout in enumerate((*LAYOUTS, *reversed(LAYOUTS))):
        following = tmp_path / f"{step}-{layout}"
        convert(file, following, layout, family=family)
        file = following
    after = read_model(file, family=family)
    assert list(after.weights) == list(before.weights)
    assert all(is_same(after.weights[name], tensor) for name, tensor in before.weights.items())
    assert (
        after.weights[
            "model.0.conv.weight"
            if "model.0.conv.weight" in after.weights
            else next(name for name, t in after.weights.items() if t.is_floating_point())
        ].dtype
        == dtype
    )


@pytest.mark.skipif(not GOLDEN, reason="needs golden/ of the folder shared/ beside the checkout")
@pytest.mark.parametrize("meta_file", GOLDEN, ids=lambda path: path.parent.name)
def test_tensors_under_upstreams_names(meta_file, tmp_path):
    """Names, order, shapes, types and bits of upstream's own file, in both layouts without settings."""
    meta = json.loads(meta_file.read_text())
    file = next(meta_file.parent.glob("random.p*"))
    if file.suffix == ".xz":
        (tmp_path / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
        file = tmp_path / file.stem
    theirs = read_file(file)
    if not any(FAMILIES.get(name).identify(theirs.tensors, theirs.yaml) for name in FAMILIES):
        pytest.skip("this family is not built yet")
    for layout in ("state_dict", "legacy"):
        convert(file, tmp_path / "b.pt", layout)
        found = torch.load(tmp_path / "b.pt", weights_only=True)
        listed = [[name, list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in found.items()]
        assert listed == meta["state_dict"]
        assert all(is_same(found[name], tensor) for name, tensor in theirs.tensors.items())


def test_the_legacy_file_is_what_old_torch_reads(record, tmp_path):
    save_atomic(record, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "old.pt", "legacy")
    data = (tmp_path / "old.pt").read_bytes()
    assert data[:2] == b"\x80\x02"
    first = [argument for _, argument, _ in pickletools.genops(data)]
    assert first[:2] == [2, LEGACY_MAGIC]
    rest = data
    for _ in range(5):  # magic number, version, system, tensors, storages: each of protocol 2, nothing newer
        used = 0
        for opcode, _, position in pickletools.genops(rest):
            assert opcode.proto <= 2
            used = position + 1
        rest = rest[used:]
    theirs, ours = torch.load(tmp_path / "old.pt", weights_only=True), read_file(tmp_path / "old.pt").tensors
    assert list(theirs) == list(ours) == list(record["weights"])
    assert all(is_same(theirs[name], ours[name]) for name in ours)


def test_safetensors_keep_every_setting(record, tmp_path):
    save_atomic(record, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "a.safetensors", "safetensors")
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        settings = file.metadata()
    assert settings["family"] == "yolov8" and settings["format"] == "pt"
    assert json.loads(settings["names"]) == ["a", "b", "c"]
    assert json.loads(settings["rows"]) == record["rows"]
    assert json.loads(settings["preprocess"]) == record["preprocess"]
    own, other = load_model(tmp_path / "a.pt"), load_model(tmp_path / "a.safetensors")
    assert own.names == other.names and own.imgsz == other.imgsz and own.meta == other.meta
    result = anyolo.info(model=str(tmp_path / "a.safetensors"), imgsz=64)
    assert (result.family, result.size, result.classes) == ("yolov8", "n", ("a", "b", "c"))


def test_safetensors_of_others(record, tmp_path):
    """Tensors alone, with no settings of ours: found by their names and shapes, as in a state_dict."""
    import safetensors.torch

    safetensors.torch.save_file(record["weights"], tmp_path / "theirs.safetensors")
    assert load_model(tmp_path / "theirs.safetensors").size == "n"


@pytest.mark.parametrize("cut", [9, 100, 5000, -1])
def test_damaged_safetensors(record, tmp_path, cut):
    save_atomic(record, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "a.safetensors", "safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[:cut])
    with pytest.raises(CheckpointError) as refusal:
        load_model(tmp_path / "a.safetensors")
    assert str(tmp_path / "a.safetensors") in refusal.value.where


@pytest.mark.parametrize(
    ("old", "new"), [(b'\\"rgb\\"', b"rgb"), (b'"family":"yolov8"', b'"family":"yolov9?"')]
)
def test_safetensors_with_odd_settings(record, tmp_path, old, new):
    save_atomic(record, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "a.safetensors", "safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    assert old in data
    header = data[8 : 8 + int.from_bytes(data[:8], "little")].replace(old, new)
    body = data[8 + int.from_bytes(data[:8], "little") :]
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + body)
    with pytest.raises(CheckpointError, match=r"no JSON|unknown family"):
        load_model(tmp_path / "a.safetensors")


def test_what_upstream_has_no_place_for_is_not_lost_in_silence(tmp_path):
    """Anchors of one's own where upstream's files hold none."""
    spec, model = random_model("yolo-fastestv2")
    model.head.write_anchors(model.head.read_anchors() * 1.5)
    save_atomic(model_record(model, spec, "abc", imgsz=None, metrics={}), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"no place for all of it[\s\S]*format=safetensors"):
        convert(tmp_path / "a.pt", tmp_path / "b.pt", "state_dict")
    assert not (tmp_path / "b.pt").exists()
    convert(tmp_path / "a.pt", tmp_path / "b.safetensors", "safetensors")


def test_a_check_that_fails_leaves_the_old_file(record, tmp_path, monkeypatch):
    save_atomic(record, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"old")
    spoiled = {**LAYOUTS, "anyolo": LAYOUTS["state_dict"].__class__(
        ending=".pt", is_whole=True,
        write=lambda content, file: torch.save(
            {**content, "weights": {k: v + 1 for k, v in content["weights"].items()}}, file),
    )}  # fmt: skip
    monkeypatch.setattr("anyolo.families.conversion.LAYOUTS", spoiled)
    with pytest.raises(CheckpointError, match="came back changed"):
        convert(tmp_path / "a.pt", tmp_path / "b.pt", "anyolo")
    assert (tmp_path / "b.pt").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_strip_takes_the_optimizer_out_in_place(record, tmp_path):
    file = tmp_path / "last.pt"
    state = {"finished": False, "epoch": 3, "optimizer": {"state": {0: torch.zeros(2_000_000)}}}
    save_atomic({**record, "training": state}, file)
    before = load_model(file).model.state_dict()
    result = anyolo.strip(file)
    assert result.output == file and result.source_bytes - result.conversion.size_bytes > 7_900_000
    assert "training" not in torch.load(file, weights_only=True)
    after = load_model(file).model.state_dict()
    assert all(is_same(after[k], v) for k, v in before.items())
    half = anyolo.strip(file, half=True)
    assert (
        half.conversion.dtype == "float16"
        and half.conversion.size_bytes < 0.55 * result.conversion.size_bytes
    )
    with pytest.raises(ConfigError, match="in its place"):
        anyolo.convert(model=str(file), strip=True, format="legacy")
    with pytest.raises(ConfigError, match="would overwrite the model"):
        anyolo.convert(model=str(file), output=str(file))
