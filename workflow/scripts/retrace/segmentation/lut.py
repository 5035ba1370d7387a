"""From scored edges to segments: which fragment becomes which segment at a threshold."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numba
import numpy as np

from retrace.errors import ConfigError
from retrace.union_find import root

NEVER = np.float32(np.nan)
"""Score of an edge whose fragments never join: no threshold reaches it."""


def threshold_list(lowest: float, highest: float, step: float) -> list[float]:
    """The thresholds lowest, lowest + step, ... below `highest`, rounded to 4 digits.

    [0, 1] in steps of 0.02 gives the 50 values 0.00 ... 0.98 of lsd's 04_find_segments.
    Every value is computed from its index and rounded, so none drifts to 0.5800000000000001.
    """
    if not step > 0 or highest <= lowest:
        raise ConfigError(
            f"thresholds {lowest} to {highest} in steps of {step} hold no value; give [lowest, "
            "highest, step] with lowest < highest and step > 0, for example [0, 1, 0.02]"
        )
    count = math.ceil((highest - lowest) / step - 1e-6)
    return [round(lowest + index * step, 4) for index in range(count)]


@numba.njit(nogil=True)
def _join(parent: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    for edge in range(len(first)):
        a, b = root(parent, first[edge]), root(parent, second[edge])
        if a < b:
            parent[b] = a
        else:
            parent[a] = b


@numba.njit(nogil=True)
def _flatten(parent: np.ndarray) -> None:
    # A parent is never larger than its child, so it is final when the child is reached.
    for place in range(len(parent)):
        parent[place] = parent[parent[place]]


def components(total: int, edges: Iterable[np.ndarray]) -> np.ndarray:
    """The smallest place that is connected with each of `total` places, (total,) int64.

    `edges`: arrays (E, 2) of places, one after another; memory holds one of them and the result.
    """
    parent = np.arange(total, dtype=np.int64)
    for some in edges:
        pairs = np.ascontiguousarray(some, dtype=np.int64)
        _join(parent, pairs[:, 0], pairs[:, 1])
    _flatten(parent)
    return parent


def segment_lut(
    edges: np.ndarray, scores: np.ndarray, threshold: float, nodes: np.ndarray
) -> np.ndarray:
    """Segment of every fragment in `nodes`: components under the edges with score <= threshold.

    `edges` (E, 2) and `nodes` (N,) uint64, `scores` (E,) with NaN for never; returns (N,) uint64.
    A segment's id is its smallest fragment id. Both ends of an edge must be in `nodes`. The
    comparison is made in float32, as scores are stored: an edge of score 0.3 joins at 0.3.
    """
    order = np.argsort(nodes, kind="stable")
    known = np.asarray(nodes, dtype=np.uint64)[order]
    chosen = np.asarray(edges)[joins(scores, threshold)]
    ends = np.searchsorted(known, chosen)
    segments = np.empty(len(known), dtype=np.uint64)
    segments[order] = known[components(len(known), [ends])]
    return segments


def joins(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Which edges join at `threshold`, compared in float32; NaN never does."""
    return np.asarray(scores, dtype=np.float32) <= np.float32(threshold)
