"""The min-cut metric: splits and merges that a proofreader would need (Sheridan et al. 2023).

The rules are those of lsd's 05_evaluate_annotations and of funlib.evaluate's split_graph. They name
a max-flow program (Boykov-Kolmogorov); the cut taken here is the one nearest to the source, which
is the same for every maximum flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from scipy.spatial import KDTree

from retrace.evaluation.curve import RegionGraph
from retrace.evaluation.skeletons import Skeletons, merging_segments
from retrace.segmentation.lut import segment_lut

CAPACITY = 1 << 20
"""Capacity of an edge of weight 1: flows are whole numbers here."""


@dataclass(frozen=True)
class MinCut:
    """Splits and merges needed, and fragments that no cut can mend."""

    splits_needed: int
    merges_needed: int
    unsplittable_fragments: int

    def as_dict(self) -> dict[str, int]:
        """The numbers as they are written to JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Segment:
    """The graph of one segment, (fragments, fragments), and what of it lies on skeletons."""

    capacity: csr_array
    position_nm: np.ndarray
    components: list[np.ndarray]
    """Per skeleton the row of each of its nodes: a fragment with two nodes stands twice."""


def mincut(
    skeletons: Skeletons,
    node_fragments: np.ndarray,
    graph: RegionGraph,
    threshold: float,
    merge_threshold: int = 1,
) -> MinCut:
    """Splits and merges needed at `threshold`; `node_fragments` (nodes,), 0 for none.

    In each merging segment the two largest skeletons that are still together are cut apart between
    their two closest nodes, along the edges of least summed 1 - score, until all are apart. Merges
    needed are the broken edges of each split skeleton less one, and the pieces of one skeleton that
    the cuts have parted, less one. A fragment that holds nodes of two skeletons cannot be split: it
    is counted apart and left out of the cutting.
    """
    nodes = np.union1d(graph.edges.ravel(), node_fragments).astype(np.uint64)
    lut = segment_lut(graph.edges, graph.scores, threshold, nodes)
    segments = lut[np.searchsorted(nodes, node_fragments)]
    splits, rejoined, unsplittable = 0, 0, 0
    for segment in merging_segments(skeletons.skeleton, segments, merge_threshold):
        if segment == 0:
            continue
        at = np.flatnonzero((segments == segment) & (node_fragments != 0))
        shared = _shared(node_fragments[at], skeletons.skeleton[at])
        unsplittable += len(shared)
        at = at[~np.isin(node_fragments[at], shared)]
        found = _segment(skeletons, node_fragments, at, graph, threshold, nodes[lut == segment])
        if len(found.components) > 1:
            pieces = list(_split(found, np.arange(len(found.position_nm)), found.components))
            splits += len(pieces) - 1
            rejoined += _rejoined(found, pieces)
    return MinCut(splits, _broken(skeletons, segments) + rejoined, unsplittable)


def _shared(fragments: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Fragments that hold nodes of more than one skeleton."""
    pairs = np.unique(np.stack([fragments, owners.astype(np.uint64)]), axis=1)
    ids, touched = np.unique(pairs[0], return_counts=True)
    return np.asarray(ids[touched > 1])


def _broken(skeletons: Skeletons, segments: np.ndarray) -> int:
    """Edges between two different segments, less one for every skeleton that has such edges."""
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
    """The graph of the fragments `members`; `at` are the nodes that may be cut apart."""
    inside = (graph.scores <= np.float32(threshold)) & np.isin(graph.edges[:, 0], members)
    ends = np.searchsorted(members, graph.edges[inside])
    weight = np.rint((1 - graph.scores[inside].astype(np.float64)) * CAPACITY).astype(np.int64)
    both = np.concatenate([ends, ends[:, ::-1]])
    count = len(members)
    capacity = csr_array((np.tile(weight, 2), both.T), shape=(count, count))
    rows = np.searchsorted(members, node_fragments[at])
    # Of several nodes in one fragment the last one gives its place.
    position = np.full((count, 3), np.nan)
    position[rows] = skeletons.position_nm[at]
    owners = skeletons.skeleton[at]
    return _Segment(capacity, position, [rows[owners == owner] for owner in np.unique(owners)])


def _split(
    segment: _Segment, rows: np.ndarray, components: Sequence[np.ndarray]
) -> Iterator[np.ndarray]:
    """The pieces of `rows` after all cuts, each with the nodes of one skeleton at most."""
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
    """The two closest rows of the two largest skeletons; of equals the later ones."""
    first, second = sorted(components, key=len)[-2:]
    distance, index = KDTree(segment.position_nm[first]).query(segment.position_nm[second])
    nearest = int(np.argmin(distance))
    return int(first[index[nearest]]), int(second[nearest])


def _near_source(segment: _Segment, rows: np.ndarray, source: int, sink: int) -> np.ndarray:
    """Which `rows` stay with `source` in the least cut from `sink`, booleans (rows,)."""
    inside = segment.capacity[rows][:, rows]
    begin, end = np.searchsorted(rows, [source, sink])
    flow = maximum_flow(inside, int(begin), int(end)).flow
    left = csr_array(inside - flow)
    left.eliminate_zeros()
    reached = breadth_first_order(left, int(begin), return_predecessors=False)
    near = np.zeros(len(rows), bool)
    near[reached] = True
    return near


def _rejoined(segment: _Segment, pieces: Sequence[np.ndarray]) -> int:
    """Pieces of one skeleton that the cuts have parted, less one, over all skeletons."""
    piece = np.empty(len(segment.position_nm), np.int64)
    for index, rows in enumerate(pieces):
        piece[rows] = index
    return sum(len(np.unique(piece[rows])) - 1 for rows in segment.components)
