"""Fragments and region graph of a whole volume, block by block; goes on where a kill left it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr

from retrace.errors import ConfigError, DataError
from retrace.geometry import Triple, VoxelBox, blocks, triple
from retrace.journal import Journal, checksum, drop_damaged
from retrace.manifest import atomic_write
from retrace.progress import progress
from retrace.segmentation.agglomerate import epsilon_agglomerate, region_graph
from retrace.segmentation.fragments import (
    drop_weak,
    mask_on_grid,
    renumber,
    watershed_fragments,
)
from retrace.segmentation.mutex import biases, mutex_segments
from retrace.segmentation.settings import SegmentSettings
from retrace.volumes import CHUNK_SHAPE, Volume, create_volume

BYTES_PER_VOXEL = 110
"""Peak of watershed and agglomeration (float affinities, distances, seeds, queue, graph)."""
MUTEX_BYTES_PER_EDGE = 100
"""mwatershed sorts all edges: float64 weight, indices and the sort's copy (78 were measured)."""


@dataclass(frozen=True)
class Inputs:
    """Affinities (C >= 3, Z, Y, X) and an optional mask, both in the world."""

    affinities: Volume
    mask: Volume | None = None

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


class FragmentStore:
    """`fragments.zarr` under construction and the results of its finished blocks."""

    def __init__(self, store: Path, work: Path, inputs: Inputs, settings: SegmentSettings) -> None:
        """Goes on with what an earlier run of the same work left, or starts afresh."""
        self.box = inputs.affinities.box
        self.block_shape = settings.block_shape or self.box.shape
        self.blocks = list(blocks(self.box, self.block_shape))
        self.store, self.work = store, work
        begun = work / "begun.json"
        if not (store.is_dir() and begun.is_file()):
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(work, ignore_errors=True)
            self._create(inputs.affinities, settings)
            atomic_write(begun, json.dumps({"blocks": len(self.blocks)}))
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
            # A chunk of two blocks would be written by two threads at once.
            edges = zip(settings.block_shape, CHUNK_SHAPE, strict=True)
            chunks = triple([_divisor(edge, largest) for edge, largest in edges])
        create_volume(
            self.store,
            "fragments",
            shape=affinities.box.shape,
            chunks=chunks,
            dtype=np.uint64,
            voxel_size_nm=affinities.voxel_size_nm,
            offset_nm=affinities.offset_nm,
        )

    def first_id(self, index: int) -> int:
        """What is added to the ids 1 ... n of block `index`: unique in any order of blocks."""
        return index * int(np.prod(self.block_shape))

    def write(self, block: VoxelBox, fragments: np.ndarray) -> None:
        self.fragments.array[block.slices(self.box.offset)] = fragments
        self.journal.note(block, checksum([fragments]))

    def holds(self, block: VoxelBox) -> bool:
        """Whether the fragments of `block` are stored and are what was written."""
        expected = self.journal.checksum_of(block)
        if expected is None:
            return False
        try:
            return checksum([self.fragments.read(block)]) == expected
        except (OSError, RuntimeError, ValueError):
            region = block.shift([-o for o in self.box.offset])
            drop_damaged(self.fragments.array, self.store / "fragments", region)
            return False

    def edges_file(self, index: int) -> Path:
        return self.work / f"edges_{index:06d}.npy"


def _surround(block: VoxelBox, context: Triple, whole: VoxelBox) -> VoxelBox:
    return block.grow(context).intersect(whole)


def _make_fragments(
    inputs: Inputs, store: FragmentStore, settings: SegmentSettings, index: int
) -> None:
    block = store.blocks[index]
    seen = _surround(block, settings.block_context, store.box)
    fragments = block_fragments(*inputs.read(seen), settings)
    fragments = renumber(fragments[block.slices(seen.offset)])
    store.write(block, np.where(fragments > 0, fragments + store.first_id(index), 0))


def _own_edges(
    edges: np.ndarray, scores: np.ndarray, ids: np.ndarray, lowest: int, highest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Edges between compact ids, as fragment ids, whose smaller end is in (lowest, highest]."""
    real = ids[edges]
    mine = (real[:, 0] > lowest) & (real[:, 0] <= highest)
    return real[mine], scores[mine]


def _make_edges(
    inputs: Inputs, store: FragmentStore, settings: SegmentSettings, index: int
) -> None:
    """The region graph around block `index`; edges belong to the block of their smaller id."""
    seen = _surround(store.blocks[index], settings.block_context, store.box)
    affinities, _ = inputs.read(seen)
    ids, compact = np.unique(store.fragments.read(seen), return_inverse=True)
    if ids[0] != 0:
        ids, compact = np.concatenate([[np.uint64(0)], ids]), compact + 1
    compact = compact.reshape(seen.shape).astype(np.uint64)
    graph = region_graph(affinities, compact, settings.merge_function)
    edges, scores = _own_edges(*graph, ids, store.first_id(index), store.first_id(index + 1))
    path = store.edges_file(index)
    partial = path.with_suffix(".partial.npy")
    rows = np.empty(len(edges), dtype=[("edge", np.uint64, 2), ("score", np.float32)])
    rows["edge"], rows["score"] = edges, scores
    np.save(partial, rows)
    partial.replace(path)


def make_fragments(
    inputs: Inputs, store: FragmentStore, settings: SegmentSettings, threads: int
) -> None:
    """Fragments of all blocks, `threads` blocks at a time (scipy and scikit-image free the GIL)."""
    missing = [i for i, block in enumerate(store.blocks) if not store.holds(block)]
    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(lambda index: _make_fragments(inputs, store, settings, index), missing)
        for _ in progress(done, len(missing), "fragments", "blocks"):
            pass


def make_edges(inputs: Inputs, store: FragmentStore, settings: SegmentSettings) -> None:
    """The region graphs of all blocks, one after another: waterz keeps a state of its own."""
    missing = [i for i in range(len(store.blocks)) if not store.edges_file(i).is_file()]
    for index in progress(missing, len(missing), "agglomerate", "blocks"):
        _make_edges(inputs, store, settings, index)


def _all_edges(store: FragmentStore, settings: SegmentSettings) -> Iterator[np.ndarray]:
    if not settings.is_mutex:
        for index in range(len(store.blocks)):
            yield np.load(store.edges_file(index))


def write_graph(store: FragmentStore, settings: SegmentSettings) -> int:
    """Stores `edges` (E, 2) uint64 and `scores` (E,) float32, sorted; returns E.

    Mutex watershed decides for good, so its graph has no edges: segments are its fragments.
    """
    none = np.empty(0, dtype=[("edge", np.uint64, 2), ("score", np.float32)])
    rows = np.concatenate([none, *_all_edges(store, settings)])
    rows = rows[np.lexsort((rows["edge"][:, 1], rows["edge"][:, 0]))]
    for name, values in (("edges", rows["edge"]), ("scores", rows["score"])):
        chunks = (max(1, min(len(values), 1 << 18)), *values.shape[1:])
        array = self_contained(store.group, name, values, chunks)
        array.attrs["method"] = settings.method
    return len(rows)


def self_contained(
    group: zarr.Group, name: str, values: np.ndarray, chunks: Sequence[int]
) -> zarr.Array:
    """An array of `group` that holds `values`, whatever was there before."""
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=tuple(chunks),
        dtype=values.dtype,
        overwrite=True,
        chunk_key_encoding={"name": "v2", "separator": "/"},
        config={"write_empty_chunks": True},
    )
    if values.size:
        array[...] = values
    return array


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
