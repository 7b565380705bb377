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
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyolo.errors import CheckpointError, UntrustedFile
from anyolo.families.safe_tensors import rebuild_parameter, rebuild_tensor, rebuild_typed
from anyolo.families.safe_values import (
    ITEM_BYTES,
    MAX_KEY,
    SET_BYTES,
    Budget,
    Constructor,
    Global,
    Stub,
    check_key,
    shown,
)

REFUSAL_HINT = (
    "Nothing was executed. Do not open this file with torch.load; get the weights from a source you trust, "
    "or have their owner save a plain state_dict."
)
MAX_SCALAR_BYTES = 32
MAX_TEXT_ARRAY = 64 << 10  # bytes that are text are copied to be read


def resolve(module: str, name: str) -> Global:
    """The stand-in for ``module.name``; UntrustedFile when a weights file has no reason to mention it."""
    if len(module) + len(name) > MAX_KEY:
        raise CheckpointError(f"a class name of {len(module) + len(name)} letters: {shown(module)}")
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


def mentioned_globals(data: bytes) -> list[str]:
    """``module name`` of what a pickle in any protocol mentions, as far as it can be followed."""
    found: list[str] = []
    words: list[str] = []
    try:
        for opcode, value, _ in itertools.islice(pickletools.genops(io.BytesIO(data[:4_000_000])), 100_000):
            if opcode.name in ("GLOBAL", "INST"):
                found.append(str(value))
            elif opcode.name == "STACK_GLOBAL":
                found.append(" ".join(words[-2:]))
            elif isinstance(value, str):
                words.append(value)
    except Exception:  # whatever is wrong with it, what was found so far is the answer
        pass
    return [full for full in found if re.fullmatch(r"[\w.]+ [\w.]+", full)]


def _make_dict(args: tuple[Any, ...], budget: Budget) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for source in args:
        if isinstance(source, Global):  # the factory of a defaultdict
            continue
        for pair in source.items() if type(source) is dict else _make_list((source,), budget):
            if type(pair) not in (tuple, list):
                raise CheckpointError(f"a dictionary entry that is a {type(pair).__name__}")
            key, value = pair
            budget.spend(ITEM_BYTES)
            check_key(key, budget)
            made[key] = value
    return made


def _make_list(args: tuple[Any, ...], budget: Budget) -> list[Any]:
    items = args[0] if args else ()
    if type(items) not in (list, tuple, set, dict):  # of a tensor each row would become one
        raise CheckpointError(f"a list of the items of a {type(items).__name__}")
    budget.spend(ITEM_BYTES * len(items))
    return list(items)


def _make_tuple(args: tuple[Any, ...], budget: Budget) -> tuple[Any, ...]:
    return tuple(_make_list(args, budget))


def make_set(args: tuple[Any, ...], budget: Budget) -> set[Any]:
    items: Iterable[Any] = _make_list(args, budget)
    budget.spend(SET_BYTES)
    for item in items:
        check_key(item, budget)
    return set(items)


def _make_path(args: tuple[Any, ...], budget: Budget) -> str:
    parts = [part for part in args if isinstance(part, str)]
    budget.spend(sum(map(len, parts)))
    return "/".join(parts)


def _make_device(args: tuple[Any, ...], budget: Budget) -> str:
    """A device is only its name here: every tensor lands on the CPU."""
    return ":".join(map(shown, args[:2]))


def _make_bytes(args: tuple[Any, ...], budget: Budget) -> bytes:
    """``_codecs.encode(text, "latin1")``, the way protocol 2 writes bytes, and bytearray of it."""
    source, encoding = (*args, "latin1")[:2] if args else ("", "latin1")
    if encoding not in ("latin1", "latin-1") or not isinstance(source, str | bytes):
        raise CheckpointError(f"bytes encoded as {shown(encoding)}")
    budget.spend(len(source))
    return source.encode("latin1") if isinstance(source, str) else source


def _make_complex(args: tuple[Any, ...], budget: Budget) -> complex:
    real, imaginary = args
    if not isinstance(real, int | float) or not isinstance(imaginary, int | float):
        raise CheckpointError("a complex number of something that is no number")
    return complex(real, imaginary)


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
    if not isinstance(raw, str | bytes) or len(raw) > MAX_SCALAR_BYTES:
        raise CheckpointError("a numpy number that is not made of a few bytes")
    return np.frombuffer(_raw(raw), read_dtype(dtype), count=1)[0].item()


def read_dtype(stub: Any) -> np.dtype[Any]:
    """The number type a numpy pickle states. Structured and object types are refused."""
    text = stub.args[0] if isinstance(stub, Stub) and stub.name == "numpy.dtype" and stub.args else None
    if not isinstance(text, str) or not re.fullmatch(r"[<>|=]?(\?|[iu][1248]|f[248]|b1|c8|c16)", text):
        raise CheckpointError(f"a numpy array of {shown(text)}")
    order = stub.state[1] if isinstance(stub.state, tuple) and len(stub.state) > 1 else "="
    dtype = np.dtype(text)
    return dtype.newbyteorder(">" if order == ">" else "<") if order in ("<", ">") else dtype


def read_array(stub: Stub) -> NDArray[Any]:
    """The array behind a pickled numpy array: state (version, shape, dtype, is_fortran, raw bytes)."""
    _version, shape, dtype, is_fortran, raw = stub.state
    return np.frombuffer(_raw(raw), read_dtype(dtype)).reshape(shape, order="F" if is_fortran else "C")


def _raw(data: Any) -> bytes:
    """Bytes as they are; text, which files of Python 2 have instead, only where it is short."""
    if isinstance(data, str) and len(data) <= MAX_TEXT_ARRAY:
        return data.encode("latin1")
    if not isinstance(data, bytes):
        raise CheckpointError(f"a numpy array made of a {type(data).__name__}")
    return data


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
