"""Reading a command line as people of this field write it.

``train data=x.yaml epochs=50``, ``train --data x.yaml --epochs=50``, ``task=detect mode=train``,
``train resume``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from anyolo.cli.verbs import VERBS
from anyolo.config.settings import HYP, OPPOSITES, Setting, canonical, settings_of, unknown
from anyolo.errors import ConfigError, UnknownName

TASK = "detect"
FLAGS = {"--help", "-h", "--version", "-V", "--json", "--traceback"}
_BOOLEANS = {"true", "false", "yes", "no", "on", "off", "0", "1"}


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: a verb (or none) with its settings as typed, and the flags of the tool itself."""

    verb: str = ""
    values: dict[str, str | bool] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()

    def wants(self, *flags: str) -> bool:
        return not self.flags.isdisjoint(flags)


def parse(words: Sequence[str]) -> Request:
    """Raises UnknownName for a verb or setting nobody knows, ConfigError for what cannot be understood."""
    flags = frozenset(word for word in words if word in FLAGS)
    rest = [word for word in words if word not in FLAGS]
    if rest[:1] == ["help"]:
        rest, flags = rest[1:], flags | {"--help"}
    verb, rest = _take_verb(rest)
    if not verb and rest and "--help" not in flags:
        raise ConfigError("no verb", where=rest[0], hint=f"Start with one of: {', '.join(VERBS)}.")
    if not verb or flags & {"--help", "-h"}:
        return Request(verb, {}, flags)
    values: dict[str, str | bool] = {}
    for key, value in _pairs(rest, verb):
        if key == "task":
            if value != TASK:
                raise ConfigError(
                    f"task={value}: anyolo does detection only", hint=f"Use task={TASK}, or leave it out."
                )
        elif key in values and values[key] != value:
            raise ConfigError(f"{key} is given twice: {values[key]} and {value}", hint="Keep one of them.")
        else:
            values[key] = value
    return Request(verb, values, flags)


def _take_verb(words: list[str]) -> tuple[str, list[str]]:
    """The verb, wherever it stands (``train``, ``mode=train``, ``--mode train``), and the other words.

    After a verb that has a setting of that name (``audit mode=val``), it is that setting.
    """
    found, rest = "", []
    source = iter(words)
    for word in source:
        if found and "mode" in settings_of(VERBS[found]):
            rest.append(word)
            continue
        mode = next(source, "") if word == "--mode" else word.removeprefix("--").partition("mode=")[2]
        if word.removeprefix("--").startswith("mode") and mode:
            name = mode
        elif not found and "=" not in word and not word.startswith("-") and word != TASK:
            name = word
        else:
            rest.append(word)
            continue
        if name not in VERBS:
            raise UnknownName("verb", name, VERBS)
        found = name
    return found, rest


def _pairs(words: Sequence[str], verb: str) -> Iterator[tuple[str, str | bool]]:
    known = settings_of(VERBS[verb])
    position = 0
    while position < len(words):
        word, following = words[position], words[position + 1] if position + 1 < len(words) else None
        position += 1
        name, equals, value = word.removeprefix("--").partition("=")
        key = canonical(name)
        setting = next(iter(known.get(OPPOSITES.get(key, key), ())), None)
        if equals:
            yield key, value
        elif word == TASK:
            continue
        elif not word.startswith("-"):
            if setting is None or not setting.is_switch:
                raise _lost(word, verb)
            yield key, True
        elif setting is None and key not in {HYP, "task"}:
            raise unknown(name, VERBS[verb])
        elif setting is not None and setting.is_switch and not _belongs(following, setting):
            yield key, True
        elif following is None or following.startswith("--"):
            raise ConfigError(f"{word} needs a value", hint=f"For example: {word} VALUE, or {name}=VALUE.")
        else:
            position += 1
            yield key, following


def _belongs(word: str | None, switch: Setting) -> bool:
    """Whether ``word`` after ``--switch`` is its value: ``--amp false``, ``--resume last.pt``."""
    if word is None or word.startswith("-") or "=" in word:
        return False
    return word.lower() in _BOOLEANS or switch.members != (bool,)


def _lost(word: str, verb: str) -> ConfigError:
    """A word that stands alone: probably the value of a setting whose name was left out."""
    known = settings_of(VERBS[verb])
    if word in known:
        return ConfigError(f"{word} needs a value", hint=f"It takes {known[word][0].allowed}: {word}=...")
    if word.endswith((".pt", ".onnx", ".pth", ".safetensors")) and "model" in known:
        guess = "model"
    elif word.endswith((".yaml", ".yml")) and "data" in known:
        guess = "data"
    else:
        guess = "source" if "source" in known else "key"
    return ConfigError(f"{word!r} stands alone", hint=f"Did you mean {guess}={word}?")
