"""One dataset of an n5 container, read block by block.

The format is that of github.com/saalfeldlab/n5 (README, "File-system specification"): a folder
with attributes.json and one file a block at x/y/z, each with a header in big-endian order. Axes are
x, y, z on disk, also those of the attributes `resolution` and `offset`; here they become z, y, x.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import struct
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import DataError

CODECS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "gzip": gzip.decompress,
    "bzip2": bz2.decompress,
    "xz": lzma.decompress,
}


def is_dataset(path: Path) -> bool:
    """Whether a folder holds an n5 dataset itself."""
    return (path / "attributes.json").is_file() and "dimensions" in _attributes(path)


def _attributes(path: Path) -> dict[str, Any]:
    file = path / "attributes.json"
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}); fetch the volume again") from error
    return content


class N5Array:
    """A read-only array (Z, Y, X); absent blocks are 0, as the format says."""

    def __init__(self, path: Path) -> None:
        """DataError where the folder is no dataset, or its compression is not known here."""
        if not is_dataset(path):
            raise DataError(f"{path} is no n5 dataset: attributes.json has no `dimensions`")
        self.path, found = path, _attributes(path)
        self.shape = tuple(reversed(found["dimensions"]))
        self.block_shape = tuple(reversed(found["blockSize"]))
        self.dtype = np.dtype(found["dataType"])
        compression = found.get("compression", {}).get("type", found.get("compressionType", "raw"))
        if compression not in CODECS:
            raise DataError(
                f"{path} is compressed with {compression!r}; {', '.join(CODECS)} are read. "
                "Convert it to zarr"
            )
        self._decompress = CODECS[compression]
        self.attrs = {
            name: list(reversed(found[name])) for name in ("resolution", "offset") if name in found
        }

    def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
        """The voxels of three plain slices, (z, y, x)."""
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
        file = self.path.joinpath(*map(str, reversed(index)))
        if not file.is_file():
            return None
        data = file.read_bytes()
        try:
            mode, axes = struct.unpack_from(">HH", data)
            shape = struct.unpack_from(f">{axes}I", data, 4)[::-1]
            values = self._decompress(data[4 + 4 * axes :])
            block = np.frombuffer(values, self.dtype.newbyteorder(">")).reshape(shape)
        except (struct.error, ValueError, OSError, EOFError, lzma.LZMAError) as error:
            raise DataError(f"{file} is damaged ({error}); fetch the volume again") from error
        if mode != 0 or axes != 3:
            raise DataError(f"{file}: mode {mode} with {axes} axes; only plain blocks are read")
        return block


def paste(result: np.ndarray, begin: np.ndarray, block: np.ndarray, corner: np.ndarray) -> None:
    """Copies what `block`, whose first voxel is `corner`, shares with `result` at `begin`.

    Both ([C,] Z, Y, X); the places are (z, y, x).
    """
    low = np.maximum(corner, begin)
    high = np.minimum(corner + block.shape[-3:], begin + result.shape[-3:])
    if (low < high).all():
        result[_slices(low - begin, high - begin)] = block[_slices(low - corner, high - corner)]


def _slices(begin: np.ndarray, end: np.ndarray) -> tuple[Any, ...]:
    return ..., *(slice(*pair) for pair in zip(begin, end, strict=True))
