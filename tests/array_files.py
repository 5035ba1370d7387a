"""One array in a file of each format, as other programs write it."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from zarr.codecs import BytesCodec


def chunk_shape(data: np.ndarray) -> tuple[int, ...]:
    """Chunks of three voxels, or of half of a long axis."""
    return tuple(min(n, max(3, n // 2)) for n in data.shape)


def write_h5(folder: Path, data: np.ndarray) -> dict[str, Any]:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("raw", data=data, chunks=chunk_shape(data))
    return {"path": str(folder / "a.h5"), "array": "raw"}


def write_zarr(folder: Path, data: np.ndarray, **options: Any) -> dict[str, Any]:
    chunks = chunk_shape(data)
    array = zarr.create_array(
        folder / "a.zarr", name="raw", shape=data.shape, dtype=data.dtype, chunks=chunks, **options
    )
    array[...] = data
    return {"path": str(folder / "a.zarr"), "array": "raw"}


def write_zarr_2(folder: Path, data: np.ndarray) -> dict[str, Any]:
    return write_zarr(folder, data, zarr_format=2)


def write_zarr_3(folder: Path, data: np.ndarray) -> dict[str, Any]:
    endian = "big" if data.dtype.byteorder == ">" else "little"
    native = data.astype(data.dtype.newbyteorder("="))
    return write_zarr(folder, native, zarr_format=3, serializer=BytesCodec(endian=endian))


def write_sharded(folder: Path, data: np.ndarray) -> dict[str, Any]:
    shards = tuple(2 * edge for edge in chunk_shape(data))
    return write_zarr(folder, data.astype(data.dtype.newbyteorder("=")), shards=shards)


def write_address(folder: Path, data: np.ndarray) -> dict[str, Any]:
    source = write_zarr(folder, data, zarr_format=2)
    return {**source, "path": f"file://{source['path']}"}


def write_n5(folder: Path, data: np.ndarray) -> dict[str, Any]:
    """As the format defines it: axes reversed, big-endian."""
    path, blocks = folder / "a.n5" / "raw", chunk_shape(data)
    path.mkdir(parents=True)
    attributes = {
        "dimensions": list(data.shape[::-1]),
        "blockSize": list(blocks[::-1]),
        "dataType": data.dtype.name,
        "compression": {"type": "gzip"},
    }
    (path / "attributes.json").write_text(json.dumps(attributes))
    for index in product(*[range(-(-n // b)) for n, b in zip(data.shape, blocks, strict=True)]):
        part = data[tuple(slice(i * b, (i + 1) * b) for i, b in zip(index, blocks, strict=True))]
        header = struct.pack(f">HH{data.ndim}I", 0, data.ndim, *part.shape[::-1])
        file = path.joinpath(*map(str, index[::-1]))
        file.parent.mkdir(parents=True, exist_ok=True)
        values = part.astype(data.dtype.newbyteorder(">")).tobytes()
        file.write_bytes(header + gzip.compress(values))
    return {"path": str(folder / "a.n5"), "array": "raw"}


FORMATS: dict[str, Callable[[Path, np.ndarray], dict[str, Any]]] = {
    "h5": write_h5,
    "zarr 2": write_zarr_2,
    "zarr 3": write_zarr_3,
    "zarr 3 sharded": write_sharded,
    "zarr at an address": write_address,
    "n5": write_n5,
}
"""Functions (folder, array) that write a file without names of axes."""
