"""From a ``.pt`` file to the object in it, running none of it: the zip layout and that before torch 1.6.

Source: PyTorch, torch/serialization.py (``_save``, ``_legacy_save``) for the two layouts.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Callable
from io import BufferedReader
from typing import Any

from anyolo.errors import CheckpointError
from anyolo.families.safe_globals import mentioned_globals, resolve
from anyolo.families.safe_pickle import Machine
from anyolo.families.safe_tensors import STORAGE_DTYPES, Storage, check_byte_order
from anyolo.families.safe_values import TENSOR_BYTES, Budget, Global, shown
from anyolo.families.safe_zip import Archive
from anyolo.types import PathLike

MAX_PICKLE_BYTES = 32 << 20
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

# What a damaged file may lead to, here and in those who look into it; it always means the same.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def read_object(path: PathLike) -> Any:
    """The object that ``torch.save`` wrote: containers, numbers, text, CPU tensors and ``Stub``s.

    Tensors that shared memory still do. Memory is bounded by the length of the file and a fixed allowance.

    Raises:
        UntrustedFile: it asks for code to be run. Nothing was.
        CheckpointError: no such file, not a weights file, truncated or damaged.
    """
    where = os.fspath(path)
    try:
        with open(path, "rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            is_zip = file.read(4) == b"PK\3\4"
            return _read_zip(file, size_bytes) if is_zip else _read_legacy(file, size_bytes)
    except CheckpointError as error:
        error.where = error.where or where
        raise
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}", where=where) from error
    except DAMAGE as error:
        problem = f"the file is damaged ({type(error).__name__}: {shown(error)})"
        raise CheckpointError(problem, where=where) from error


class _Storages:
    """Answers persistent ids. ``fill`` gets the key and a fresh storage no larger than the file."""

    def __init__(self, size_bytes: int, fill: Callable[[str, Storage], None]) -> None:
        self.budget = Budget(size_bytes)
        self.found: dict[str, Storage] = {}
        self._free_bytes = size_bytes
        self._fill = fill

    def load(self, identifier: Any) -> Storage | Global:
        """The storage behind ``("storage", type, key, device, number of elements[, None])``.

        Old files refer to module classes this way too: ``("module", class, file name, source text)``.
        """
        if type(identifier) is not tuple or not 2 <= len(identifier) <= 6:
            raise CheckpointError(f"a storage of a {type(identifier).__name__}")
        if identifier[0] == "module" and isinstance(identifier[1], Global):
            return identifier[1]
        word, kind, key, _device, count, *view = identifier
        dtype = STORAGE_DTYPES.get(kind.name) if isinstance(kind, Global) else None
        if word != "storage" or dtype is None or type(key) is not str or type(count) is not int:
            raise CheckpointError(f"a storage of {shown(kind.name if isinstance(kind, Global) else word)}")
        if not re.fullmatch(r"\w{1,64}", key, re.ASCII):
            raise CheckpointError(f"a storage named {shown(key)}")
        storage = self.found.get(key)
        if storage is None:
            self.budget.spend(TENSOR_BYTES)
            self._free_bytes -= count * dtype.itemsize
            if count < 0 or self._free_bytes < 0:
                raise CheckpointError(f"storage {key} claims {count} numbers, more than the file holds")
            storage = Storage.allocate(dtype, count)
            self._fill(key, storage)
            self.found[key] = storage
        if storage.values.dtype != dtype or storage.values.numel() != count:
            raise CheckpointError(f"storage {key} is claimed with two types or sizes")
        return self._part(storage, view[0]) if view and view[0] is not None else storage

    def _part(self, storage: Storage, view: Any) -> Storage:
        """The storage within another that files before torch 0.4 have: ``(its key, offset, elements)``."""
        if type(view) is not tuple or len(view) != 3:
            raise CheckpointError("a part of a storage without place and length")
        _key, offset, count = view
        whole = storage.values.numel()
        if type(offset) is not int or type(count) is not int or not 0 <= offset <= offset + count <= whole:
            raise CheckpointError(f"a part of a storage that reaches out of its {whole} numbers")
        self.budget.spend(TENSOR_BYTES)
        return storage.part(offset, count)


def _read_zip(file: BufferedReader, size_bytes: int) -> Any:
    archive = Archive(file, size_bytes)
    roots = [
        name.removesuffix("data.pkl") for name in archive.records if re.fullmatch(r"[^/]+/data\.pkl", name)
    ]
    if len(roots) != 1:
        raise CheckpointError(f"a zip file, but not one that torch.save wrote: it has {len(roots)} data.pkl")
    root = roots[0]
    if f"{root}constants.pkl" in archive.records:
        raise CheckpointError(
            "a TorchScript program, not weights", hint="Give the .pt file it was exported from."
        )
    order = archive.read(f"{root}byteorder", 16) if f"{root}byteorder" in archive.records else b"little"
    if order not in (b"little", b"big"):
        raise CheckpointError(f"byte order {shown(order)} is not known")

    def fill(key: str, storage: Storage) -> None:
        record = archive.records.get(f"{root}data/{key}")
        if record is None or record.size != storage.raw.size:
            held = "none" if record is None else f"{record.size} bytes"
            raise CheckpointError(f"storage {key} should be {storage.raw.size} bytes, the file has {held}")
        archive.read_into(record, storage.raw.data)
        storage.finish(is_swapped=order.decode() != sys.byteorder)

    storages = _Storages(size_bytes, fill)
    data = archive.read(f"{root}data.pkl", MAX_PICKLE_BYTES)
    found = Machine(data, storages.budget, storages.load).run()
    check_byte_order(storages.found.values())
    return found


def _read_legacy(file: BufferedReader, size_bytes: int) -> Any:
    """A pickle each: magic number, protocol, system, object, storage keys. Then the bytes, little-endian.

    Torch has always written them so, whatever ``system`` says of the machine.
    """
    file.seek(0)
    data = file.read(MAX_PICKLE_BYTES)
    if data[:1] != b"\x80":
        raise _not_weights(data)
    storages = _Storages(size_bytes, lambda key, storage: None)

    def run(load: Callable[[Any], Any] | None = None, position: int = 0) -> tuple[Any, int]:
        machine = Machine(data, storages.budget, load, position)
        return machine.run(), machine.position

    magic, at = run()
    if magic != LEGACY_MAGIC:
        raise CheckpointError("a plain pickle, not a file that torch.save wrote")
    protocol, at = run(position=at)
    if protocol != LEGACY_PROTOCOL:
        raise CheckpointError(f"file protocol {shown(protocol)} is not known")
    _system, at = run(position=at)
    found, at = run(storages.load, at)
    keys, at = run(position=at)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise CheckpointError("the list of storages is no list of names")
    if sorted(keys) != sorted(storages.found):
        raise CheckpointError("the storages in the file are not those its tensors ask for")
    file.seek(at)
    for key in keys:
        storage = storages.found[key]
        count = int.from_bytes(file.read(8), "little")
        if count != storage.values.numel() or file.readinto(storage.raw.data) != storage.raw.size:
            raise CheckpointError(f"storage {key} is shorter than its tensors need: the file is truncated")
        storage.finish(is_swapped=sys.byteorder != "little")
    check_byte_order(storages.found.values())
    return found


def _not_weights(data: bytes) -> CheckpointError:
    """What a file is that begins like no weights file; of a pickle in text form, its names are judged."""
    for full in mentioned_globals(data):
        resolve(*full.split(" "))
    if not data:
        return CheckpointError("the file is empty", hint="Get it again: a download was probably cut short.")
    if data.startswith(b"version https://git-lfs"):
        return CheckpointError("a git-lfs pointer, not the weights", hint="Run: git lfs pull")
    if data.lstrip()[:1] == b"<":
        return CheckpointError(
            "a web page, not weights", hint="The download gave an error page; open it to see why."
        )
    return CheckpointError(
        "not a weights file that torch.save wrote", hint="anyolo reads PyTorch .pt and .pth files."
    )
