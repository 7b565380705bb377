"""Zip files that are not what torch writes: lies about what is where, how long, and of what kind."""

from __future__ import annotations

import struct
import zipfile

from tests.unit.hostile_opcodes import FOUR, GOOD, archive, storage, tensor, under_model

MODEL = under_model(tensor(storage(), [4], [1]))
LOCAL_FLAGS, LOCAL_CRC, LOCAL_SIZE = 6, 14, 22  # places in the header of a record
FLAGS, METHOD, CRC, PACKED, SIZE, COMMENT, DISK, ATTRIBUTES, HEADER = 8, 10, 16, 20, 24, 32, 34, 38, 42
RECORD = b"archive/data/0"


def archives() -> dict[str, tuple[bytes, str]]:
    """Name -> (bytes, words of the refusal)."""
    bomb = {"archive/data/0": b"\0" * (64 << 20)}
    found = {"compressed bomb": (archive(MODEL, bomb, method=zipfile.ZIP_DEFLATED), "compressed")}
    for path in (
        "../up",
        "archive/../../up",
        "/etc/passwd",
        "C:\\up",
        "archive/data/..\\up",
        "archive/data/a\\b",
    ):
        found[f"record {path}"] = archive(MODEL, {**FOUR, path: b"x"}), "leads out of the file"
    for key in ("../../../etc/passwd", "/etc/passwd", "..", "a/b", "", "0\n", "k" * 1000):
        found[f"key {key[:20]!r}"] = archive(under_model(tensor(storage(key), [4], [1])), FOUR), "storage"
    found["two objects"] = archive(MODEL, {**FOUR, "other/data.pkl": MODEL}), "data.pkl"
    found["no object"] = archive(MODEL).replace(b"data.pkl", b"data.pkx"), "data.pkl"
    found["TorchScript"] = archive(MODEL, {**FOUR, "archive/constants.pkl": MODEL}), "TorchScript"
    found["byte order middle"] = archive(MODEL, {**FOUR, "archive/byteorder": b"middle"}), "byte order"
    floats = [0.001 * n for n in range(300)]
    for order, form in (("big", "<"), ("little", ">")):
        found[f"byte order {order}, numbers the other"] = (
            archive(
                under_model(tensor(storage(count=300), [300], [1])),
                {"archive/data/0": struct.pack(f"{form}300f", *floats), "archive/byteorder": order.encode()},
            ),
            "byte order",
        )
    with_two = archive(MODEL, {**FOUR, "archive/data/1": b"\1" * 16})
    found["directory astray"] = (
        _redirect(with_two, b"archive/data/1", with_two.index(b"archive/data/0") - 30),
        "not where",
    )
    inner = with_two[with_two.index(b"archive/data/1") - 30 :][: 30 + len(b"archive/data/1") + 16]
    holding = archive(MODEL, {"archive/data/0": inner, "archive/data/1": b"\1" * 16})
    found["overlapping records"] = _redirect(holding, b"archive/data/1", holding.index(inner)), "overlaps"
    found["record in another"] = archive(MODEL, {"archive/data/0": archive(MODEL, FOUR)}), ""
    found["twice the same name"] = with_two.replace(b"archive/data/1", b"archive/data/0"), "same name"
    found["other local name"] = with_two.replace(b"archive/data/1", b"archive/data/2", 1), "not where"
    ones = archive(MODEL, {"archive/data/0": b"\1" * 16})
    found["damaged numbers"] = ones.replace(b"\1" * 16, b"\1" * 15 + b"\2"), "checksum"
    for cut in (4, 30, 100, len(GOOD) // 2, len(GOOD) - 30, len(GOOD) - 1):
        found[f"cut at {cut}"] = GOOD[:cut], ""
    found["bytes behind the end"] = GOOD + b"x", ""
    end = GOOD.rindex(b"PK\5\6")
    for at, form in ((8, "H"), (10, "H"), (12, "I"), (16, "I")):
        for value in (0, 1, 0xFFFE, 0xFFFF):
            changed = (
                GOOD[: end + at] + struct.pack(f"<{form}", value) + GOOD[end + at + struct.calcsize(form) :]
            )
            found[f"directory {at} {value}"] = changed, ""
    found["sixty thousand records"] = _many(60_000), "60000 records"
    found["forty-nine thousand records"] = _many(49_000), "0 data.pkl"
    return {**found, **_lies(), **_sixty_four()}


def _lies() -> dict[str, tuple[bytes, str]]:
    """One field changed: in the directory, or in the header of the record itself."""
    found = {
        "encrypted": (_central(FLAGS, "<H", 1), "encrypted"),
        "strongly encrypted": (_central(FLAGS, "<H", 0x41), "encrypted"),
        "patch data": (_central(FLAGS, "<H", 0x20), "encrypted"),
        "masked headers": (_central(FLAGS, "<H", 0x2000), "encrypted"),
        "encrypted by its own header": (_local(LOCAL_FLAGS, "<H", 1), "two ways"),
        "other checksum in its own header": (_local(LOCAL_CRC, "<I", 1), "two ways"),
        "other size in its own header": (_local(LOCAL_SIZE, "<I", 17), "two ways"),
        "sizes behind, and others before": (_local(LOCAL_FLAGS, "<H", 8, LOCAL_SIZE, "<I", 17), "two ways"),
        "checksum astray": (_central(CRC, "<I", 1), "two ways"),
        "shorter packed": (_central(PACKED, "<I", 1), "compressed"),
        "longer than the file": (_central(PACKED, "<I", 1 << 30, SIZE, "<I", 1 << 30), "two ways"),
        "unknown method": (_central(METHOD, "<H", 99), "compressed"),
        "on another disk": (_central(DISK, "<H", 1), "another file"),
        "with a comment": (_central(COMMENT, "<H", 4), ""),
        "symbolic link": (_central(ATTRIBUTES, "<I", 0o120777 << 16), "a link or a device"),
        "device": (_central(ATTRIBUTES, "<I", 0o020666 << 16), "a link or a device"),
        "pipe": (_central(ATTRIBUTES, "<I", 0o010666 << 16), "a link or a device"),
        "folder with content": (_central(ATTRIBUTES, "<I", 0o040755 << 16), "a link or a device"),
        "record outside": (_central(HEADER, "<I", 1 << 31), "outside"),
        "record without its sizes": (_central(SIZE, "<I", 0xFFFFFFFF), "zip64"),
    }
    end = GOOD.rindex(b"PK\5\6")
    found["comment"] = GOOD[: end + 20] + b"\5\0hello", "comment"
    found["comment that is a directory"] = GOOD[: end + 20] + b"\x16\0" + GOOD[end:], "should end"
    found["directory within the comment"] = GOOD[: end + 20] + b"\x2c\0" + GOOD[end:] * 2, "should end"
    found["long comment"] = GOOD[: end + 20] + b"\xff\xff" + b"x" * 0xFFFF, "comment"
    found["two disks"] = GOOD[: end + 4] + b"\1\0\1\0" + GOOD[end + 8 :], "several parts"
    return found


def _sixty_four() -> dict[str, tuple[bytes, str]]:
    """Directories in the long form."""
    end = GOOD.rindex(b"PK\5\6")
    count, length, start = struct.unpack_from("<H2I", GOOD, end + 10)

    def long_form(
        here: int = count, total: int = count, size: int = length, first: int = start, at: int = end
    ) -> bytes:
        directory = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, here, total, size, first)
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
        short = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        return GOOD[:end] + directory + locator + short

    lost = GOOD[:end] + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 1, 1, 0)
    field = struct.pack("<2H2Q", 1, 16, 1 << 62, 1 << 62)
    return {
        "long form without its directory": (lost, "zip64"),
        "long form astray": (long_form(at=end + 1), ""),
        "long form outside": (long_form(at=1 << 63), ""),
        "long form of 2**63 records": (long_form(here=1 << 63, total=1 << 63), "records"),
        "long form of too few": (long_form(here=1), "several parts"),
        "long form of a huge directory": (long_form(size=1 << 62), "directory"),
        "long form of a directory elsewhere": (long_form(first=1 << 62), "directory"),
        "long form of a directory in a record": (long_form(first=0), "directory"),
        "record of 2**62 bytes": (_extra(field, size=0xFFFFFFFF), "two ways"),
        "record of half a field": (_extra(field[:12], size=0xFFFFFFFF), ""),
        "record of a field without end": (_extra(b"\1\0\xff\xff", size=0xFFFFFFFF), ""),
    }


def _many(count: int) -> bytes:
    """This many records, all of them empty."""
    records, directory = bytearray(), bytearray()
    for number in range(count):
        name = b"archive/%d" % number
        offset = len(records)
        fields = (20, 0, 0, 0, 0, 0, 0, 0, len(name), 0)
        records += struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + name
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *fields, 0, 0, 0, 0, offset) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(records), 0)
    return bytes(records + directory + end)


def _entry(data: bytes) -> int:
    """Where the directory's entry of the record begins."""
    return data.rindex(RECORD) - 46


def _changed(data: bytes, base: int, fields: tuple[int | str, ...]) -> bytes:
    made = bytearray(data)
    for place, form, value in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
        struct.pack_into(str(form), made, base + int(place), value)
    return bytes(made)


def _central(*fields: int | str) -> bytes:
    """Place, form and value of what the directory says otherwise."""
    return _changed(GOOD, _entry(GOOD), fields)


def _local(*fields: int | str) -> bytes:
    return _changed(GOOD, GOOD.index(RECORD) - 30, fields)


def _extra(extra: bytes, size: int) -> bytes:
    """The record's entry in the directory with this size and these extra bytes."""
    at, end = _entry(GOOD), GOOD.rindex(b"PK\5\6")
    head = _changed(GOOD, at, (PACKED, "<I", size, SIZE, "<I", size, 30, "<H", len(extra)))
    behind = at + 46 + len(RECORD)
    made = head[:behind] + extra + head[behind:]
    length = struct.unpack_from("<I", GOOD, end + 12)[0] + len(extra)
    return _changed(made, end + len(extra), (12, "<I", length))


def _redirect(data: bytes, entry: bytes, offset: int) -> bytes:
    """Let the directory say that the record ``entry`` begins at ``offset``."""
    place = data.rindex(entry) - 4
    return data[:place] + struct.pack("<I", offset) + data[place + 4 :]
