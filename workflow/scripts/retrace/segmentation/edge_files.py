"""Edges of the region graph while they are computed: one file for each block, then one list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from retrace.reading import if_intact
from retrace.segmentation.edge_columns import Columns, EdgeColumns
from retrace.segmentation.grid import BlockGrid
from retrace.segmentation.region_graph import EDGES
from retrace.storage.block_journal import Journal, checksum
from retrace.storage.shards import SINGLE_SHARD, Shard
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import write_list


class EdgeFiles:
    """The region graph of the blocks of one shard, one file for each block in `work`."""

    def __init__(
        self, work: Path, fragments: Volume, grid: BlockGrid, shard: Shard = SINGLE_SHARD
    ) -> None:
        """`fragments`: those of all blocks, since an edge may end in a block of another job."""
        self.fragments, self.grid = fragments, grid
        self.mine = shard.indices(len(grid.blocks))
        self.journal = Journal(work, "edges.jsonl")
        self._work = work

    def file(self, index: int) -> Path:
        """The file of the edges of block `index`."""
        return self._work / f"edges_{index:06d}.npz"

    def holds(self, index: int) -> bool:
        """Whether block `index` is done and its stored edges still have the recorded checksum."""
        expected = self.journal.checksum_of(self.grid.blocks[index])
        if expected is None:
            return False
        path = self.file(index)
        columns = if_intact(lambda: _read(path), path)
        return columns is not None and checksum(columns.values()) == expected

    def write(self, index: int, columns: Columns, seconds: float) -> None:
        """Stores the edges of block `index`."""
        partial = self.file(index).with_suffix(".partial.npz")
        np.savez(partial, allow_pickle=False, **columns)
        partial.replace(self.file(index))
        block = self.grid.blocks[index]
        seconds, edges = round(seconds, 3), len(columns[EDGES])
        self.journal.note(block, checksum(columns.values()), edges=edges, seconds=seconds)


def _read(path: Path) -> Columns:
    with np.load(path) as columns:
        return dict(columns)


def write_graph(group: zarr.Group, files: EdgeFiles | None, columns: EdgeColumns) -> int:
    """Stores the columns of all blocks of `files`, sorted by ids; returns the number of edges.

    Ids ascend from block to block, and an edge belongs to the block of its smaller end, so the
    edges of the blocks, one block after the other, are sorted. Without `files` there are none:
    the segments of the mutex watershed are final.
    """
    paths = [files.file(index) for index in files.mine] if files else []
    parts = [columns.empty(), *map(_read, paths)]
    for name, attributes in columns.attributes.items():
        values = np.concatenate([part[name] for part in parts])
        write_list(group, name, values).attrs.update(attributes)
    return sum(len(part[EDGES]) for part in parts)
