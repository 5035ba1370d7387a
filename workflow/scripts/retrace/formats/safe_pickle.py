"""Reads pickled arrays without running code from the file.

A pickle can make its reader call any function. Here only the functions that rebuild numpy arrays
are allowed: lists, tuples, numbers and text need none, and our files contain nothing else.
"""

from __future__ import annotations

import gzip
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import DataError

ALLOWED = {
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
}
"""Modules and functions that rebuild an array. None of them runs code of the file's choice."""

GZIP = b"\x1f\x8b"


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that calls only the functions in ALLOWED."""

    def find_class(self, module: str, name: str) -> Any:
        """The function `module.name`; UnpicklingError if it is not allowed."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which is not allowed")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_pickles(path: Path) -> list[Any]:
    """The values of all pickles in a file, in order; also gzipped, also written by Python 2.

    DataError if the file is missing or damaged, or contains anything but arrays, numbers and text
    in lists, tuples and dicts.
    """
    try:
        content = path.read_bytes()
        if content.startswith(GZIP):
            content = gzip.decompress(content)
        return _values(io.BytesIO(content), len(content))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; put the file there or correct the path") from error
    except (OSError, EOFError, *_DAMAGED) as error:
        raise DataError(
            f"{path} cannot be read as pickled arrays: {error}. Other pickles are refused, because "
            "they can run programs; get the file again, or write the arrays in another format"
        ) from error


_DAMAGED = (
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    ImportError,
    MemoryError,
)
"""Exceptions of the unpickler for damaged files."""


def _values(file: io.BytesIO, size: int) -> list[Any]:
    values = []
    while file.tell() < size:
        value = _ArrayUnpickler(file, encoding="latin1").load()
        _check_no_objects(value)
        values.append(value)
    return values


def _check_no_objects(value: Any) -> None:
    """Refuses arrays of Python objects, also in lists and tuples."""
    if isinstance(value, (list, tuple)):
        for part in value:
            _check_no_objects(part)
    elif isinstance(value, np.ndarray) and value.dtype.hasobject:
        raise pickle.UnpicklingError("it contains an array of Python objects")
