"""Reads pickled arrays without calling anything that the file names.

A pickle is a small program: run by Python's own loader, it may call any function, or pass numpy's
types a state that they do not check. The interpreter in this file runs only the operations that
build lists, tuples, dicts, numbers, text and plain numeric arrays, and refuses all others. It
imports and calls nothing that the file names; its memory and time are bounded.
"""

from __future__ import annotations

import codecs
import io
import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.limits import DEPTH, PICKLE_STEPS
from retrace.reading import read_bytes, reading_content, unzipped

GZIP = b"\x1f\x8b"
_REMEDY = (
    "other pickles than of arrays are refused, because they can run programs: get the file again, "
    "or write the arrays in another format"
)
TYPE = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248])")
"""Names of the types of arrays: booleans, integers and floating-point numbers."""
OPCODES: dict[str, pickletools.OpcodeInfo] = {one.code: one for one in pickletools.opcodes}
LARGEST_INTEGER_BITS = 1024
MOST_AXES = 64
"""Axes of an array, at most, as in numpy."""
BYTES_PER_BYTE, SLACK_BYTES = 8, 2**20
"""Memory that values may need: for each byte of the file, and in addition for small files. Content
without repetition needs no more, because each value takes at least a byte and counts as 8."""


@dataclass(frozen=True)
class _Name:
    """A function or class that the file names."""

    module: str
    name: str


@dataclass
class _Type:
    """A numeric type; the file describes it by a name, then by a state with the byte order."""

    dtype: np.dtype[Any]


@dataclass
class _Array:
    """An array; the file describes it as empty, then by a state with shape, type and bytes."""

    values: np.ndarray | None = None


def read_pickles(path: Path) -> list[Any]:
    """The values of all pickles in a file, in order; also gzipped, also written by Python 2.

    DataError if the file is missing or damaged, or contains anything but arrays, numbers and text
    in lists, tuples and dicts.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; put the file there or correct the path") from error
    with reading_content(path, _REMEDY):
        return _values(unzipped(content) if content.startswith(GZIP) else content)


def _values(content: bytes) -> list[Any]:
    if not content:
        raise EOFError("it is empty")
    machine, values = _Machine(content), []
    while machine.file.tell() < len(content):
        values.append(_Plain(len(content)).of(machine.load()))
    return values


def _memory(size: int) -> int:
    """Bytes that the values of a file of `size` bytes may need."""
    return SLACK_BYTES + BYTES_PER_BYTE * size


class _Machine:
    """The interpreter, a stack machine; see pickletools for its operations."""

    def __init__(self, content: bytes) -> None:
        self.file = io.BytesIO(content)
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self._steps, self._bytes = PICKLE_STEPS, _memory(len(content))

    def load(self) -> Any:
        """The next value of the file, with stored arrays in it."""
        self.stack, self.marks, self.memo = [], [], {}
        while True:
            name, argument = self._next()
            if name == "STOP":
                return self.stack.pop()
            if name in PUSHED:
                self.stack.append(_checked(argument))
            elif name in OPERATIONS:
                OPERATIONS[name](self, argument)
            else:
                raise UnpicklingError(f"it has the operation {name}, which no array needs")

    def _next(self) -> tuple[str, Any]:
        """Name and argument of the next operation."""
        self._steps -= 1
        if self._steps < 0:
            raise UnpicklingError(f"it has more than {PICKLE_STEPS} operations")
        code = self.file.read(1).decode("latin1")
        if code not in OPCODES:
            raise UnpicklingError(f"it has no operation {code!r}" if code else "it ends too early")
        opcode = OPCODES[code]
        if opcode.name == "STRING":  # of Python 2, whose bytes pickletools takes for ASCII
            raw = pickletools.read_stringnl(self.file, decode=False)
            return opcode.name, codecs.escape_decode(raw)[0].decode("latin1")
        return opcode.name, opcode.arg.reader(self.file) if opcode.arg else None

    def to_mark(self) -> list[Any]:
        """Takes the values since the last mark from the stack."""
        begin = self.marks.pop()
        values = self.stack[begin:]
        del self.stack[begin:]
        return values

    def take(self, count: int) -> tuple[Any, ...]:
        """Takes `count` values from the stack."""
        if len(self.stack) < count:
            raise UnpicklingError("an operation lacks its values")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return tuple(values)

    def pop(self) -> None:
        """Takes a value or a mark from the stack."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def extend(self, values: list[Any]) -> None:
        """Appends to the list on the stack."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise UnpicklingError("it appends to a value that is not a list")
        target.extend(values)

    def update(self, pairs: list[Any]) -> None:
        """Adds keys and values, in turn, to the dict on the stack."""
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise UnpicklingError("it adds entries to a value that is not a dict")
        target.update(_as_dict(pairs))

    def name(self, module: Any, name: Any) -> None:
        """Puts one of the known names on the stack."""
        # A hash, or a text, of nested tuples can take for ever, and so only texts are looked up.
        if not (isinstance(module, str) and isinstance(name, str)):
            raise UnpicklingError("it calls a value that is not a function")
        if (module, name) not in KNOWN:
            raise UnpicklingError(f"it calls {module}.{name}, which is not allowed")
        self.stack.append(_Name(module, name))

    def reduce(self) -> None:
        """Calls the function in KNOWN that replaces the one that the file names."""
        name, arguments = self.take(2)
        make = KNOWN[name.module, name.name] if isinstance(name, _Name) else None
        if make is None or not isinstance(arguments, tuple):
            raise UnpicklingError("it calls a value that is not a function")
        self.stack.append(make(self, *arguments))

    def build(self) -> None:
        """Gives a type or an array its state."""
        (state,) = self.take(1)
        target = self.stack[-1]
        if not isinstance(state, tuple):
            raise UnpicklingError("it contains a state that is not that of an array")
        if isinstance(target, _Type):
            target.dtype = _ordered(target.dtype, *state)
        elif isinstance(target, _Array):
            target.values = self._array(*state)
        else:
            raise UnpicklingError("it gives a state to a value that is not an array")

    def _array(self, version: Any, shape: Any, kind: Any, is_fortran: Any, data: Any) -> np.ndarray:
        return self.array(data, kind, shape, "F" if is_fortran else "C")

    def array(self, data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
        """A copy of bytes as an array."""
        content, dtype = self.content(data), _dtype(kind)
        is_short = isinstance(shape, tuple) and len(shape) <= MOST_AXES
        if not is_short or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise UnpicklingError("it contains an array without a shape")
        if math.prod(shape) * dtype.itemsize != len(content):
            raise UnpicklingError(f"{len(content)} bytes are not an array of shape {list(shape)}")
        return _numbers(content, dtype).reshape(shape, order="F" if order == "F" else "C")

    def content(self, data: Any) -> bytes:
        """Bytes, which Python 2 wrote as text; they count as used memory."""
        if not isinstance(data, bytes | str):
            raise UnpicklingError("it contains an array of Python objects")
        self._bytes -= len(data)
        if self._bytes < 0:
            raise UnpicklingError("it repeats the same bytes too often")
        return data.encode("latin1") if isinstance(data, str) else data


# ---------------------------------------------------------------- replaced functions


def _new_type(machine: _Machine, name: Any, *_: Any) -> _Type:
    if not isinstance(name, str) or not TYPE.fullmatch(name):
        raise UnpicklingError(f"it contains values of type {_shown(name)}, which are not numbers")
    return _Type(np.dtype(name))


def _new_array(machine: _Machine, *_: Any) -> _Array:
    return _Array()


def _from_buffer(machine: _Machine, data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    return _Array(machine.array(data, kind, shape, order))


def _scalar(machine: _Machine, kind: Any, data: Any) -> Any:
    return machine.array(data, kind, (), "C").item()


def _encoded(machine: _Machine, text: Any, codec: Any) -> bytes:
    if codec != "latin1" or not isinstance(text, str):
        raise UnpicklingError(f"it contains text in {_shown(codec)}")
    return machine.content(text)


def _shown(value: Any) -> str:
    """The beginning of a text, the type of anything else."""
    return value[:20] if isinstance(value, str) else type(value).__name__


def _nothing(machine: _Machine) -> bytes:
    return b""  # as Python 3 writes it for Python 2


KNOWN: dict[tuple[str, str], Callable[..., Any] | None] = {
    ("_codecs", "encode"): _encoded,
    **{(module, "bytes"): _nothing for module in ("__builtin__", "builtins")},
    ("numpy", "dtype"): _new_type,
    ("numpy", "ndarray"): None,  # only named, as the class of an array
    **{
        (f"numpy.{core}.{module}", name): make
        for core in ("core", "_core")
        for module, name, make in (
            ("multiarray", "_reconstruct", _new_array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}
"""By module and name: the function that is called instead of the one that the file names."""


def _dtype(kind: Any) -> np.dtype[Any]:
    if not isinstance(kind, _Type):
        raise UnpicklingError("it contains an array without a type")
    return kind.dtype


def _ordered(dtype: np.dtype[Any], *state: Any) -> np.dtype[Any]:
    """A type in the byte order that its state names."""
    if len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
        raise UnpicklingError("it contains a type that is not a plain number")
    return dtype.newbyteorder(state[1]) if state[1] in "<>" else dtype


def _numbers(content: bytes, dtype: np.dtype[Any]) -> np.ndarray:
    """Bytes as numbers that can be changed; booleans are 0 or 1 whatever the bytes are."""
    if dtype.kind == "b":
        return np.frombuffer(content, np.uint8) != 0
    return np.frombuffer(content, dtype).copy()


# ---------------------------------------------------------------- operations

PUSHED = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
"""Operations that put their argument on the stack."""


def _checked(value: Any) -> Any:
    """A number or text; bytes for an array of bytes."""
    if isinstance(value, int) and value.bit_length() > LARGEST_INTEGER_BITS:
        raise UnpicklingError(f"it contains a number of {value.bit_length()} bits")
    return bytes(value) if isinstance(value, bytearray) else value


def _as_dict(pairs: list[Any]) -> dict[Any, Any]:
    keys = pairs[::2]
    if len(pairs) % 2 or not all(isinstance(k, int | float | str | bytes | None) for k in keys):
        raise UnpicklingError("it contains a dict whose keys are not numbers or text")
    return dict(zip(keys, pairs[1::2], strict=True))


def _push(make: Callable[[_Machine], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make(machine))


def _put(machine: _Machine, number: int) -> None:
    machine.memo[number] = machine.stack[-1]


def _get(machine: _Machine, number: int) -> None:
    machine.stack.append(machine.memo[number])


OPERATIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.to_mark(),
    "DUP": _push(lambda machine: machine.stack[-1]),
    "NONE": _push(lambda machine: None),
    "NEWTRUE": _push(lambda machine: True),
    "NEWFALSE": _push(lambda machine: False),
    "EMPTY_TUPLE": _push(lambda machine: ()),
    "TUPLE1": _push(lambda machine: machine.take(1)),
    "TUPLE2": _push(lambda machine: machine.take(2)),
    "TUPLE3": _push(lambda machine: machine.take(3)),
    "TUPLE": _push(lambda machine: tuple(machine.to_mark())),
    "EMPTY_LIST": _push(lambda machine: []),
    "LIST": _push(lambda machine: machine.to_mark()),
    "APPEND": lambda machine, _: machine.extend(list(machine.take(1))),
    "APPENDS": lambda machine, _: machine.extend(machine.to_mark()),
    "EMPTY_DICT": _push(lambda machine: {}),
    "DICT": _push(lambda machine: _as_dict(machine.to_mark())),
    "SETITEM": lambda machine, _: machine.update(list(machine.take(2))),
    "SETITEMS": lambda machine, _: machine.update(machine.to_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    "GLOBAL": lambda machine, names: machine.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.take(2)),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}


@dataclass(frozen=True)
class _Counted:
    """What replaces a value, with its bytes and its levels of containers."""

    value: Any
    size: int = 8
    levels: int = 0


class _Plain:
    """Replaces stored arrays by arrays; counts each value as often as it occurs."""

    def __init__(self, size: int) -> None:
        """`size`: bytes of the file."""
        self.most = _memory(size)
        self._done: dict[int, _Counted] = {}
        self._kept: list[Any] = []
        """Values whose ids are in `_done`, so that no other value gets their id."""

    def of(self, value: Any) -> Any:
        """A value without stored arrays; UnpicklingError for one that repeats itself too often."""
        return self._counted(value, 1).value

    def _counted(self, value: Any, level: int) -> _Counted:
        if isinstance(value, _Array):
            if value.values is None:
                raise UnpicklingError("it contains an array without values")
            return _Counted(value.values, 8 + value.values.nbytes)
        if isinstance(value, _Type | _Name):
            raise UnpicklingError("it contains a type without values")
        if isinstance(value, str | bytes):
            return _Counted(value, 8 + len(value))
        if not isinstance(value, list | tuple | dict):
            return _Counted(value)
        if level > DEPTH:  # also a list that contains itself
            raise UnpicklingError(_TOO_DEEP)
        if id(value) not in self._done:
            self._kept.append(value)
            self._done[id(value)] = self._container(value, level)
        return self._done[id(value)]

    def _container(self, value: Any, level: int) -> _Counted:
        parts = value.values() if isinstance(value, dict) else value
        counted = [self._counted(part, level + 1) for part in parts]
        size = 8 + sum(one.size for one in counted)
        size += sum(_key_size(key) for key in value) if isinstance(value, dict) else 0
        levels = 1 + max((one.levels for one in counted), default=0)
        if levels > DEPTH:
            raise UnpicklingError(_TOO_DEEP)
        if size > self.most:
            raise UnpicklingError("its values repeat each other too often")
        plain = [one.value for one in counted]
        if isinstance(value, dict):
            return _Counted(dict(zip(value, plain, strict=True)), size, levels)
        return _Counted(type(value)(plain), size, levels)


_TOO_DEEP = f"it is nested too deeply, more than {DEPTH} levels"


def _key_size(key: Any) -> int:
    return 8 + len(key) if isinstance(key, str | bytes) else 8
