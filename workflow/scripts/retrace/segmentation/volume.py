"""Fragments and region graph of a whole volume, block by block; goes on where a kill left it."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr

from retrace.errors import ConfigError, DataError
from retrace.files import atomic_write
from retrace.geometry import Triple, VoxelBox, triple
from retrace.progress import progress
from retrace.segmentation.agglomerate import epsilon_agglomerate, region_graph
from retrace.segmentation.fragments import (
    drop_weak,
    renumber,
    watershed_fragments,
)
from retrace.segmentation.grid import BlockGrid
from retrace.segmentation.mutex import biases, mutex_segments
from retrace.segmentation.options import SegmentSettings
from retrace.storage.block_journal import Journal, checksum, drop_damaged
from retrace.storage.shards import WHOLE, Shard
from retrace.storage.volumes import Volume, is_masked, mask_on_grid
from retrace.storage.zarr_writer import CHUNK_SHAPE, create_volume, write_list

BYTES_PER_VOXEL = 110
"""Peak of watershed and agglomeration (float affinities, distances, seeds, queue, graph)."""
MUTEX_BYTES_PER_EDGE = 100
"""mwatershed sorts all edges: float64 weight, indices and the sort's copy (78 were measured)."""


@dataclass(frozen=True)
class Inputs:
    """Affinities (C >= 3, Z, Y, X) and an optional mask, both in the world."""

    affinities: Volume
    mask: Volume | None = None

    def is_masked(self, box: VoxelBox) -> bool:
        """Whether the mask leaves nothing of `box`."""
        return is_masked(self.mask, box, self.affinities.voxel_size_nm)

    def read(self, box: VoxelBox) -> tuple[np.ndarray, np.ndarray | None]:
        """Affinities of `box`, 0 outside the mask, and the mask as booleans."""
        values = self.affinities.read(box)
        if self.mask is None:
            return values, None
        inside = mask_on_grid(self.mask, box, self.affinities.voxel_size_nm)
        return values * inside.astype(values.dtype), inside


def block_fragments(
    affinities: np.ndarray, inside: np.ndarray | None, settings: SegmentSettings
) -> np.ndarray:
    """Fragments (Z, Y, X) uint64 of one block; 0: outside the mask or filtered away.

    The order of lsd's `extract_fragments`: mask, watershed, mask, filter, epsilon agglomeration.
    """
    if settings.is_mutex:
        bias = biases(settings.neighborhood, *settings.mutex_bias)
        fragments = mutex_segments(affinities, settings.neighborhood, bias)
    else:
        fragments = watershed_fragments(affinities, in_xy=settings.fragments_in_xy)
    if inside is not None:
        fragments = fragments * inside
    if settings.filter_fragments > 0:
        fragments = drop_weak(
            affinities, fragments, settings.filter_fragments, in_xy=settings.fragments_in_xy
        )
    if settings.epsilon > 0 and not settings.is_mutex:
        fragments = epsilon_agglomerate(affinities, renumber(fragments), settings.epsilon)
    return fragments


def blocks_at_once(box: VoxelBox, settings: SegmentSettings) -> int:
    """How many blocks of `box` fit into the free memory, at most one a core; no result changes.

    DataError before any work where not even one fits.
    """
    around = _surround(
        VoxelBox(box.offset, settings.block_shape or box.shape).intersect(box),
        settings.block_context,
        box,
    )
    voxels = around.size
    per_voxel = BYTES_PER_VOXEL
    if settings.is_mutex:
        per_voxel = MUTEX_BYTES_PER_EDGE * len(settings.neighborhood)
    need, free = voxels * per_voxel, psutil.virtual_memory().available
    if need > free:
        advice = "give the job more memory or segment a smaller region"
        if not settings.is_mutex:
            advice = "set a smaller `block_shape` (z, y, x voxels) or give the job more memory"
        raise DataError(
            f"segmenting {voxels / 1e6:.0f} Mvoxel at once takes about {need / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free; {advice}"
        )
    return max(1, min(len(os.sched_getaffinity(0)), int(free // need)))


def _divisor(edge: int, largest: int) -> int:
    fits = [d for d in range(1, min(edge, largest) + 1) if edge % d == 0]
    return fits[-1] if fits[-1] >= largest // 4 else edge


def make_grid(inputs: Inputs, settings: SegmentSettings) -> BlockGrid:
    """The blocks that a prediction is segmented in; one where no block shape is set."""
    box = inputs.affinities.box
    return BlockGrid(box, settings.block_shape or box.shape)


class FragmentStore:
    """`fragments.zarr` under construction: the fragments of a share of the blocks."""

    def __init__(
        self,
        store: Path,
        work: Path,
        inputs: Inputs,
        settings: SegmentSettings,
        shard: Shard = WHOLE,
    ) -> None:
        """Goes on with what an earlier run of the same work left, or starts afresh."""
        self.grid = make_grid(inputs, settings)
        self.mine = shard.indices(len(self.grid.blocks))
        self.store, self.work = store, work
        begun = work / "begun.json"
        if not (store.is_dir() and begun.is_file()):
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(work, ignore_errors=True)
            self._create(inputs.affinities, settings)
            atomic_write(begun, json.dumps({"blocks": len(self.mine)}))
        for leftover in store.rglob("*.partial"):
            leftover.unlink()
        self.group = zarr.open_group(store, mode="r+")
        array: Any = self.group["fragments"]
        self.fragments = Volume(
            array, inputs.affinities.voxel_size_nm, inputs.affinities.offset_nm, str(store)
        )
        self.journal = Journal(work)

    def _create(self, affinities: Volume, settings: SegmentSettings) -> None:
        chunks = CHUNK_SHAPE
        if settings.block_shape:
            # A chunk of two blocks would be written by two threads, or jobs, at once.
            edges = zip(settings.block_shape, CHUNK_SHAPE, strict=True)
            chunks = triple([_divisor(edge, largest) for edge, largest in edges])
        array = create_volume(
            self.store,
            "fragments",
            shape=affinities.box.shape,
            chunks=chunks,
            dtype=np.uint64,
            voxel_size_nm=affinities.voxel_size_nm,
            offset_nm=affinities.offset_nm,
        )
        array.attrs["block_shape"] = list(self.grid.block_shape)

    def write(self, index: int, fragments: np.ndarray, seconds: float) -> None:
        """Stores the fragments of block `index`, ids 1 ... n."""
        block = self.grid.blocks[index]
        ids = np.where(fragments > 0, fragments + self.grid.first_id(index), 0).astype(np.uint64)
        self.fragments.array[block.slices(self.grid.box.offset)] = ids
        found = int(fragments.max(initial=0))
        self.journal.note(block, checksum([ids]), fragments=found, seconds=round(seconds, 3))

    def holds(self, index: int) -> bool:
        """Whether the fragments of block `index` are stored and are what was written."""
        block = self.grid.blocks[index]
        expected = self.journal.checksum_of(block)
        if expected is None:
            return False
        region = block.shift([-o for o in self.grid.box.offset])
        try:
            found = np.asarray(self.fragments.array[region.slices()])
        except (OSError, RuntimeError, ValueError):
            drop_damaged(self.fragments.array, self.store / "fragments", region)
            return False
        return checksum([found]) == expected

    def write_counts(self) -> None:
        """Stores `counts` (blocks of this share,) int64: how many fragments each block has."""
        facts = [self.journal.facts(self.grid.blocks[index]) for index in self.mine]
        counts = np.array([int(fact["fragments"]) for fact in facts], dtype=np.int64)
        write_list(self.group, "counts", counts)


def _surround(block: VoxelBox, context: Triple, whole: VoxelBox) -> VoxelBox:
    return block.grow(context).intersect(whole)


def _make_fragments(
    inputs: Inputs, store: FragmentStore, settings: SegmentSettings, index: int
) -> None:
    begin = time.monotonic()
    block = store.grid.blocks[index]
    seen = _surround(block, settings.block_context, store.grid.box)
    if inputs.is_masked(block):
        fragments = np.zeros(block.shape, dtype=np.uint64)
    else:
        fragments = block_fragments(*inputs.read(seen), settings)[block.slices(seen.offset)]
    store.write(index, renumber(fragments), time.monotonic() - begin)


def make_fragments(
    inputs: Inputs, store: FragmentStore, settings: SegmentSettings, threads: int
) -> None:
    """Fragments of the store's blocks, `threads` at a time (scipy, scikit-image free the GIL)."""
    missing = [index for index in store.mine if not store.holds(index)]
    _tell_resumed("fragments", len(store.mine), len(missing))
    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(lambda index: _make_fragments(inputs, store, settings, index), missing)
        for _ in progress(done, len(missing), "fragments", "blocks"):
            pass
    store.write_counts()


def _tell_resumed(what: str, total: int, missing: int) -> None:
    if missing < total:
        print(f"[{what}] {total - missing} of {total} blocks are done already", flush=True)


EDGE_ROW = [("edge", np.uint64, 2), ("score", np.float32)]


class EdgeParts:
    """The region graph of a share of the blocks, one file a block in a folder of scratch."""

    def __init__(
        self, work: Path, fragments: Volume, grid: BlockGrid, shard: Shard = WHOLE
    ) -> None:
        """`fragments`: those of all blocks, since an edge may end in another job's block."""
        self.fragments, self.grid = fragments, grid
        self.mine = shard.indices(len(grid.blocks))
        self.journal = Journal(work, "edges.jsonl")
        self._work = work

    def file(self, index: int) -> Path:
        """Where the edges of block `index` lie."""
        return self._work / f"edges_{index:06d}.npy"

    def holds(self, index: int) -> bool:
        """Whether the edges of block `index` are stored and are what was written."""
        expected = self.journal.checksum_of(self.grid.blocks[index])
        if expected is None:
            return False
        try:
            return checksum([np.load(self.file(index))]) == expected
        except (OSError, ValueError):
            return False

    def write(self, index: int, rows: np.ndarray, seconds: float) -> None:
        """Stores the rows (EDGE_ROW) of block `index`."""
        partial = self.file(index).with_suffix(".partial.npy")
        np.save(partial, rows)
        partial.replace(self.file(index))
        block = self.grid.blocks[index]
        seconds = round(seconds, 3)
        self.journal.note(block, checksum([rows]), edges=len(rows), seconds=seconds)


def _edge_rows(edges: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Rows (EDGE_ROW) sorted by their two ends."""
    rows = np.empty(len(edges), dtype=EDGE_ROW)
    rows["edge"], rows["score"] = edges, scores
    return rows[np.lexsort((edges[:, 1], edges[:, 0]))]


def _own_edges(
    edges: np.ndarray, scores: np.ndarray, ids: np.ndarray, lowest: int, highest: int
) -> np.ndarray:
    """Rows of edges between compact ids, as fragment ids, whose smaller end is in (low, high]."""
    real = ids[edges]
    mine = (real[:, 0] > lowest) & (real[:, 0] <= highest)
    return _edge_rows(real[mine], scores[mine])


def block_edges(
    inputs: Inputs, fragments: Volume, grid: BlockGrid, settings: SegmentSettings, index: int
) -> np.ndarray:
    """Rows (EDGE_ROW) of block `index`; an edge belongs to the block of its smaller id."""
    seen = _surround(grid.blocks[index], settings.block_context, grid.box)
    ids, compact = np.unique(fragments.read(seen), return_inverse=True)
    if not ids.any() or inputs.is_masked(grid.blocks[index]):
        return np.empty(0, dtype=EDGE_ROW)
    if ids[0] != 0:
        ids, compact = np.concatenate([[np.uint64(0)], ids]), compact + 1
    compact = compact.reshape(seen.shape).astype(np.uint64)
    affinities, _ = inputs.read(seen)
    graph = region_graph(affinities, compact, settings.merge_function)
    return _own_edges(*graph, ids, grid.first_id(index), grid.first_id(index + 1))


def make_edges(inputs: Inputs, parts: EdgeParts, settings: SegmentSettings) -> None:
    """The region graphs of the blocks, one after another: waterz keeps a state of its own."""
    missing = [index for index in parts.mine if not parts.holds(index)]
    _tell_resumed("agglomerate", len(parts.mine), len(missing))
    for index in progress(missing, len(missing), "agglomerate", "blocks"):
        begin = time.monotonic()
        rows = block_edges(inputs, parts.fragments, parts.grid, settings, index)
        parts.write(index, rows, time.monotonic() - begin)


def write_graph(group: zarr.Group, parts: EdgeParts | None, method: str) -> int:
    """Stores `edges` (E, 2) uint64 and `scores` (E,) float32, sorted by their ends; returns E.

    Ids ascend with the block and an edge belongs to its smaller end's, so the blocks' edges one
    after another are sorted. Without `parts` (mutex watershed decides for good) there are none.
    """
    files = [parts.file(index) for index in parts.mine] if parts else []
    none = np.empty(0, dtype=EDGE_ROW)
    rows = np.concatenate([none, *(np.load(file) for file in files)])
    for name, values in (("edges", rows["edge"]), ("scores", rows["score"])):
        write_list(group, name, values).attrs["method"] = method
    return len(rows)


def check_affinities(affinities: Volume, settings: SegmentSettings) -> None:
    """Refuses a prediction whose channels or values do not fit (ConfigError, DataError)."""
    if affinities.channels < 3:
        raise DataError(
            f"{affinities.name} has {affinities.channels} channels; affinities (c, z, y, x) with "
            "at least the three direct neighbours are needed"
        )
    if affinities.channels != len(settings.neighborhood):
        raise ConfigError(
            f"{affinities.name} has {affinities.channels} channels, the network's `neighborhood` "
            f"{len(settings.neighborhood)}; predict again with this network"
        )
    if affinities.dtype not in (np.uint8, np.float32):
        raise DataError(
            f"{affinities.name} is {affinities.dtype}; predictions are uint8 or float32"
        )
