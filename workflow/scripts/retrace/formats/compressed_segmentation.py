"""Checks that chunks of neuroglancer's format compressed_segmentation stay within their bytes.

The decoder trusts every offset and index of a chunk: a damaged one would end the program. Format:
github.com/google/neuroglancer, src/sliceview/compressed_segmentation. Axes are x, y, z here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BITS = (0, 1, 2, 4, 8, 16, 32)
"""Bits of an encoded value: its index in the block's table of ids."""
WORDS_TOGETHER = 1 << 20
"""Words that are looked at together: blocks can share their words, so a few bytes become many."""


def check_encoding(
    data: bytes, shape: Sequence[int], dtype: np.dtype[Any], block: Sequence[int] | None
) -> None:
    """ValueError if a chunk refers to what is not in it.

    `shape` (X, Y, Z, C) of the chunk and `block` (x, y, z): voxels; `dtype`: uint32 or uint64.
    """
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes are no whole number of words")
    words = np.frombuffer(data, "<u4")
    *size, channels = (int(n) for n in shape)
    edges = [int(n) for n in block or ()]
    if len(edges) != 3 or min(edges) < 1:
        raise ValueError(f"the info's `compressed_segmentation_block_size` is {block}")
    if len(words) < channels:
        raise ValueError("the offsets of its channels are missing")
    for offset in words[:channels].tolist():
        _check_channel(words[offset:], size, edges, dtype.itemsize // 4)


def _check_channel(
    words: np.ndarray, size: Sequence[int], block: Sequence[int], words_of_id: int
) -> None:
    """`check_encoding` of the words (n,) of one channel."""
    grid = [-(-n // edge) for n, edge in zip(size, block, strict=True)]
    count = grid[0] * grid[1] * grid[2]
    if len(words) < 2 * count:
        raise ValueError(f"the headers of its {count} blocks are incomplete")
    headers = words[: 2 * count].reshape(count, 2).astype(np.int64)
    tables, bits, values = headers[:, 0] & 0xFFFFFF, headers[:, 0] >> 24, headers[:, 1]
    last_voxels = _last_voxels(size, block, grid)
    for number in np.unique(bits).tolist():
        if number not in BITS:
            raise ValueError(f"values of {number} bits")
        chosen = bits == number
        largest = _largest_values(words, values[chosen], number, last_voxels[chosen])
        if (tables[chosen] + (largest + 1) * words_of_id > len(words)).any():
            raise ValueError("an id is beyond its end")


def _last_voxels(size: Sequence[int], block: Sequence[int], grid: Sequence[int]) -> np.ndarray:
    """The number (blocks,) of each block's last voxel within the chunk; x varies fastest."""
    lengths = [
        np.minimum(edge, n - edge * np.arange(count)) - 1
        for n, edge, count in zip(size, block, grid, strict=True)
    ]
    last = lengths[0][None, None, :] + block[0] * (
        lengths[1][None, :, None] + block[1] * lengths[2][:, None, None]
    )
    return np.asarray(last).ravel()


def _largest_values(
    words: np.ndarray, begins: np.ndarray, bits: int, last_voxels: np.ndarray
) -> np.ndarray:
    """The largest encoded value (blocks,) of blocks whose values begin at `begins` (blocks,)."""
    if bits == 0:
        return np.zeros(len(begins), np.int64)
    counts = last_voxels * bits // 32 + 1
    if (begins + counts > len(words)).any():
        raise ValueError("the values of a block are beyond its end")
    together = max(1, WORDS_TOGETHER // int(counts.max()))
    parts = [slice(first, first + together) for first in range(0, len(begins), together)]
    return np.concatenate([_largest_of(words, begins[p], bits, counts[p]) for p in parts])


def _largest_of(words: np.ndarray, begins: np.ndarray, bits: int, counts: np.ndarray) -> np.ndarray:
    """The same of some blocks with `counts` (blocks,) words each."""
    most = int(counts.max())
    places = np.minimum(begins[:, None] + np.arange(most), len(words) - 1)
    is_used = np.arange(most) < counts[:, None]
    found = np.where(is_used, words[places], 0)
    mask = (1 << bits) - 1
    parts = [(found >> np.uint32(shift)) & np.uint32(mask) for shift in range(0, 32, bits)]
    return np.max([part.max(axis=1) for part in parts], axis=0).astype(np.int64)
