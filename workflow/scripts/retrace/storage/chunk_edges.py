"""Edges of the chunks of stores, voxels; numbers of files follow from them while planning."""

from __future__ import annotations

from collections.abc import Sequence

from retrace.geometry import Triple, triple

CHUNK_SHAPE: Triple = (64, 128, 128)
"""Chunk shape (z, y, x) of our stores: 1 MiB of uint8, few files, fast in neuroglancer."""


def prediction_chunks(stride: Sequence[int], edge: int = 64) -> Triple:
    """Chunk edges (z, y, x) near `edge`, multiples of the stride so that tiles can match them."""
    return triple([step * max(1, round(edge / step)) for step in stride])


def fragment_chunks(block_shape: Triple | None) -> Triple:
    """Chunk shape (z, y, x) of the fragments: it divides the blocks.

    A chunk that belongs to two blocks would be written by two threads, or jobs, at once.
    """
    if block_shape is None:
        return CHUNK_SHAPE
    edges = zip(block_shape, CHUNK_SHAPE, strict=True)
    return triple([_divisor(edge, largest) for edge, largest in edges])


def _divisor(edge: int, largest: int) -> int:
    """The largest divisor of `edge` up to `largest`; `edge` itself if that is very small."""
    divisors = [d for d in range(1, min(edge, largest) + 1) if edge % d == 0]
    return divisors[-1] if divisors[-1] >= largest // 4 else edge
