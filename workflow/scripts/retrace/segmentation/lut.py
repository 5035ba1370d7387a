"""Joins fragments into segments: connected components of the edges up to a threshold."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from retrace.errors import ConfigError
from retrace.union_find import flatten, join

NEVER = np.float32(np.nan)
"""Score of an edge whose fragments never join: NaN <= threshold is always false."""


def threshold_list(lowest: float, highest: float, step: float) -> list[float]:
    """The thresholds lowest, lowest + step, ... below `highest`, rounded to 4 decimals.

    [0, 1] in steps of 0.02 gives the 50 values 0.00 ... 0.98 of lsd's 04_find_segments.
    Each value is computed from its index, so rounding errors do not add up. Raises ConfigError if
    the range contains no value.
    """
    if not step > 0 or highest <= lowest:
        raise ConfigError(
            f"thresholds {lowest} to {highest} in steps of {step} hold no value; give [lowest, "
            "highest, step] with lowest < highest and step > 0, for example [0, 1, 0.02]"
        )
    count = math.ceil((highest - lowest) / step - 1e-6)
    return [round(lowest + index * step, 4) for index in range(count)]


def components(total: int, edges: Iterable[np.ndarray]) -> np.ndarray:
    """The connected component of each of `total` nodes: its smallest node, (total,) int64.

    `edges`: batches (E, 2) of node pairs; memory holds one batch and the result. Union-find.
    """
    parent = np.arange(total, dtype=np.int64)
    for batch in edges:
        pairs = np.ascontiguousarray(batch, dtype=np.int64)
        join(parent, pairs[:, 0], pairs[:, 1])
    flatten(parent)
    return parent


def segment_lut(
    edges: np.ndarray, scores: np.ndarray, threshold: float, nodes: np.ndarray
) -> np.ndarray:
    """The segment of every fragment in `nodes`, (N,) uint64, at a threshold.

    Segments are the connected components of the edges with score <= threshold; the id of a segment
    is its smallest fragment id. `edges` (E, 2) and `nodes` (N,) uint64, `scores` (E,), NaN: never
    joins. Both ends of an edge must be in `nodes`. Scores are compared in float32, as they are
    stored: an edge of score 0.3 joins at 0.3.
    """
    return lut_of_pairs(np.asarray(edges)[joins(scores, threshold)], nodes)


def lut_of_pairs(pairs: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """The segment of every fragment in `nodes`, (N,) uint64, of the `pairs` (P, 2) that join.

    Both ends of a pair must be in `nodes`; the id of a segment is its smallest fragment id.
    """
    order = np.argsort(nodes, kind="stable")
    sorted_nodes = np.asarray(nodes, dtype=np.uint64)[order]
    ends = np.searchsorted(sorted_nodes, pairs)
    segments = np.empty(len(sorted_nodes), dtype=np.uint64)
    segments[order] = sorted_nodes[components(len(sorted_nodes), [ends])]
    return segments


def joins(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Which edges of `scores` (E,) join at `threshold`, (E,) bool; compared in float32."""
    return np.asarray(scores, dtype=np.float32) <= np.float32(threshold)
