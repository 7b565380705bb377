"""What can be set: the fields of a verb, read from its dataclasses, with type, bounds and help in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le, Lt

from anyolo.errors import UnknownName

# A file of settings beneath the typed ones: every verb takes it, no room holds it.
HYP = "hyp"
# Words of YOLOv5, YOLOv7 and Ultralytics users for settings that carry another name here.
ALIASES = {
    "weights": "model",
    "batch_size": "batch",
    "img": "imgsz",
    "img_size": "imgsz",
    "conf_thres": "conf",
    "iou_thres": "iou",
    "include": "format",
    "view_img": "show",
    "line_thickness": "line_width",
}

# Their words for the opposite of a switch.
OPPOSITES = {"noautoanchor": "autoanchor", "noval": "val", "noplots": "plots"}
# Keys of their hyp files that mean nothing here, and why.
UNUSED = {
    "anchors": "the model's rows say how many there are",
    "copy_paste": "labels are boxes, there is no outline to cut along",
    "cutmix": "not done",
    "iou_t": "no loss reads it",
    "paste_in": "labels are boxes, there is no outline to cut along",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a verb. ``room`` is the verb's field that holds it, empty for a field of the verb itself."""

    key: str
    room: str
    annotation: Any
    default: Any
    help: str

    @property
    def members(self) -> tuple[Any, ...]:
        """The alternatives of the type: (int, tuple[int, int]) for ``int | tuple[int, int]``."""
        bare = _bare(self.annotation)
        return get_args(bare) if get_origin(bare) in {Union, UnionType} else (bare,)

    @property
    def is_switch(self) -> bool:
        """Whether the bare word ``--key`` means True."""
        return bool in self.members

    @property
    def allowed(self) -> str:
        """What may be written, in words: ``a whole number, at least 1``."""
        words = [word for member in self.members for word in _bounded_words(member)]
        bounds = [text for item in get_args(self.annotation)[1:] for text in _bounds(item)]
        return ", ".join([" or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words), *bounds])


_FOUND: dict[type[Any], Mapping[str, tuple[Setting, ...]]] = {}


def settings_of(schema: type[Any]) -> Mapping[str, tuple[Setting, ...]]:
    """Every key of a verb's dataclass, in order; a key that several rooms share has several entries."""
    if schema not in _FOUND:  # resolving the annotations takes 4 ms, as long as reading a picture
        found: dict[str, tuple[Setting, ...]] = {}
        for setting in _walk(schema):
            found[setting.key] = (*found.get(setting.key, ()), setting)
        _FOUND[schema] = found
    return _FOUND[schema]


def canonical(key: str) -> str:
    """The schema's spelling of a key: ``batch-size`` and ``batch_size`` are ``batch``."""
    plain = key.replace("-", "_")
    return ALIASES.get(plain, plain)


def unknown(key: str, schema: type, *, where: str = "") -> UnknownName:
    """The error for a key that ``schema`` does not have, with what was probably meant."""
    return UnknownName("setting", key, [*settings_of(schema), *ALIASES, *OPPOSITES, HYP], where=where)


def rooms_of(schema: type) -> Mapping[str, type]:
    """Field name -> dataclass of the rooms of a verb."""
    hints = get_type_hints(schema)
    return {f.name: hints[f.name] for f in fields(schema) if is_dataclass(hints[f.name])}


def _walk(schema: type) -> Iterator[Setting]:
    rooms = rooms_of(schema)
    for name, room in rooms.items():
        yield from _plain_fields(room, name)
    yield from (setting for setting in _plain_fields(schema, "") if setting.key not in rooms)


def _plain_fields(owner: type, room: str) -> Iterator[Setting]:
    hints = get_type_hints(owner, include_extras=True)
    for item in fields(owner):
        annotation = hints[item.name]
        words = [extra for extra in get_args(annotation)[1:] if isinstance(extra, str)]
        default = None if item.default is MISSING else item.default
        yield Setting(item.name, room, annotation, default, words[0] if words else "")


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _words(member: Any) -> list[str]:
    """What one alternative of a type is called."""
    plain = {
        bool: ["True", "False"],
        int: ["a whole number"],
        float: ["a number"],
        str: ["text"],
        NoneType: ["None"],
    }
    if member in plain:
        return plain[member]
    if get_origin(member) is Literal:
        return [str(choice) for choice in get_args(member)]
    parts = get_args(member)  # of a tuple
    return ["a list 0,1,2"] if Ellipsis in parts else [",".join(["number"] * len(parts))]


def _bounded_words(member: Any) -> list[str]:
    """The same for an alternative that has bounds of its own: ``a number above 0 and below 1``."""
    bounds = [text for item in get_args(member)[1:] for text in _bounds(item)]
    if get_origin(member) is not Annotated:
        return _words(member)
    return [f"{word} {' and '.join(bounds)}" for word in _words(_bare(member))]


def _bounds(item: Any) -> Iterator[str]:
    if isinstance(item, Interval) and item.ge is not None and item.le is not None:
        yield f"from {item.ge} to {item.le}"
    elif isinstance(item, Interval):
        for part in item:
            yield from _bounds(part)
    elif isinstance(item, Gt):
        yield f"above {item.gt}"
    elif isinstance(item, Ge):
        yield f"at least {item.ge}"
    elif isinstance(item, Lt):
        yield f"below {item.lt}"
    elif isinstance(item, Le):
        yield f"at most {item.le}"
