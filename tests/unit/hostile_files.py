"""A corpus of weights files that must be refused, made from nothing. Used by several tests, never run.

``corpus(marker)`` gives name -> (bytes, words the refusal must contain). Payloads would create the file
``marker``.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib

PROTO = b"\x80\x02"
STOP = b"."
LEGACY_START = (
    pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    + pickle.dumps(1001, 2)
    + pickle.dumps(
        {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}, 2
    )
)


def archive(
    data: bytes, records: dict[str, bytes] | None = None, *, method: int = zipfile.ZIP_STORED
) -> bytes:
    """A file in torch's zip layout around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("archive/data.pkl", data)
        for name, content in (records or {}).items():
            file.writestr(name, content)
        file.writestr("archive/version", "3\n")
    return buffer.getvalue()


def legacy(data: bytes, keys: list[str] | None = None, tail: bytes = b"") -> bytes:
    """A file in the layout before torch 1.6."""
    return LEGACY_START + data + pickle.dumps(keys or [], 2) + tail


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(full: str) -> bytes:
    module, _, last = full.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def call(full: str, *args: bytes) -> bytes:
    """The opcodes of ``full(*args)``."""
    return name(full) + b"(" + b"".join(args) + b"tR"


def under_model(value: bytes) -> bytes:
    """``{"model": value}``."""
    return PROTO + b"}" + text("model") + value + b"s" + STOP


def storage(key: str = "0", count: int = 4, kind: str = "torch.FloatStorage") -> bytes:
    return b"(" + text("storage") + name(kind) + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(source: bytes, size: list[int], stride: list[int], offset: int = 0) -> bytes:
    sizes = b"(" + b"".join(map(number, size)) + b"t"
    strides = b"(" + b"".join(map(number, stride)) + b"t"
    empty = call("collections.OrderedDict")
    return call("torch._utils._rebuild_tensor_v2", source, number(offset), sizes, strides, b"\x89", empty)


def module(**attributes: bytes) -> bytes:
    """An nn.Module as a pickle holds it."""
    parts = {"_parameters": b"}", "_buffers": b"}", "_modules": b"}", **attributes}
    state = b"}(" + b"".join(text(key) + value for key, value in parts.items()) + b"u"
    return name("models.yolo.Model") + b")\x81" + state + b"b"


FOUR = {"archive/data/0": b"\0" * 16}
GOOD = archive(under_model(b"}" + text("w") + tensor(storage(), [4], [1]) + b"s"), FOUR)

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
    return {**_code(marker), **_tensors(), **_archives(), **_shapes(), **_damage()}


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
        "truth value of two": tensor(storage("b", kind="torch.BoolStorage"), [4], [1]),
    }
    records = {**FOUR, "archive/data/b": b"\2\0\0\0"}
    found = {key: (archive(under_model(value), records), "") for key, value in views.items()}
    lone = under_model(tensor(storage(count=tera), [tera], [1]))
    found["legacy huge storage"] = legacy(lone, ["0"], struct.pack("<q", tera)), "more than the file holds"
    short = under_model(tensor(storage(), [4], [1]))
    found["legacy truncated storage"] = legacy(short, ["0"], struct.pack("<q", 4) + b"\0" * 15), "truncated"
    found["legacy other length"] = legacy(short, ["0"], struct.pack("<q", 5) + b"\0" * 20), ""
    found["legacy keys twice"] = (
        legacy(short, ["0", "0"], (struct.pack("<q", 4) + b"\0" * 16) * 2),
        "storages",
    )
    return found


def _archives() -> dict[str, tuple[bytes, str]]:
    """Zip files that are not what torch writes."""
    good = under_model(tensor(storage(), [4], [1]))
    bomb = {"archive/data/0": b"\0" * (64 << 20)}
    found = {"compressed bomb": (archive(good, bomb, method=zipfile.ZIP_DEFLATED), "compressed")}
    for path in (
        "../up",
        "archive/../../up",
        "/etc/passwd",
        "C:\\up",
        "archive/data/..\\up",
        "archive/data/a\\b",
    ):
        found[f"record {path}"] = archive(good, {**FOUR, path: b"x"}), "leads out of the file"
    for key in ("../../../etc/passwd", "/etc/passwd", "..", "a/b", "", "0\n", "k" * 1000):
        found[f"key {key[:20]!r}"] = archive(under_model(tensor(storage(key), [4], [1])), FOUR), "storage"
    found["two objects"] = archive(good, {**FOUR, "other/data.pkl": good}), "data.pkl"
    found["no object"] = archive(good).replace(b"data.pkl", b"data.pkx"), "data.pkl"
    found["TorchScript"] = archive(good, {**FOUR, "archive/constants.pkl": good}), "TorchScript"
    found["byte order middle"] = archive(good, {**FOUR, "archive/byteorder": b"middle"}), "byte order"
    weights = struct.pack("<4f", 0.5, -1.25, 3.0, 0.001)
    swapped = {"archive/data/0": weights, "archive/byteorder": b"big"}
    found["byte order big, numbers little"] = archive(good, swapped), "byte order"
    with_two = archive(good, {**FOUR, "archive/data/1": b"\1" * 16})
    found["directory astray"] = (
        _redirect(with_two, b"archive/data/1", with_two.index(b"archive/data/0") - 30),
        "not where",
    )
    inner = with_two[with_two.index(b"archive/data/1") - 30 :][: 30 + len(b"archive/data/1") + 16]
    holding = archive(good, {"archive/data/0": inner, "archive/data/1": b"\1" * 16})
    found["overlapping records"] = _redirect(holding, b"archive/data/1", holding.index(inner)), "overlaps"
    found["record in another"] = archive(good, {"archive/data/0": archive(good, FOUR)}), ""
    found["encrypted"] = _patch_flags(archive(good, FOUR)), "encrypted"
    found["twice the same name"] = with_two.replace(b"archive/data/1", b"archive/data/0"), "same name"
    found["other local name"] = with_two.replace(b"archive/data/1", b"archive/data/2", 1), "not where"
    ones = archive(good, {"archive/data/0": b"\1" * 16})
    found["damaged numbers"] = ones.replace(b"\1" * 16, b"\1" * 15 + b"\2"), "checksum"
    for cut in (4, 30, 100, len(GOOD) // 2, len(GOOD) - 30, len(GOOD) - 1):
        found[f"cut at {cut}"] = GOOD[:cut], ""
    found["bytes behind the end"] = GOOD + b"x", ""
    end = GOOD.rindex(b"PK\5\6")
    for at, form in ((8, "H"), (10, "H"), (12, "I"), (16, "I")):
        for value in (0, 1, 0xFFFE, 0xFFFF):
            changed = (
                GOOD[: end + at] + struct.pack(f"<{form}", value) + GOOD[end + at + struct.calcsize(form) :]
            )
            if at != 8:  # entries on this disk: nobody looks
                found[f"directory {at} {value}"] = changed, ""
    return found


def _shapes() -> dict[str, tuple[bytes, str]]:
    """Nesting, sharing and sheer number."""
    deep = 10_000
    memo = b"\x94"  # MEMOIZE
    again = b"j"  # LONG_BINGET

    def doubled(first: bytes, wrap: tuple[bytes, bytes], times: int = 60) -> bytes:
        """x = wrap(x, x), ``times`` times over: small in the file, 2**times to walk."""
        made = first + memo
        for level in range(times):
            made += (
                b"0"
                + wrap[0]
                + again
                + struct.pack("<I", level)
                + again
                + struct.pack("<I", level)
                + wrap[1]
                + memo
            )
        return made

    child = name("models.yolo.Model") + b")\x81}("
    parts = text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}"
    found = {
        "marks": PROTO + b"(" * deep + STOP,
        "lists": under_model(b"]" * deep + b"a" * (deep - 1)),
        "lists as extension": under_model(b"](" * deep + b"e" * deep),
        "tuples": under_model(b")" + b"\x85" * deep),
        "dicts": under_model((b"}" + text("a")) * deep + b"N" + b"s" * deep),
        "stubs": under_model((name("models.x") + b")\x81") * deep + b"N" + b"b" * deep),
        "modules": under_model((child + parts + text("a")) * deep + b"N" + (b"s" + b"ub") * deep),
        "doubled list": PROTO + b"}" + text("model") + module() + b"s" + text("args")
        + doubled(b"]", (b"](", b"e")) + b"s" + STOP,
        "doubled tuple as a key": under_model(b"}" + doubled(b")", (b"", b"\x86"))[0:] + b"Ns"),
        "module of itself": under_model(
            name("models.yolo.Model") + b")\x81" + memo + b"}(" + text("_modules") + b"}" + text("a") + again
            + struct.pack("<I", 0) + b"s" + b"ub"
        ),
        "a million sets": under_model(b"\x8f" * 1_100_000),
        "copied dicts": under_model(
            b"}(" + b"".join(number(n) + b"N" for n in range(20_000)) + b"u" + memo
            + (name("collections.OrderedDict") + again + struct.pack("<I", 0) + b"\x85R") * 20_000
        ),
        "copied text": under_model(
            text("x" * 1_000_000) + memo
            + (name("_codecs.encode") + again + struct.pack("<I", 0) + text("latin1") + b"\x86R") * 20_000
        ),
        "long number": under_model(b"\x8b" + struct.pack("<I", 1 << 20) + b"\xff" * (1 << 20)),
        "text longer than the file": under_model(b"X" + struct.pack("<I", 0xFFFFFFFF) + b"x"),
        "text of 2**63": under_model(b"\x8d" + struct.pack("<Q", 1 << 63) + b"x"),
        "unhashable key": under_model(b"}" + b"]" + b"Ns"),
        "set of lists": under_model(b"\x8f(]\x90"),
    }  # fmt: skip
    return {key: (archive(data), "") for key, data in found.items()}


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


class _Reduced:
    """Pickles as a call. Only ever dumped."""

    def __init__(self, function: object, args: tuple[object, ...]) -> None:
        self._call = (function, args)

    def __reduce__(self) -> object:
        return self._call


def _import_system() -> object:
    import os

    return os.system


def _redirect(data: bytes, entry: bytes, offset: int) -> bytes:
    """Let the directory say that the record ``entry`` begins at ``offset``."""
    place = data.rindex(entry) - 4
    return data[:place] + struct.pack("<I", offset) + data[place + 4 :]


def _patch_flags(data: bytes) -> bytes:
    place = data.rindex(b"PK\1\2")
    return data[: place + 8] + b"\1\0" + data[place + 10 :]
