"""Shape, type and position of arrays on this machine, read without their data or zarr's library.

Planning reads them: only the metadata of zarr, n5 and precomputed layers, the header of an h5 or
tif file. An array that cannot be judged here has no header; its job checks it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrace.errors import DataError, nearest
from retrace.formats import ome_zarr
from retrace.formats.placement import Header
from retrace.formats.precomputed import find_scale
from retrace.reading import existing_bytes, parse_json_object, reading_content
from retrace.remote.addresses import is_address, is_zarr, local_folder

MOST_TIFS = 256
"""Folders with more files are left to the job, because each file has to be opened."""
KINDS = {"u": "uint", "i": "int", "f": "float", "b": "bool"}
"""Letters of numpy's type strings ("<u8"), and the names of the types without their bits."""


def read_header(path: str, array: str = "", mip: int = 0) -> Header | None:
    """The header of an array, None where it is remote, absent or not readable here.

    DataError for a damaged file and for an array or level that does not exist.
    """
    folder = local_folder(path) if is_address(path) else Path(path)
    if folder is None or not folder.exists():
        return None
    with reading_content(folder, "correct `path`, or fetch or copy the volume again"):
        return _header(path, folder, array, mip)


def _header(path: str, folder: Path, array: str, mip: int) -> Header | None:
    """The header of an array on this machine."""
    if is_address(path) and not is_zarr(path):
        return _layer_header(path, folder / "info", mip)
    if folder.suffix == ".n5" or _is_n5(folder):
        return _n5_header(folder / array)
    if any((folder / name).is_file() for name in (".zgroup", ".zarray", "zarr.json")):
        return _zarr_header(folder, str(path), array, mip)
    return None if folder.suffix == ".zarr" else _file_header(folder, array)


def _json(file: Path) -> dict[str, Any]:
    """The content of a metadata file, empty where there is none; DataError if it is damaged."""
    content = existing_bytes(file)
    return {} if content is None else parse_json_object(content, file, "fetch the volume again")


# ---------------------------------------------------------------- zarr


def _zarr_header(store: Path, name: str, array: str, mip: int) -> Header | None:
    label = f"{name}/{array}" if array else name
    folder = store / array
    if _is_array(store):  # zarr ignores the name where the store itself is an array
        return _array_header(store)
    if _is_array(folder):
        return _array_header(folder)
    image = ome_zarr.multiscale(_attributes(folder))
    if image is None:
        others = nearest(array, _array_names(store, ""))
        raise DataError(f"{name} has no array {array!r}; {others}")
    header = _array_header(folder / ome_zarr.level(label, image, mip)["path"])
    if header is None:
        return None
    lead = ome_zarr.leading_axes(label, image, header.shape)
    placed = ome_zarr.resolution_and_offset(image, mip)
    return replace(
        header,
        shape=header.shape[lead:],
        resolution=header.resolution or placed.get("resolution"),
        offset=header.offset or placed.get("offset"),
    )


def _is_array(folder: Path) -> bool:
    is_v2 = (folder / ".zarray").is_file()
    return is_v2 or _json(folder / "zarr.json").get("node_type") == "array"


def _attributes(folder: Path) -> Mapping[str, Any]:
    own = _json(folder / ".zattrs")
    attributes: Mapping[str, Any] = own or _json(folder / "zarr.json").get("attributes") or {}
    return attributes


def _array_header(folder: Path) -> Header | None:
    content = _json(folder / ".zarray") or _json(folder / "zarr.json")
    dtype = _type_name(content.get("dtype", content.get("data_type")))
    if dtype is None or "shape" not in content:
        return None
    attrs = _attributes(folder)
    return Header(tuple(content["shape"]), dtype, attrs.get("resolution"), attrs.get("offset"))


def _type_name(dtype: Any) -> str | None:
    """ "<u8" and "uint64" as "uint64"; None for other types than numbers."""
    if not isinstance(dtype, str):
        return None
    if dtype[:1] in "<>|":
        kind = KINDS.get(dtype[1:2])
        return None if kind is None else f"{kind}{8 * int(dtype[2:])}"
    return dtype


def _array_names(folder: Path, prefix: str) -> Iterator[str]:
    """Names of the arrays of a group; folders of chunks are not entered."""
    for child in sorted(folder.iterdir()):
        if not child.is_dir():
            continue
        if _is_array(child):
            yield prefix + child.name
        elif (child / ".zgroup").is_file() or (child / "zarr.json").is_file():
            yield from _array_names(child, f"{prefix}{child.name}/")


# ---------------------------------------------------------------- layers, n5, files


def _layer_header(path: str, info: Path, mip: int) -> Header | None:
    """The level of a precomputed layer, whose x, y, z become z, y, x."""
    content = _json(info)
    if not content:
        return None
    scale = find_scale(path, content, mip)
    size, channels = scale["resolution"][::-1], int(content["num_channels"])
    corner = (scale.get("voxel_offset") or (0, 0, 0))[::-1]
    return Header(
        (*([channels] if channels > 1 else []), *scale["size"][::-1]),
        content["data_type"],
        size,
        [n * s for n, s in zip(corner, size, strict=True)],
    )


def _is_n5(folder: Path) -> bool:
    return folder.is_dir() and "dimensions" in _json(folder / "attributes.json")


def _n5_header(folder: Path) -> Header:
    """An n5 dataset, whose x, y, z become z, y, x."""
    content = _json(folder / "attributes.json")
    if "dimensions" not in content:
        raise DataError(f"{folder} is not an n5 dataset: attributes.json has no `dimensions`")
    placed = [content[key][::-1] if key in content else None for key in ("resolution", "offset")]
    return Header(tuple(content["dimensions"][::-1]), content["dataType"], *placed)


def _file_header(path: Path, array: str) -> Header | None:
    """Another file; None where its library is not installed, and for a file that is empty yet."""
    if path.is_file() and not path.stat().st_size:
        return None
    if path.is_dir() and len(list(path.iterdir())) > MOST_TIFS:
        return None
    try:
        return _tif_header(path) if _is_tif(path) else _opened(path, array)
    except ImportError:  # planning needs no library of a format
        return None


def _is_tif(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in (".tif", ".tiff")


def _tif_header(path: Path) -> Header | None:
    from retrace.formats.tiff import header

    return header(path)


def _opened(path: Path, array: str) -> Header:
    """The header of an array that its own reader opens; readers read no data then."""
    if path.suffix.lower() in (".h5", ".hdf", ".hdf5"):  # without the other formats' libraries
        from retrace.formats.hdf5 import HDF5

        opened = HDF5.open(path, array, 0, None)
    else:
        from retrace.formats.readers import open_array

        opened = open_array(path, array, 0)
    attrs = opened.attrs
    return Header(opened.shape, opened.dtype.name, attrs.get("resolution"), attrs.get("offset"))
