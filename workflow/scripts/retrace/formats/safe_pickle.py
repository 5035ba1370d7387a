"""Reads pickled arrays without running code from the file.

A pickle can make its reader call any function, and hand any state to numpy's dtypes, which trust
it. Here the functions that rebuild arrays are replaced by our own: they take shape, numeric type
and bytes. Lists, tuples, numbers and text need no function, and our files contain nothing else.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.reading import read_bytes, reading_content, unzipped

GZIP = b"\x1f\x8b"
_REMEDY = (
    "other pickles than of arrays are refused, because they can run programs: get the file again, "
    "or write the arrays in another format"
)


class _StoredType:
    """A numpy dtype as pickles describe it: its name, then a state with its byte order."""

    def __init__(self, name: str, *_: Any) -> None:
        self.dtype: np.dtype[Any] = np.dtype(str(name))
        if self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"it contains values of type {name}, which are no numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _StoredArray:
    """A numpy array as pickles describe it: empty, then a state with shape, type and bytes."""

    def __init__(self, *_: Any) -> None:
        self.values = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, data = state
        values = np.frombuffer(_as_bytes(data), kind.dtype)
        self.values = values.reshape(shape, order="F" if is_fortran else "C").copy()


def _as_bytes(data: Any) -> bytes:
    """Bytes, which Python 2 wrote as text."""
    if not isinstance(data, bytes | str):
        raise pickle.UnpicklingError("it contains an array of Python objects")
    return data.encode("latin1") if isinstance(data, str) else data


def _scalar(kind: _StoredType, data: Any) -> Any:
    return np.frombuffer(_as_bytes(data), kind.dtype)[0]


def _encoded(text: str, codec: str) -> bytes:
    if codec != "latin1":
        raise pickle.UnpicklingError(f"it contains text in {codec}")
    return text.encode("latin1")


REPLACED: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encoded,
    ("numpy", "dtype"): _StoredType,
    ("numpy", "ndarray"): _StoredArray,
    **{
        (f"numpy.{core}.multiarray", name): function
        for core in ("core", "_core")
        for name, function in (("_reconstruct", _StoredArray), ("scalar", _scalar))
    },
}
"""By module and name: what is called instead of a function that rebuilds arrays."""


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that calls only the functions in REPLACED."""

    def find_class(self, module: str, name: str) -> Any:
        """The function in place of `module.name`; UnpicklingError if that is not allowed."""
        if (module, name) not in REPLACED:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which is not allowed")
        return REPLACED[module, name]


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
    file, values = io.BytesIO(content), []
    if not content:
        raise EOFError("it is empty")
    while file.tell() < len(content):
        begin = file.tell()
        _check_memory(file)
        file.seek(begin)
        values.append(_Plain().of(_ArrayUnpickler(file, encoding="latin1").load()))
    return values


def _check_memory(file: io.BytesIO) -> None:
    """ValueError for a number of a remembered value that is far above their count.

    Unpicklers reserve memory up to the largest such number.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if "PUT" in opcode.name and isinstance(argument, int) and argument > count:
            raise ValueError(f"it numbers its {count}th value {argument}")


class _Plain:
    """Replaces stored arrays by arrays, each list once, however often it occurs."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}
        self._kept: list[Any] = []
        """Values whose ids are in `_done`, so that no other value gets their id."""

    def of(self, value: Any) -> Any:
        """A value without stored arrays; UnpicklingError for a list that contains itself."""
        if isinstance(value, _StoredArray):
            return value.values
        if isinstance(value, _StoredType):
            raise pickle.UnpicklingError("it contains a type without values")
        if not isinstance(value, list | tuple | dict):
            return value
        if id(value) not in self._done:
            self._kept.append(value)
            self._done[id(value)] = self
            self._done[id(value)] = self._container(value)
        if self._done[id(value)] is self:
            raise pickle.UnpicklingError("it contains a list that contains itself")
        return self._done[id(value)]

    def _container(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self.of(key): self.of(part) for key, part in value.items()}
        return type(value)(self.of(part) for part in value)
