"""MALIS as ZNN computes it: how much an affinity decides about rightly and wrongly joined voxels.

Source: seung-lab/znn-release, python/front_end/malis and src/include/cost_fn/zalis. Channels are
affinities to the lower neighbour in x, y, z or in any order that `neighborhood` gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from retrace.losses.malis import edge_ends, join_edges
from retrace.targets.affinities import Neighborhood

NORMS = ("none", "frac", "num", "pair")


@dataclass(frozen=True)
class PairWeights:
    """Per affinity (C, Z, Y, X) float64 the voxel pairs it joins first, and their sums."""

    splitter: np.ndarray
    """Pairs of one segment: where the affinity is low they are split."""
    merger: np.ndarray
    """Pairs of two segments: where it is high they are merged."""
    counts: dict[str, float]
    """TP, FN: pairs of one segment joined at 0.5 or above, and below. TN, FP: pairs of two
    segments joined at 0.5 or below, and above."""


def znn_malis_weights(
    affinities: np.ndarray,
    target: np.ndarray,
    neighborhood: Neighborhood,
    norm: str = "none",
    constrained: bool = False,
) -> np.ndarray:
    """Weights (C, Z, Y, X) float64 of the gradient; both arrays (C, Z, Y, X).

    `norm`: none; frac, segments count by their share; num, pair: divided by N or N (N - 1), N being
    the voxels of segments. `constrained`: two passes, mergers among true edges that are certain,
    splitters among false edges that are absent, each divided by its pairs. 0 where there are
    no two voxels to compare.
    """
    labels = true_segments(target, neighborhood)
    voxels = int((labels > 0).sum())
    if voxels <= 1:
        return np.zeros(affinities.shape)
    if constrained:
        weights = _constrained(affinities, target, labels, neighborhood, norm == "frac")
    else:
        pairs = pair_weights(affinities, labels, neighborhood, frac=norm == "frac")
        weights = pairs.merger + pairs.splitter
    divisor = {"num": voxels, "pair": voxels * (voxels - 1)}.get(norm, 1)
    return weights / divisor


def _constrained(
    affinities: np.ndarray,
    target: np.ndarray,
    labels: np.ndarray,
    neighborhood: Neighborhood,
    frac: bool,
) -> np.ndarray:
    raised = np.where(target > 0, 1.0, affinities)
    mergers = pair_weights(raised, labels, neighborhood, high=1.0, low=0.5, frac=frac)
    lowered = np.where(target > 0, affinities, 0.0)
    splitters = pair_weights(lowered, labels, neighborhood, high=0.5, low=0.0, frac=frac)
    wrong = mergers.counts["FP"] + mergers.counts["TN"]
    right = splitters.counts["TP"] + splitters.counts["FN"]
    return mergers.merger / (wrong or 1) + splitters.splitter / (right or 1)


def true_segments(target: np.ndarray, neighborhood: Neighborhood) -> np.ndarray:
    """Segments (Z, Y, X) int64 that target affinities above 0.5 join; 0 for single voxels."""
    ends = edge_ends(target.shape[1:], neighborhood)
    joined = (target > 0.5) & (ends >= 0)
    here = np.flatnonzero(joined.ravel()) % ends[0].size
    roots = _roots(here, ends[joined], ends[0].size)
    _, index, sizes = np.unique(roots, return_inverse=True, return_counts=True)
    labels = np.where(sizes[index] > 1, index + 1, 0)
    return labels.reshape(target.shape[1:])


def pair_weights(
    affinities: np.ndarray,
    labels: np.ndarray,
    neighborhood: Neighborhood,
    *,
    high: float = 1.0,
    low: float = 0.0,
    frac: bool = False,
) -> PairWeights:
    """Weights of the edges of a maximum spanning forest.

    `affinities` (C, Z, Y, X) are clipped to `high`, edges at or below `low` left out; equal ones
    come with the larger lower neighbour first, then with the larger voxel. `labels` (Z, Y, X), 0 in
    no pair. `frac`: a voxel counts one over the size of its segment.
    """
    ends = edge_ends(affinities.shape[1:], neighborhood).ravel()
    strength = np.minimum(affinities.ravel(), high)
    edges = np.flatnonzero((ends >= 0) & (strength > low))
    here = edges % labels.size
    edges = edges[np.lexsort((-here, -ends[edges], -strength[edges]))]
    u, v = edges % labels.size, ends[edges]
    flat = labels.ravel().astype(np.int64)
    sizes = np.bincount(flat)[flat]
    mass = 1.0 / sizes if frac else np.ones(labels.size)
    found = []
    for equal in (True, False):
        weights = np.zeros(affinities.size)
        weights[edges] = join_edges(u, v, flat, mass, equal)
        found.append(weights.reshape(affinities.shape))
    splitter, merger = found
    return PairWeights(splitter, merger, _counts(affinities, splitter, merger))


def _counts(affinities: np.ndarray, splitter: np.ndarray, merger: np.ndarray) -> dict[str, float]:
    low, high = affinities < 0.5, affinities > 0.5
    return {
        "FN": float(splitter[low].sum()),
        "TP": float(splitter[~low].sum()),
        "FP": float(merger[high].sum()),
        "TN": float(merger[~high].sum()),
    }


def _roots(u: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
    """Component of each of `size` voxels that edges (u, v) join."""
    links = coo_matrix((np.ones(len(u), np.int8), (u, v)), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1])
