"""The min-cut metric: the corrections that a proofreader would make (Sheridan et al. 2023).

The rules are those of lsd's 05_evaluate_annotations and of split_graph in funlib.evaluate. Those
use one max-flow implementation (Boykov-Kolmogorov); of several minimum cuts, this one takes the cut
nearest to the source, which is the same for every maximum flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from scipy.spatial import KDTree

from retrace.evaluation.node_segments import merging_segments
from retrace.evaluation.skeletons import Skeletons
from retrace.segmentation.lut import lut_of_pairs
from retrace.segmentation.region_graph import RegionGraph

CAPACITY = 1 << 20
"""Capacity of an edge of weight 1, as flows are whole numbers."""


@dataclass(frozen=True)
class MinCut:
    """Needed splits and merges, and fragments with two skeletons, which no cut can separate."""

    splits_needed: int
    merges_needed: int
    unsplittable_fragments: int

    def as_dict(self) -> dict[str, int]:
        """The numbers as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Segment:
    """The region graph of one segment, and which of its fragments are on which skeleton."""

    capacity: csr_array
    """Of the edges, (fragments, fragments)."""
    position_nm: np.ndarray
    """A node in each fragment, (fragments, 3) z, y, x; NaN without nodes."""
    components: list[np.ndarray]
    """For each skeleton the fragments of its nodes, (nodes,): one with two nodes occurs twice."""


def mincut(
    skeletons: Skeletons,
    node_fragments: np.ndarray,
    graph: RegionGraph,
    threshold: float,
    merge_threshold: int = 1,
) -> MinCut:
    """Splits and merges that are needed at `threshold`.

    `node_fragments` (nodes,): the fragment of each node, 0 for none. In each merging segment, the
    two largest skeletons are separated between their two closest nodes, by the cut with the
    smallest sum of 1 - score; this repeats on both sides until each skeleton is separate. Merges
    are counted for each skeleton: its edges between two segments minus one, and the pieces into
    which the cuts divided it minus one. A fragment with nodes of two skeletons cannot be split: it
    is counted separately and ignored by the cuts.
    """
    nodes = np.union1d(graph.edges.ravel(), node_fragments).astype(np.uint64)
    lut = lut_of_pairs(graph.edges[graph.joined(threshold)], nodes)
    segments = lut[np.searchsorted(nodes, node_fragments)]
    splits, rejoined, unsplittable = 0, 0, 0
    for segment in merging_segments(skeletons.skeleton, segments, merge_threshold):
        if segment == 0:
            continue
        at = np.flatnonzero((segments == segment) & (node_fragments != 0))
        shared = _shared(node_fragments[at], skeletons.skeleton[at])
        unsplittable += len(shared)
        at = at[~np.isin(node_fragments[at], shared)]
        members = nodes[lut == segment]
        merged = _segment(skeletons, node_fragments, at, graph, threshold, members)
        if len(merged.components) > 1:
            pieces = list(_split(merged, np.arange(len(merged.position_nm)), merged.components))
            splits += len(pieces) - 1
            rejoined += _rejoined(merged, pieces)
    return MinCut(splits, _broken(skeletons, segments) + rejoined, unsplittable)


def _shared(fragments: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Fragments with nodes of several skeletons; `fragments` and `owners` (skeletons): (nodes,)."""
    pairs = np.unique(np.stack([fragments, owners.astype(np.uint64)]), axis=1)
    ids, touched = np.unique(pairs[0], return_counts=True)
    return np.asarray(ids[touched > 1])


def _broken(skeletons: Skeletons, segments: np.ndarray) -> int:
    """Edges between two different segments, minus one for each skeleton that has such edges."""
    begin, end = segments[skeletons.edges].T
    broken = (begin != end) & (begin != 0) & (end != 0)
    owners = skeletons.skeleton[skeletons.edges[broken, 0]]
    return int(broken.sum()) - len(np.unique(owners))


def _segment(
    skeletons: Skeletons,
    node_fragments: np.ndarray,
    at: np.ndarray,
    graph: RegionGraph,
    threshold: float,
    members: np.ndarray,
) -> _Segment:
    """The graph of the fragments `members`; `at`: the nodes that can be separated."""
    inside = graph.joined(threshold) & np.isin(graph.edges[:, 0], members)
    ends = np.searchsorted(members, graph.edges[inside])
    weight = np.rint((1 - graph.scores[inside].astype(np.float64)) * CAPACITY).astype(np.int64)
    both = np.concatenate([ends, ends[:, ::-1]])
    count = len(members)
    capacity = csr_array((np.tile(weight, 2), both.T), shape=(count, count))
    rows = np.searchsorted(members, node_fragments[at])
    # Of several nodes in one fragment the last one gives its position.
    position = np.full((count, 3), np.nan)
    position[rows] = skeletons.position_nm[at]
    owners = skeletons.skeleton[at]
    return _Segment(capacity, position, [rows[owners == owner] for owner in np.unique(owners)])


def _split(
    segment: _Segment, rows: np.ndarray, components: Sequence[np.ndarray]
) -> Iterator[np.ndarray]:
    """The pieces of the fragments `rows` after all cuts, each with at most one skeleton."""
    waiting = [(rows, list(components))]
    while waiting:
        rows, components = waiting.pop()
        if len(components) <= 1:
            yield rows
            continue
        near = _near_source(segment, rows, *_closest(segment, components))
        for side in (rows[near], rows[~near]):
            within = (part[np.isin(part, side)] for part in components)
            waiting.append((side, [part for part in within if len(part)]))


def _closest(segment: _Segment, components: Sequence[np.ndarray]) -> tuple[int, int]:
    """The two closest fragments of the two largest skeletons (of equal ones, the later)."""
    first, second = sorted(components, key=len)[-2:]
    distance, index = KDTree(segment.position_nm[first]).query(segment.position_nm[second])
    nearest = int(np.argmin(distance))
    return int(first[index[nearest]]), int(second[nearest])


def _near_source(segment: _Segment, rows: np.ndarray, source: int, sink: int) -> np.ndarray:
    """Which fragments `rows` are on the side of `source` in the minimum cut, (rows,) bool."""
    inside = segment.capacity[rows][:, rows]
    begin, end = np.searchsorted(rows, [source, sink])
    flow = maximum_flow(inside, int(begin), int(end)).flow
    residual = csr_array(inside - flow)
    residual.eliminate_zeros()
    reached = breadth_first_order(residual, int(begin), return_predecessors=False)
    near = np.zeros(len(rows), bool)
    near[reached] = True
    return near


def _rejoined(segment: _Segment, pieces: Sequence[np.ndarray]) -> int:
    """Over all skeletons, the number of pieces into which the cuts divided it, minus one."""
    piece = np.empty(len(segment.position_nm), np.int64)
    for index, rows in enumerate(pieces):
        piece[rows] = index
    return sum(len(np.unique(piece[rows])) - 1 for rows in segment.components)
