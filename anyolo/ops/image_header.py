"""Format, size and orientation of a picture from its first bytes, without decoding it.

Source: ITU-T T.81 B.2 (JPEG), Exif 2.3 4.6 (orientation), PNG 1.2 11.2, BMP, WebP container specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from anyolo.types import SizeHW

JPEG_START, PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
END_MARKS = {"jpeg": b"\xff\xd9", "png": b"IEND"}
HEAD_BYTES, TAIL_BYTES = 1 << 14, 1 << 10
"""Enough for nearly every header, and for the end marker with what some cameras write after it."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """``stored_hw`` is the size of the pixels in the file, ``orientation`` the Exif value 1..8."""

    format: str
    stored_hw: SizeHW
    orientation: int = 1

    @property
    def size_hw(self) -> SizeHW:
        """The size as people see it, after the Exif rotation."""
        height, width = self.stored_hw
        return (width, height) if self.orientation >= 5 else (height, width)


def parse_header(data: bytes) -> ImageHeader | None:
    """None for a format this file does not know and for one that ends before its size."""
    try:
        if data[:2] == JPEG_START:
            return _jpeg(data)
        if data[:8] == PNG_START:
            return _png(data)
        if data[:2] == b"BM":
            return _bmp(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
    except (struct.error, IndexError):
        return None
    return None


def ends_early(data: bytes) -> bool:
    """Whether a whole JPEG or PNG file lost its end: no end marker after the start of the pixels.

    Decoders fill the lost rows with grey and only grumble on stderr; labels there would be wrong.
    """
    if data[:8] == PNG_START:
        return END_MARKS["png"] not in data
    if data[:2] != JPEG_START:
        return False
    try:
        pixels_at = next((at for marker, at in _jpeg_segments(data) if marker == 0xDA), 0)
    except (struct.error, IndexError):
        return True
    return data.rfind(END_MARKS["jpeg"]) < max(pixels_at, 2)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, position of the marker) up to the start of the pixels; skips embedded thumbnails."""
    position = 2
    while data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            position += 2
        else:
            yield marker, position
            if marker in (0xD9, 0xDA):
                return
            position += 2 + int(struct.unpack_from(">H", data, position + 2)[0])


def _jpeg(data: bytes) -> ImageHeader | None:
    orientation = 1
    for marker, at in _jpeg_segments(data):
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _exif_orientation(data[at + 10 :])
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return ImageHeader("jpeg", (height, width), orientation) if height and width else None
    return None


def _exif_orientation(tiff: bytes) -> int:
    """Tag 0x0112 of the first directory; 1 where it is absent or broken."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == 0x0112:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _png(data: bytes) -> ImageHeader | None:
    width, height = struct.unpack_from(">II", data, 16)
    orientation, position = 1, 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"eXIf":
            orientation = _exif_orientation(data[position + 8 : position + 8 + length])
        if kind in (b"eXIf", b"IDAT", b"IEND"):
            break
        position += 12 + length
    return ImageHeader("png", (height, width), orientation) if height and width else None


def _bmp(data: bytes) -> ImageHeader | None:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return ImageHeader("bmp", (abs(height), abs(width))) if height and width else None


def _webp(data: bytes) -> ImageHeader | None:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return ImageHeader("webp", (height & 0x3FFF, width & 0x3FFF))
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return ImageHeader("webp", ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1))
    if kind != b"VP8X":
        return None
    width = int.from_bytes(data[24:27], "little") + 1
    height = int.from_bytes(data[27:30], "little") + 1
    has_exif, orientation, position = bool(data[20] & 8), 1, 30
    while has_exif and position + 8 <= len(data):
        chunk, length = struct.unpack_from("<4sI", data, position)
        if chunk == b"EXIF":
            body = data[position + 8 : position + 8 + length]
            orientation = _exif_orientation(body[6:] if body[:6] == b"Exif\0\0" else body)
            break
        position += 8 + length + length % 2
    return ImageHeader("webp", (height, width), orientation)
