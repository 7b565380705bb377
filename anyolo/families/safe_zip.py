"""The directory of a zip file that torch wrote, and the bytes of its records. Nothing is unpacked to disk.

torch stores every record as it is (no compression) and nothing overlaps, so a record can cost no more memory
than the file is long. Anything else is refused.

Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 (records) and 4.5.3 (zip64).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BufferedReader

from anyolo.errors import CheckpointError
from anyolo.families.safe_values import shown

MAX_RECORDS = 50_000  # a training file of the largest models has about 8,000
MAX_DIRECTORY_BYTES = 32 << 20

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_SIZES_BEHIND = 0x0008
_HARMLESS_FLAGS = 0x0806 | _SIZES_BEHIND  # names in UTF-8, how hard a compressor tried
_FILE_TYPES, _PLAIN_FILE, _FOLDER = 0o170000, 0o100000, 0o040000


@dataclass(frozen=True, slots=True)
class Record:
    """``size`` bytes from ``start`` of the file; ``header`` is where its own header begins."""

    name: str
    header: int
    start: int
    size: int
    crc: int


class Archive:
    """The records of an open zip file by name.

    Raises:
        CheckpointError: no directory (a truncated file), or records that are compressed, encrypted, links,
            overlapping, outside the file, there twice, told of in two ways, or named like a path out of it.
    """

    def __init__(self, file: BufferedReader, size_bytes: int) -> None:
        self._file = file
        count, start, length = _find_directory(file, size_bytes)
        file.seek(start)
        entries = _read_entries(file.read(length), count)
        self.records = {entry.name: self._locate(entry) for entry in entries}
        if len(self.records) != len(entries):
            raise CheckpointError("two records of the same name")
        end = 0
        for record in sorted(self.records.values(), key=lambda record: record.header):
            if record.header < end:
                raise CheckpointError(f"record {shown(record.name)} overlaps another")
            end = record.start + record.size
        if end > start:
            raise CheckpointError("a record reaches into the directory")

    def _locate(self, entry: Record) -> Record:
        """The entry with the place of its bytes; its own header must tell the same as the directory."""
        self._file.seek(entry.header)
        head = self._file.read(_LOCAL.size)
        if len(head) != _LOCAL.size:
            raise CheckpointError("a record outside the file")
        signature, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(head)
        name = entry.name.encode()
        if signature != b"PK\3\4" or name_length != len(name) or self._file.read(name_length) != name:
            raise CheckpointError(f"record {shown(entry.name)} is not where the directory says")
        if _FULL32 in (packed, size):
            size, packed = _widen(self._file.read(extra_length), size, packed)
        told = (crc, packed, size)
        if flags & _SIZES_BEHIND and told == (0, 0, 0):
            told = (entry.crc, entry.size, entry.size)
        if method or flags & ~_HARMLESS_FLAGS or told != (entry.crc, entry.size, entry.size):
            raise CheckpointError(f"record {shown(entry.name)} is told of in two ways")
        start = entry.header + _LOCAL.size + name_length + extra_length
        return Record(entry.name, entry.header, start, entry.size, entry.crc)

    def read(self, name: str, limit: int) -> bytes:
        """A small record; CheckpointError when it is absent, damaged or longer than ``limit``."""
        record = self.records.get(name)
        if record is None or record.size > limit:
            size = "no" if record is None else "far too long a"
            raise CheckpointError(f"{size} record {shown(name)}")
        data = bytearray(record.size)
        self.read_into(record, memoryview(data))
        return bytes(data)

    def read_into(self, record: Record, memory: memoryview) -> None:
        """Fill ``memory``, exactly as long as the record, and compare its checksum."""
        self._file.seek(record.start)
        if self._file.readinto(memory) != record.size:
            raise CheckpointError("the file ends too early: it is truncated")
        if record.crc and zlib.crc32(memory) != record.crc:  # torch can leave the checksum out: 0
            raise CheckpointError(f"record {shown(record.name)} is damaged: its checksum differs")


def _find_directory(file: BufferedReader, size_bytes: int) -> tuple[int, int, int]:
    """Number of entries, offset and length of the central directory."""
    tail_size = min(size_bytes, _LOCATOR64.size + _END.size + 0xFFFF)
    file.seek(size_bytes - tail_size)
    tail = file.read(tail_size)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise CheckpointError("no directory at the end of the file: it is truncated")
    _, disk, first_disk, here, count, length, start, comment = _END.unpack_from(tail, at)
    end = size_bytes - tail_size + at
    if comment or at + _END.size != len(tail):
        raise CheckpointError("a comment or other bytes behind the end of the zip directory")
    if at >= _LOCATOR64.size and tail[at - _LOCATOR64.size :][:4] == b"PK\6\7":
        _, _, end, _ = _LOCATOR64.unpack_from(tail, at - _LOCATOR64.size)
        file.seek(min(end, size_bytes))
        signature, _, _, _, disk, first_disk, here, count, length, start = _END64.unpack(
            file.read(_END64.size)
        )
        if signature != b"PK\6\6":
            raise CheckpointError("the zip64 directory is not where the file says")
    elif _FULL32 in (length, start) or count == _FULL16:
        raise CheckpointError("a zip64 file without its directory")
    if disk or first_disk or here != count:
        raise CheckpointError("a zip file in several parts")
    if count > MAX_RECORDS or length > MAX_DIRECTORY_BYTES:
        raise CheckpointError(f"a zip directory of {count} records in {length} bytes")
    if start + length != end or count * _ENTRY.size > length:
        raise CheckpointError("the zip directory is not where it should end")
    return count, start, length


def _read_entries(data: bytes, count: int) -> list[Record]:
    entries: list[Record] = []
    at = 0
    for _ in range(count):
        fields = _ENTRY.unpack_from(data, at)
        signature, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = fields[:12]
        comment_length, disk, _, attributes, header = fields[12:]
        at += _ENTRY.size
        name = data[at : at + name_length].decode("utf-8")
        extra = data[at + name_length : at + name_length + extra_length]
        at += name_length + extra_length + comment_length
        if signature != b"PK\1\2" or at > len(data):
            raise CheckpointError("the zip directory is damaged")
        if _FULL32 in (packed, size, header):
            size, packed, header = _widen(extra, size, packed, header)
        if comment_length or disk:
            raise CheckpointError(f"record {shown(name)} has a comment, or lies in another file")
        if method or flags & ~_HARMLESS_FLAGS or packed != size:
            raise CheckpointError(
                f"record {shown(name)} is compressed or encrypted, which torch.save never does",
                hint="Unpack the file and save it again with torch.save.",
            )
        if not name or name[0] == "/" or ".." in name.split("/") or any(c in name for c in "\\:\0"):
            raise CheckpointError(f"a record named {shown(name)}, which leads out of the file")
        kind = attributes >> 16 & _FILE_TYPES
        if kind not in (0, _PLAIN_FILE) and (kind != _FOLDER or size):
            raise CheckpointError(f"record {shown(name)} is a link or a device, not a file")
        entries.append(Record(name, header, 0, size, crc))
    return entries


def _widen(extra: bytes, *narrow: int) -> list[int]:
    """The sizes and offset of an entry, each taken from the zip64 field where the narrow one is full."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            return [next(values, _FULL32) if value == _FULL32 else value for value in narrow]
        at += 4 + length
    raise CheckpointError("a zip64 entry without its sizes")
