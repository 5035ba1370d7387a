"""MALIS: an affinity weighs as many voxel pairs as it connects first, rightly or wrongly.

Source: Turaga et al. 2009, in the constrained two-pass form that Sheridan et al. 2023 trained with
(TuragaLab/malis, `malis.pyx`; gunpowder, `add_malis_loss`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from retrace.compiled import compiled
from retrace.errors import ConfigError
from retrace.targets.affinities import Neighborhood
from retrace.union_find import root


def malis_loss(
    prediction: Tensor, target: Tensor, known: Tensor, labels: Tensor, neighborhood: Neighborhood
) -> Tensor:
    """sum(w (target - prediction)^2), a scalar, with w of `malis_weights`.

    `prediction`, `target`, `known` (C, Z, Y, X), `labels` (Z, Y, X). The weights are computed on
    the CPU and pass no gradient. ConfigError as in `malis_weights`.
    """
    weights = malis_weights(
        prediction.detach().float().cpu().numpy(),
        target.cpu().numpy() > 0,
        known.cpu().numpy() != 0,
        labels.cpu().numpy(),
        neighborhood,
    )
    error = (target.float() - prediction.float()).square()
    return (torch.from_numpy(weights).to(prediction.device) * error).sum()


def malis_weights(
    affinities: np.ndarray,
    target: np.ndarray,
    known: np.ndarray,
    labels: np.ndarray,
    neighborhood: Neighborhood,
) -> np.ndarray:
    """Weights (C, Z, Y, X) float32 of both passes together; those of a pass sum to 1, or to 0.

    `affinities` float, `target` and `known` bool, all (C, Z, Y, X); `labels` (Z, Y, X) int, 0 in no
    pair. Negative pass: known true affinities are set to 1, and a false one weighs the pairs of
    different labels that it connects. Positive pass: known false ones are set to 0, and a true one
    weighs the pairs of equal labels. Unknown ones weigh 0. ConfigError unless `neighborhood` has
    one offset per channel.
    """
    if len(neighborhood) != affinities.shape[0]:
        raise ConfigError(
            f"MALIS: {affinities.shape[0]} affinities, but {len(neighborhood)} offsets"
        )
    ends = edge_ends(affinities.shape[1:], neighborhood)
    true, false = target & known, ~target & known
    passes = (
        (np.where(true, 1, affinities), false, False),
        (np.where(false, 0, affinities), true, True),
    )
    with ThreadPoolExecutor(len(passes)) as pool:
        weights = [pool.submit(_pass_weights, *arguments, ends, labels) for arguments in passes]
        return sum((w.result() for w in weights), np.zeros(affinities.shape, np.float32))


def edge_ends(shape: tuple[int, ...], neighborhood: Neighborhood) -> np.ndarray:
    """Flat index (C, Z, Y, X) int64 of the voxel that each edge ends at, -1 outside the volume.

    `shape` (z, y, x) of the volume; edge (c, z, y, x) starts at voxel (z, y, x).
    """
    ends = np.full((len(neighborhood), *shape), -1, dtype=np.int64)
    index = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    for channel, offset in zip(ends, neighborhood, strict=True):
        voxels, neighbours = [], []
        for step, size in zip(offset, shape, strict=True):
            voxels.append(slice(max(0, -step), max(0, min(size, size - step))))
            neighbours.append(slice(max(0, step), max(0, min(size, size + step))))
        channel[tuple(voxels)] = index[tuple(neighbours)]
    return ends


def _pass_weights(
    affinities: np.ndarray, counted: np.ndarray, equal: bool, ends: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Weights (C, Z, Y, X) float32 of one pass, normalised; 0 outside `counted`."""
    edges = np.flatnonzero(ends.ravel() >= 0)
    strength = affinities.ravel()[edges].astype(np.float32)
    edges = edges[np.argsort(-strength, kind="stable")]
    starts = edges % labels.size
    _, compact = np.unique(labels.ravel(), return_inverse=True)
    compact = compact + (labels.min() != 0)  # 0 stays the value of voxels without label
    ones = np.ones(labels.size)
    pairs = join_edges(starts, ends.ravel()[edges], compact.astype(np.int64), ones, equal)
    weights = np.zeros(affinities.size)
    weights[edges] = pairs
    weights *= counted.ravel()
    total = weights.sum()
    return (weights / (total or 1)).astype(np.float32).reshape(affinities.shape)


@compiled
def join_edges(
    u: np.ndarray, v: np.ndarray, labels: np.ndarray, mass: np.ndarray, equal: bool
) -> np.ndarray:
    """Voxel pairs (E,) float64 that each edge is the first to connect, for edges (u, v) (E,).

    The edges are in Kruskal's order. `labels` (N,) of the voxels, 0 in no pair. `mass` (N,)
    float64: weight of a voxel; a pair counts the product. `equal`: count pairs of equal labels,
    else of different ones. Each component keeps a linked list of its labels and their mass, sorted
    by label, whose cells are voxel indices.
    """
    parent = np.arange(labels.size)
    head = np.where(labels > 0, parent, -1)
    after = np.full(labels.size, -1)
    count = mass.copy()
    total = np.where(labels > 0, mass, 0.0)
    pairs = np.zeros(u.size)
    for edge in range(u.size):
        a, b = root(parent, u[edge]), root(parent, v[edge])
        if a == b:
            continue
        if total[a] < total[b]:
            a, b = b, a
        parent[b] = a
        head[a], same = _merge(head[a], head[b], labels, count, after)
        pairs[edge] = same if equal else total[a] * total[b] - same
        total[a] += total[b]
    return pairs


@compiled
def _merge(
    i: int, j: int, labels: np.ndarray, count: np.ndarray, after: np.ndarray
) -> tuple[int, float]:
    """First cell of the merged lists that start at cells `i` and `j`, and their equal pairs."""
    first, last, same = -1, -1, 0.0
    while i >= 0 and j >= 0:
        if labels[i] == labels[j]:
            same += count[i] * count[j]
            count[i] += count[j]
            j = after[j]
        if j >= 0 and labels[j] < labels[i]:
            cell, j = j, after[j]
        else:
            cell, i = i, after[i]
        if last < 0:
            first = cell
        else:
            after[last] = cell
        last = cell
    rest = i if i >= 0 else j
    if last < 0:
        return rest, same
    after[last] = rest
    return first, same
