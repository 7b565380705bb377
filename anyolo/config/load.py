"""From what somebody typed to a checked verb: ``load``; and back to a flat mapping: ``dump``.

Keys are flat (``lr0=0.01``), whatever room they live in. Values may be Python values or words of the command
line. Later wins: defaults, then ``layers`` in order, the file named by ``hyp=``, the values themselves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args, get_origin

from anyolo.config.settings import (
    HYP,
    OPPOSITES,
    UNUSED,
    Setting,
    canonical,
    rooms_of,
    settings_of,
    unknown,
)
from anyolo.config.spelling import Spelling
from anyolo.errors import ConfigError
from anyolo.types import JSONValue, PathLike

C = TypeVar("C")

_TRUE, _FALSE = {"true", "yes", "on"}, {"false", "no", "off"}


class Layer(NamedTuple):
    """Settings of lower priority than the user's own. ``origin`` names them in errors.

    ``tolerant`` skips keys that the verb does not have: a recipe for training also read by validation.
    ``places`` (key -> file:line) names the lines of a file that is no YAML.
    """

    origin: str
    values: Mapping[str, Any]
    tolerant: bool = False
    places: Mapping[str, str] = {}

    def where(self, key: str) -> str:
        return self.places.get(key) or _where(self.origin, key)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[C]):
    """A checked verb, and which keys the user set (by name or in a ``hyp`` file) instead of leaving to us.

    ``notices``: what of a ``hyp`` file means nothing here, one line.
    """

    config: C
    explicit: frozenset[str] = frozenset()
    notices: tuple[str, ...] = ()


def load(
    schema: type[C],
    values: Mapping[str, Any],
    *,
    layers: Sequence[Layer | tuple[str, Mapping[str, Any]]] = (),
) -> Loaded[C]:
    """Fill ``schema`` (a verb of ``config.schema``) from flat ``values``.

    Raises UnknownName for a key nobody knows, with a suggestion, and ConfigError for a value of the wrong
    type or out of bounds, with what is allowed; ``where`` is the layer's origin, for a ``hyp`` file its line.
    """
    own = _canonical(values)
    given = [Layer("", own)]
    notices: tuple[str, ...] = ()
    if file := own.pop(HYP, None):
        settings, notices = _without_unused(_canonical(read_settings(file)), str(file))
        given.insert(0, Layer(str(file), settings))
    chosen: dict[str, Any] = {}
    for layer in [*(Layer(*layer) for layer in layers), *given]:
        chosen.update(_check(schema, layer))
    explicit = frozenset(key for layer in given for key in layer.values)
    return Loaded(_build(schema, chosen), explicit, notices)


def dump(config: Any) -> dict[str, JSONValue]:
    """The flat JSON-able mapping of a verb, which ``load`` accepts back unchanged."""
    flat: dict[str, JSONValue] = {}
    for key, places in settings_of(type(config)).items():
        room = places[0].room
        value = getattr(getattr(config, room) if room else config, key)
        flat[key] = list(value) if isinstance(value, tuple) else value
    return flat


def read_settings(path: PathLike) -> dict[str, Any]:
    """A YAML file of ``key: value`` lines (hyp.yaml, args.yaml); ConfigError names the file and line."""
    import yaml

    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such settings file", where=str(path), hint="Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"is not valid YAML: {problem}", where=where) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError("should hold lines of `key: value`", where=str(path))
    return {str(key): value for key, value in found.items()}


def write_settings(config: Any, path: PathLike) -> None:
    """Write ``dump(config)`` as YAML (``args.yaml``), which ``read_settings`` reads."""
    import yaml

    Path(path).write_text(yaml.safe_dump(dump(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def _canonical(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same under the schema's own keys."""
    own: dict[str, Any] = {}
    for written, value in values.items():
        key = canonical(written)
        if key in OPPOSITES:
            key, value = OPPOSITES[key], _opposite(key, value)
        if key in own and own[key] != value:
            raise ConfigError(
                f"{key} is given twice, as {own[key]!r} and as {value!r}", hint="Keep one of them."
            )
        own[key] = value
    return own


def _opposite(key: str, value: Any) -> bool:
    """For ``noautoanchor``: False unless it is switched off itself."""
    word = str(value).strip().lower()
    if word not in {*_TRUE, *_FALSE, "1", "0"}:
        raise ConfigError(f"{key}={value!r} is not allowed: it takes True or False", where=key)
    return word in {*_FALSE, "0"}


def _without_unused(settings: Mapping[str, Any], file: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Settings of a ``hyp`` file without those that other tools know and we do not, and a line naming these.

    ``anchors: 3`` is theirs, a list of anchors ours.
    """
    unused = {key for key in UNUSED if key in settings and not isinstance(settings[key], (list, str))}
    kept = {key: value for key, value in settings.items() if key not in unused}
    words = "; ".join(f"{key}={settings[key]} ({UNUSED[key]})" for key in sorted(unused))
    return kept, (f"{file}: not used here: {words}",) if words else ()


def _check(schema: type, layer: Layer) -> dict[str, Any]:
    """The layer's values, each checked; unknown keys are an error unless the layer is tolerant."""
    known = settings_of(schema)
    checked = {}
    for key, value in _canonical(layer.values).items():
        if key in known:
            checked[key] = _value(known[key][0], value, layer)
        elif not layer.tolerant:
            raise unknown(key, schema, where=layer.where(key))
    return checked


def _value(setting: Setting, value: Any, layer: Layer) -> Any:
    """``value`` as the setting's type, within its bounds."""
    from pydantic import ValidationError

    try:
        if isinstance(value, bool) and bool not in setting.members and value not in _choices(setting):
            raise ValueError("True and False are not numbers here")
        return _adapter(setting).validate_python(_prepare(setting, value))
    except (ValidationError, ValueError):
        raise ConfigError(
            f"{setting.key}={value!r} is not allowed: it takes {setting.allowed}",
            where=layer.where(setting.key),
            hint=f"{setting.key}: {setting.help}." if setting.help else "",
        ) from None


@cache
def _adapter(setting: Setting) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(setting.annotation, config=ConfigDict(allow_inf_nan=False))


def _prepare(setting: Setting, value: Any) -> Any:
    """Words of the command line and near misses of Python, as values that pydantic judges."""
    members = setting.members
    for extra in get_args(setting.annotation)[1:]:
        if isinstance(extra, Spelling):
            value = extra.read(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return _from_words(setting, value)
    if isinstance(value, int) and not isinstance(value, bool):
        if str in members and int not in members:
            return str(value)  # source=0
        if _has_list(setting) and int not in members:
            return [value]  # classes=0
    return value


def _from_words(setting: Setting, text: str) -> Any:
    members, word = setting.members, text.strip().lower()
    if NoneType in members and word in {"none", "null"}:
        return None
    if bool in members:
        if word in _TRUE or (word == "1" and int not in members):
            return True
        if word in _FALSE or (word == "0" and int not in members):
            return False
    for choice in _choices(setting):
        if str(choice).lower() == word:
            return choice
    if _has_list(setting) and ("," in word or word[:1] in {"[", "("} or int not in members):
        return [part.strip() for part in text.strip(" []()").split(",") if part.strip()]
    return text


def _choices(setting: Setting) -> Iterable[Any]:
    return [
        choice for member in setting.members if get_origin(member) is Literal for choice in get_args(member)
    ]


def _has_list(setting: Setting) -> bool:
    return any(get_origin(member) is tuple for member in setting.members)


def _where(origin: str, key: str) -> str:
    """``origin``, with the line of ``key`` when it is a file."""
    if not origin or not os.path.isfile(origin):
        return origin
    for number, line in enumerate(Path(origin).read_text(encoding="utf-8").splitlines(), 1):
        if re.match(rf"""\s*["']?{re.escape(key)}["']?\s*:""", line.replace("-", "_")):
            return f"{origin}:{number}"
    return origin


def _build(schema: type[C], chosen: Mapping[str, Any]) -> C:
    """The verb with its rooms, every key handed to each room that has it."""
    rooms = {}
    for name, room in rooms_of(schema).items():
        rooms[name] = room(**{f.name: chosen[f.name] for f in fields(room) if f.name in chosen})
    known = settings_of(schema)
    plain = {key: value for key, value in chosen.items() if any(not place.room for place in known[key])}
    return schema(**rooms, **plain)
