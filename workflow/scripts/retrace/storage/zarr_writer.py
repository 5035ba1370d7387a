"""Creates zarr volumes and lists, and publishes finished stores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Zstd

from retrace.geometry import Triple, checked_voxel_size, nm_triple
from retrace.replacement import is_declared, put
from retrace.storage.manifest import manifest_path

CHUNK_SHAPE: Triple = (64, 128, 128)
"""Chunk shape (z, y, x) of our stores: 1 MiB of uint8, few files, fast in neuroglancer."""


LIST_CHUNK = 1 << 18
"""Rows per chunk of a list (edges, scores, counts)."""

COMPRESSOR = Zstd(level=1, checksum=True)
"""Compressor of our stores. Each chunk has a checksum, which is verified when it is decoded."""


def _multiscales(name: str, attrs: Mapping[str, Any], channels: bool) -> dict[str, Any]:
    """OME-NGFF 0.4 image metadata of one array (ngff.openmicroscopy.org/0.4, multiscales)."""
    space = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    axes = [{"name": "c", "type": "channel"}, *space] if channels else space
    lead = [1.0] if channels else []
    scale = {"type": "scale", "scale": lead + [float(v) for v in attrs["resolution"]]}
    start = [0.0] if channels else []
    move = {"type": "translation", "translation": start + [float(v) for v in attrs["offset"]]}
    dataset = {"path": name, "coordinateTransformations": [scale, move]}
    return {"version": "0.4", "name": name, "axes": axes, "datasets": [dataset]}


def create_volume(
    store: Path,
    array: str,
    *,
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: Any,
    voxel_size_nm: Sequence[float],
    offset_nm: Sequence[float],
    fill_value: int | float = 0,
) -> zarr.Array:
    """A new zarr v2 array (Z, Y, X) or (C, Z, Y, X) in `store`.

    Its attributes are `resolution` and `offset`, nm (z, y, x). The store has OME-NGFF 0.4 metadata.
    Chunks with only the fill value are written too: a missing chunk then shows a fault.
    """
    group = zarr.open_group(store, mode="a", zarr_format=2)
    attrs: dict[str, Any] = {
        "resolution": list(checked_voxel_size(voxel_size_nm)),
        "offset": list(nm_triple(offset_nm)),
    }
    created = group.create_array(
        array,
        shape=tuple(shape),
        chunks=tuple(min(c, s) for c, s in zip(chunks, shape, strict=True)),
        dtype=dtype,
        fill_value=fill_value,
        compressors=COMPRESSOR,
        attributes=attrs,
        chunk_key_encoding={"name": "v2", "separator": "/"},
        config={"write_empty_chunks": True},
    )
    existing: Any = group.attrs.get("multiscales", [])
    scales = [m for m in existing if m["name"] != array]
    group.attrs["multiscales"] = [*scales, _multiscales(array, attrs, len(shape) == 4)]
    return created


def create_list(group: zarr.Group, array: str, shape: Sequence[int], dtype: Any) -> zarr.Array:
    """A new array (N, ...) in `group` with LIST_CHUNK rows per chunk; replaces one of that name."""
    return group.create_array(
        array,
        shape=tuple(shape),
        chunks=(max(1, min(shape[0], LIST_CHUNK)), *shape[1:]),
        dtype=dtype,
        overwrite=True,
        compressors=COMPRESSOR,
        chunk_key_encoding={"name": "v2", "separator": "/"},
        config={"write_empty_chunks": True},
    )


def write_list(group: zarr.Group, array: str, values: np.ndarray) -> zarr.Array:
    """Writes `values` (N, ...) as an array of `group`; replaces one of that name."""
    created = create_list(group, array, values.shape, values.dtype)
    if values.size:
        created[...] = values
    return created


@contextmanager
def writing(final: Path) -> Iterator[Path]:
    """Yields an empty folder for a new store; without an error it becomes `final` afterwards."""
    partial = final.with_name(final.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    publish(partial, final)


def publish(partial: Path, final: Path) -> None:
    """Puts a finished store in the place of `final`, of which an older manifest is not true then.

    An output of the running job is replaced with its manifest at the job's end.
    """
    if not is_declared(final):
        manifest_path(final).unlink(missing_ok=True)
    put(partial, final)
