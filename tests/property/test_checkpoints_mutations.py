"""Whatever happens to the bytes of a file: a CheckpointError or a result, never anything else."""

from __future__ import annotations

import io
import sys
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from anyolo.errors import CheckpointError
from anyolo.families.checkpoints import read_file, read_record
from anyolo.families.safe_reader import read_object


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.bn = nn.BatchNorm2d(2)
        self.names = {0: "a", 1: "b"}
        self.yaml = {"nc": 2, "backbone": [[-1, 1, "Conv", [2, 3]]], "head": []}
        self.stride = torch.tensor([8.0])


def saved(content: object, **options: object) -> bytes:
    """Without checksums, which would catch most changes before anything else does."""
    buffer = io.BytesIO()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, buffer, **options)
    finally:
        torch.serialization.set_crc32_options(True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """One small file of each layout; the module's class belongs to a package nobody can import."""
    home = sys.modules["a_package_of_theirs"] = types.ModuleType("a_package_of_theirs")
    Model.__module__, home.Model = home.__name__, Model
    model = Model().half()
    half = {"model": model, "best_fitness": torch.ones(1).numpy()[0], "ids": {1, 2}}
    record = {
        "anyolo": 1,
        "rows": {},
        "weights": {"w": torch.arange(6.0)},
        "training": {"n": [(1, 2.5), None]},
    }
    made = {
        "module": saved(half),
        "legacy": saved(model.state_dict(), _use_new_zipfile_serialization=False),
        "protocol 5": saved(half, pickle_protocol=5),
        "record": saved(record),
    }
    del sys.modules["a_package_of_theirs"]
    return made


def read(path: object) -> None:
    for reader in (read_file, read_record):
        try:
            reader(path)
        except CheckpointError as error:
            assert error.where == str(path)


KINDS = st.sampled_from(["module", "legacy", "protocol 5", "record"])


@settings(max_examples=300)
@given(kind=KINDS, changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes(files, tmp_path_factory, kind, changes):
    data = bytearray(files[kind])
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "changed.pt"
    path.write_bytes(data)
    read(path)


@settings(max_examples=150)
@given(kind=KINDS, place=st.floats(0, 1), other=st.binary(max_size=12), taken=st.integers(0, 12))
def test_inserted_and_removed_bytes(files, tmp_path_factory, kind, place, other, taken):
    data = files[kind]
    at = int(place * len(data))
    path = tmp_path_factory.getbasetemp() / "spliced.pt"
    path.write_bytes(data[:at] + other + data[at + taken :])
    read(path)


@settings(max_examples=150)
@given(
    code=st.lists(st.sampled_from([bytes([n]) for n in range(256)] + [b"h\0", b"q\0", b"K\1", b"X\1\0\0\0a"]))
)
def test_random_opcodes(tmp_path_factory, code):
    """Pickles made of whatever opcodes, most of them known ones."""
    from tests.unit.hostile_opcodes import FOUR, archive

    path = tmp_path_factory.getbasetemp() / "opcodes.pt"
    path.write_bytes(archive(b"\x80\x02" + b"".join(code) + b".", FOUR))
    read(path)


def test_every_single_bit_of_a_module_file(files, tmp_path):
    """Each bit of the pickle flipped in turn."""
    data = saved({"w": torch.arange(3.0), "n": (1, 2.5)})
    end = data.index(b"PK", 4)
    start = data.index(b"\x80\x02")
    refused = 0
    for bit in range(start * 8, end * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / "bit.pt").write_bytes(changed)
        try:
            read_object(tmp_path / "bit.pt")
        except CheckpointError:
            refused += 1
    assert refused > 500
