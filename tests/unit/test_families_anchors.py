"""The families with anchors: whose file it is, in every form that users have it."""

from __future__ import annotations

import pytest
import torch
import yaml

from anyolo.errors import CheckpointError
from anyolo.families import FAMILIES, build_model, find_model
from anyolo.families.checkpoints import load_model, read_file
from anyolo.families.shapes import skeleton
from anyolo.nn.model import build

ANCHORED = ("yolov5", "yolov7", "yolov5lite", "fastestv2")
SPECS = {name: FAMILIES.get(name) for name in ANCHORED}
SIZES = [(name, size) for name, spec in SPECS.items() for size in spec.sizes()]
OFFICIAL = {  # file: family, size, anchors of the first level in pixels, activation of plain convolutions
    "yolov5n.pt": ("yolov5", "n", [10, 13, 16, 30, 33, 23], "SiLU"),
    "yolov5s-v4v5-focus.pt": ("yolov5", "focus-s", [10, 13, 16, 30, 33, 23], "SiLU"),
    "v5lite-s.pt": ("yolov5lite", "s", [10, 13, 16, 30, 33, 23], "SiLU"),
    "yolov5-lite-ppogg2021.pt": ("yolov5lite", "2021", [10, 11, 15, 31, 38, 24], "ReLU"),
    "yolo-fastestv2-coco2017-0.241078ap.pth": (
        "fastestv2", "", [12.64, 19.39, 37.88, 51.48, 55.71, 138.31], "ReLU",
    ),
}  # fmt: skip


def upstream(spec, model):
    """The state_dict as upstream would write it."""
    return dict(spec.export_weights(model.state_dict()))


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files(shared, name):
    family, size, anchors, activation = OFFICIAL[name]
    found = load_model(shared(f"weights/{name}"))
    assert (found.spec.name, found.size, found.model.nc) == (family, size, 80)
    assert found.model.head.read_anchors()[0].flatten().tolist() == pytest.approx(anchors, rel=1e-6)
    kinds = {type(m.act).__name__ for m in found.model.modules() if type(m).__name__ == "Conv"}
    assert kinds == {activation}
    side = 352 if family == "fastestv2" else 640
    assert found.imgsz == (side, side)
    assert not any("anchor_grid" in tensor for tensor in found.model.state_dict())


@pytest.mark.parametrize(("family", "size"), SIZES)
@pytest.mark.parametrize("nc", [1, 7, 1000])
def test_family_size_and_classes_from_tensors_alone(family, size, nc):
    spec = SPECS[family]
    rows = yaml.safe_load(spec.rows_text(size))
    tensors = skeleton(rows, size=size, nc=nc).state_dict()
    hits = {
        other: identity
        for other in FAMILIES
        if (identity := FAMILIES.get(other).identify(tensors, {})) is not None
    }
    assert list(hits) == [family]
    assert (hits[family].size, hits[family].nc) == (size, nc)


def test_every_spelling_is_found():
    for name in ("yolov5s-focus", "yolov5s-focus-v4.0", "YOLOv5s_Focus", "yolov5s-focus.yaml"):
        assert find_model(name) == (SPECS["yolov5"], "focus-s")
    assert find_model("yolov5-lite-g")[1] == find_model("v5lite-g")[1] == "g"
    assert find_model("yolo-fastestv2")[0] is SPECS["fastestv2"]


@pytest.mark.parametrize("family", ANCHORED)
@pytest.mark.parametrize("form", ["bare", "training", "half", "legacy"])
def test_a_file_of_upstream_names(family, form, tmp_path):
    torch.manual_seed(0)
    spec, model = build_model(next(iter(SPECS[family].models)), nc=4)
    tensors = upstream(spec, model)
    if form == "half":
        tensors = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
    content = {"epoch": 7, "ema": tensors, "optimizer": {}} if form == "training" else tensors
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=form != "legacy")
    found = load_model(tmp_path / "a.pt")
    assert (found.spec, found.size, found.model.nc) == (spec, model.size, 4)
    for name, own in model.state_dict().items():
        tensor = found.model.state_dict()[name]
        if own.is_floating_point():
            atol = 1e-3 if form == "half" else 0  # the smallest family's anchors are in no file
            assert torch.allclose(tensor, own, rtol=atol, atol=atol), name


def written(mapping, tmp_path, name="mine.yaml"):
    path = tmp_path / name
    path.write_text(yaml.safe_dump(mapping, sort_keys=False))
    return str(path)


def as_the_field_writes_it():
    """A YOLOv5 file: depth_multiple and width_multiple, nn.Upsample, 'None', own anchors and classes."""
    rows = yaml.safe_load(SPECS["yolov5"].rows_text("n"))
    del rows["scales"]
    for row in rows["head"]:
        row[2] = {"Upsample": "nn.Upsample"}.get(row[2], row[2])
    anchors = [[5, 6, 8, 14, 15, 11], [10, 20, 30, 15, 20, 40], [60, 40, 70, 90, 150, 120]]
    return {**rows, "nc": 2, "depth_multiple": 0.33, "width_multiple": 0.125, "anchors": anchors}


def test_a_users_yaml(tmp_path):
    spec, model = build_model(written(as_the_field_writes_it(), tmp_path))
    assert (spec.name, model.nc) == ("yolov5", 2)
    assert model.model[0].conv.out_channels == 8  # 64 * .125
    assert model.head.read_anchors()[1].flatten().tolist() == [10, 20, 30, 15, 20, 40]
    assert build_model(written(as_the_field_writes_it(), tmp_path), nc=5)[1].head.m[0].out_channels == 30


def test_a_users_yaml_of_a_lite_model(tmp_path):
    rows = yaml.safe_load(SPECS["yolov5lite"].rows_text("s"))
    spec, model = build_model(written({**rows, "width_multiple": 0.5, "nc": 3}, tmp_path))
    assert spec.name == "yolov5lite" and model.model[0].conv[0].out_channels == 16


@pytest.mark.parametrize(("stem", "depth"), [("yolov5m-mine", 2), ("yolov5-mine", 1), ("yolov5l", 3)])
def test_the_size_is_in_the_name_of_a_users_copy(tmp_path, stem, depth):
    path = tmp_path / f"{stem}.yaml"
    path.write_text(SPECS["yolov5"].rows_text("focus-m"))
    assert len(build_model(str(path))[1].model[2].m) == depth


def test_a_file_of_unusual_rows(tmp_path):
    """Rows that no size has: taken from the file, or measured on its tensors."""
    mapping = as_the_field_writes_it()
    spec, model = build_model(written(mapping, tmp_path))
    torch.save({"model": upstream(spec, model), "rows": mapping}, tmp_path / "a.pt")
    found = load_model(tmp_path / "a.pt")
    assert (found.spec, found.size, found.model.nc) == (spec, "", 2)
    assert found.model.rows["width_multiple"] == 0.125
    torch.save(upstream(spec, model), tmp_path / "b.pt")
    measured = load_model(tmp_path / "b.pt").model
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(measured.predict(x).boxes_xyxy, model.eval().predict(x).boxes_xyxy)


def test_anchors_of_the_tensors_win(tmp_path):
    """Fitted anchors live in the file's tensors, while its rows still tell those it started from; a grid
    that lies beside them is not believed.
    """
    torch.manual_seed(0)
    spec, model = build_model("yolov5n", nc=3)
    model.head.write_anchors(model.head.read_anchors() * 0.5)
    rows = {**yaml.safe_load(spec.rows_text("n")), "nc": 3}
    stale = torch.full((3, 1, 3, 1, 1, 2), 7.0)
    torch.save(
        {"model": {**upstream(spec, model), "model.24.anchor_grid": stale}, "rows": rows}, tmp_path / "a.pt"
    )
    found = load_model(tmp_path / "a.pt").model
    assert found.head.read_anchors()[0].flatten().tolist() == [5, 6.5, 8, 15, 16.5, 11.5]
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found.predict(x).boxes_xyxy, model.eval().predict(x).boxes_xyxy)


@pytest.mark.parametrize("says", [4, "three"])
def test_other_numbers_of_anchors(tmp_path, says):
    """Four anchors a level, with rows that leave them open (``anchors: 4``) or tell three."""
    rows = yaml.safe_load(SPECS["yolov5"].rows_text("n"))
    four = [[8, 9, *level] for level in rows["anchors"]]
    model = build({**rows, "anchors": four}, size="n", nc=3)
    stored = {**rows, "nc": 3, "anchors": rows["anchors"] if says == "three" else says}
    torch.save({"model": model.state_dict(), "rows": stored}, tmp_path / "a.pt")
    found = load_model(tmp_path / "a.pt")
    assert (found.size, found.model.nc) == ("n", 3)
    assert found.model.head.read_anchors().flatten(1).tolist() == four


def test_another_family_said_than_it_is(shared):
    file = shared("weights/yolov5n.pt")
    with pytest.raises(CheckpointError, match="no known model"):
        load_model(file, family="yolov5lite")
    assert load_model(file, family="yolov5").size == "n"


def test_names_of_the_smallest_family_go_both_ways(shared):
    theirs = read_file(shared("weights/yolo-fastestv2-coco2017-0.241078ap.pth")).tensors
    spec = SPECS["fastestv2"]
    own = spec.import_weights(theirs)
    assert spec.import_weights(own).keys() == own.keys()
    again = spec.export_weights(own)
    assert list(again) == list(theirs)
    assert all(torch.equal(again[name], tensor) for name, tensor in theirs.items())


def test_grids_are_written_for_programs_that_ask_for_them():
    spec, model = build_model("v5lite-e", nc=3)
    grid = upstream(spec, model)["model.21.anchor_grid"]
    assert tuple(grid.shape) == (3, 1, 3, 1, 1, 2)
    assert grid.flatten().tolist()[:6] == [10, 13, 16, 30, 33, 23]
