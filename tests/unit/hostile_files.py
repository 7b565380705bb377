"""A corpus of weights files that must be refused, made from nothing. Used by several tests, never run.

``corpus(marker)`` gives name -> (bytes, words the refusal must contain). Payloads would create the file
``marker``.
"""

from __future__ import annotations

import pickle
import struct
import zlib

from tests.unit.hostile_archives import archives
from tests.unit.hostile_costs import costs
from tests.unit.hostile_opcodes import (
    FOUR,
    LEGACY_START,
    PROTO,
    archive,
    call,
    legacy,
    module,
    name,
    storage,
    tensor,
    text,
    under_model,
)

CALLED = [
    "os.system", "posix.system", "nt.system", "subprocess.Popen", "subprocess.check_output", "os.execv",
    "builtins.eval", "builtins.exec", "builtins.open", "builtins.getattr", "builtins.__import__",
    "builtins.compile", "__builtin__.eval", "__builtin__.apply", "importlib.import_module", "runpy.run_path",
    "operator.attrgetter", "operator.methodcaller", "functools.partial", "functools.reduce", "pickle.loads",
    "_pickle.loads", "marshal.loads", "types.FunctionType", "types.CodeType", "ctypes.CDLL", "pty.spawn",
    "code.interact", "timeit.timeit", "webbrowser.open", "shutil.rmtree", "socket.create_connection",
    "urllib.request.urlopen", "multiprocessing.Process", "threading.Thread", "asyncio.run", "bdb.Bdb.run",
    "pip.main", "torch.load", "torch.hub.load", "torch.jit.load", "torch.storage._load_from_bytes",
    "torch.utils.collect_env.run", "torch.ops.load_library", "torch.classes.load_library",
    "torch._inductor.codecache.compile_file", "numpy.load", "numpy.testing._private.utils.runstring",
    "numpy.f2py.crackfortran.myeval", "models.experimental.attempt_load", "models.yolo.Model",
    "ultralytics.utils.downloads.safe_download", "yaml.unsafe_load", "joblib.load", "__main__.run",
    "torch.nn.modules.container.Sequential",
]  # fmt: skip


def corpus(marker: str) -> dict[str, tuple[bytes, str]]:
    return {**_code(marker), **_tensors(), **archives(), **costs(), **_damage()}


def _code(marker: str) -> dict[str, tuple[bytes, str]]:
    """Files that name something to be run; the refusal names it."""
    order = f"touch {marker}"
    line = text(order)
    found: dict[str, tuple[bytes, str]] = {}
    for full in CALLED:
        found[f"zip {full}"] = archive(under_model(call(full, line))), full
        found[f"legacy {full}"] = legacy(under_model(call(full, line))), full
    for protocol in range(6):
        payload = pickle.dumps(_Reduced(_import_system(), (order,)), protocol)
        found[f"protocol {protocol} zip"] = archive(payload), "system"
        found[f"protocol {protocol} bare"] = payload, "system"
    get = call("builtins.getattr", call("builtins.__import__", text("os")), text("system"))
    found["getattr chain"] = archive(under_model(get + b"(" + line + b"tR")), "builtins.getattr"
    nested = call("collections.OrderedDict", b"](" + call("os.system", line) + b"e")
    found["nested reduce"] = archive(under_model(b"](" + nested + b"e")), "os.system"
    found["only mentioned"] = archive(under_model(name("os.system"))), "os.system"
    found["mentioned as an attribute"] = archive(under_model(module(act=name("os.system")))), "os.system"
    found["new object"] = (
        archive(under_model(name("subprocess.Popen") + b"(" + line + b"t\x81")),
        "subprocess.Popen",
    )
    found["dotted"] = (
        archive(under_model(b"\x8c\x0bmodels.yolo\x8c\x10Model.__init__.x\x93")),
        "Model.__init__",
    )
    found["dunder"] = archive(under_model(name("torch.__builtins__"))), "torch.__builtins__"
    found["control letters"] = archive(under_model(b"cmodels\x1b[31m\nx\n")), "models?[31m"
    found["INST"] = archive(b"(S'" + order.encode() + b"'\nios\nsystem\n."), "os.system"
    found["OBJ"] = archive(b"(cos\nsystem\nS'" + order.encode() + b"'\no."), "os.system"
    found["text protocol"] = b"cos\nsystem\n(S'" + order.encode() + b"'\ntR.", "os.system"
    found["after a model"] = archive(under_model(module(x=call("os.system", line))), FOUR), "os.system"
    found["state on a class"] = (
        archive(under_model(name("torch.nn.Module") + b"}" + text("x") + b"Nsb")),
        "state",
    )
    found["call of an object"] = archive(under_model(module() + b")R")), "call"
    found["extension"] = archive(PROTO + b"\x82\x01."), "operation"
    found["copyreg extension 4"] = archive(PROTO + b"\x84\xff\xff\xff\x7f."), "operation"
    found["next buffer"] = archive(PROTO + b"\x97."), "operation"
    found["text persistent id"] = archive(b"Pstorage\n."), "operation"
    found["apply"] = (
        archive(under_model(call("__builtin__.apply", name("os.system"), b"(" + line + b"t"))),
        ("__builtin__.apply"),
    )
    found["name over the stack"] = (
        archive(under_model(text("os") + text("system") + b"\x93(" + line + b"tR")),
        "os.system",
    )
    found["name through the memo"] = (
        archive(under_model(text("os") + b"q\0" + text("system") + b"q\1" + b"00h\0h\1\x93(" + line + b"tR")),
        "os.system",
    )
    found["new object with keywords"] = (
        archive(under_model(name("subprocess.Popen") + b")}" + text("args") + line + b"s\x92")),
        "subprocess.Popen",
    )
    found["state setter"] = (
        archive(under_model(module() + b"N" + name("builtins.setattr") + b"\x86b")),
        "builtins.setattr",
    )
    found["class of a class"] = (
        archive(under_model(call("copyreg.__newobj__", name("os.system"), line))),
        "os.system",
    )
    found["module storage"] = (
        archive(under_model(b"(" + text("module") + name("os.system") + b"NNtQ")),
        "os.system",
    )
    found["storage type to be run"] = (
        archive(under_model(tensor(storage(kind="os.system"), [4], [1]))),
        "os.system",
    )
    found["subclass to be run"] = (
        archive(
            under_model(
                call(
                    "torch._tensor._rebuild_from_type_v2",
                    name("os.system"), name("torch.Tensor"), b"(" + line + b"t", b"}",
                )
            )
        ),
        "os.system",
    )  # fmt: skip
    found["hook of a tensor"] = (
        archive(
            under_model(
                name("torch._utils._rebuild_tensor_v2") + b"(" + storage() + b"K\0K\4\x85K\1\x85\x89"
                + call("collections.OrderedDict", b"](K\0" + name("os.system") + b"\x86e") + b"tR"
            ),
            FOUR,
        ),
        "os.system",
    )  # fmt: skip
    found["numpy of objects"] = archive(under_model(_array("O8"))), "numpy array of O8"
    found["numpy of records"] = archive(under_model(_array("V8"))), "numpy array of V8"
    found["numpy of text"] = archive(under_model(_array("i4, O"))), "numpy array of i4, O"
    found["encoder"] = archive(under_model(call("_codecs.encode", line, text("rot13")))), "rot13"
    return found


def _tensors() -> dict[str, tuple[bytes, str]]:
    """Tensors that claim what is not there."""
    tera = 1 << 40
    views = {
        "huge storage": tensor(storage(count=tera), [tera], [1]),
        "storage longer than its record": tensor(storage(count=5), [5], [1]),
        "storage of no record": tensor(storage("7"), [4], [1]),
        "negative storage": tensor(storage(count=-4), [4], [1]),
        "huge view": tensor(storage(), [tera], [1]),
        "huge repeated view": tensor(storage(), [tera], [0]),
        "view behind the end": tensor(storage(), [4], [1], offset=1),
        "wide stride": tensor(storage(), [2, 2], [1 << 62, 1]),
        "negative size": tensor(storage(), [-4], [1]),
        "negative stride": tensor(storage(), [4], [-1]),
        "negative offset": tensor(storage(), [4], [1], offset=-1),
        "sizes without strides": tensor(storage(), [2, 2], [1]),
        "sixty-five dimensions": tensor(storage(), [1] * 65, [1] * 65),
        "size that is no number": call(
            "torch._utils._rebuild_tensor_v2", storage(), b"K\0", text("4"), b")", b"N", b"N"
        ),
        "storage that is no storage": tensor(text("storage"), [4], [1]),
        "unknown storage type": tensor(storage(kind="torch.QInt8Storage"), [4], [1]),
        "two types for one storage": b"](" + storage() + storage(kind="torch.IntStorage") + b"e",
        "many huge views": b"](" + tensor(storage(), [1 << 20], [0]) * 200 + b"e",
        "truth value for a place": call(
            "torch._utils._rebuild_tensor_v2", storage(), b"\x88", b"K\1\x85", b"K\1\x85", b"\x89", b"N"
        ),
        "tensor of long numbers": tensor(storage(), [1, 0], [1 << 2000, 1]),
        "storage within another, too long": tensor(storage(part=("v", 2, 3)), [3], [1]),
        "storage within another, before it": tensor(storage(part=("v", -1, 3)), [3], [1]),
        "storage within another, beyond it": tensor(storage(part=("v", 1, 2)), [3], [1]),
        "storage of two words": b"(" + text("storage") + text("x") + b"tQ",
        "storage in text": text("storage") + b"Q",
        "truth value of two": tensor(storage("b", kind="torch.BoolStorage"), [4], [1]),
    }
    records = {**FOUR, "archive/data/b": b"\2\0\0\0"}
    found = {key: (archive(under_model(value), records), "") for key, value in views.items()}
    lone = under_model(tensor(storage(count=tera), [tera], [1]))
    found["legacy huge storage"] = legacy(lone, ["0"], struct.pack("<q", tera)), "more than the file holds"
    short = under_model(tensor(storage(), [4], [1]))
    found["legacy truncated storage"] = legacy(short, ["0"], struct.pack("<q", 4) + b"\0" * 15), "truncated"
    found["legacy other length"] = legacy(short, ["0"], struct.pack("<q", 5) + b"\0" * 20), ""
    floats = struct.pack(">300f", *(0.001 * n for n in range(300)))
    many = under_model(tensor(storage(count=300), [300], [1]))
    found["legacy wrong byte order"] = legacy(many, ["0"], struct.pack("<q", 300) + floats), "byte order"
    found["legacy lengths in the wrong byte order"] = legacy(many, ["0"], struct.pack(">q", 300) + floats), ""
    found["legacy storage nobody asks for"] = (
        legacy(short, ["0", "1"], (struct.pack("<q", 4) + b"\0" * 16) * 2),
        "storages",
    )
    found["legacy storage not there"] = legacy(short, []), "storages"
    found["legacy keys twice"] = (
        legacy(short, ["0", "0"], (struct.pack("<q", 4) + b"\0" * 16) * 2),
        "storages",
    )
    return found


def _damage() -> dict[str, tuple[bytes, str]]:
    """What is simply no weights file."""
    return {
        "empty": (b"", "empty"),
        "one byte": (b"\x80", ""),
        "text": (b"hello", "not a weights file"),
        "web page": (b"<!DOCTYPE html><html>", "web page"),
        "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        "plain pickle": (pickle.dumps({"model": 1}, 2), "plain pickle"),
        "other magic number": (pickle.dumps(17, 2) + LEGACY_START, ""),
        "no stop": (archive(PROTO + b"}"), ""),
        "stack underflow": (archive(PROTO + b"s."), ""),
        "memo of nothing": (archive(PROTO + b"h\7."), ""),
        "nothing in it": (archive(PROTO + b"}."), "no model"),
        "a list": (archive(PROTO + b"]."), "no model"),
        "png": (b"\x89PNG\r\n\x1a\n" + zlib.compress(b"x" * 100), ""),
    }


def _array(kind: str) -> bytes:
    """A numpy number of this type."""
    return call("numpy.core.multiarray.scalar", call("numpy.dtype", text(kind)), b"U\x08" + b"\1" * 8)


class _Reduced:
    """Pickles as a call. Only ever dumped."""

    def __init__(self, function: object, args: tuple[object, ...]) -> None:
        self._call = (function, args)

    def __reduce__(self) -> object:
        return self._call


def _import_system() -> object:
    import os

    return os.system
