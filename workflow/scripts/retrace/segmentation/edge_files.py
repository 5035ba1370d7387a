"""Edges of the region graph while they are computed: one file for each block, then one list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from retrace.reading import if_intact
from retrace.segmentation.grid import BlockGrid
from retrace.storage.block_journal import Journal, checksum
from retrace.storage.shards import SINGLE_SHARD, Shard
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import write_list

EDGE_ROW = [("edge", np.uint64, 2), ("score", np.float32)]
"""An edge in a file: the ids of its two fragments, and its merge score."""


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
        return self._work / f"edges_{index:06d}.npy"

    def holds(self, index: int) -> bool:
        """Whether block `index` is done and its stored edges still have the recorded checksum."""
        expected = self.journal.checksum_of(self.grid.blocks[index])
        if expected is None:
            return False
        path = self.file(index)
        rows = if_intact(lambda: np.load(path), path)
        return rows is not None and checksum([rows]) == expected

    def write(self, index: int, rows: np.ndarray, seconds: float) -> None:
        """Stores the edges of block `index`, rows (E,) of EDGE_ROW."""
        partial = self.file(index).with_suffix(".partial.npy")
        np.save(partial, rows)
        partial.replace(self.file(index))
        block = self.grid.blocks[index]
        seconds = round(seconds, 3)
        self.journal.note(block, checksum([rows]), edges=len(rows), seconds=seconds)


def sorted_rows(edges: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Rows (E,) of EDGE_ROW, sorted by their two ends, from edges (E, 2) and scores (E,)."""
    rows = np.empty(len(edges), dtype=EDGE_ROW)
    rows["edge"], rows["score"] = edges, scores
    return rows[np.lexsort((edges[:, 1], edges[:, 0]))]


def write_graph(group: zarr.Group, files: EdgeFiles | None, method: str) -> int:
    """Stores `edges` (E, 2) uint64 and `scores` (E,) float32, sorted by their ends; returns E.

    Ids ascend from block to block, and an edge belongs to the block of its smaller end, so the
    edges of the blocks, one block after the other, are sorted. Without `files` there are none:
    the segments of the mutex watershed are final.
    """
    paths = [files.file(index) for index in files.mine] if files else []
    none = np.empty(0, dtype=EDGE_ROW)
    rows = np.concatenate([none, *(np.load(path) for path in paths)])
    for name, values in (("edges", rows["edge"]), ("scores", rows["score"])):
        write_list(group, name, values).attrs["method"] = method
    return len(rows)
