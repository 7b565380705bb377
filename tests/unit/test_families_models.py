"""Finding a family: by the name a user types, by a YAML of rows, by the tensors of a file."""

from __future__ import annotations

import pytest
import torch
import yaml

from anyolo.errors import ModelError, UnknownName
from anyolo.families import FAMILIES, build_model, find_model, read_rows
from anyolo.nn.model import build

SPECS = [FAMILIES.get(name) for name in FAMILIES]
YOLOV8 = FAMILIES.get("yolov8")
ROWS = yaml.safe_load(YOLOV8.rows_text())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_model_is_found_and_identified(spec):
    for name, size in spec.models.items():
        assert find_model(name) == (spec, size)
    name = next(iter(spec.models))
    _, model = build_model(name, nc=6)
    identity = spec.identify(spec.export_weights(model.state_dict()), {})
    assert (identity.family, identity.size, identity.nc) == (spec.name, spec.models[name], 6)
    others = [s for s in SPECS if s is not spec]
    assert not any(s.identify(model.state_dict(), model.rows) for s in others)


def test_names_as_people_write_them():
    assert find_model("YOLOv8n")[1] == "n"
    assert find_model("yolov8m.yaml")[1] == "m"
    with pytest.raises(UnknownName, match="Did you mean 'yolov8n'"):
        find_model("yolo8n")


@pytest.mark.parametrize("size", "nsmlx")
def test_size_and_classes_from_tensors_alone(size):
    tensors = build_model(f"yolov8{size}", nc=11)[1].state_dict()
    identity = YOLOV8.identify(tensors, {})
    assert (identity.size, identity.nc, identity.rows["scale"]) == (size, 11, size)


def build_from(tmp_path, mapping, name="mine.yaml", **options):
    path = tmp_path / name
    path.write_text(yaml.safe_dump(mapping, sort_keys=False))
    return build_model(str(path), **options)


def test_a_users_yaml(tmp_path):
    spec, model = build_from(tmp_path, {**ROWS, "nc": 4})
    assert (spec.name, model.nc, model.size) == ("yolov8", 4, "n")
    assert build_from(tmp_path, ROWS, nc=9)[1].nc == 9
    assert build_from(tmp_path, ROWS, "yolov8s-mine.yaml")[1].size == "s"
    assert build_from(tmp_path, {**ROWS, "scale": "s"})[1].size == "s"


def custom():
    """Other widths, depths and wiring than any size has, and an activation the tensors do not show."""
    rows = yaml.safe_load(YOLOV8.rows_text())
    rows["scales"] = {"q": [0.4, 0.375, 320]}
    rows["activation"] = "nn.ReLU()"
    rows["nc"] = 3
    return rows


def test_custom_rows_come_back_exactly(tmp_path):
    spec, model = build_from(tmp_path, custom())
    identity = spec.identify(model.state_dict(), model.rows)
    assert (identity.size, identity.nc) == ("", 3)
    assert identity.rows["activation"] == "nn.ReLU()"
    again = build(identity.rows, size=identity.size)
    again.load_state_dict(model.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(x).levels[0], again.eval()(x).levels[0])


def test_custom_widths_without_rows(tmp_path):
    _, model = build_from(tmp_path, {**custom(), "activation": "SiLU"})
    identity = YOLOV8.identify(model.state_dict(), {})
    again = build(identity.rows)
    again.load_state_dict(model.state_dict())
    assert again.strides == (8, 16, 32)


def test_stored_rows_that_do_not_fit_are_not_believed():
    tensors = build_model("yolov8n", nc=3)[1].state_dict()
    identity = YOLOV8.identify(tensors, {**ROWS, "scale": "s"})
    assert (identity.size, identity.rows["scale"]) == ("n", "n")


@pytest.mark.parametrize("nc", [64, 128])
def test_classes_as_many_as_channels(nc):
    """A class count that equals a written channel count: upstream then leaves that row unscaled."""
    model = build_model("yolov8n", nc=nc)[1]
    assert YOLOV8.identify(model.state_dict(), model.rows).size == "n"


def test_not_ours():
    tensors = build_model("yolov8n", nc=3)[1].state_dict()
    assert YOLOV8.identify({}, {}) is None
    grouped = dict(tensors)
    grouped["model.22.cv2.0.1.conv.weight"] = torch.zeros(64, 16, 3, 3)
    assert YOLOV8.identify(grouped, {}) is None
    less = {name: t for name, t in tensors.items() if not name.startswith("model.4.")}
    assert YOLOV8.identify(less, {}) is None


def test_bad_files(tmp_path):
    with pytest.raises(UnknownName):
        build_model(str(tmp_path / "absent.yaml"))
    with pytest.raises(ModelError) as caught:
        read_rows("nc: 3\nhead: [1, 2", where="mine.yaml")
    assert caught.value.where == "mine.yaml:2"
    with pytest.raises(ModelError, match="expected keys"):
        read_rows("- 1", where="mine.yaml")
    with pytest.raises(ModelError, match=r"mine.yaml: row 2 \(C2F2\).*unknown block"):
        broken = yaml.safe_load(YOLOV8.rows_text().replace("C2f, [128", "C2F2, [128"))
        build_from(tmp_path, broken)
