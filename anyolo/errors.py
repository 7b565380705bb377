"""Every error a user can meet, and nothing else.

    AnyoloError                      what, where, what to do
    |- ConfigError                   a key, value or name the user typed
    |  `- UnknownName                with the nearest known names
    |- DataError                     data.yaml, folders, labels, pictures
    |- ModelError                    model rows, shapes, image sizes
    |- CheckpointError               a weights file that cannot be read
    |  `- UntrustedFile              a file that asks for code to be run
    |- DeviceError                   a device that is absent or lacks something
    |- TrainingError                 a run that cannot go on (divergence, nothing to train)
    |  `- OutOfMemory                also with single pictures
    |- ExportError                   an artefact that could not be written or reopened
    |  `- VerificationFailed         it was reopened and gives other boxes
    `- MissingPackage                an optional package, with the command that installs it

The command line turns each into one paragraph and an exit code (``exit_code``); ``--json`` prints
``{"error", "kind", "hint"}``. Exit codes: 0 done, 1 the job was not done, 2 the request was wrong,
3 data, 4 weights file, 5 device, 6 export differs from the model, 130 stopped by the user.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AnyoloError(Exception):
    """What happened, where (``file:line`` or a key), and what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.hint:
            parts.append(self.hint)
        return "\n".join(parts)


class ConfigError(AnyoloError):
    exit_code = 2


class UnknownName(ConfigError):
    """A key, model, format or device nobody knows, with what was probably meant."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "") -> None:
        names = sorted(set(known))
        near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.55)
        if near:
            hint = "Did you mean " + " or ".join(repr(n) for n in near) + "?"
        else:
            hint = f"Known: {', '.join(names[:40])}{' ...' if len(names) > 40 else ''}."
        super().__init__(f"unknown {kind} {name!r}", where=where, hint=hint)


class DataError(AnyoloError):
    exit_code = 3


class ModelError(AnyoloError):
    exit_code = 2


class CheckpointError(AnyoloError):
    exit_code = 4


class UntrustedFile(CheckpointError):
    """A weights file that names code to be executed. It was not executed."""


class DeviceError(AnyoloError):
    exit_code = 5


class TrainingError(AnyoloError):
    exit_code = 1


class OutOfMemory(TrainingError):
    """``is_whole``: the weights are those of the last complete update."""

    def __init__(self, message: str, *, where: str = "", hint: str = "", is_whole: bool = True) -> None:
        super().__init__(message, where=where, hint=hint)
        self.is_whole = is_whole


class ExportError(AnyoloError):
    exit_code = 1


class VerificationFailed(ExportError):
    exit_code = 6


class MissingPackage(AnyoloError):
    """An optional package is not installed; nothing is ever installed behind the user's back."""

    exit_code = 2

    def __init__(self, package: str, *, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is not installed",
            hint=f'Install it with: pip install "anyolo[{extra}]"',
        )
