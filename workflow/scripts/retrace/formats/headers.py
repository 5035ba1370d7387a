"""Shape, type and position of arrays on this machine, read without their data or zarr's library.

Planning reads them: only the metadata of zarr, n5 and precomputed layers, the header of an h5 or
tif file. An array that cannot be judged here has no header; its job checks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrace.errors import DataError, nearest
from retrace.formats.contract import ByteOrder, Description
from retrace.formats.folder_kinds import H5_SUFFIXES, TIF_SUFFIXES
from retrace.formats.layer_info import layer_level
from retrace.formats.n5_metadata import check_dataset, describe_n5
from retrace.formats.reader import refuse_array, refuse_level
from retrace.formats.section_order import section_files
from retrace.formats.webknossos import with_dataset_properties
from retrace.formats.zarr_folder import (
    ZARR_FILES,
    array_names,
    attributes,
    is_array,
    is_group,
    json_file,
    with_outer_groups,
)
from retrace.formats.zarr_nodes import ZarrArray, describe, level_path
from retrace.reading import reading_content
from retrace.remote.addresses import is_address, is_zarr, local_folder

MOST_TIFS = 256
"""Of folders with more files, planning checks the names only: each file has to be opened."""
KINDS = {"u": "uint", "i": "int", "f": "float", "b": "bool"}
"""Letters of numpy's type strings ("<u8"), and the names of the types without their bits."""


def read_header(path: str, array: str = "", mip: int = 0) -> Description | None:
    """The header of an array, None where it is remote, absent or not readable here.

    DataError for a damaged file and for an array or level that does not exist.
    """
    folder = local_folder(path) if is_address(path) else Path(path)
    if folder is None or not folder.exists():
        return None
    with reading_content(folder, "correct `path`, or fetch or copy the volume again"):
        return _header(path, folder, array, mip)


def _header(path: str, folder: Path, array: str, mip: int) -> Description | None:
    """The header of an array on this machine."""
    if is_address(path) and not is_zarr(path):
        return _layer_header(path, folder / "info", mip)
    if folder.suffix == ".n5" or _is_n5(folder):
        refuse_level(str(folder / array), mip)
        check_dataset(folder, array, _n5_attributes)
        return _n5_header(folder / array)
    if any((folder / name).is_file() for name in ZARR_FILES):
        return _zarr_header(folder, str(path), array, mip)
    return None if folder.suffix == ".zarr" else _file_header(folder, array, mip)


# ---------------------------------------------------------------- zarr


def _zarr_header(store: Path, name: str, array: str, mip: int) -> Description | None:
    if is_array(store):
        refuse_array(name, array)
    if is_array(store / array):
        refuse_level(f"{name}/{array}" if array else name, mip)
        return _array_header(store, name, array)
    if not is_group(store / array):
        raise DataError(f"{name} has no array {array!r}; {nearest(array, array_names(store))}")
    level = level_path(name, array, attributes(store / array), mip, array_names(store))
    header = _array_header(store, name, level)
    return None if header is None else replace(header, drops_channel=True)


def _array_header(store: Path, name: str, path: str) -> Description | None:
    folder = store / path
    content = json_file(folder / ".zarray") or json_file(folder / "zarr.json")
    written = content.get("dtype", content.get("data_type"))
    dtype = _type_name(written)
    if dtype is None or "shape" not in content:
        return None
    array = ZarrArray(
        tuple(content["shape"]),
        dtype,
        _byte_order(str(written), content),
        attributes(folder),
        content.get("dimension_names"),
    )
    label = f"{name}/{path}" if path else name
    top, inner = with_outer_groups(store, path)
    described = describe(label, inner, array, lambda group: attributes(top / group))
    return with_dataset_properties(label, folder, described)


def _byte_order(dtype: str, content: Mapping[str, Any]) -> ByteOrder:
    """Of format 2 in the type, of format 3 in the configuration of the codec `bytes`."""
    if dtype.endswith(("u1", "i1", "b1", "int8", "bool")):
        return "none"
    codecs = str(content.get("codecs", ""))
    return "big" if dtype.startswith(">") or "'endian': 'big'" in codecs else "little"


def _type_name(dtype: Any) -> str | None:
    """ "<u8" and "uint64" as "uint64"; None for other types than numbers."""
    if not isinstance(dtype, str):
        return None
    if dtype[:1] in "<>|":
        kind = KINDS.get(dtype[1:2])
        return None if kind is None else f"{kind}{8 * int(dtype[2:])}"
    return dtype


# ---------------------------------------------------------------- layers, n5, files


def _layer_header(path: str, info: Path, mip: int) -> Description | None:
    """The level of a precomputed layer, whose x, y, z become z, y, x."""
    content = json_file(info)
    if not content:
        return None
    return layer_level(path, content, mip).describe()


def _is_n5(folder: Path) -> bool:
    return folder.is_dir() and "dimensions" in _n5_attributes(folder)


def _n5_attributes(folder: Path) -> Mapping[str, Any]:
    return json_file(folder / "attributes.json")


def _n5_header(folder: Path) -> Description:
    """An n5 dataset, whose x, y, z become z, y, x."""
    described = describe_n5(folder, _n5_attributes)
    return with_dataset_properties(str(folder), folder, described, is_reversed=True)


def _file_header(path: Path, array: str, mip: int) -> Description | None:
    """Another file; None where its library is not installed, and for a file that is empty yet."""
    if path.is_file() and not path.stat().st_size:
        return None
    if path.is_dir() and len(section_files(path)) > MOST_TIFS:
        return None
    try:
        return _tif_header(path, mip) if _is_tif(path) else _opened(path, array, mip)
    except ImportError:  # planning needs no library of a format
        return None


def _is_tif(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in TIF_SUFFIXES


def _tif_header(path: Path, mip: int) -> Description:
    refuse_level(str(path), mip)
    from retrace.formats.tiff import describe

    return describe(path)


def _opened(path: Path, array: str, mip: int) -> Description:
    """The header of an array that its own reader opens; readers read no data then."""
    if path.suffix.lower() in H5_SUFFIXES:  # without the other formats' libraries
        from retrace.formats.hdf5 import HDF5

        opened = HDF5.open(path, array, mip, None)
    else:
        from retrace.formats.readers import open_array

        opened = open_array(path, array, mip)
    description: Description = opened.description
    return description
