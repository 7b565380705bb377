"""Files of the kinds people have, made here by torch itself from classes that are gone when they are read."""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import lzma
import pathlib
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from anyolo.errors import CheckpointError, UntrustedFile
from anyolo.families.checkpoints import read_file
from anyolo.families.safe_globals import Stub
from anyolo.families.safe_reader import read_object

DIALECTS = ("ultralytics.nn.modules", "ultralytics.nn.modules.block", "models.common")
DTYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.uint8, torch.int16,
    torch.int32, torch.int64, torch.bool, torch.complex64,
)  # fmt: skip


@pytest.fixture
def foreign(monkeypatch):
    """``foreign(module, name)``: an nn.Module class of a package that exists only for this test."""

    def make(module: str, name: str, base: type = nn.Module) -> type:
        if name in getattr(sys.modules.get(module), "__dict__", {}):
            return sys.modules[module].__dict__[name]
        made = type(name, (base,), {"__module__": module})
        for end in range(1, module.count(".") + 2):
            package = ".".join(module.split(".")[:end])
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        setattr(sys.modules[module], name, made)
        return made

    return make


def network(foreign, module: str) -> nn.Module:
    """A small whole module with all that real ones carry."""
    block = foreign(module, "Conv")()
    block.conv = nn.Conv2d(3, 4, 3, bias=False)
    block.bn = nn.BatchNorm2d(4)
    block.act = nn.SiLU()
    head = foreign(module, "Detect")()
    head.m = nn.ModuleList(nn.Conv2d(4, 7, 1) for _ in range(2))
    head.register_buffer("anchors", torch.arange(12.0).view(2, 3, 2))
    head.register_buffer("grid", torch.zeros(3), persistent=False)
    head.register_parameter("nothing", None)
    head.anchor_grid = [torch.ones(1, 3, 1, 1, 2).expand(1, 3, 8, 8, 2)]
    model = foreign(module, "Model")()
    model.model = nn.Sequential(block, head)
    model.yaml = {"nc": 2, "backbone": [[-1, 1, "Conv", [4, 3]]], "head": [[[0], 1, "Detect", ["nc"]]]}
    model.nc, model.names, model.stride = 2, ["bulb", "lamp"], torch.tensor([8.0, 16.0])
    return model


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")  # by the old layout, of classes made here
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_whole_module_gives_its_state_dict(foreign, monkeypatch, tmp_path, dialect, is_zip):
    model = network(foreign, dialect).half()
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save({"epoch": -1, "model": model}, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    monkeypatch.undo()
    assert dialect not in sys.modules
    found = read_file(tmp_path / "a.pt")
    assert dialect not in sys.modules  # reading imports nothing
    assert_same(found.tensors, expected)
    assert "model.1.anchors" in found.tensors and "model.1.grid" not in found.tensors
    assert (found.nc, found.names, found.stride) == (2, ("bulb", "lamp"), (8, 16))
    assert found.yaml["head"] == [[[0], 1, "Detect", ["nc"]]]
    assert found.meta["epoch"] == -1 and found.meta["model_class"] == f"{dialect}.Model"


def test_a_file_in_the_middle_of_training(foreign, tmp_path):
    """The averaged weights are taken; numpy scalars, namespaces, paths, dates become plain values."""
    space = foreign("ultralytics.utils", "IterableSimpleNamespace", types.SimpleNamespace)
    model, ema = network(foreign, "models.yolo"), network(foreign, "models.yolo")
    ema.args = space(imgsz=[96, 64], data=pathlib.PurePosixPath("a/b.yaml"))
    optimizer = {
        "state": {0: {"momentum_buffer": torch.ones(4, 3)}},
        "param_groups": [{"lr": 0.1, "params": [0]}],
    }
    content = {
        "epoch": 3,
        "best_fitness": np.float64(0.25),
        "fitness": np.array([0.5, 0.75], ">f4"),
        "model": model,
        "ema": ema,
        "optimizer": optimizer,
        "opt": argparse.Namespace(lr=0.01, kinds={"a"}),
        "counts": collections.Counter("aab"),
        "found": collections.defaultdict(list, {"k": [1]}),
        "last": collections.deque([1, 2], maxlen=2),
        "date": datetime.datetime(2024, 1, 2),
        "device": torch.device("cpu"),
        "raw": b"\0\xff",
        "type": torch.float16,
        "huge": torch.zeros(5000),
    }
    torch.save(content, tmp_path / "last.pt")
    found = read_file(tmp_path / "last.pt")
    assert_same(found.tensors, ema.state_dict())
    json.dumps(found.meta)
    assert found.meta["found_under"] == "ema" and "optimizer" not in found.meta
    kept = {
        key: found.meta[key]
        for key in ("best_fitness", "fitness", "opt", "counts", "found", "last", "device")
    }
    assert kept == {
        "best_fitness": 0.25,
        "fitness": [0.5, 0.75],
        "opt": {"lr": 0.01, "kinds": ["a"]},
        "counts": {"a": 2, "b": 1},
        "found": {"k": [1]},
        "last": [1, 2],
        "device": "cpu",
    }
    assert found.meta["model_args"] == {"imgsz": [96, 64], "data": "a/b.yaml"}
    assert (found.meta["date"], found.meta["huge"]) == ("<datetime.datetime>", "<tensor 5000>")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_every_protocol(tmp_path, protocol, is_zip):
    content = {
        "model": {"w": torch.arange(6.0).view(2, 3).t()},
        "values": [
            None,
            True,
            0,
            255,
            65535,
            -1,
            2**40,
            -(2**70),
            1.5,
            "ü",
            b"\xff" * 300,
            (1,),
            {1, 2},
            frozenset("a"),
        ],
    }
    torch.save(content, tmp_path / "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    found = read_object(tmp_path / "a.pt")
    assert found["values"] == content["values"]
    assert torch.equal(found["model"]["w"], content["model"]["w"])
    assert found["model"]["w"].stride() == (1, 3)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_bit_for_bit(tmp_path, dtype, is_zip):
    random = torch.Generator().manual_seed(1)
    count = 40 // dtype.itemsize
    raw = torch.randint(
        0, 2 if dtype == torch.bool else 256, (count * dtype.itemsize,), dtype=torch.uint8, generator=random
    )
    tensor = raw.view(dtype)
    torch.save(
        {"w": tensor, "none": torch.zeros(0, 3, dtype=dtype)},
        tmp_path / "a.pt",
        _use_new_zipfile_serialization=is_zip,
    )
    found = read_object(tmp_path / "a.pt")
    assert found["w"].dtype == dtype
    assert torch.equal(found["w"].view(torch.uint8), raw)
    assert found["none"].shape == (0, 3) and found["none"].dtype == dtype


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_views_share_their_storage(tmp_path, is_zip):
    base = torch.arange(12.0)
    content = {"base": base, "part": base[4:8], "grid": base.view(3, 4)[:, 1], "wide": base[:1].expand(5)}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    found = read_object(tmp_path / "a.pt")
    assert_same(found, content)
    found["base"][4] = 99
    assert found["part"][0] == 99
    assert found["base"].data_ptr() % 16 == 0


def test_a_big_endian_file(tmp_path):
    """As a machine of the other byte order writes it: every storage swapped, and a record that says so."""
    tensors = {
        "w": torch.randn(50),
        "n": torch.arange(5),
        "h": torch.randn(9).half(),
        "c": torch.randn(3) * 1j,
    }
    torch.save(tensors, tmp_path / "little.pt")
    swapped = {tensor.numpy().tobytes(): tensor.numpy().byteswap().tobytes() for tensor in tensors.values()}
    with zipfile.ZipFile(tmp_path / "little.pt") as old, zipfile.ZipFile(tmp_path / "big.pt", "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(
                entry.filename, b"big" if entry.filename.endswith("byteorder") else swapped.get(data, data)
            )
    assert_same(read_object(tmp_path / "big.pt"), tensors)


@pytest.mark.parametrize("wrap", ["bare", "model", "state_dict", "data parallel", "pair"])
def test_where_weights_may_lie(foreign, tmp_path, wrap):
    model = network(foreign, "models.yolo")
    weights = model.state_dict()
    content = {
        "bare": weights,
        "model": {"start_epoch": 1, "model": weights, "optimizer": None},
        "state_dict": {"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}},
        "data parallel": {"model": nn.DataParallel(model), "ema": None},
        "pair": {"model": None, "ema": (model, 7)},
    }[wrap]
    torch.save(content, tmp_path / "a.pt")
    found = read_file(tmp_path / "a.pt")
    assert_same(found.tensors, weights)
    assert found.names == (("bulb", "lamp") if wrap in ("data parallel", "pair") else ())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ("a", "b")),
        ({1: "b", 0: "a"}, ("a", "b")),
        ({"0": "a", "1": "b"}, ("a", "b")),
        ([1, True], ("1", "True")),
        (("a", "b"), ("a", "b")),
    ],
)
def test_names_in_any_form(foreign, tmp_path, names, expected):
    model = network(foreign, "models.yolo")
    model.names = names
    torch.save({"model": model}, tmp_path / "a.pt")
    assert read_file(tmp_path / "a.pt").names == expected


def test_names_with_a_hole(foreign, tmp_path):
    model = network(foreign, "models.yolo")
    model.names = {0: "a", 2: "c"}
    torch.save({"model": model}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"numbered \[0, 2\]"):
        read_file(tmp_path / "a.pt")


def test_an_unknown_class_stays_inert(foreign, tmp_path):
    """Its state can be looked at; nothing of it was imported."""
    thing = foreign("their.code", "Thing")()
    thing.secret = [1, 2]
    torch.save(thing, tmp_path / "a.pt")
    found = read_object(tmp_path / "a.pt")
    assert isinstance(found, Stub) and found.name == "their.code.Thing"
    assert found.attributes["secret"] == [1, 2]


def test_missing_folder_and_unreadable(tmp_path):
    with pytest.raises(CheckpointError, match="No such file") as missing:
        read_file(tmp_path / "none.pt")
    assert missing.value.where.endswith("none.pt") and missing.value.exit_code == 4
    with pytest.raises(CheckpointError, match="directory"):
        read_file(tmp_path)
    (tmp_path / "a.xz").write_bytes(lzma.compress(b"x"))
    with pytest.raises(CheckpointError, match="not a weights file"):
        read_file(tmp_path / "a.xz")


def test_a_call_in_the_optimizer_is_refused_too(tmp_path):
    class Bad:
        def __reduce__(self):
            return Path, ("x",), None, None, None

    class Worse:
        def __reduce__(self):
            return print, ("x",)

    torch.save({"model": {"w": torch.zeros(1)}, "optimizer": Bad()}, tmp_path / "path.pt")
    assert read_file(tmp_path / "path.pt").tensors["w"] == 0
    torch.save({"model": {"w": torch.zeros(1)}, "optimizer": [Worse()]}, tmp_path / "print.pt")
    with pytest.raises(UntrustedFile, match=r"print"):
        read_file(tmp_path / "print.pt")
