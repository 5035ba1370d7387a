"""Hierarchical agglomeration of fragments as waterz does it, and the region graph with scores.

Sheridan et al. 2023 use `hist_quant_75`: the score of an edge is 1 - the 75th percentile of the
affinities between its two fragments (256-bin histogram). Edges merge from score 0 to score 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from retrace.compiled import compiled
from retrace.errors import ConfigError, nearest
from retrace.segmentation.contacts import find_contacts
from retrace.segmentation.fragments import highest_value
from retrace.segmentation.lut import NEVER, components, segment_lut
from retrace.segmentation.merging import Merges, merge_regions

EPSILON_QUANTILE = 25
"""Quantile of the first agglomeration, which is part of the fragment step (`epsilon`)."""


class MergeFunction(NamedTuple):
    """How the affinities of an edge become its score: 1 - the mean, or 1 - a quantile, percent."""

    quantile: int | None
    highest_only: bool = False
    """Only the highest affinity of each edge counts before any merge."""


_QUANTILES = (10, 25, 50, 75, 90)
MERGE_FUNCTIONS: dict[str, MergeFunction] = {
    "mean": MergeFunction(None),
    **{f"hist_quant_{q}": MergeFunction(q) for q in _QUANTILES},
    **{f"hist_quant_{q}_initmax": MergeFunction(q, True) for q in _QUANTILES},
}
"""Merge functions by name, as in the lsd code."""


def merge_function_named(name: str) -> MergeFunction:
    """A merge function; ConfigError for an unknown name."""
    if name not in MERGE_FUNCTIONS:
        raise ConfigError(f"no merge function {name!r}; {nearest(name, MERGE_FUNCTIONS)}")
    return MERGE_FUNCTIONS[name]


def _merges(
    affinities: np.ndarray, fragments: np.ndarray, threshold: float, function: MergeFunction
) -> tuple[np.ndarray, Merges]:
    """All edges (E, 2) int32, u < v, sorted, and the merges below `threshold`."""
    contacts = find_contacts(affinities, fragments, highest_value(affinities))
    quantile, highest_only = function
    merges = merge_regions(contacts, threshold, quantile=quantile, highest_only=highest_only)
    return contacts.edges, merges


def epsilon_agglomerate(
    affinities: np.ndarray, fragments: np.ndarray, epsilon: float
) -> np.ndarray:
    """Fragments (Z, Y, X) uint64 after merging edges with a quantile-25 score below `epsilon`."""
    _, merges = _merges(affinities, fragments, epsilon, MergeFunction(EPSILON_QUANTILE))
    roots = components(int(fragments.max(initial=0)) + 1, [merges.pairs])
    return roots.astype(np.uint64)[fragments.astype(np.int64)]


def region_graph(
    affinities: np.ndarray, fragments: np.ndarray, merge_function: str
) -> tuple[np.ndarray, np.ndarray]:
    """Edges (E, 2) uint64 between touching fragments, u < v, sorted; scores (E,) float32.

    The score of an edge is that of the merge which connected its two fragments, while everything
    below 1 merged; NaN if none did. `affinities` (C >= 3, Z, Y, X); `fragments` (Z, Y, X) with
    compact ids, 0 for background. Raises ConfigError for an unknown function.
    """
    edges, merges = _merges(affinities, fragments, 1.0, merge_function_named(merge_function))
    return edges.astype(np.uint64), connection_scores(merges, edges, int(fragments.max(initial=0)))


def agglomerate(
    affinities: np.ndarray,
    fragments: np.ndarray,
    threshold: float,
    merge_function: str = "hist_quant_75",
) -> np.ndarray:
    """Segments (Z, Y, X) uint64: fragments merged along edges with a score up to `threshold`.

    `affinities` (C >= 3, Z, Y, X), channels z, y, x first: uint8, or float in [0, 1]. `fragments`
    (Z, Y, X) with compact ids; 0 stays 0. The id of a segment is its smallest fragment id. For
    volumes that fit into memory; retrace.segmentation.jobs works in blocks. Raises ConfigError for
    an unknown merge function.
    """
    edges, scores = region_graph(affinities, fragments, merge_function)
    ids = np.arange(int(fragments.max(initial=0)) + 1, dtype=np.uint64)
    return segment_lut(edges, scores, threshold, ids)[fragments.astype(np.int64)]


def connection_scores(merges: Merges, edges: np.ndarray, largest_id: int) -> np.ndarray:
    """Score (E,) float32 of the merge that first connected the two ends of each edge, or NaN."""
    parent, attached = _merge_tree(merges.pairs, largest_id)
    scores = np.append(merges.scores, NEVER)
    return scores[_met_at(parent, attached, np.asarray(edges, np.int64), len(merges.pairs))]


@compiled
def _merge_tree(pairs: np.ndarray, largest_id: int) -> tuple[np.ndarray, np.ndarray]:
    """The parent of each region and the merge that attached it, both (largest_id + 1,).

    Union by size, so no path to a root is longer than log2(n).
    """
    parent = np.arange(largest_id + 1)
    root_of_region = parent.copy()
    attached, size = np.full(largest_id + 1, len(pairs)), np.ones(largest_id + 1, np.int64)
    for time in range(len(pairs)):
        large, small = root_of_region[pairs[time, 0]], root_of_region[pairs[time, 1]]
        if size[large] < size[small]:
            large, small = small, large
        parent[small], attached[small] = large, time
        size[large] += size[small]
        root_of_region[pairs[time, 0]] = large
    return parent, attached


@compiled
def _met_at(parent: np.ndarray, attached: np.ndarray, edges: np.ndarray, never: int) -> np.ndarray:
    """The merge (E,) at which the ends of each edge met; `never` if they did not.

    Both climb the tree of merges, each time the one that was attached first.
    """
    met = np.full(len(edges), never)
    for i in range(len(edges)):
        u, v = edges[i, 0], edges[i, 1]
        while u != v:
            time = min(attached[u], attached[v])
            met[i] = time
            if time == never:
                break
            if attached[u] == time:
                u = parent[u]
            else:
                v = parent[v]
    return met
