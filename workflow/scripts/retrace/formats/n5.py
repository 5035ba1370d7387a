"""Datasets of n5 containers, read block by block. Converts the format's x, y, z to z, y, x.

Format: github.com/saalfeldlab/n5 (README, "File-system specification"). A dataset is a folder with
attributes.json and one file per block, x/y/z, each with a big-endian header. Dimensions, block
sizes and the attributes `resolution` and `offset` are in the order x, y, z.
"""

from __future__ import annotations

import bz2
import lzma
import math
import struct
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.files import FileCheck
from retrace.formats.attributes import IN_ATTRIBUTES
from retrace.formats.contract import FormatPage
from retrace.formats.n5_metadata import check_dataset, describe_n5
from retrace.formats.reader import Reader, refuse_large_chunk, refuse_level
from retrace.formats.webknossos import CONVENTION as WEBKNOSSOS
from retrace.formats.webknossos import with_dataset_properties
from retrace.geometry import chunk_indices
from retrace.reading import (
    existing_bytes,
    parse_json_object,
    reading_content,
    refuse_web_page,
    unpacked,
    unzipped,
)

XZ_BYTES = 1 << 28
"""Memory that xz may take; its strongest level takes a quarter of it."""
CODECS: dict[str, Callable[[bytes, int], bytes]] = {
    "raw": lambda content, limit: content,
    "gzip": unzipped,  # or zlib, which `useZlib` announces
    "bzip2": partial(unpacked, bz2.BZ2Decompressor),
    "xz": partial(unpacked, partial(lzma.LZMADecompressor, memlimit=XZ_BYTES)),
}
"""By the format's name for them: functions (content, largest number of unpacked bytes)."""
FETCH_AGAIN = "fetch the volume again"


def is_n5_dataset(path: Path) -> bool:
    """Whether a folder is an n5 dataset, not only a container of datasets."""
    return "dimensions" in _attributes(path)


def _attributes(path: Path) -> dict[str, Any]:
    """The attributes of a folder, empty without any."""
    file = path / "attributes.json"
    content = existing_bytes(file)
    return {} if content is None else parse_json_object(content, file, FETCH_AGAIN)


class N5Array:
    """A read-only array (..., Z, Y, X) of any number of axes, the reverse of the file's.

    Missing blocks are 0, unless `check` refuses them.
    """

    def __init__(self, path: Path, check: FileCheck | None = None) -> None:
        """`path` is the folder of a dataset. `check` is called with each block that is read.

        DataError for a compression that is not in CODECS.
        """
        self.path, self._check, attributes = path, check, _attributes(path)
        self.shape = tuple(reversed(attributes["dimensions"]))
        self.block_shape = tuple(reversed(attributes["blockSize"]))
        self.dtype = np.dtype(attributes["dataType"])
        refuse_large_chunk(str(path), self.block_shape, self.dtype.itemsize)
        given = attributes.get("compression")
        old_style = attributes.get("compressionType", "raw")
        compression = given.get("type", old_style) if isinstance(given, dict) else old_style
        if compression not in CODECS:
            raise DataError(
                f"{path} is compressed with {compression!r}; allowed: {', '.join(CODECS)}. "
                "Convert it to zarr"
            )
        self._decompress = CODECS[compression]
        described = describe_n5(path, _attributes)
        self.description = with_dataset_properties(str(path), path, described, is_reversed=True)

    def chunk_names(self) -> Iterator[str]:
        """The paths of all blocks of a complete array, below its folder."""
        for index in chunk_indices(self.shape, self.block_shape):
            yield "/".join(map(str, reversed(index)))

    def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
        """Voxels (..., Z, Y, X) of a slice without steps for each axis (..., z, y, x)."""
        spans = [s.indices(n)[:2] for s, n in zip(region, self.shape, strict=True)]
        begin = np.array([b for b, _ in spans])
        result = np.zeros([max(0, e - b) for b, e in spans], self.dtype)
        grid = [
            range(b // s, -(-e // s)) for (b, e), s in zip(spans, self.block_shape, strict=True)
        ]
        for index in product(*grid) if result.size else ():
            block = self._block(index)
            if block is not None:
                paste(result, begin, block, np.multiply(index, self.block_shape))
        return result

    def _block(self, index: tuple[int, ...]) -> np.ndarray | None:
        """The block (..., Z, Y, X) at `index` (..., z, y, x), None if it is missing."""
        name = "/".join(map(str, reversed(index)))
        file = self.path / name
        data = existing_bytes(file)
        if self._check is not None:
            self._check(name, data)
        if data is None:
            return None
        refuse_web_page(data, file, FETCH_AGAIN)
        with reading_content(file, FETCH_AGAIN):
            if len(data) < 4 + 4 * len(self.shape):
                raise ValueError("it ends within its header" if data else "it is an empty file")
            mode, axes = struct.unpack_from(">HH", data)
            if mode != 0 or axes != len(self.shape):
                expected = f"only mode 0 with {len(self.shape)} axes is read"
                raise ValueError(f"mode {mode} with {axes} axes; {expected}")
            shape = struct.unpack_from(f">{axes}I", data, 4)[::-1]
            if any(size > most for size, most in zip(shape, self.block_shape, strict=True)):
                raise ValueError(f"a block of {shape}, where `blockSize` is {self.block_shape}")
            corners = np.multiply(index, self.block_shape)
            inside = tuple(map(int, np.minimum(self.block_shape, self.shape - corners)))
            if any(size < least for size, least in zip(shape, inside, strict=True)):
                raise ValueError(f"a block of {shape}, where the volume has {inside} voxels")
            values = self._decompress(data[4 + 4 * axes :], math.prod(shape) * self.dtype.itemsize)
            return np.frombuffer(values, self.dtype.newbyteorder(">")).reshape(shape)


def paste(result: np.ndarray, begin: np.ndarray, block: np.ndarray, corner: np.ndarray) -> None:
    """Copies the overlap of `block` into `result`, both ([C,] Z, Y, X) or with further axes.

    `corner` and `begin`: positions of the first voxels of `block` and `result`, (z, y, x) or
    (..., z, y, x). Axes before these are copied whole.
    """
    axes = len(corner)
    low = np.maximum(corner, begin)
    high = np.minimum(corner + block.shape[-axes:], begin + result.shape[-axes:])
    if (low < high).all():
        result[_slices(low - begin, high - begin)] = block[_slices(low - corner, high - corner)]


def _slices(begin: np.ndarray, end: np.ndarray) -> tuple[Any, ...]:
    return ..., *(slice(*pair) for pair in zip(begin, end, strict=True))


def _is_n5(path: Path) -> bool:
    return path.suffix == ".n5" or is_n5_dataset(path)


def _open(path: Path, array: str, mip: int, check: FileCheck | None) -> N5Array:
    """The dataset `array` (Z, Y, X)."""
    refuse_level(str(path / array), mip)
    check_dataset(path, array, _attributes)
    prefix = f"{array}/" if array else ""
    return N5Array(path / array, check and (lambda name, data: check(prefix + name, data)))


PAGE = FormatPage(
    title="N5",
    recognised_by="The suffix .n5, or `dimensions` in attributes.json; `array` names the dataset, "
    "and also the level (raw/s0).",
    axes="The file's order x, y, z is reversed, and so are all lists in attributes but those in "
    f"`transform` and `multiscales`, which name their axes. {IN_ATTRIBUTES}",
    voxel_size=IN_ATTRIBUTES,
    position=f"{IN_ATTRIBUTES} CellMap's positions of coarser levels are those of centres; with the"
    " group's `multiscales` they are read as such.",
    byte_order="Big-endian by the format.",
    channels="An axis c, in any place; without names, the last of the file's four axes.",
    codecs=", ".join(CODECS) + "; gzip also with `useZlib`.",
    completeness="Missing blocks are refused, unless `missing_chunks: fill`. A damaged block is "
    "noticed by its codec.",
    refused="Blocks of varying length (mode 1), blosc, lz4, zstd, and n5 at an address.",
    conventions=(WEBKNOSSOS,),
)
N5 = Reader("n5", (".n5",), (PAGE,), _is_n5, _open)
