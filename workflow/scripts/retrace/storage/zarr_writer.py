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
from zarr.codecs import ZstdCodec

from retrace.formats import ome_zarr
from retrace.geometry import checked_voxel_size, nm_triple, triple
from retrace.replacement import is_declared, put
from retrace.setting_types import DEFAULT_ZARR_FORMAT, ZarrFormat
from retrace.storage.manifest import manifest_path
from retrace.storage.shard_grid import shard_edges
from retrace.storage.unfinished import finish, hide_checksum

LIST_CHUNK = 1 << 18
"""Rows per chunk of a list (edges, scores, counts)."""

COMPRESSOR = Zstd(level=1, checksum=True)
"""Compressor of our stores. Each chunk has a checksum, which is verified when it is decoded."""

NGFF_VERSIONS: Mapping[int, str] = {2: "0.4", 3: "0.5"}
"""Version of OME-NGFF by format of zarr."""


def encoding(zarr_format: int) -> dict[str, Any]:
    """How the chunks of an array are named and compressed, for `create_array`."""
    if zarr_format == 3:
        return {"compressors": ZstdCodec(level=1, checksum=True)}
    keys = {"name": "v2", "separator": "/"}
    return {"compressors": COMPRESSOR, "chunk_key_encoding": keys}


def _multiscales(name: str, attrs: Mapping[str, Any], channels: bool) -> dict[str, Any]:
    """OME-NGFF image metadata of one array (ngff.openmicroscopy.org, multiscales)."""
    space = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    axes = [{"name": "c", "type": "channel"}, *space] if channels else space
    lead = [1.0] if channels else []
    scale = {"type": "scale", "scale": lead + [float(v) for v in attrs["resolution"]]}
    start = [0.0] if channels else []
    move = {"type": "translation", "translation": start + [float(v) for v in attrs["offset"]]}
    dataset = {"path": name, "coordinateTransformations": [scale, move]}
    return {"name": name, "axes": axes, "datasets": [dataset]}


def ome_attributes(
    zarr_format: int, images: Sequence[Mapping[str, Any]], labels: bool = False
) -> dict[str, Any]:
    """Attributes of a group with `images`; `labels`: whether their values are ids."""
    version = {"version": NGFF_VERSIONS[zarr_format]}
    label: dict[str, Any]
    if zarr_format == 3:
        label = {"image-label": {}} if labels else {}
        return {"ome": {**version, "multiscales": list(images), **label}}
    label = {"image-label": version} if labels else {}
    return {"multiscales": [{**version, **image} for image in images], **label}


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
    zarr_format: ZarrFormat = DEFAULT_ZARR_FORMAT,
    shards: Sequence[int] | None = None,
) -> zarr.Array:
    """A new array (Z, Y, X) or (C, Z, Y, X) in `store`.

    Its attributes are `resolution` and `offset`, nm (z, y, x), and what funlib.persistence reads
    instead. The store has OME-NGFF metadata.
    Chunks with only the fill value are written too: a missing chunk then shows a fault.
    `shards`: voxels (z, y, x) of a file of format 3, whole chunks; None: see `shard_edges`. Writing
    a part of a shard rewrites its file: `open_unfinished` opens a store for writing block by block.
    """
    group = zarr.open_group(store, mode="a", zarr_format=zarr_format)
    attrs = _attributes(voxel_size_nm, offset_nm, channels=len(shape) == 4)
    cut = tuple(min(c, s) for c, s in zip(chunks, shape, strict=True))
    created = group.create_array(
        array,
        shape=tuple(shape),
        chunks=cut,
        dtype=dtype,
        fill_value=fill_value,
        attributes=attrs,
        config={"write_empty_chunks": True},
        **encoding(zarr_format),
        **(_sharding(shape, cut, shards) if zarr_format == 3 else {}),
    )
    hide_checksum(created)
    others = [image for image in ome_zarr.images(group.attrs.asdict()) if image["name"] != array]
    images = [*others, _multiscales(array, attrs, len(shape) == 4)]
    group.attrs.update(ome_attributes(zarr_format, images))
    return created


def _attributes(
    voxel_size_nm: Sequence[float], offset_nm: Sequence[float], *, channels: bool
) -> dict[str, Any]:
    """The attributes of an array: `resolution` and `offset` as gunpowder reads them, nm (z, y, x).

    funlib.persistence reads `offset` and the others; without them its voxels have a size of 1.
    """
    size = list(checked_voxel_size(voxel_size_nm))
    funlib = {"voxel_size": size, "units": ["nm"] * 3}
    axes = {"axis_names": [*(["c^"] if channels else []), *"zyx"]}
    return {"resolution": size, "offset": list(nm_triple(offset_nm)), **funlib, **axes}


def _sharding(
    shape: Sequence[int], chunks: Sequence[int], shards: Sequence[int] | None
) -> dict[str, Any]:
    """Shards and names of the axes of an array of format 3, for `create_array`."""
    lead = len(shape) - 3
    edges = shard_edges(shape[lead:], chunks[lead:]) if shards is None else triple(shards)
    # A chunk that is as long as the array was cut, and is all of its shard.
    axes = zip((*shape[:lead], *edges), chunks, shape, strict=True)
    cut = tuple(chunk if chunk == size else edge for edge, chunk, size in axes)
    return {"shards": cut, "dimension_names": [*"czyx"[-len(shape) :]]}


def create_list(group: zarr.Group, array: str, shape: Sequence[int], dtype: Any) -> zarr.Array:
    """A new array (N, ...) in `group` with LIST_CHUNK rows per chunk; replaces one of that name."""
    created = group.create_array(
        array,
        shape=tuple(shape),
        chunks=(max(1, min(shape[0], LIST_CHUNK)), *shape[1:]),
        dtype=dtype,
        overwrite=True,
        config={"write_empty_chunks": True},
        **encoding(group.metadata.zarr_format),
    )
    hide_checksum(created)
    return created


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
    finish(partial)
    if not is_declared(final):
        manifest_path(final).unlink(missing_ok=True)
    put(partial, final)
