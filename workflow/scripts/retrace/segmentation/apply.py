"""Segments of a volume at one threshold, from its fragments and scored edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.files import read_json
from retrace.geometry import VoxelBox, blocks, triple
from retrace.progress import progress
from retrace.segmentation.fragments import runs_of
from retrace.segmentation.grid import FragmentIds
from retrace.segmentation.lut import components
from retrace.segmentation.region_graph import RegionGraph, open_region_graph, stored_ids
from retrace.storage.manifest import reading
from retrace.storage.shards import SINGLE_SHARD, Shard
from retrace.storage.unfinished import open_unfinished, write_complete_shards
from retrace.storage.volumes import (
    Volume,
    open_group,
    open_volume,
    shards_of,
    zarr_format_of,
)
from retrace.storage.zarr_writer import create_volume

EDGES_AT_ONCE = 1 << 22
"""Edges that are read at once while fragments are joined: 84 MB."""
CHUNKS_AT_ONCE = 2
"""Edge of the cube that is relabelled at once, in chunks."""


def read_threshold(path: Path) -> float:
    """The threshold that was chosen on the validation volumes; DataError if it is not in [0, 1]."""
    content = read_json(path)
    value = content.get("threshold") if isinstance(content, dict) else None
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise DataError(
            f"{path} has no `threshold` between 0 and 1; delete it and rerun the evaluation of "
            "the validation volumes"
        )
    return float(value)


@dataclass(frozen=True)
class FragmentGraph:
    """`fragments.zarr`: the fragments (Z, Y, X), their ids, and the region graph."""

    fragments: Volume
    ids: FragmentIds
    graph: RegionGraph

    def joined_pairs(self, threshold: float) -> Iterator[np.ndarray]:
        """The edges that join at `threshold`, as rows (E, 2) of the table of ids, in batches."""
        for begin in range(0, self.graph.edges.shape[0], EDGES_AT_ONCE):
            part = slice(begin, begin + EDGES_AT_ONCE)
            with reading(self.fragments.name):
                chosen = self.graph.joined(threshold, part)
                edges = np.asarray(self.graph.edges[part])[chosen]
            yield self.ids.rows(edges)

    def segments(self, threshold: float) -> np.ndarray:
        """The segment of every fragment, (N,) uint64: the smallest fragment id in the segment.

        Memory: 24 bytes per fragment and EDGES_AT_ONCE edges, however many edges there are, unless
        they are cut: then also all edges and their features.
        """
        ids = self.ids.ids()
        return ids[components(len(ids), self.joined_pairs(threshold))]


def fragments_with_ids(store: Path) -> tuple[Volume, FragmentIds]:
    """Fragments (Z, Y, X) and their ids in `fragments.zarr`; DataError if an array is missing."""
    with reading(store):
        return open_volume(store, "fragments"), stored_ids(open_group(store), store)


def open_graph(store: Path, classifier: Path | None = None) -> FragmentGraph:
    """Opens `fragments.zarr`; DataError if an array is missing. See `open_region_graph`."""
    graph = open_region_graph(store, classifier)
    return FragmentGraph(*fragments_with_ids(store), graph)


def relabelled(fragments: np.ndarray, ids: FragmentIds, segments: np.ndarray) -> np.ndarray:
    """The segment (uint64) of each voxel of `fragments` (any shape); 0 stays 0.

    `segments`: the segment of every fragment, (N,).
    """
    runs, lengths = runs_of(fragments)
    real = runs > 0
    mapped = np.zeros(len(runs), dtype=np.uint64)
    mapped[real] = segments[ids.rows(runs[real])]
    return np.repeat(mapped, lengths).reshape(fragments.shape)


def _boxes(fragments: Volume, shard: Shard) -> list[VoxelBox]:
    """Boxes of whole chunks, so that no file is written by two jobs; of format 3 whole shards."""
    edge = triple([CHUNKS_AT_ONCE * chunk for chunk in fragments.array.chunks])
    if (shards := shards_of(fragments)) is None:
        return shard.of(list(blocks(fragments.box, edge)))
    mine = shard.of(list(blocks(fragments.box, shards)))
    return [box for part in mine for box in blocks(part, edge)]


def write_segments(
    fragments: Volume,
    ids: FragmentIds,
    segments: np.ndarray,
    threshold: float,
    partial: Path,
    shard: Shard = SINGLE_SHARD,
) -> int:
    """Writes the array `segments` (Z, Y, X) uint64 of a shard into the new store `partial`.

    `segments`: the segment of every fragment, (N,). Memory holds them and a few chunks. Returns
    the number of voxels written.
    """
    create_volume(
        partial,
        "segments",
        shape=fragments.box.shape,
        chunks=fragments.array.chunks,
        dtype=np.uint64,
        voxel_size_nm=fragments.voxel_size_nm,
        offset_nm=fragments.offset_nm,
        zarr_format=zarr_format_of(fragments),
        shards=shards_of(fragments),
    )
    array: Any = open_unfinished(partial)["segments"]
    array.attrs["threshold"] = threshold
    boxes = _boxes(fragments, shard)
    for box in progress(boxes, len(boxes), "segments", "blocks"):
        values = relabelled(fragments.read(box), ids, segments)
        region = box.slices(fragments.box.offset)
        array[region] = values
        write_complete_shards(array, region)
    return sum(box.size for box in boxes)
