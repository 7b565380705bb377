"""Files in the layout before torch 1.6, the oldest and Python 2's included: read as torch reads them."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from anyolo.errors import CheckpointError
from anyolo.families.safe_reader import read_object
from tests.unit.hostile_opcodes import LEGACY_START, PROTO, STOP, call, legacy, name, storage, tensor

KINDS = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.uint8, torch.int16,
    torch.int32, torch.int64, torch.bool,
)  # fmt: skip


def floats(count: int, order: str = "<") -> bytes:
    return struct.pack(f"{order}{count}f", *(0.01 * (n + 1) for n in range(count)))


def storage_bytes(content: bytes, width: int = 4) -> bytes:
    """Length and numbers, as they follow the pickles."""
    return struct.pack("<q", len(content) // width) + content


def whole_storage(count: int) -> bytes:
    """The old layout says with None that a storage is no part of another."""
    return storage(count=count)[: -len(b"tQ")] + b"NtQ"


def both(path: Path, data: bytes) -> tuple[Any, Any]:
    """What we and what torch read from a file."""
    path.write_bytes(data)
    return read_object(path), torch.load(path, map_location="cpu", weights_only=True)


def test_every_type_strides_and_shared_storages_as_torch_reads_them(tmp_path):
    generator = torch.Generator().manual_seed(3)
    content: dict[str, torch.Tensor] = {}
    for kind in KINDS:
        base = (torch.rand(4, 6, 5, generator=generator) * 100).to(kind)
        content |= {
            f"{kind} base": base,
            f"{kind} turned": base.permute(2, 0, 1),
            f"{kind} part": base[1:3, ::2, 1],
            f"{kind} repeated": base[0, 0].expand(7, 5),
            f"{kind} none": base[:0],
            f"{kind} number": base[3, 5, 4],
        }
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    found = read_object(tmp_path / "a.pt")
    assert list(found) == list(content)
    for key, expected in content.items():
        own = found[key]
        assert own.dtype == expected.dtype and torch.equal(own, expected), key
        assert own.stride() == expected.stride() and own.storage_offset() == expected.storage_offset(), key
    found["torch.float32 base"][1, 0, 1] = -1
    assert found["torch.float32 part"][0, 0] == -1


def test_storages_within_a_storage(tmp_path):
    """As torch wrote them before 0.4: one storage in the file, others are stretches of it."""
    stretches = [storage(count=12, part=(f"part{start}", start, 6)) for start in (0, 6)]
    parts = b"](" + b"".join(tensor(stretch, [2, 2], [3, 1], offset=1) for stretch in stretches)
    whole = tensor(whole_storage(12), [12], [1])
    data = legacy(PROTO + parts + whole + b"e" + STOP, ["0"], storage_bytes(floats(12)))
    ours, theirs = both(tmp_path / "a.pt", data)
    for own, expected in zip(ours, theirs, strict=True):
        assert torch.equal(own, expected)
    assert ours[1].tolist() == ours[2][torch.tensor([[7, 8], [10, 11]])].tolist()
    ours[2][8] = 99
    assert ours[1][0, 1] == 99


def test_a_stretch_of_halves(tmp_path):
    """Place and length of a stretch count numbers, not bytes."""
    view = tensor(storage(count=8, kind="torch.HalfStorage", part=("v", 2, 4)), [4], [1])
    content = torch.arange(8).half().numpy().tobytes()
    data = legacy(PROTO + view + STOP, ["0"], storage_bytes(content, width=2))
    ours, theirs = both(tmp_path / "a.pt", data)
    assert ours.tolist() == theirs.tolist() == [2, 3, 4, 5]


def test_what_python_2_wrote(tmp_path):
    """Byte strings for text, a memo that begins at 1, tensors without backward hooks."""

    def old_text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    old_storage = (
        b"(" + old_text("storage") + b"q\1" + name("torch.FloatStorage") + b"q\2" + old_text("4711") + b"q\3"
        + old_text("cuda:0") + b"q\4" + b"K\4NtQ"
    )  # fmt: skip
    sizes = b"(K\2K\2t(K\2K\1t"
    made = name("torch._utils._rebuild_tensor") + b"(" + old_storage + b"K\0" + sizes + b"tRq\5"
    state = call("collections.OrderedDict", b"](]q\6(" + old_text("w") + made + b"ee")
    data = legacy(PROTO + state + STOP, ["4711"], storage_bytes(floats(4)))
    ours, theirs = both(tmp_path / "a.pt", data)
    assert list(ours) == ["w"] and torch.equal(ours["w"], theirs["w"])
    assert ours["w"].device.type == "cpu"


@pytest.mark.parametrize("is_little", [True, False])
def test_numbers_are_little_endian_whatever_the_machine_was(tmp_path, is_little):
    """``little_endian`` in such a file tells of the machine, not of the file; torch does not look at it."""
    system = {"protocol_version": 1001, "little_endian": is_little, "type_sizes": {}}
    start = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps(system, 2)
    rest = legacy(PROTO + tensor(whole_storage(300), [300], [1]) + STOP, ["0"])[len(LEGACY_START) :]
    ours, theirs = both(tmp_path / "a.pt", start + rest + storage_bytes(floats(300)))
    assert torch.equal(ours, theirs) and ours[0] == torch.tensor(0.01)
    (tmp_path / "a.pt").write_bytes(start + rest + storage_bytes(floats(300, ">")))
    with pytest.raises(CheckpointError, match="wrong byte order"):
        read_object(tmp_path / "a.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_swapped_weights_are_told_from_sound_ones(tmp_path, dtype):
    """Also weights that were rounded to halves, and sound ones with a few odd numbers among them."""
    generator = torch.Generator().manual_seed(0)
    weights = (torch.randn(2000, generator=generator) * 0.05).half().to(dtype)
    weights[::40] = 0
    weights[5] = float("inf")
    buffer = io.BytesIO()
    torch.save({"w": weights}, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    assert torch.equal(read_object(tmp_path / "a.pt")["w"], weights)
    raw = weights.view(torch.uint8).numpy()
    swapped = raw.reshape(-1, dtype.itemsize)[:, ::-1].tobytes()
    (tmp_path / "a.pt").write_bytes(buffer.getvalue().replace(raw.tobytes(), swapped))
    with pytest.raises(CheckpointError, match="wrong byte order"):
        read_object(tmp_path / "a.pt")


def test_very_many_storages(tmp_path):
    content = {f"layer{n}.weight": torch.full((3,), float(n)) for n in range(700)}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    found = read_object(tmp_path / "a.pt")
    assert [int(weights[2]) for weights in found.values()] == list(range(700))
