"""The blocks of a volume, and which fragment ids belong to which block."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from retrace.errors import DataError
from retrace.geometry import Triple, VoxelBox, blocks, triple
from retrace.storage.volumes import Volume


@dataclass(frozen=True)
class BlockGrid:
    """Blocks of `block_shape` that start at the first corner of `box`; both in voxels (z, y, x).

    With v voxels in a full block, block b has the ids b * v + 1 ... b * v + n_b, without a gap. So
    ids are unique whichever job computes which block, and they ascend from block to block.
    """

    box: VoxelBox
    block_shape: Triple

    @cached_property
    def blocks(self) -> list[VoxelBox]:
        """All blocks; x varies fastest."""
        return list(blocks(self.box, self.block_shape))

    @property
    def ids_per_block(self) -> int:
        """Difference between the first ids of neighbouring blocks: the voxels of a full block."""
        return int(np.prod(self.block_shape))

    def first_id(self, index: int) -> int:
        """The number to add to the ids 1 ... n of block `index`."""
        return index * self.ids_per_block


@dataclass(frozen=True)
class FragmentIds:
    """The rows 0 ... N - 1 of a table of all fragment ids; computed, not searched for."""

    ids_per_block: int
    counts: np.ndarray
    """Number of fragments of each block, (blocks,) int64."""

    @cached_property
    def starts(self) -> np.ndarray:
        """Row of the first fragment of each block, (blocks + 1,); the last value is N."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    @property
    def total(self) -> int:
        """Number of fragments."""
        return int(self.starts[-1])

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Rows (int64, the shape of `ids`) of ids above 0; DataError for an id of no fragment."""
        block = (ids - np.uint64(1)) // np.uint64(self.ids_per_block)
        in_grid = block < np.uint64(len(self.counts))
        block = np.where(in_grid, block, 0).astype(np.int64)
        within = ids.astype(np.int64) - 1 - block * self.ids_per_block
        if not (in_grid & (within < self.counts[block])).all():
            raise DataError("an id belongs to no fragment: the graph is of other fragments")
        return self.starts[block] + within

    def ids(self) -> np.ndarray:
        """The id in every row, (N,) uint64, ascending."""
        first = np.repeat(np.arange(len(self.counts)) * self.ids_per_block, self.counts)
        within = np.arange(self.total) - np.repeat(self.starts[:-1], self.counts)
        return (first + within + 1).astype(np.uint64)


def fragment_ids(fragments: Volume, counts: np.ndarray) -> FragmentIds:
    """The ids of a fragments array; `counts` (blocks,): how many fragments each block has.

    Raises DataError if the array lacks the attribute `block_shape`.
    """
    shape = dict(fragments.array.attrs).get("block_shape")
    if shape is None:
        raise DataError(
            f"{fragments.name} has no `block_shape`; delete its store and segment again"
        )
    return FragmentIds(int(np.prod(triple(shape))), np.asarray(counts, dtype=np.int64))
