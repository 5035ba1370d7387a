"""How many chunks of an array of zarr format 3 are in one shard."""

from __future__ import annotations

from collections.abc import Sequence

from retrace.geometry import Triple, chunk_count, triple

SHARD_SHAPE: Triple = (256, 512, 512)
"""Voxels (z, y, x) of a shard, or the nearest whole number of chunks: 64 MiB of uint8."""


def shard_edges(
    shape: Sequence[int],
    unit: Sequence[int],
    fewest: int = 1,
    largest: Sequence[int] = SHARD_SHAPE,
) -> Triple:
    """Voxels (z, y, x) of a shard of an array (Z, Y, X): whole units, near `largest` voxels.

    `unit`: a chunk, or a block of chunks that one job writes. `fewest`: how many shards the array
    is to have, if it has enough units, so that each job has shards of its own.
    """
    counts = [
        max(1, min(round(most / edge), -(-size // edge)))
        for size, edge, most in zip(shape, unit, largest, strict=True)
    ]
    while max(counts) > 1 and chunk_count(shape, _times(unit, counts)) < fewest:
        longest = counts.index(max(counts))
        counts[longest] = -(-counts[longest] // 2)
    return _times(unit, counts)


def _times(unit: Sequence[int], counts: Sequence[int]) -> Triple:
    return triple([edge * n for edge, n in zip(unit, counts, strict=True)])
