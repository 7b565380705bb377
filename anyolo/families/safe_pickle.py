"""A pickle machine of our own: it builds containers, numbers, text, tensors and stubs, and nothing else.

It knows no import, no attribute access and no call except our own constructors (``safe_globals``). Memory,
time and nesting are bounded whatever the stream says, and nothing is recursive. Opcodes are those that pickle
protocols 2 to 5 write; the text opcodes of protocols 0 and 1 are in no weights file and are refused.

Source: Python's ``pickletools`` documentation of the opcodes.
"""

from __future__ import annotations

import pickle  # only for the names of its opcodes
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

from anyolo.errors import CheckpointError
from anyolo.families.safe_globals import make_set, mentioned_globals, refuse, resolve
from anyolo.families.safe_values import (
    ITEM_BYTES,
    MAX_KEY,
    MAX_NESTING,
    MAX_NUMBER_BYTES,
    Budget,
    Global,
    Stub,
    check_key,
    check_nesting,
    shown,
)

Operation: TypeAlias = Callable[["Machine"], None]

_INT32 = struct.Struct("<i")
_UINT8 = struct.Struct("<B")
_UINT16 = struct.Struct("<H")
_UINT32 = struct.Struct("<I")
_UINT64 = struct.Struct("<Q")
_DOUBLE = struct.Struct(">d")


class Machine:
    """Runs one pickle that begins at ``position`` of ``data``; afterwards ``position`` is behind its end.

    ``load_storage`` answers the stream's persistent ids, which is how torch refers to the bytes of a tensor.
    """

    def __init__(
        self, data: bytes, budget: Budget, load_storage: Callable[[Any], Any] | None = None, position: int = 0
    ) -> None:
        self.data = data
        self.position = position
        self.budget = budget
        self.load_storage = load_storage
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the open marks
        self.memo: list[Any] = []  # no dict: a file chooses the numbers, and so what they would cost
        self.names: dict[tuple[str, str], Global] = {}

    def run(self) -> Any:
        """The object of the pickle; UntrustedFile for an unwanted name, CheckpointError for damage."""
        data, known, stop = self.data, _OPERATIONS, pickle.STOP[0]
        for _ in range(self.budget.operations):
            code = data[self.position]
            self.position += 1
            if code == stop:
                result = self.stack.pop()
                check_nesting(result)
                return result
            operation = known.get(code)
            if operation is None:
                raise self._unknown(code)
            operation(self)
        raise CheckpointError(f"more than {self.budget.operations} pickle operations")

    def _unknown(self, code: int) -> CheckpointError:
        """An opcode no weights file has. If what follows names something unwanted, say that name instead."""
        named = mentioned_globals(self.data[self.position - 1 :])
        for full in named:
            resolve(*full.split(" "))
        more = f" (it names {', '.join(map(shown, named[:4]))})" if named else ""
        return CheckpointError(f"pickle operation {bytes([code])!r} is in no weights file{more}")

    # -- reading the stream --------------------------------------------------------------------------

    def _bytes(self, count: int) -> bytes:
        start = self.position
        self.position = end = start + count
        if end > len(self.data):
            raise CheckpointError("the pickle ends too early")
        return self.data[start:end]

    def _number(self, form: struct.Struct) -> Any:
        value = form.unpack_from(self.data, self.position)[0]
        self.position += form.size
        return value

    def _line(self) -> str:
        end = self.data.index(b"\n", self.position, self.position + 1000)
        line = self.data[self.position : end].decode("utf-8")
        self.position = end + 1
        return line

    def _until_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    # -- constants -----------------------------------------------------------------------------------

    def protocol(self) -> None:
        if self._number(_UINT8) > 5:
            raise CheckpointError("a pickle protocol newer than 5")

    def frame(self) -> None:
        self.position += 8  # a hint for buffering; the stream is in memory already

    def int1(self) -> None:
        self.stack.append(self.data[self.position])
        self.position += 1

    def long1(self) -> None:
        self._long(self._number(_UINT8))

    def long4(self) -> None:
        self._long(self._number(_UINT32))

    def _long(self, count: int) -> None:
        if count > MAX_NUMBER_BYTES:
            raise CheckpointError(f"a whole number of {count} bytes")
        self.stack.append(int.from_bytes(self._bytes(count), "little", signed=True))

    # -- containers ----------------------------------------------------------------------------------

    def mark(self) -> None:
        if len(self.below) >= MAX_NESTING:
            raise CheckpointError(f"nested deeper than {MAX_NESTING}")
        self.below.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._until_mark()

    def pop_mark(self) -> None:
        self._until_mark()

    def duplicate(self) -> None:
        self.stack.append(self.stack[-1])

    def tuple1(self) -> None:
        self.stack[-1] = (self.stack[-1],)

    def tuple2(self) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def tuple3(self) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def tuple_of_mark(self) -> None:
        items = self._until_mark()
        self.stack.append(tuple(items))

    def empty_list(self) -> None:
        self.stack.append([])

    def append(self) -> None:
        item = self.stack.pop()
        self._extend([item])

    def appends(self) -> None:
        items = self._until_mark()
        self._extend(items)

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is Stub and not isinstance(target.entries, dict):
            target.entries = target.entries or []
            target = target.entries
        if type(target) is not list:
            raise CheckpointError(f"items appended to a {type(target).__name__}")
        target.extend(items)

    def empty_dict(self) -> None:
        self.stack.append({})

    def set_item(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._update([key, value])

    def set_items(self) -> None:
        items = self._until_mark()
        self._update(items)

    def _update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is Stub and not isinstance(target.entries, list):
            target.entries = target.entries or {}
            target = target.entries
        if type(target) is not dict or len(items) % 2:
            raise CheckpointError(f"items set in a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str or len(key) > MAX_KEY:
                check_key(key, self.budget)
            target[key] = value

    def empty_set(self) -> None:
        self.stack.append(make_set((), self.budget))

    def add_items(self) -> None:
        items = self._until_mark()
        if type(self.stack[-1]) is not set:
            raise CheckpointError("items added to something that is no set")
        self.stack[-1].update(make_set((items,), self.budget))

    def frozen_set(self) -> None:
        items = self._until_mark()
        self.stack.append(make_set((items,), self.budget))

    # -- memo ----------------------------------------------------------------------------------------

    def get1(self) -> None:
        self.stack.append(self.memo[self.data[self.position]])
        self.position += 1

    def get4(self) -> None:
        self.stack.append(self.memo[self._number(_UINT32)])

    def put1(self) -> None:
        self._put(self.data[self.position])
        self.position += 1

    def put4(self) -> None:
        index = _UINT32.unpack_from(self.data, self.position)[0]
        self.position += 4
        if index == len(self.memo):  # as nearly always
            self.memo.append(self.stack[-1])
        else:
            self._put(index)

    def _put(self, index: int) -> None:
        memo, top = self.memo, self.stack[-1]
        if index == len(memo):
            memo.append(top)
        elif index < len(memo):
            memo[index] = top
        elif index < self.budget.operations:
            memo += [None] * (index - len(memo))  # gaps, as Python 2 leaves one at 0
            memo.append(top)
        else:
            raise CheckpointError(f"place {index} of the memo")

    def memoize(self) -> None:
        self.memo.append(self.stack[-1])

    # -- names and objects ---------------------------------------------------------------------------

    def name(self) -> None:
        module, name = self._line(), self._line()
        self._name(module, name)

    def name_of_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise CheckpointError("a class name that is no text")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        found = self.names.get((module, name))
        if found is None:
            found = self.names[module, name] = resolve(module, name)
        self.stack.append(found)

    def call(self) -> None:
        args = self.stack.pop()
        target = self.stack[-1]
        if type(target) is not Global or type(args) is not tuple:
            raise CheckpointError(f"a call of a {type(target).__name__}")
        if target.make is None:
            raise refuse(target.name)
        self.budget.spend(ITEM_BYTES * (1 + len(args)))
        self.stack[-1] = target.make(args, self.budget)

    def new_object(self) -> None:
        args = self.stack.pop()
        target = self.stack[-1]
        if type(target) is not Global or type(args) is not tuple:
            raise CheckpointError("an object without a class")
        self.stack[-1] = Stub(target.name, args)

    def new_object_with_keywords(self) -> None:
        self.stack.pop()
        self.new_object()

    def set_state(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is Stub:
            target.state = state
        elif not isinstance(target, dict | list | set | Tensor):  # attributes of these are of no interest
            raise CheckpointError(f"a state for a {type(target).__name__}")

    def persistent(self) -> None:
        if self.load_storage is None:
            raise CheckpointError("a storage where none can be")
        self.stack[-1] = self.load_storage(self.stack[-1])


def _constant(value: Any) -> Operation:
    return lambda machine: machine.stack.append(value)


def _number(form: struct.Struct) -> Operation:
    return lambda machine: machine.stack.append(machine._number(form))


def _text(length: struct.Struct, encoding: str, errors: str = "strict") -> Operation:
    def read(machine: Machine) -> None:
        machine.stack.append(str(machine._bytes(machine._number(length)), encoding, errors))

    return read


def _raw(length: struct.Struct) -> Operation:
    return lambda machine: machine.stack.append(machine._bytes(machine._number(length)))


_OPERATIONS: dict[int, Operation] = {
    code[0]: operation
    for code, operation in (
        (pickle.PROTO, Machine.protocol),
        (pickle.FRAME, Machine.frame),
        (pickle.NONE, _constant(None)),
        (pickle.NEWTRUE, _constant(True)),
        (pickle.NEWFALSE, _constant(False)),
        (pickle.EMPTY_TUPLE, _constant(())),
        (pickle.BININT1, Machine.int1),
        (pickle.BININT2, _number(_UINT16)),
        (pickle.BININT, _number(_INT32)),
        (pickle.LONG1, Machine.long1),
        (pickle.LONG4, Machine.long4),
        (pickle.BINFLOAT, _number(_DOUBLE)),
        (pickle.SHORT_BINUNICODE, _text(_UINT8, "utf-8", "surrogatepass")),
        (pickle.BINUNICODE, _text(_UINT32, "utf-8", "surrogatepass")),
        (pickle.BINUNICODE8, _text(_UINT64, "utf-8", "surrogatepass")),
        (pickle.SHORT_BINSTRING, _text(_UINT8, "latin1")),
        (pickle.BINSTRING, _text(_UINT32, "latin1")),
        (pickle.SHORT_BINBYTES, _raw(_UINT8)),
        (pickle.BINBYTES, _raw(_UINT32)),
        (pickle.BINBYTES8, _raw(_UINT64)),
        (pickle.BYTEARRAY8, _raw(_UINT64)),
        (pickle.MARK, Machine.mark),
        (pickle.POP, Machine.pop),
        (pickle.POP_MARK, Machine.pop_mark),
        (pickle.DUP, Machine.duplicate),
        (pickle.TUPLE1, Machine.tuple1),
        (pickle.TUPLE2, Machine.tuple2),
        (pickle.TUPLE3, Machine.tuple3),
        (pickle.TUPLE, Machine.tuple_of_mark),
        (pickle.EMPTY_LIST, Machine.empty_list),
        (pickle.APPEND, Machine.append),
        (pickle.APPENDS, Machine.appends),
        (pickle.EMPTY_DICT, Machine.empty_dict),
        (pickle.SETITEM, Machine.set_item),
        (pickle.SETITEMS, Machine.set_items),
        (pickle.EMPTY_SET, Machine.empty_set),
        (pickle.ADDITEMS, Machine.add_items),
        (pickle.FROZENSET, Machine.frozen_set),
        (pickle.BINGET, Machine.get1),
        (pickle.LONG_BINGET, Machine.get4),
        (pickle.BINPUT, Machine.put1),
        (pickle.LONG_BINPUT, Machine.put4),
        (pickle.MEMOIZE, Machine.memoize),
        (pickle.GLOBAL, Machine.name),
        (pickle.STACK_GLOBAL, Machine.name_of_stack),
        (pickle.REDUCE, Machine.call),
        (pickle.NEWOBJ, Machine.new_object),
        (pickle.NEWOBJ_EX, Machine.new_object_with_keywords),
        (pickle.BUILD, Machine.set_state),
        (pickle.BINPERSID, Machine.persistent),
    )
}
