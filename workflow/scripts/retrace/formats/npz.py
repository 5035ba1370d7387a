"""Opens .npz files within bounded memory: a small zip may unpack to very much."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from retrace.limits import UNPACKED_BYTES
from retrace.reading import check_archive


@contextmanager
def opened_npz(path: Path) -> Iterator[Any]:
    """The arrays of a file by name; ValueError if it is no complete zip or unpacks to too much."""
    if not zipfile.is_zipfile(path):  # numpy's message would advise to load it unsafely
        raise ValueError("it is not a complete .npz file")
    with np.load(path, allow_pickle=False) as file:
        check_archive(file.zip, UNPACKED_BYTES)
        yield file
