"""All formats that are read from files and folders of this machine, one line each."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from retrace.errors import DataError
from retrace.files import FileCheck
from retrace.formats import precomputed
from retrace.formats.hdf5 import HDF5
from retrace.formats.n5 import N5
from retrace.formats.tiff import TIFF
from retrace.formats.zarr_arrays import ZARR
from retrace.reading import reading_content, retried
from retrace.replacement import MANIFEST

FETCH_AGAIN = "fetch or copy the volume again, or correct `path` in the dataset's config"
READERS = (
    ZARR,
    N5,
    HDF5,
    TIFF,
)
"""The first one that recognises a path opens it; TIFF is last, because it takes any folder."""

PAGES = (*(page for reader in READERS for page in reader.pages), precomputed.PAGE)
"""What the documentation says about each format."""


def open_array(path: Path, array: str, mip: int, check: FileCheck | None = None) -> Any:
    """An array (Z, Y, X) or (C, Z, Y, X) of a file or folder; DataError for unknown formats.

    `check` is called with each chunk file that is read.
    """
    with reading_content(path, FETCH_AGAIN):
        for reader in READERS:
            if reader.recognises(path):
                return retried(partial(reader.open, path, array, mip, check), path)
    if not path.exists():
        raise _absent(path)
    *names, last = (reader.name for reader in READERS)
    suffixes = " ".join(suffix for reader in READERS for suffix in reader.suffixes)
    raise DataError(
        f"{path} is neither {', '.join(names)} nor {last}; allowed suffixes: {suffixes}"
    )


def _absent(path: Path) -> DataError:
    """The refusal of a file or folder that is not there; `path` as for `open_array`."""
    manifest = path.with_name(path.name.removesuffix(path.suffix) + MANIFEST)
    if path.parts[0] == "results" and manifest.is_file():
        return DataError(
            f"{path} does not exist, but its manifest does; compute it again: "
            f"`snakemake --force {manifest}`"
        )
    fetch = "fetch it, or " if path.suffix == ".zarr" else ""
    return DataError(f"{path} does not exist; {fetch}correct `path` in the dataset's config")
