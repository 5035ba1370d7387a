"""MALIS as ZNN computes it: voxel pairs that each affinity connects rightly or wrongly.

Source: seung-lab/znn-release, python/front_end/malis and src/include/cost_fn/zalis. In ZNN channels
are affinities to the lower neighbour in x, y, z; here `neighborhood` gives their offsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from retrace.losses.malis import edge_ends, join_edges
from retrace.targets.affinities import Neighborhood


@dataclass(frozen=True)
class PairWeights:
    """Voxel pairs that each affinity is the first to connect, (C, Z, Y, X) float64."""

    splitter: np.ndarray
    """Pairs within a segment: a low affinity splits them."""
    merger: np.ndarray
    """Pairs across segments: a high affinity merges them."""
    counts: dict[str, float]
    """TP, FN: pairs within a segment connected at 0.5 or above, and below. TN, FP: pairs across
    segments connected at 0.5 or below, and above."""


def znn_malis_weights(
    affinities: np.ndarray,
    target: np.ndarray,
    neighborhood: Neighborhood,
    norm: str = "none",
    constrained: bool = False,
) -> np.ndarray:
    """Weights (C, Z, Y, X) float64 of the gradient, from `affinities` and `target` (C, Z, Y, X).

    `norm`: none; frac (each segment counts equally: a voxel weighs 1 / size); num or pair (divided
    by N or N (N - 1), for N voxels in segments). `constrained`: two passes, for mergers with true
    affinities set to 1, for splitters with false ones set to 0, each divided by its pairs. All 0
    where segments have fewer than two voxels.
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
    """Weights (C, Z, Y, X) of both passes, each divided by its number of pairs."""
    raised = np.where(target > 0, 1.0, affinities)
    mergers = pair_weights(raised, labels, neighborhood, high=1.0, low=0.5, frac=frac)
    lowered = np.where(target > 0, affinities, 0.0)
    splitters = pair_weights(lowered, labels, neighborhood, high=0.5, low=0.0, frac=frac)
    across = mergers.counts["FP"] + mergers.counts["TN"]
    within = splitters.counts["TP"] + splitters.counts["FN"]
    return mergers.merger / (across or 1) + splitters.splitter / (within or 1)


def true_segments(target: np.ndarray, neighborhood: Neighborhood) -> np.ndarray:
    """Segments (Z, Y, X) int64 of `target` (C, Z, Y, X) > 0.5; 0 for unconnected voxels."""
    ends = edge_ends(target.shape[1:], neighborhood)
    joined = (target > 0.5) & (ends >= 0)
    starts = np.flatnonzero(joined.ravel()) % ends[0].size
    components = _components(starts, ends[joined], ends[0].size)
    _, index, sizes = np.unique(components, return_inverse=True, return_counts=True)
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
    """Pairs (C, Z, Y, X) that the edges of a maximum spanning tree of each component connect.

    `affinities` (C, Z, Y, X) are clipped to `high`; those at or below `low` are left out. Ties are
    broken as in ZNN: the larger index of the edge's end first, then of its start. `labels`
    (Z, Y, X) int, 0 in no pair. `frac`: a voxel weighs 1 / size of its segment.
    """
    ends = edge_ends(affinities.shape[1:], neighborhood).ravel()
    strength = np.minimum(affinities.ravel(), high)
    edges = np.flatnonzero((ends >= 0) & (strength > low))
    starts = edges % labels.size
    edges = edges[np.lexsort((-starts, -ends[edges], -strength[edges]))]
    u, v = edges % labels.size, ends[edges]
    flat = labels.ravel().astype(np.int64)
    sizes = np.bincount(flat)[flat]
    mass = 1.0 / sizes if frac else np.ones(labels.size)

    def pairs(equal: bool) -> np.ndarray:
        weights = np.zeros(affinities.size)
        weights[edges] = join_edges(u, v, flat, mass, equal)
        return weights.reshape(affinities.shape)

    splitter, merger = pairs(True), pairs(False)
    return PairWeights(splitter, merger, _counts(affinities, splitter, merger))


def _counts(affinities: np.ndarray, splitter: np.ndarray, merger: np.ndarray) -> dict[str, float]:
    """Sums of pairs connected above and below 0.5; see `PairWeights.counts`."""
    low, high = affinities < 0.5, affinities > 0.5
    return {
        "FN": float(splitter[low].sum()),
        "TP": float(splitter[~low].sum()),
        "FP": float(merger[high].sum()),
        "TN": float(merger[~high].sum()),
    }


def _components(u: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
    """The connected component (size,) of each voxel, for edges (u, v) (E,)."""
    links = coo_matrix((np.ones(len(u), np.int8), (u, v)), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1])
