"""What a pickle may name, and what becomes of it. No name from a file is ever imported or called.

A name in ``CONSTRUCTORS`` stands for one of our own small functions; every other class becomes an inert stub
when it is instantiated, and calling any other name is refused. Names of the standard library are refused when
they are only mentioned, unless they are one of the few containers that weights files hold.
"""

from __future__ import annotations

import io
import itertools
import pickletools
import re
import sys
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anyolo.errors import CheckpointError, UntrustedFile
from anyolo.families.safe_tensors import Budget, rebuild_parameter, rebuild_tensor, rebuild_typed

Constructor: TypeAlias = Callable[[tuple[Any, ...], Budget], Any]

REFUSAL_HINT = (
    "Nothing was executed. Do not open this file with torch.load; get the weights from a source you trust, "
    "or have their owner save a plain state_dict."
)
ITEM_BYTES, SET_BYTES = 256, 1024  # what copying an entry and making a set cost, time counted as memory
MAX_NUMBER_BYTES = 256  # of one integer in a pickle; longer ones make arithmetic and printing slow


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A name in a pickle. ``make`` is our own constructor for it, None for a name that can only be a stub."""

    name: str
    make: Constructor | None = None


class Stub:
    """An object of a class nobody imported: its name, constructor arguments, state and items, all inert."""

    __slots__ = ("args", "entries", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...] = (), state: Any = None) -> None:
        self.name = name
        self.args = args
        self.state = state
        self.entries: dict[Any, Any] | list[Any] | None = None

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What would have been its ``__dict__`` (and slots: a pair of dicts); empty for any other state."""
        if isinstance(self.state, dict):
            return self.state
        parts = self.state if isinstance(self.state, tuple) and len(self.state) == 2 else ()
        return ChainMap(*(part for part in parts if isinstance(part, dict)))


def resolve(module: str, name: str) -> Global:
    """The stand-in for ``module.name``; UntrustedFile when a weights file has no reason to mention it."""
    full = f"{module}.{name}"
    make = CONSTRUCTORS.get(full)
    if make is not None:
        return Global(full, make)
    parts = full.split(".")
    is_word = all(map(str.isidentifier, parts)) and not any(part.startswith("__") for part in parts[1:])
    is_library = parts[0] in sys.stdlib_module_names or parts[0] in OLD_LIBRARY
    if not is_word or (is_library and full not in PLAIN_NAMES):
        raise refuse(full, "names")
    return Global(full)


def refuse(name: str, does: str = "asks to call") -> UntrustedFile:
    return UntrustedFile(f"this file {does} {shown(name)}, which no weights file needs", hint=REFUSAL_HINT)


def shown(name: object) -> str:
    """Text of a file made fit for a message: printable ASCII, short."""
    text = re.sub(r"[^ -~]", "?", str(name)[:400])
    return text if len(text) <= 120 else text[:117] + "..."


def mentioned_globals(data: bytes) -> list[str]:
    """``module name`` of what a pickle in any protocol mentions, as far as it can be followed."""
    found: list[str] = []
    words: list[str] = []
    try:
        for opcode, value, _ in itertools.islice(pickletools.genops(io.BytesIO(data[:1_000_000])), 10_000):
            if opcode.name in ("GLOBAL", "INST"):
                found.append(str(value))
            elif opcode.name == "STACK_GLOBAL":
                found.append(" ".join(words[-2:]))
            elif isinstance(value, str):
                words.append(value)
    except Exception:  # whatever is wrong with it, what was found so far is the answer
        pass
    return [full for full in found if re.fullmatch(r"[\w.]+ [\w.]+", full)]


def check_key(key: Any) -> None:
    """Keys are scalars or flat tuples of them: hashing anything else could be made to take for ever."""
    parts = key if type(key) is tuple and len(key) <= 64 else (key,)
    if not all(isinstance(part, SCALARS) for part in parts):
        raise CheckpointError(f"a {type(key).__name__} is used as a dictionary key")


def _make_dict(args: tuple[Any, ...], budget: Budget) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for source in args:
        if isinstance(source, Global):  # the factory of a defaultdict
            continue
        budget.spend(ITEM_BYTES * len(source))
        for key, value in source.items() if isinstance(source, dict) else source:
            check_key(key)
            made[key] = value
    return made


def _make_list(args: tuple[Any, ...], budget: Budget) -> list[Any]:
    items = args[0] if args else ()
    budget.spend(ITEM_BYTES * len(items))
    return list(items)


def _make_tuple(args: tuple[Any, ...], budget: Budget) -> tuple[Any, ...]:
    return tuple(_make_list(args, budget))


def make_set(args: tuple[Any, ...], budget: Budget) -> set[Any]:
    items: Iterable[Any] = _make_list(args, budget)
    budget.spend(SET_BYTES)
    for item in items:
        check_key(item)
    return set(items)


def _make_path(args: tuple[Any, ...], budget: Budget) -> str:
    text = "/".join(str(part) for part in args if isinstance(part, str))
    budget.spend(len(text))
    return text


def _make_device(args: tuple[Any, ...], budget: Budget) -> str:
    """A device is only its name here: every tensor lands on the CPU."""
    return ":".join(shown(part) for part in args)


def _make_bytes(args: tuple[Any, ...], budget: Budget) -> bytes:
    """``_codecs.encode(text, "latin1")``, the way protocol 2 writes bytes, and bytearray of it."""
    source, encoding = (*args, "latin1")[:2] if args else ("", "latin1")
    if encoding not in ("latin1", "latin-1") or not isinstance(source, str | bytes):
        raise CheckpointError(f"bytes encoded as {shown(encoding)}")
    budget.spend(len(source))
    return source.encode("latin1") if isinstance(source, str) else source


def _make_complex(args: tuple[Any, ...], budget: Budget) -> complex:
    return complex(float(args[0]), float(args[1]))


def _make_stub_named(name: str) -> Constructor:
    return lambda args, budget: Stub(name, args)


def _make_object(args: tuple[Any, ...], budget: Budget) -> Stub:
    """``copyreg._reconstructor(class, base, state)`` and ``copyreg.__newobj__(class, *args)``."""
    target = args[0]
    if not isinstance(target, Global):
        raise CheckpointError("an object without a class")
    return Stub(target.name, args[1:])


def _make_array(args: tuple[Any, ...], budget: Budget) -> Stub:
    return Stub("numpy.ndarray", args)


def _make_scalar(args: tuple[Any, ...], budget: Budget) -> Any:
    """A numpy scalar becomes a Python number."""
    dtype, raw = args
    return np.frombuffer(_raw(raw), read_dtype(dtype), count=1)[0].item()


def read_dtype(stub: Any) -> np.dtype[Any]:
    """The number type a numpy pickle states. Structured and object types are refused."""
    text = stub.args[0] if isinstance(stub, Stub) and stub.name == "numpy.dtype" and stub.args else None
    if not isinstance(text, str) or not re.fullmatch(r"[<>|=]?(\?|[biufc]\d{1,2})", text):
        raise CheckpointError(f"a numpy array of {shown(text)}")
    order = stub.state[1] if isinstance(stub.state, tuple) and len(stub.state) > 1 else "="
    dtype = np.dtype(text)
    return dtype.newbyteorder(">" if order == ">" else "<") if order in ("<", ">") else dtype


def read_array(stub: Stub) -> NDArray[Any]:
    """The array behind a pickled numpy array: state (version, shape, dtype, is_fortran, raw bytes)."""
    _version, shape, dtype, is_fortran, raw = stub.state
    return np.frombuffer(_raw(raw), read_dtype(dtype)).reshape(shape, order="F" if is_fortran else "C")


def _raw(data: Any) -> bytes:
    return data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))


SCALARS = (str, int, float, bool, bytes, complex, type(None), Global)
OLD_LIBRARY = frozenset(
    (
        "__builtin__",
        "copy_reg",
        "cPickle",
        "cStringIO",
        "commands",
        "httplib",
        "os2",
        "popen2",
        "thread",
        "urllib2",
    )
)
# Names of the standard library that may be mentioned; most are only ever the class of a stub.
PLAIN_NAMES = frozenset(
    f"{module}.{name}"
    for modules, names in (
        ("builtins __builtin__", "object int float bool str list dict tuple"),
        ("argparse", "Namespace"),
    )
    for module in modules.split()
    for name in names.split()
)


def _table() -> dict[str, Constructor]:
    table: dict[str, Constructor] = {
        "torch._utils._rebuild_tensor": rebuild_tensor,
        "torch._utils._rebuild_tensor_v2": rebuild_tensor,
        "torch._utils._rebuild_parameter": rebuild_parameter,
        "torch._utils._rebuild_parameter_with_state": rebuild_parameter,
        "torch._tensor._rebuild_from_type_v2": rebuild_typed,
        "torch.Size": _make_tuple,
        "torch.device": _make_device,
        "collections.OrderedDict": _make_dict,
        "collections.defaultdict": _make_dict,
        "collections.Counter": _make_dict,
        "collections.deque": _make_list,
        "numpy.dtype": _make_stub_named("numpy.dtype"),
        "numpy.ndarray": _make_stub_named("numpy.ndarray"),
        "_codecs.encode": _make_bytes,
        "types.SimpleNamespace": _make_stub_named("types.SimpleNamespace"),
    }
    for builtins in ("builtins", "__builtin__"):
        table |= {f"{builtins}.{name}": make_set for name in ("set", "frozenset")}
        table |= {f"{builtins}.{name}": _make_bytes for name in ("bytes", "bytearray")}
        table |= {f"{builtins}.{name}": _make_stub_named(name) for name in ("slice", "range")}
        table[f"{builtins}.complex"] = _make_complex
    for copyreg in ("copyreg", "copy_reg"):
        table |= {f"{copyreg}.{name}": _make_object for name in ("_reconstructor", "__newobj__")}
    for multiarray in ("numpy.core.multiarray", "numpy._core.multiarray"):
        table |= {f"{multiarray}._reconstruct": _make_array, f"{multiarray}.scalar": _make_scalar}
    for kind in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"):
        table |= {f"pathlib.{kind}": _make_path, f"pathlib._local.{kind}": _make_path}
    for kind in ("datetime", "date", "time", "timedelta", "timezone"):
        table[f"datetime.{kind}"] = _make_stub_named(f"datetime.{kind}")
    for room in ("ultralytics.utils", "ultralytics.yolo.utils"):
        name = f"{room}.IterableSimpleNamespace"  # what training files keep their settings in
        table[name] = _make_stub_named(name)
    return table


CONSTRUCTORS = _table()
