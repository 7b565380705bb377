"""The verb ``convert``: weights files in other layouts, and without what training left in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyolo import console
from anyolo.api.models import check_weights_file
from anyolo.config.load import load
from anyolo.config.schema import ConvertVerb
from anyolo.errors import ConfigError
from anyolo.families.conversion import Conversion, convert, find_layout

OWN = "anyolo"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """``source_bytes`` and ``conversion.size_bytes`` are the sizes before and after."""

    conversion: Conversion
    source_bytes: int
    ok: bool = True

    @property
    def output(self) -> Path:
        return self.conversion.output

    def to_json(self) -> dict[str, Any]:
        made = self.conversion
        return {
            "output": str(made.output),
            "format": made.format,
            "family": made.family,
            "size": made.size,
            "tensors": made.tensors,
            "dtype": made.dtype,
            "source_bytes": self.source_bytes,
            "size_bytes": made.size_bytes,
            "verified": True,
        }


def run_convert(values: Mapping[str, Any]) -> ConvertResult:
    """Settings as in ``anyolo convert --help``."""
    config = load(ConvertVerb, values).config
    layout = find_layout(config.format)
    source = check_weights_file(config.model)
    if config.strip and (config.format != OWN or config.output):
        raise ConfigError(
            "strip writes the file anew in its place, as anyolo's own",
            where="strip",
            hint="Leave out format= and output=, or strip: no format keeps what a training run left.",
        )
    target = source if config.strip else _target(config.output, source, layout.ending)
    if not config.strip and target.exists() and target.samefile(source):
        raise ConfigError(
            "this would overwrite the model", where="output", hint="Give output= another name, or say strip."
        )
    source_bytes = source.stat().st_size
    made = convert(source, target, config.format, family=config.family, half=config.half)
    report = console.current()
    same = "every bit as rounded" if config.half else "every bit as in the source"
    report.line(
        f"{made.output}: {made.tensors} tensors of {made.family} {made.size}".rstrip()
        + f" in {made.dtype}, {made.size_bytes / 1e6:.1f} MB of {source_bytes / 1e6:.1f}; read again, {same}"
    )
    if not layout.is_whole:
        report.line("tensors alone, under upstream's names: class names and sizes stay in the source")
    return ConvertResult(conversion=made, source_bytes=source_bytes)


def _target(output: str, source: Path, ending: str) -> Path:
    """``output`` as a file or folder, else beside the model."""
    if not output:
        return source.with_name(source.stem + ending)
    return Path(output) / (source.stem + ending) if Path(output).is_dir() else Path(output)
