"""From a file to a model: our own record, upstream's, and what does not fit."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from anyolo.errors import CheckpointError, UnknownName
from anyolo.families import FAMILIES, build_model, checkpoints
from anyolo.families.base import Identity
from anyolo.families.checkpoints import load_model, model_record, read_file, read_record, save_atomic
from anyolo.structures import Preprocess

KEYS = [
    "anyolo", "family", "size", "nc", "names", "rows", "preprocess", "imgsz", "metrics", "weights",
    "license_note",
]  # fmt: skip


@pytest.fixture(scope="module")
def built():
    torch.manual_seed(0)
    spec, model = build_model("yolov8n", nc=3)
    for name, tensor in model.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
    return spec, model.eval()


@pytest.fixture
def record(built):
    spec, model = built
    return model_record(model, spec, ["a", "b", "c"], imgsz=(320, 416), metrics={"mAP50": torch.tensor(0.5)})


def test_our_record_gives_the_same_model(built, record, tmp_path):
    spec, model = built
    assert list(record) == KEYS
    json.dumps({key: value for key, value in record.items() if key != "weights"})
    save_atomic(record, tmp_path / "best.pt")
    assert torch.load(tmp_path / "best.pt", weights_only=True).keys() == record.keys()
    before = torch.get_rng_state()
    found = load_model(tmp_path / "best.pt")
    assert torch.equal(torch.get_rng_state(), before)  # loading draws nothing from the run's random numbers
    assert found.spec is spec and found.names == ("a", "b", "c") and found.imgsz == (320, 416)
    assert found.preprocess == spec.preprocess and found.meta["metrics"] == {"mAP50": 0.5}
    assert found.size == found.model.size == model.size and found.model.strides == (8, 16, 32)
    assert not found.model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor), name
    eps = {(m.eps, m.momentum) for m in found.model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert eps == {spec.batch_norm}
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found.model.predict(image).scores, model.predict(image).scores)


def test_half_precision_halves_the_file_and_loads_as_float32(built, tmp_path):
    spec, model = built
    full = model_record(model, spec, "abc", imgsz=None, metrics={})
    half = model_record(model, spec, "abc", imgsz=None, metrics={}, dtype=torch.float16)
    save_atomic(full, tmp_path / "full.pt")
    save_atomic(half, tmp_path / "half.pt")
    assert (tmp_path / "half.pt").stat().st_size < 0.55 * (tmp_path / "full.pt").stat().st_size
    found = load_model(tmp_path / "half.pt")
    assert found.imgsz is None
    for name, tensor in found.model.state_dict().items():
        own = model.state_dict()[name]
        assert tensor.dtype == own.dtype
        assert torch.equal(tensor, own.half().float() if own.is_floating_point() else own)


def test_only_what_a_view_shows_is_stored(built, tmp_path):
    spec, _ = built
    everything = torch.zeros(1_000_000)
    view = SimpleNamespace(size="n", nc=1, rows={}, state_dict=lambda: {"w": everything[:10]})
    save_atomic(model_record(view, spec, ["a"], imgsz=None, metrics={}), tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 10_000


def test_our_record_read_as_any_weights_file(record, tmp_path):
    save_atomic({**record, "training": {"model": {"w": torch.zeros(1)}}}, tmp_path / "last.pt")
    found = read_file(tmp_path / "last.pt")
    assert list(found.tensors) == list(record["weights"])
    assert (found.nc, found.names, found.yaml["nc"]) == (3, ("a", "b", "c"), 3)
    assert read_record(tmp_path / "last.pt")["training"]["model"]["w"] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": ["a"]}, "1 class names for 3 classes"),
        ({"weights": {}}, "is missing"),
        ({"nc": 4, "names": list("abcd")}, "instead of"),
        ({"nc": "3"}, ""),
        ({"rows": {}}, "cannot be built"),
        ({"rows": None}, "damaged or incomplete"),
        ({"preprocess": {"channels": "rgb"}}, "damaged or incomplete"),
        ({"preprocess": {**Preprocess().to_json(), "odd": 1}}, "damaged or incomplete"),
        ({"imgsz": 5}, "damaged or incomplete"),
        ({"family": 7}, "unknown family 7"),
        ({"rows": {"nc": 3, "backbone": [[-1, 10**9, "Conv", [8]]], "head": []}}, "blocks"),
        ({"rows": {"nc": 3, "backbone": [[-1, 1, "Conv", [10**9]]], "head": []}}, "channels"),
        (
            {"rows": {"nc": 3, "depth_multiple": 1e9, "backbone": [[-1, 2, "Conv", [8]]], "head": []}},
            "blocks",
        ),
        ({"rows": {"nc": 3, "backbone": [[-1]], "head": []}}, ""),
    ],
)
def test_our_record_with_changed_parts(record, tmp_path, change, words):
    save_atomic({**record, **change}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError) as refusal:
        load_model(tmp_path / "a.pt")
    assert words in str(refusal.value)
    assert refusal.value.where.startswith(str(tmp_path / "a.pt"))


def test_rows_that_ask_for_a_terabyte(record, tmp_path):
    """Refused by comparing shapes, before memory is taken."""
    rows = json.loads(json.dumps(record["rows"]))
    rows["backbone"][1][3] = [60_000, 1_000]
    save_atomic({**record, "rows": rows}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"do not fit[\s\S]*instead of \(\d+, 16, 1000, 1000\)"):
        load_model(tmp_path / "a.pt")


def test_unexpected_and_missing_tensors_are_named(record, tmp_path):
    weights = dict(record["weights"])
    name = next(iter(weights))
    weights["model.99.odd"] = weights.pop(name)
    save_atomic({**record, "weights": weights}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=rf"{name} is missing; model\.99\.odd is not expected"):
        load_model(tmp_path / "a.pt")


def test_family_said_and_not_so(record, tmp_path, monkeypatch):
    save_atomic(record, tmp_path / "a.pt")
    assert load_model(tmp_path / "a.pt", family="YOLOv8").names == ("a", "b", "c")
    with pytest.raises(UnknownName, match="yolov88"):
        load_model(tmp_path / "a.pt", family="yolov88")


def test_a_bare_state_dict_of_upstream_names(built, tmp_path):
    """No rows, no names, half precision: the family, its size and classes are found by the tensors."""
    _, model = built
    torch.save(
        {"model": {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()}},
        tmp_path / "a.pt",
    )
    found = load_model(tmp_path / "a.pt")
    assert (found.size, found.model.nc, found.names) == ("n", 3, ("class0", "class1", "class2"))
    assert {tensor.dtype for tensor in found.model.state_dict().values()} <= {torch.float32, torch.int64}
    assert not found.model.training


class _Families(dict):
    """A table of families for a test."""

    def resolve(self, name):
        return name

    def get(self, name):
        return self[name]


def test_nobody_knows_it_and_two_know_it(built, tmp_path, monkeypatch):
    spec, model = built
    torch.save({"model": {"backbone.w": torch.zeros(2, 3), "head.w": torch.zeros(1)}}, tmp_path / "odd.pt")
    with pytest.raises(
        CheckpointError, match=r"no known model has these 2 tensors: backbone\.w \(2, 3\)"
    ) as refusal:
        load_model(tmp_path / "odd.pt")
    assert all(name in refusal.value.hint for name in FAMILIES)
    identity = Identity(family=spec.name, size=model.size, nc=3, rows=model.rows)
    twin = SimpleNamespace(name="twin", identify=lambda tensors, yaml: identity)
    monkeypatch.setattr(checkpoints, "FAMILIES", _Families({"twin": twin, spec.name: spec}))
    torch.save(model.state_dict(), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=rf"could be twin or {spec.name}[\s\S]*family=twin"):
        load_model(tmp_path / "a.pt")
    assert load_model(tmp_path / "a.pt", family=spec.name).spec is spec


@pytest.mark.parametrize(
    "name", ["model.22.dfl.conv.weight", "model.22.cv3.0.2.weight", "model.0.conv.weight"]
)
@pytest.mark.parametrize("tensor", [torch.tensor(1.0), torch.zeros(0), torch.zeros(1).expand(60_000, 1000)])
def test_upstream_names_with_other_tensors(built, tmp_path, name, tensor):
    _, model = built
    torch.save({**model.state_dict(), name: tensor}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError) as refusal:
        load_model(tmp_path / "a.pt")
    assert refusal.value.where == str(tmp_path / "a.pt")
