"""The folder of a run: its name, its files, and writing them so that a kill leaves the old ones whole."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from anyolo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RunFolder:
    root: Path

    @staticmethod
    def create(project: str, name: str, default: str, *, exist_ok: bool = False) -> RunFolder:
        """``project/name``, or ``default``, ``default2``, ... Two runs started at once get two folders."""
        base = Path(project)
        if name and exist_ok:
            (base / name).mkdir(parents=True, exist_ok=True)
            return RunFolder(base / name)
        stem = name or default
        for number in range(1, 100_000):
            root = base / (stem if number == 1 else f"{stem}{number}")
            try:
                root.mkdir(parents=True)
                return RunFolder(root)
            except FileExistsError:
                continue
            except OSError as error:
                raise ConfigError(
                    f"cannot make the run folder: {error.strerror}",
                    where=str(root),
                    hint="Give project= another place.",
                ) from error
        raise ConfigError("too many runs", where=str(base), hint="Give name= a new name.")

    @property
    def best(self) -> Path:
        return self.root / "weights" / "best.pt"

    @property
    def last(self) -> Path:
        return self.root / "weights" / "last.pt"

    @property
    def results(self) -> Path:
        return self.root / "results.csv"

    def epoch_weights(self, epoch: int) -> Path:
        return self.root / "weights" / f"epoch{epoch}.pt"

    def write_args(self, args: Mapping[str, Any]) -> None:
        write_text(self.root / "args.yaml", yaml.safe_dump(dict(args), sort_keys=False, allow_unicode=True))

    def write_results(self, rows: Sequence[Mapping[str, float]]) -> None:
        """All epochs so far; rewritten whole, so that a resumed run never leaves rows of a lost epoch.

        With ``val=False`` only the last epoch has figures of the validation pictures; the others stay empty.
        """
        if not rows:
            return
        text = io.StringIO()
        longest_first = sorted(rows, key=len, reverse=True)
        columns = list(dict.fromkeys(name for row in longest_first for name in row))
        writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
        write_text(self.results, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
