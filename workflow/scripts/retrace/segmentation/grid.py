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
    """Blocks of `block_shape` from the first corner of `box`; both in voxels (z, y, x).

    Block b holds the ids b * v + 1 ... b * v + n_b without a gap, v being the voxels of a whole
    block: ids are unique whichever job makes which block, and ascend with the block.
    """

    box: VoxelBox
    block_shape: Triple

    @cached_property
    def blocks(self) -> list[VoxelBox]:
        """All blocks, z slowest."""
        return list(blocks(self.box, self.block_shape))

    @property
    def ids_per_block(self) -> int:
        """How far the ids of neighbouring blocks are apart."""
        return int(np.prod(self.block_shape))

    def first_id(self, index: int) -> int:
        """What is added to the ids 1 ... n of block `index`."""
        return index * self.ids_per_block


@dataclass(frozen=True)
class FragmentIds:
    """Fragment ids as places 0 ... N - 1 of a table, by arithmetic instead of by search."""

    ids_per_block: int
    counts: np.ndarray
    """Fragments of each block, (blocks,) int64."""

    @cached_property
    def starts(self) -> np.ndarray:
        """Place of the first fragment of each block, (blocks + 1,); the last is their number."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    @property
    def total(self) -> int:
        """Number of fragments."""
        return int(self.starts[-1])

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Places (int64, the shape of `ids`) of ids above 0; DataError for an id of no fragment."""
        block = (ids - np.uint64(1)) // np.uint64(self.ids_per_block)
        known = block < np.uint64(len(self.counts))
        block = np.where(known, block, 0).astype(np.int64)
        within = ids.astype(np.int64) - 1 - block * self.ids_per_block
        if not (known & (within < self.counts[block])).all():
            raise DataError("an id belongs to no fragment: the graph is of other fragments")
        return self.starts[block] + within

    def ids(self) -> np.ndarray:
        """The id of every place, (N,) uint64, ascending."""
        first = np.repeat(np.arange(len(self.counts)) * self.ids_per_block, self.counts)
        within = np.arange(self.total) - np.repeat(self.starts[:-1], self.counts)
        return (first + within + 1).astype(np.uint64)


def fragment_ids(fragments: Volume, counts: np.ndarray) -> FragmentIds:
    """The ids of a fragments array, whose attribute `block_shape` says how they were given out."""
    shape = dict(fragments.array.attrs).get("block_shape")
    if shape is None:
        raise DataError(
            f"{fragments.name} has no `block_shape`; delete its store and segment again"
        )
    return FragmentIds(int(np.prod(triple(shape))), np.asarray(counts, dtype=np.int64))
