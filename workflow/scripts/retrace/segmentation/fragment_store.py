"""The zarr store of fragments while it is written: its array, and which blocks are done."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from retrace.geometry import Triple
from retrace.reading import if_intact
from retrace.segmentation.grid import BlockGrid
from retrace.setting_types import DEFAULT_ZARR_FORMAT, ZarrFormat
from retrace.storage.block_journal import Journal, checksum, drop_damaged
from retrace.storage.shards import SINGLE_SHARD, Shard
from retrace.storage.unfinished import (
    note_begun,
    open_unfinished,
    remove_partial_files,
    write_complete_shards,
)
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import create_volume, write_list


class FragmentStore:
    """`fragments.zarr` in progress: the fragments of the blocks of one shard."""

    def __init__(
        self,
        store: Path,
        work: Path,
        affinities: Volume,
        grid: BlockGrid,
        chunks: Triple,
        shard: Shard = SINGLE_SHARD,
        *,
        zarr_format: ZarrFormat = DEFAULT_ZARR_FORMAT,
    ) -> None:
        """Resumes what an earlier run of the same job left in `store` and `work`, or starts.

        The array has the box and voxel size of `affinities`; see `fragment_chunks` for `chunks`.
        """
        self.zarr_format = zarr_format
        self.grid = grid
        self.mine = shard.indices(len(grid.blocks))
        self.store, self.work = store, work
        begun = work / "begun.json"
        if not (store.is_dir() and begun.is_file()):
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(work, ignore_errors=True)
            self._create(affinities, chunks)
            note_begun(store, begun, {"blocks": len(self.mine)})
        remove_partial_files(store)
        self.group = open_unfinished(store)
        array: Any = self.group["fragments"]
        self.fragments = Volume(array, affinities.voxel_size_nm, affinities.offset_nm, str(store))
        self.journal = Journal(work)

    def _create(self, affinities: Volume, chunks: Triple) -> None:
        # A block is whole shards, so that no shard belongs to two jobs.
        block, shape = self.grid.block_shape, affinities.box.shape
        array = create_volume(
            self.store,
            "fragments",
            shape=shape,
            chunks=chunks,
            dtype=np.uint64,
            voxel_size_nm=affinities.voxel_size_nm,
            offset_nm=affinities.offset_nm,
            zarr_format=self.zarr_format,
            shards=None if block == shape else block,
        )
        array.attrs["block_shape"] = list(self.grid.block_shape)

    def write(self, index: int, fragments: np.ndarray, seconds: float) -> None:
        """Stores the fragments (Z, Y, X) of block `index`, whose ids are 1 ... n, as global ids."""
        block = self.grid.blocks[index]
        ids = np.where(fragments > 0, fragments + self.grid.first_id(index), 0).astype(np.uint64)
        region = block.slices(self.grid.box.offset)
        self.fragments.array[region] = ids
        write_complete_shards(self.fragments.array, region)
        count = int(fragments.max(initial=0))
        self.journal.note(block, checksum([ids]), fragments=count, seconds=round(seconds, 3))

    def holds(self, index: int) -> bool:
        """Whether block `index` is done and its stored bytes still have the recorded checksum."""
        block = self.grid.blocks[index]
        expected = self.journal.checksum_of(block)
        if expected is None:
            return False
        region = block.shift([-o for o in self.grid.box.offset])
        array = self.fragments.array
        stored = if_intact(lambda: np.asarray(array[region.slices()]), self.store)
        if stored is None:
            drop_damaged(self.fragments.array, self.store / "fragments", region)
            return False
        return checksum([stored]) == expected

    def write_counts(self) -> None:
        """Stores `counts` (blocks of this shard,) int64: the number of fragments of each block."""
        facts = [self.journal.facts(self.grid.blocks[index]) for index in self.mine]
        counts = np.array([int(fact["fragments"]) for fact in facts], dtype=np.int64)
        write_list(self.group, "counts", counts)
