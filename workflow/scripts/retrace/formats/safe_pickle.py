"""Pickled arrays read without running anything that a file brings along.

A pickle may name any function for the reader to call. These files hold lists, tuples, numbers and
numpy arrays; only what rebuilds those is looked up, everything else is refused.
"""

from __future__ import annotations

import gzip
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import DataError

REBUILDS = {
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
}
"""What a pickled array needs of its reader: none of these runs code that the file chooses."""

GZIP = b"\x1f\x8b"


class _Arrays(pickle.Unpickler):
    """An unpickler that knows arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in REBUILDS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_pickles(path: Path) -> list[Any]:
    """The values of all pickles in a file, one after the other, also in gzip; Python 2's too.

    DataError where the file is absent, damaged, or holds anything but arrays, numbers and text in
    lists, tuples and dicts; no code of the file is run.
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
            f"{path} cannot be read as pickled arrays: {error}. Such a file is not loaded, because "
            "it might run a program; get it again, or write the arrays in another format"
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
"""What damaged pickles end in."""


def _values(file: io.BytesIO, size: int) -> list[Any]:
    found = []
    while file.tell() < size:
        value = _Arrays(file, encoding="latin1").load()
        _check_plain(value)
        found.append(value)
    return found


def _check_plain(value: Any) -> None:
    """Refuses arrays of objects."""
    if isinstance(value, (list, tuple)):
        for part in value:
            _check_plain(part)
    elif isinstance(value, np.ndarray) and value.dtype.hasobject:
        raise pickle.UnpicklingError("it holds an array of objects")
