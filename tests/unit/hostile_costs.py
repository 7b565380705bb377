"""Files that would take for ever or fill the memory: small in themselves, endless to whoever follows them."""

from __future__ import annotations

import pickle
import struct

from tests.unit.hostile_opcodes import (
    FOUR,
    PROTO,
    STOP,
    archive,
    call,
    legacy,
    module,
    name,
    number,
    storage,
    tensor,
    text,
    under_model,
)

MEMOIZE = b"\x94"
DEEP = 10_000
LONG = "x" * 1_000_000
COLLIDING = (1 << 61) - 1  # Python hashes every multiple of it to 0


def get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def doubled(first: bytes, wrap: tuple[bytes, bytes], times: int = 60) -> bytes:
    """x = wrap(x, x), ``times`` times over, where nothing was memoized yet: 2**times to walk."""
    made = first + MEMOIZE
    for level in range(times):
        made += b"0" + wrap[0] + get(level) + get(level) + wrap[1] + MEMOIZE
    return made


DOUBLED = doubled(b"]", (b"](", b"e"))


def costs() -> dict[str, tuple[bytes, str]]:
    """Name -> (bytes, words of the refusal)."""
    found = {**_nested(), **_many(), **_repeated(), **_compared()}
    files = {key: (archive(data, FOUR), "") for key, data in found.items()}
    for key in ("lists", "tuples", "dicts", "stubs", "doubled list", "long number", "joined path"):
        files[f"legacy {key}"] = legacy(found[key]), ""
    return {**files, **_legacy(), **_models()}


def _nested() -> dict[str, bytes]:
    """Deep and deeper."""
    child = name("models.yolo.Model") + b")\x81}("
    parts = text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}"
    by_memo = b"]" + MEMOIZE + b"".join(b"0]" + get(n) + b"a" + MEMOIZE for n in range(DEEP))
    return {
        "marks": PROTO + b"(" * DEEP + STOP,
        "lists": under_model(b"]" * DEEP + b"a" * (DEEP - 1)),
        "lists as extension": under_model(b"](" * DEEP + b"e" * DEEP),
        "tuples": under_model(b")" + b"\x85" * DEEP),
        "more tuples": under_model(b")" + b"\x85" * 300_000),
        "lists through the memo": under_model(by_memo),
        "dicts": under_model((b"}" + text("a")) * DEEP + b"N" + b"s" * DEEP),
        "stubs": under_model((name("models.x") + b")\x81") * DEEP + b"N" + b"b" * DEEP),
        "modules": under_model((child + parts + text("a")) * DEEP + b"N" + (b"s" + b"ub") * DEEP),
        "calls within calls": under_model(
            (name("copyreg.__newobj__") + name("models.x")) * DEEP + b"N" + b"\x86R" * DEEP
        ),
        "module of itself": under_model(
            name("models.yolo.Model") + b")\x81" + MEMOIZE + b"}(" + text("_modules") + b"}" + text("a")
            + get(0) + b"s" + b"ub"
        ),
        "doubled list": PROTO + b"}" + text("model") + module() + b"s" + text("args") + DOUBLED + b"s" + STOP,
        "doubled dict": PROTO + b"}" + text("model") + module() + b"s" + text("args")
        + doubled(b"}", (b"}" + text("a"), b"\x86s")) + b"s" + STOP,
        "doubled tuple as a key": under_model(b"}" + doubled(b")", (b"", b"\x86")) + b"Ns"),
    }  # fmt: skip


def _many() -> dict[str, bytes]:
    """A great number of something, or something of great length."""
    return {
        "a million sets": under_model(b"\x8f" * 1_100_000),
        "a million lists": under_model(b"]" * 6_000_000),
        "thirty million lists": PROTO + b"]" * (31 << 20) + STOP,
        "a pickle of 33 MiB": PROTO + b"N" * (33 << 20) + STOP,
        "memo of 2**32 - 1": under_model(b"]r\xff\xff\xff\xff"),
        "long number": under_model(b"\x8b" + struct.pack("<I", 1 << 20) + b"\xff" * (1 << 20)),
        "number of 2 GB": under_model(b"\x8b" + struct.pack("<I", 0x7FFFFFFF) + b"\xff"),
        "number of negative length": under_model(b"\x8b" + struct.pack("<i", -1) + b"\xff"),
        "text longer than the file": under_model(b"X" + struct.pack("<I", 0xFFFFFFFF) + b"x"),
        "text of 2**63": under_model(b"\x8d" + struct.pack("<Q", 1 << 63) + b"x"),
        "bytes of 2**63": under_model(b"\x96" + struct.pack("<Q", 1 << 63) + b"x"),
        "frame of 2**64": PROTO + b"\x95" + b"\xff" * 8 + b"}.",
        "unhashable key": under_model(b"}" + b"]" + b"Ns"),
        "set of lists": under_model(b"\x8f(]\x90"),
    }


def _repeated() -> dict[str, bytes]:
    """One long thing made again and again through the memo."""
    wide = b"(" + b"N" * 100_000 + b"t" + MEMOIZE + b"0"
    long = text(LONG) + MEMOIZE + b"0"
    a_million = tensor(storage(), [900_000, 2], [0, 0])

    def again(start: bytes, each: bytes, times: int = 60_000) -> bytes:
        return under_model(start + b"](" + each * times + b"e")

    def made(full: str, args: bytes) -> bytes:
        return name(full) + args + b"R"

    dtype = made("numpy.dtype", b"(" + text("f8") + b"t")
    return {
        "copied dicts": under_model(
            b"}(" + b"".join(number(n) + b"N" for n in range(20_000)) + b"u" + MEMOIZE
            + made("collections.OrderedDict", get(0) + b"\x85") * 20_000
        ),
        "copied text": under_model(
            text("x" * 1_000_000) + MEMOIZE
            + made("_codecs.encode", get(0) + text("latin1") + b"\x86") * 20_000
        ),
        "joined path": again(long, made("pathlib.PosixPath", b"(" + get(0) * 5_000 + b"t"), 20),
        "device of many parts": again(wide, made("torch.device", get(0)), 20_000),
        "copied arguments": again(wide, made("copyreg.__newobj__", name("models.x") + get(0) + b"\x86"))
        + b"0" + made("torch.Size", get(0) + b"\x85") * 20_000,
        "arguments without first": again(
            b"(" + name("models.x") + b"N" * 100_000 + b"t" + MEMOIZE + b"0",
            made("copyreg.__newobj__", get(0)), 20_000,
        ),
        "scalars of long raw text": again(
            long, made("numpy.core.multiarray.scalar", dtype + get(0) + b"\x86"), 5_000
        ),
        "complex of long text": again(long, made("builtins.complex", get(0) + get(0) + b"\x86"), 5_000),
        "names of great length": again(long, get(0) + text("a") + b"\x93", 1)
        + b"".join(get(0) + text(f"n{n}") + b"\x93" for n in range(3_000)),
        "list of a tensor": under_model(made("torch.Size", a_million + b"\x85")),
        "set of a tensor": under_model(made("builtins.set", a_million + b"\x85")),
        "dict of a tensor": under_model(made("collections.OrderedDict", a_million + b"\x85")),
        "dict of pairs that are tensors": under_model(
            made("collections.OrderedDict", b"](" + a_million + b"e\x85")
        ),
        "storage of many words": again(wide, get(0) + b"Q", 20_000),
        "storage of a tensor": under_model(a_million + b"Q"),
        "storage of a doubled word": under_model(DOUBLED + b"(" + get(60) + b"NNNNtQ"),
        "encoding that is a doubled list": under_model(
            DOUBLED + made("_codecs.encode", b"N" + get(60) + b"\x86")
        ),
        "device that is a doubled list": under_model(DOUBLED + made("torch.device", get(60) + b"\x85")),
        "number type that is a doubled list": under_model(
            DOUBLED
            + made(
                "numpy.core.multiarray.scalar",
                made("numpy.dtype", get(60) + b"\x85") + text("x" * 8) + b"\x86",
            )
        ),
    }  # fmt: skip


def _compared() -> dict[str, bytes]:
    """Dictionaries that take a comparison with everything before."""
    alone = [number(n * COLLIDING) for n in range(1, 60_000)]
    numbers = b"".join(own + b"N" for own in alone)
    pairs = b"".join(number(n * COLLIDING) + b"K\1\x86N" for n in range(1, 60_000))
    long_keys = text(LONG) + MEMOIZE + b"0" + text(LONG) + MEMOIZE + b"0}" + get(0) + b"Ns"
    return {
        "numbers of one hash": under_model(b"}(" + numbers + b"u"),
        "pairs of one hash": under_model(b"}(" + pairs + b"u"),
        "set of one hash": under_model(b"\x8f(" + b"".join(alone) + b"\x90"),
        "a long key again and again": under_model(long_keys + (get(1) + b"Ns") * 60_000),
    }


def _legacy() -> dict[str, tuple[bytes, str]]:
    """Where the layout before torch 1.6 has values of its own to compare and to show."""
    start = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    model = under_model(tensor(storage(), [4], [1]))
    two = PROTO + b"](" + DOUBLED + doubled_again() + b"e."
    return {
        "legacy magic of a doubled list": (PROTO + DOUBLED + b".", "plain pickle"),
        "legacy protocol of a doubled list": (start + PROTO + DOUBLED + b".", "file protocol"),
        "legacy keys that are doubled lists": (legacy(model)[: -len(pickle.dumps([], 2))] + two, "storages"),
        "legacy empty storages": (
            legacy(PROTO + b"".join(storage(f"k{n}", 0) for n in range(30_000)) + STOP),
            "",
        ),
    }


def doubled_again() -> bytes:
    """A second doubled list, equal to the first and made of others."""
    made = b"]" + b"r" + struct.pack("<I", 1000)
    for level in range(60):
        made += b"0](" + get(1000 + level) * 2 + b"e" + b"r" + struct.pack("<I", 1001 + level)
    return made


def _models() -> dict[str, tuple[bytes, str]]:
    """What is well made, and endless for those who look for the model in it."""
    array = (
        name("numpy.core.multiarray._reconstruct")
        + b"(" + name("numpy.ndarray") + b"K\0\x85" + text("b") + b"tR"
        + b"(K\1" + number(4096) + b"\x85" + call("numpy.dtype", text("u1")) + b"\x89"
        + b"B" + struct.pack("<I", 4096) + b"\1" * 4096 + b"tb"
    )  # fmt: skip
    shown = tensor(storage(), [4096], [0])

    def settings(first: bytes, times: int = 90_000) -> bytes:
        many = b"](" + first + MEMOIZE + get(0) * times + b"e"
        return PROTO + b"}(" + text("args") + many + text("model") + module() + b"u" + STOP

    def setting(value: bytes, times: int, more: bytes = b"") -> bytes:
        """A dictionary of ``times`` keys with the same value."""
        keys = b"".join(text(f"k{n}") + get(0) for n in range(times))
        return PROTO + value + MEMOIZE + b"0}(" + keys + text("model") + module() + more + b"u" + STOP

    def with_names(names: bytes) -> bytes:
        return under_model(module(names=names))

    def with_rows(rows: bytes) -> bytes:
        return under_model(module(yaml=rows))

    long_list = b"](" + b"N" * 90_000 + b"e"
    fifty = b"](" + text(LONG) + MEMOIZE + get(0) * 5_000 + b"e"
    row = b"](" + b"K\1" * 90_000 + b"e" + MEMOIZE + b"0"
    conv = b"](J\xff\xff\xff\xffK\1" + text("Conv") + get(0) + b"e" + MEMOIZE
    shared_rows = row + b"](" + conv + get(1) * 90_000 + b"e"
    many_buffers = b"}(" + b"".join(text(f"b{n}") + b"N" for n in range(20_000)) + b"u"
    deep = b"N"
    for _ in range(60):
        deep = module(_modules=b"}" + text("m" * 500) + deep + b"s")
    leaf = module(_parameters=b"}(" + b"".join(text(f"p{n}") + tensor_again() for n in range(5_000)) + b"u")
    found = {
        "settings with one array many times": settings(array),
        "settings with one tensor many times": settings(shown),
        "settings with a tensor of nothing": settings(tensor(storage(), [1 << 40, 0], [0, 0]), 2),
        "many long settings": setting(long_list, 20_000),
        "settings of long text": setting(fifty, 1_000),
        "names of long text": with_names(b"]" + fifty + b"a"),
        "names of doubled lists": with_names(b"](" + DOUBLED + b"e"),
        "buffers looked for in a list": under_model(
            module(_buffers=many_buffers, _non_persistent_buffers_set=b"](" + b"K\1" * 200_000 + b"e")
        ),
        "deep modules of long names": under_model(
            tensor(storage(), [4], [1]) + MEMOIZE + b"0" + deep.replace(b"N", leaf, 1)
        ),
        "rows of shared rows": with_rows(
            b"}(" + text("backbone") + shared_rows + text("head") + b"]" + text("nc") + b"K\1u"
        ),
        "rows of long text": with_rows(
            b"}(" + text("backbone") + b"](" + fifty + b"e" + text("head") + b"]" + text("nc") + b"K\1u"
        ),
        "newer by a doubled list": PROTO + b"}(" + text("anyolo") + DOUBLED + b"u" + STOP,
    }  # fmt: skip
    own = {
        "own names that are doubled lists": {"names": DOUBLED},
        "own family that is a doubled list": {"family": DOUBLED},
        "own family of long text": {"family": text(LONG)},
        "own rows that are doubled lists": {"rows": DOUBLED},
        "own picture size that is a doubled list": {"imgsz": DOUBLED},
        "own preprocessing that is a doubled list": {"preprocess": DOUBLED},
        "own size that is a doubled list": {"size": DOUBLED},
    }
    for key, parts in own.items():
        found[key] = PROTO + own_record(**parts) + STOP
    return {key: (archive(data, FOUR), "") for key, data in found.items()}


def tensor_again() -> bytes:
    """The tensor that was memoized first."""
    return get(0)


def own_record(**parts: bytes) -> bytes:
    """A file of ours, some of it replaced."""
    fields = {
        "anyolo": b"K\1",
        "family": text("yolov8"),
        "size": text("n"),
        "nc": b"K\1",
        "names": b"]" + text("a") + b"a",
        "rows": b"}",
        "preprocess": b"}",
        "imgsz": b"N",
        "weights": b"}",
        **parts,
    }
    return b"}(" + b"".join(text(key) + value for key, value in fields.items()) + b"u"
