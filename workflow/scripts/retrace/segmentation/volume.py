"""Fragments and region graph of a volume, block by block; an interrupted job resumes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil

from retrace.errors import DataError
from retrace.geometry import Triple, VoxelBox
from retrace.machine_limits import usable_cores
from retrace.planning.segment_settings import SegmentationSettings
from retrace.progress import progress
from retrace.segmentation.agglomerate import epsilon_agglomerate
from retrace.segmentation.edge_columns import BlockFragments, Columns, edge_columns
from retrace.segmentation.edge_files import EdgeFiles
from retrace.segmentation.fragment_store import FragmentStore
from retrace.segmentation.fragments import (
    compact_ids,
    drop_weak,
    renumber,
    watershed_fragments,
)
from retrace.segmentation.grid import BlockGrid
from retrace.segmentation.inputs import SegmentationInputs
from retrace.segmentation.mutex import biases, mutex_segments
from retrace.storage.volumes import Volume

BYTES_PER_VOXEL = 110
"""An upper bound of watershed and agglomeration (float affinities, distances, heap, graph)."""
MUTEX_BYTES_PER_EDGE = 100
"""mwatershed sorts all edges: float64 weight, indices and a copy for sorting (78 measured)."""


def block_fragments(
    affinities: np.ndarray, inside: np.ndarray | None, settings: SegmentationSettings
) -> np.ndarray:
    """Fragments (Z, Y, X) uint64 of affinities (C, Z, Y, X); 0 outside tissue or filtered away.

    `inside`: the tissue, (Z, Y, X) bool. The order of steps is that of lsd's `extract_fragments`:
    mask, watershed, mask, filter, epsilon agglomeration.
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


def blocks_at_once(box: VoxelBox, settings: SegmentationSettings) -> int:
    """How many blocks of `box` fit into the free memory, at most one per core.

    The result does not depend on it. Raises DataError, before any work, if not even one fits.
    """
    first = VoxelBox(box.offset, settings.block_shape or box.shape).intersect(box)
    voxels = _with_context(first, settings.block_context, box).size
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
    return max(1, min(usable_cores(), int(free // need)))


def block_grid(affinities: Volume, settings: SegmentationSettings) -> BlockGrid:
    """The blocks of a prediction; one block if no block shape is set."""
    box = affinities.box
    return BlockGrid(box, settings.block_shape or box.shape)


def _with_context(block: VoxelBox, context: Triple, whole: VoxelBox) -> VoxelBox:
    return block.grow(context).intersect(whole)


def make_fragments(
    inputs: SegmentationInputs, store: FragmentStore, settings: SegmentationSettings, threads: int
) -> None:
    """Writes the fragments of the store's blocks that are missing, `threads` blocks at a time.

    Threads run in parallel because compiled functions release the GIL.
    """
    missing = [index for index in store.mine if not store.holds(index)]
    _print_resumed("fragments", len(store.mine), len(missing))
    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(lambda index: _make_fragments(inputs, store, settings, index), missing)
        for _ in progress(done, len(missing), "fragments", "blocks"):
            pass
    store.write_counts()


def _make_fragments(
    inputs: SegmentationInputs, store: FragmentStore, settings: SegmentationSettings, index: int
) -> None:
    begin = time.monotonic()
    block = store.grid.blocks[index]
    with_context = _with_context(block, settings.block_context, store.grid.box)
    if inputs.is_masked(block):
        fragments = np.zeros(block.shape, dtype=np.uint64)
    else:
        fragments = block_fragments(*inputs.read(with_context), settings)[
            block.slices(with_context.offset)
        ]
    store.write(index, renumber(fragments), time.monotonic() - begin)


def _print_resumed(step: str, total: int, missing: int) -> None:
    if missing < total:
        print(f"[{step}] {total - missing} of {total} blocks are done already", flush=True)


def make_edges(
    inputs: SegmentationInputs, files: EdgeFiles, settings: SegmentationSettings, threads: int
) -> None:
    """Writes the edges of the blocks that are missing, `threads` blocks at a time."""
    missing = [index for index in files.mine if not files.holds(index)]
    _print_resumed("agglomerate", len(files.mine), len(missing))
    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(lambda index: _make_edges(inputs, files, settings, index), missing)
        for _ in progress(done, len(missing), "agglomerate", "blocks"):
            pass


def _make_edges(
    inputs: SegmentationInputs, files: EdgeFiles, settings: SegmentationSettings, index: int
) -> None:
    begin = time.monotonic()
    columns = block_edges(inputs, files.fragments, files.grid, settings, index)
    files.write(index, columns, time.monotonic() - begin)


def block_edges(
    inputs: SegmentationInputs,
    fragments: Volume,
    grid: BlockGrid,
    settings: SegmentationSettings,
    index: int,
) -> Columns:
    """What is stored of the edges of block `index`; see `edge_columns`."""
    columns, block = edge_columns(inputs, settings), grid.blocks[index]
    with_context = _with_context(block, settings.block_context, grid.box)
    ids, compact = compact_ids(fragments.read(with_context))
    if len(ids) == 1 or inputs.is_masked(block):
        return columns.empty()
    affinities, _ = inputs.read(with_context)
    own = grid.first_id(index), grid.first_id(index + 1)
    return columns.of(BlockFragments(block, with_context, affinities, compact, ids, *own))
