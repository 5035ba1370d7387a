"""Segments at the nodes of skeletons, and the expected run length that follows from them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from retrace.errors import DataError
from retrace.evaluation.contingency import Contingency, count_block
from retrace.evaluation.skeletons import Skeletons
from retrace.geometry import VoxelBox, triple
from retrace.storage.volumes import Volume


@dataclass(frozen=True)
class RunLength:
    """Expected run length, the largest one that these skeletons allow, both nm, and mergers."""

    erl_nm: float
    max_erl_nm: float
    merging_segments: int

    @property
    def nerl(self) -> float:
        """ERL divided by the largest possible ERL, in [0, 1]."""
        return self.erl_nm / self.max_erl_nm


@dataclass(frozen=True)
class NodeSegments:
    """The segment at each node of skeletons: `segments` (nodes,), 0 for none.

    `merge_threshold`: how many nodes of a second skeleton make a segment a merger.
    """

    skeletons: Skeletons
    segments: np.ndarray
    merge_threshold: int = 1

    @cached_property
    def table(self) -> Contingency:
        """Segments against skeletons, counted in nodes."""
        return count_block(self.segments, self.skeletons.skeleton)

    @cached_property
    def runs(self) -> RunLength:
        """The expected run length; DataError if the skeletons have no edges."""
        return run_length(self.skeletons, self.segments, self.merge_threshold)


def sample_nodes(segmentation: Volume, skeletons: Skeletons, tile: int = 256) -> np.ndarray:
    """The segment at each node, (nodes,) uint64; 0 outside the volume and for ids below 0.

    Each tile of `tile`^3 voxels that contains nodes is read once, cropped to its nodes.
    """
    voxels = skeletons.voxels(segmentation.voxel_size_nm)
    box = segmentation.box
    nodes_of_tile: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for node in np.flatnonzero(covered_nodes(segmentation, skeletons)):
        nodes_of_tile[tuple((voxels[node] - box.offset) // tile)].append(int(node))
    segments = np.zeros(len(voxels), np.uint64)
    for nodes in nodes_of_tile.values():
        at = voxels[nodes]
        low = at.min(axis=0)
        extent = at.max(axis=0) - low + 1
        data = segmentation.read(VoxelBox(triple(low.tolist()), triple(extent.tolist())))
        segments[nodes] = np.maximum(data[tuple((at - low).T)], 0)
    return segments


def covered_nodes(segmentation: Volume, skeletons: Skeletons) -> np.ndarray:
    """Which nodes lie inside the segmentation, (nodes,) bool; DataError if none of them does."""
    voxels, box = skeletons.voxels(segmentation.voxel_size_nm), segmentation.box
    inside = ((voxels >= box.offset) & (voxels < box.end)).all(axis=1)
    if not inside.any():
        nm = box.to_nm(segmentation.voxel_size_nm)
        raise DataError(
            f"no node of the skeletons lies inside {segmentation.name}, which covers "
            f"{list(nm.offset)} to {list(nm.end)} nm (z, y, x); correct `offset_nm` or `roi_nm`, "
            "or give other skeletons"
        )
    return np.asarray(inside)


def run_length(
    skeletons: Skeletons, node_segments: np.ndarray, merge_threshold: int = 1
) -> RunLength:
    """Expected run length (Januszewski et al. 2018; computed as in funlib.evaluate).

    An edge is correct if both its ends are in the same segment, and that segment is neither 0 nor
    merging. A segment is merging if it touches two or more skeletons, each with at least
    `merge_threshold` nodes. ERL is the length-weighted mean over skeletons of
    sum over segments of (correct length)^2 / skeleton length. `node_segments` has shape (nodes,).
    Raises DataError if the skeletons have no edges.
    """
    node_segments = node_segments.astype(np.uint64)  # compared with merging segments, exactly
    lengths = skeletons.edge_length_nm
    total = float(lengths.sum())
    if not total:
        raise DataError("the skeletons have no cable inside the scored region; ERL needs edges")
    merging = merging_segments(skeletons.skeleton, node_segments, merge_threshold)
    begin, end = node_segments[skeletons.edges].T
    correct = (begin == end) & (begin != 0) & ~np.isin(begin, merging)
    skeleton_of_edge = skeletons.skeleton[skeletons.edges[:, 0]]
    return RunLength(
        _squared_runs(skeleton_of_edge[correct], begin[correct], lengths[correct]) / total,
        _squared_runs(skeleton_of_edge, skeleton_of_edge, lengths) / total,
        int(np.count_nonzero(merging)),
    )


def merging_segments(
    skeleton: np.ndarray, segments: np.ndarray, merge_threshold: int
) -> np.ndarray:
    """Ids of the segments that touch two or more skeletons, each with at least `merge_threshold`
    nodes.

    `skeleton` and `segments`: those of each node, (nodes,).
    """
    pairs, nodes = np.unique(
        np.stack([segments.astype(np.uint64), skeleton.astype(np.uint64)]),
        axis=1,
        return_counts=True,
    )
    ids, touched = np.unique(pairs[0][nodes >= merge_threshold], return_counts=True)
    return np.asarray(ids[touched >= 2])


def _squared_runs(skeleton: np.ndarray, segment: np.ndarray, lengths: np.ndarray) -> float:
    """The sum over skeletons and segments of (summed length of their edges)^2; all (edges,)."""
    if not len(lengths):
        return 0.0
    pairs = np.stack([skeleton.astype(np.uint64), segment.astype(np.uint64)])
    _, inverse = np.unique(pairs, axis=1, return_inverse=True)
    return float((np.bincount(inverse.ravel(), weights=lengths) ** 2).sum())
