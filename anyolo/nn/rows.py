"""Model rows ``[from, number, module, args]`` of a YAML, checked and resolved. No torch in here.

Source: the row format of the YOLOv5, v7, v8 and v9 model files (scaling: Ultralytics 8.4 ``scales``, YOLOv5
``depth_multiple`` and ``width_multiple``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from anyolo.errors import ModelError, UnknownName

Channels: TypeAlias = int | tuple[int, ...]
"""Channels of a row's output; a tuple where the output is several maps."""

IMAGE = -1
"""As a source: the network's input instead of a row."""


MOST_CHANNELS = 1024
"""Of an input picture; more is a mistake in the file."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How a size of a family stretches the written rows."""

    depth: float = 1.0
    width: float = 1.0
    max_channels: float = math.inf

    def channels(self, written: int) -> int:
        """``written`` output channels at this width, a multiple of 8."""
        return math.ceil(min(written, self.max_channels) * self.width / 8) * 8

    def repeats(self, written: int) -> int:
        return max(round(written * self.depth), 1) if written > 1 else written


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``sources`` are absolute row numbers (``IMAGE`` for the input), ``many`` if a list was
    written.
    """

    index: int
    sources: tuple[int, ...]
    many: bool
    repeats: int
    block: str
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of one model. ``mapping`` is plain JSON data from which ``parse`` gives this plan again."""

    rows: tuple[Row, ...]
    nc: int
    channels: int
    size: str
    scale: Scale
    activation: str
    mapping: dict[str, Any]
    where: str

    def kept(self) -> frozenset[int]:
        """Rows whose output is read later by something else than the next row."""
        return frozenset(s for row in self.rows for s in row.sources if s not in (IMAGE, row.index - 1))

    def error(self, row: Row, problem: str, hint: str = "") -> ModelError:
        return ModelError(problem, where=f"{self.where}: row {row.index} ({row.block})", hint=hint)


def parse(mapping: Mapping[str, Any], *, size: str = "", nc: int | None = None, where: str = "model") -> Plan:
    """Check and resolve a model mapping as it comes from YAML.

    Args:
        mapping: keys ``backbone`` and ``head`` (lists of rows), ``nc``, and ``scales`` with an optional
            ``scale``, or ``depth_multiple`` and ``width_multiple``; also ``anchors``, ``activation`` and
            ``ch`` (input channels).
        size: which of ``scales``; default is the mapping's own ``scale``, else its first.
        nc: number of classes instead of the mapping's.
        where: what error messages call the mapping.

    Raises:
        ModelError: a missing key, a malformed row or a source that does not exist; names ``where`` and the
        row. UnknownName: ``size`` is not in ``scales``.
    """
    classes = mapping.get("nc") if nc is None else nc
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise ModelError(f"nc must be a positive number of classes, got {classes!r}", where=where)
    channels = mapping.get("ch") or mapping.get("channels") or 3
    if isinstance(channels, bool) or not isinstance(channels, int) or not 0 < channels <= MOST_CHANNELS:
        raise ModelError(f"ch is the number of image channels, got {channels!r}", where=where)
    written = [*_section(mapping, "backbone", where), *_section(mapping, "head", where)]
    size, scale = _scale(mapping, size, where)
    values = {"nc": classes, "anchors": mapping.get("anchors"), "None": None}
    rows = tuple(_row(index, row, scale, values, where) for index, row in enumerate(written))
    own = {key: _plain(mapping[key]) for key in _KEYS if key in mapping}
    own["nc"] = classes
    if size:
        own["scale"] = size
    return Plan(
        rows=rows,
        nc=classes,
        channels=channels,
        size=size,
        scale=scale,
        activation=str(mapping.get("activation") or "SiLU"),
        mapping=own,
        where=where,
    )


_KEYS = (
    "nc",
    "ch",
    "channels",
    "scales",
    "scale",
    "depth_multiple",
    "width_multiple",
    "anchors",
    "activation",
    "backbone",
    "head",
)


def _section(mapping: Mapping[str, Any], key: str, where: str) -> Sequence[Any]:
    rows = mapping.get(key)
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise ModelError(
            f"no rows under {key!r}",
            where=where,
            hint="A model file has nc, backbone and head; each row is [from, number, module, args].",
        )
    return rows


def _scale(mapping: Mapping[str, Any], size: str, where: str) -> tuple[str, Scale]:
    scales = mapping.get("scales")
    if not scales:
        depth, width = mapping.get("depth_multiple", 1.0), mapping.get("width_multiple", 1.0)
        return size or str(mapping.get("scale") or ""), _numbers((depth, width), where)
    if not isinstance(scales, Mapping):
        raise ModelError("scales must map a size to [depth, width, max_channels]", where=where)
    chosen = size or str(mapping.get("scale") or next(iter(scales)))
    if chosen not in scales:
        raise UnknownName("model size", chosen, map(str, scales), where=where)
    return chosen, _numbers(scales[chosen], where)


def _numbers(values: Any, where: str) -> Scale:
    try:
        scale = Scale(*(float(v) for v in values))
    except (TypeError, ValueError):
        raise ModelError(f"a scale is [depth, width, max_channels], got {values!r}", where=where) from None
    if min(scale.depth, scale.width, scale.max_channels) <= 0:
        raise ModelError(f"a scale has positive numbers, got {values!r}", where=where)
    return scale


def _row(index: int, written: Any, scale: Scale, values: Mapping[str, Any], where: str) -> Row:
    at = f"{where}: row {index}"
    if not isinstance(written, Sequence) or isinstance(written, str) or len(written) != 4:
        raise ModelError(f"a row is [from, number, module, args], got {written!r}", where=at)
    sources, repeats, block, args = written
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise ModelError(f"the second entry is how often, a whole number from 1, got {repeats!r}", where=at)
    if not isinstance(block, str):
        raise ModelError(f"the third entry is the name of a module, got {block!r}", where=at)
    if not isinstance(args, Sequence) or isinstance(args, str):
        raise ModelError(f"the fourth entry is a list of arguments, got {args!r}", where=at)
    many = isinstance(sources, Sequence) and not isinstance(sources, str)
    return Row(
        index=index,
        sources=tuple(_source(s, index, at) for s in (sources if many else [sources])),
        many=many,
        repeats=scale.repeats(repeats),
        block=block,
        args=tuple(values.get(a, a) if isinstance(a, str) else a for a in args),
    )


def _source(source: Any, index: int, at: str) -> int:
    if isinstance(source, bool) or not isinstance(source, int):
        raise ModelError(f"the first entry says where from (row numbers), got {source!r}", where=at)
    absolute = index + source if source < 0 else source
    if absolute >= index or absolute < IMAGE or (absolute == IMAGE and index):
        raise ModelError(f"reads from row {source}, which is not an earlier row", where=at)
    return absolute


def _plain(value: Any) -> Any:
    """Lists and dicts of numbers and strings, whatever containers they came in."""
    if isinstance(value, Mapping):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(own) for own in value]
    return value
