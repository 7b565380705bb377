"""Pickles written opcode by opcode and the two layouts of torch around them; none is ever unpickled."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

PROTO = b"\x80\x02"
STOP = b"."
LEGACY_START = (
    pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    + pickle.dumps(1001, 2)
    + pickle.dumps(
        {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}, 2
    )
)


def archive(
    data: bytes, records: dict[str, bytes] | None = None, *, method: int = zipfile.ZIP_STORED
) -> bytes:
    """A file in torch's zip layout around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("archive/data.pkl", data)
        for name, content in (records or {}).items():
            file.writestr(name, content)
        file.writestr("archive/version", "3\n")
    return buffer.getvalue()


def legacy(data: bytes, keys: list[str] | None = None, tail: bytes = b"") -> bytes:
    """A file in the layout before torch 1.6."""
    return LEGACY_START + data + pickle.dumps(keys or [], 2) + tail


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(full: str) -> bytes:
    module, _, last = full.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def call(full: str, *args: bytes) -> bytes:
    """The opcodes of ``full(*args)``."""
    return name(full) + b"(" + b"".join(args) + b"tR"


def under_model(value: bytes) -> bytes:
    """``{"model": value}``."""
    return PROTO + b"}" + text("model") + value + b"s" + STOP


def storage(
    key: str = "0",
    count: int = 4,
    kind: str = "torch.FloatStorage",
    part: tuple[str, int, int] | None = None,
) -> bytes:
    """What stands for a storage, or for ``part`` (a name, its place, its elements) of one."""
    view = b"(" + text(part[0]) + number(part[1]) + number(part[2]) + b"t" if part else b""
    return b"(" + text("storage") + name(kind) + text(key) + text("cpu") + number(count) + view + b"tQ"


def tensor(source: bytes, size: list[int], stride: list[int], offset: int = 0) -> bytes:
    sizes = b"(" + b"".join(map(number, size)) + b"t"
    strides = b"(" + b"".join(map(number, stride)) + b"t"
    empty = call("collections.OrderedDict")
    return call("torch._utils._rebuild_tensor_v2", source, number(offset), sizes, strides, b"\x89", empty)


def module(**attributes: bytes) -> bytes:
    """An nn.Module as a pickle holds it."""
    parts = {"_parameters": b"}", "_buffers": b"}", "_modules": b"}", **attributes}
    state = b"}(" + b"".join(text(key) + value for key, value in parts.items()) + b"u"
    return name("models.yolo.Model") + b")\x81" + state + b"b"


FOUR = {"archive/data/0": b"\0" * 16}
GOOD = archive(under_model(b"}" + text("w") + tensor(storage(), [4], [1]) + b"s"), FOUR)
