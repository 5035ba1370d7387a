"""Merges regions along edges in order of their scores, exactly as waterz does, on arrays.

Scores are in [0, 1] and wait in 256 queues, first in, first out. Two edges that a merge makes
parallel become the one of the lower score, whose score is computed again when its turn comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from retrace.compiled import compiled
from retrace.segmentation.contacts import Contacts

BINS = 256
"""Bins of the queue and of the histograms of affinities."""
_MEAN = -1
_INT: Any = np.int64
"""For the numbers of edges and histograms: functions are compiled again for each type of them."""
_HASH = 0x9E3779B97F4A7C15 - (1 << 64)
"""Odd, near 2^64 / golden ratio (Knuth's multiplicative hashing), as a signed number."""


@dataclass(frozen=True)
class Merges:
    """Merges in order: region `pairs[i, 1]` became part of region `pairs[i, 0]`."""

    pairs: np.ndarray
    """(M, 2) int64, the smaller id first."""
    scores: np.ndarray
    """(M,) float32."""


def merge_regions(
    contacts: Contacts, threshold: float, *, quantile: int | None, highest_only: bool
) -> Merges:
    """Merges regions until no edge has a score below `threshold`.

    The score of an edge is 1 - the mean of its affinities, or 1 - their `quantile` in percent, by
    a histogram. `highest_only`: only the highest affinity of each edge counts before any merge.
    """
    starts, values = contacts.starts, contacts.values
    if quantile is not None and highest_only:
        starts, values = np.arange(len(starts)), np.maximum.reduceat(values, starts[:-1])
    percent = _MEAN if quantile is None else quantile
    nodes = int(contacts.edges.max(initial=0)) + 1
    return Merges(
        *_merge(contacts.edges.copy(), starts, values, nodes, percent, np.float32(threshold))
    )


@compiled
def _bin(value: np.float32) -> int:
    """The bin of a value; what is outside of [0, 1] or no number goes to the first or the last."""
    if not value > 0:
        return 0
    if value >= 1:
        return BINS - 1
    return min(int(value * np.float32(BINS)), BINS - 1)


@compiled
def _push(queues: np.ndarray, after: np.ndarray, edge: int, score: np.float32) -> int:
    """Puts an edge at the end of the queue of its score, (256, 2) first and last; returns which."""
    number = _bin(score)
    after[edge] = -1
    if queues[number, 0] < 0:
        queues[number, 0] = edge
    else:
        after[queues[number, 1]] = edge
    queues[number, 1] = edge
    return number


@compiled
def _mean(values: np.ndarray) -> np.float32:
    """The running mean in float32, as waterz adds affinities."""
    mean = np.float32(0)
    for i in range(len(values)):
        mean = (values[i] + mean * np.float32(i)) / np.float32(i + 1)
    return mean


@compiled
def _quantile_score(histogram: np.ndarray, count: int, percent: int) -> np.float32:
    pivot = percent * count // 100 + 1
    total, number = 0, 0
    while number < BINS:
        total += histogram[number]
        if total >= pivot:
            break
        number += 1
    return np.float32(1.0 - (number + 0.5) / BINS)


@compiled
def _add_values(histogram: np.ndarray, values: np.ndarray) -> None:
    for value in values:
        histogram[_bin(value)] += 1


@compiled
def _key(u: int, v: int) -> np.int64:
    return (np.int64(min(u, v)) << 32) | np.int64(max(u, v))


@compiled
def _slot(keys: np.ndarray, key: np.int64) -> np.int64:
    """Where `key` > 0 is in a hash table, or the empty place where it belongs."""
    mask = len(keys) - 1
    slot = ((key * _HASH) >> 20) & mask
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


@compiled
def _table_of(ends: np.ndarray, gone: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """A hash table from pairs of regions to edges that exist, and how many those are."""
    count, size = 0, 16
    for edge in range(len(gone)):
        count += not gone[edge]
    while size < 4 * count:
        size *= 2
    keys, edges = np.zeros(size, np.int64), np.empty(size, np.int32)
    for edge in range(len(gone)):
        if not gone[edge]:
            slot = _slot(keys, _key(ends[edge, 0], ends[edge, 1]))
            keys[slot], edges[slot] = _key(ends[edge, 0], ends[edge, 1]), edge
    return keys, edges, count


@compiled
def _first_statistics(
    starts: np.ndarray, values: np.ndarray, percent: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of affinities, mean (0 where not needed) and score of each edge before any merge."""
    counts = starts[1:] - starts[:-1]
    means, scores = np.zeros(len(counts), np.float32), np.empty(len(counts), np.float32)
    histogram = np.zeros(BINS, np.int32)
    for edge in range(len(counts)):
        own = values[starts[edge] : starts[edge + 1]]
        if percent == _MEAN:
            means[edge] = _mean(own)
            scores[edge] = np.float32(1.0 - means[edge])
        else:
            for i in range(BINS):
                histogram[i] = 0
            _add_values(histogram, own)
            scores[edge] = _quantile_score(histogram, counts[edge], percent)
    return counts, means, scores


@compiled
def _joint_mean(a: float, b: float, count_a: int, count_b: int) -> np.float32:
    weight_a, weight_b = np.float32(count_a), np.float32(count_b)
    return (a * weight_a + b * weight_b) / np.float32(count_a + count_b)


class _Graph(NamedTuple):
    """Regions (N,) and their edges (E,), changed in place."""

    ends: np.ndarray
    """The two regions of an edge, (E, 2)."""
    gone: np.ndarray
    """Edges that merged, or became part of a parallel one."""
    stale: np.ndarray
    """Edges whose score is older than their affinities."""
    scores: np.ndarray
    counts: np.ndarray
    means: np.ndarray
    starts: np.ndarray
    values: np.ndarray
    slots: np.ndarray
    """The histogram of an edge that took up another; -1 for one with its own `values` only."""
    free: np.ndarray
    """Histograms that were returned, a stack whose height is in free[0]."""
    first: np.ndarray
    """The first cell of each region's list of edges."""
    following: np.ndarray
    """The next cell, (2 E,). Cell 2 e + i is edge e in the list of its end i."""


@compiled
def _lists_of(ends: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The edges of each region as linked lists, see `_Graph.first` and `_Graph.following`."""
    first, following = np.full(nodes, -1, np.int32), np.empty(2 * len(ends), np.int32)
    for edge in range(len(ends)):
        for end in range(2):
            following[2 * edge + end] = first[ends[edge, end]]
            first[ends[edge, end]] = 2 * edge + end
    return first, following


@compiled
def _new_graph(ends: np.ndarray, starts: np.ndarray, values: np.ndarray, n: int, q: int) -> _Graph:
    counts, means, scores = _first_statistics(starts, values, q)
    gone, stale = np.zeros(len(ends), np.bool_), np.zeros(len(ends), np.bool_)
    slots, free = np.full(len(ends), -1, np.int32), np.zeros(len(ends) + 1, np.int32)
    first, following = _lists_of(ends, n)
    return _Graph(
        ends, gone, stale, scores, counts, means, starts, values, slots, free, first, following
    )


@compiled
def _larger_pool(pool: np.ndarray) -> np.ndarray:
    larger = np.empty((2 * len(pool), BINS), np.int32)
    for i in range(len(pool)):
        for j in range(BINS):
            larger[i, j] = pool[i, j]
    return larger


@compiled
def _histogram_of(
    graph: _Graph, edge: int, pool: np.ndarray, in_use: int
) -> tuple[np.ndarray, int]:
    """Gives an edge a histogram of its own values: a returned one, else the next of `pool`.

    Returns the pool, which grows, and how many histograms of it were ever in use.
    """
    if graph.free[0] > 0:
        graph.slots[edge] = graph.free[graph.free[0]]
        graph.free[0] -= 1
    else:
        if in_use == len(pool):
            pool = _larger_pool(pool)
        graph.slots[edge] = in_use
        in_use += 1
    histogram = pool[graph.slots[edge]]
    for i in range(BINS):
        histogram[i] = 0
    _add_values(histogram, graph.values[graph.starts[edge] : graph.starts[edge + 1]])
    return pool, in_use


@compiled
def _return_histogram(graph: _Graph, edge: int) -> None:
    if graph.slots[edge] >= 0:
        graph.free[0] += 1
        graph.free[graph.free[0]] = graph.slots[edge]
        graph.slots[edge] = -1


@compiled
def _absorb(
    graph: _Graph, source: int, target: int, pool: np.ndarray, in_use: int, percent: int
) -> tuple[np.ndarray, int]:
    """Makes the affinities of edge `source` part of edge `target`; `source` is gone."""
    counts = graph.counts
    if percent == _MEAN:
        mean_of = graph.means
        mean_of[target] = _joint_mean(
            mean_of[source], mean_of[target], counts[source], counts[target]
        )
    else:
        if graph.slots[target] < 0:
            pool, in_use = _histogram_of(graph, target, pool, in_use)
        histogram = pool[graph.slots[target]]
        if graph.slots[source] < 0:
            own = graph.values[graph.starts[source] : graph.starts[source + 1]]
            _add_values(histogram, own)
        else:
            other = pool[graph.slots[source]]
            for i in range(BINS):
                histogram[i] += other[i]
            _return_histogram(graph, source)
    counts[target] += counts[source]
    graph.gone[source], graph.stale[target] = True, True
    return pool, in_use


@compiled
def _join_regions(
    graph: _Graph,
    edge: int,
    keys: np.ndarray,
    edges: np.ndarray,
    pool: np.ndarray,
    in_use: int,
    percent: int,
) -> tuple[int, np.ndarray, int]:
    """Makes the larger region of an edge part of the smaller one, with all its edges.

    Returns how many pairs came into the table `keys`, `edges`, and the pool of histograms.
    """
    ends = graph.ends
    kept, lost = min(ends[edge, 0], ends[edge, 1]), max(ends[edge, 0], ends[edge, 1])
    graph.gone[edge], added = True, 0
    _return_histogram(graph, edge)
    cell = graph.first[lost]
    while cell >= 0:
        moved, following = cell >> 1, graph.following[cell]
        if not graph.gone[moved]:
            neighbor = ends[moved, 1 - (cell & 1)]
            slot = _slot(keys, _key(kept, neighbor))
            parallel = _INT(edges[slot])
            if keys[slot] == 0:
                keys[slot], edges[slot] = _key(kept, neighbor), moved
                added += 1
            elif graph.scores[moved] > graph.scores[parallel]:
                pool, in_use = _absorb(graph, moved, parallel, pool, in_use, percent)
            else:
                pool, in_use = _absorb(graph, parallel, moved, pool, in_use, percent)
                edges[slot] = moved
            if not graph.gone[moved]:
                ends[moved, cell & 1] = kept
                graph.following[cell] = graph.first[kept]
                graph.first[kept] = cell
        cell = following
    return added, pool, in_use


@compiled
def _score(graph: _Graph, edge: int, pool: np.ndarray, percent: int) -> np.float32:
    if percent == _MEAN:
        return np.float32(1.0 - graph.means[edge])
    return _quantile_score(pool[graph.slots[edge]], graph.counts[edge], percent)


@compiled
def _merge(
    ends: np.ndarray,
    starts: np.ndarray,
    values: np.ndarray,
    nodes: int,
    percent: int,
    threshold: np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """The merges of `merge_regions`: pairs (M, 2) and scores (M,)."""
    graph = _new_graph(ends, starts, values, nodes, percent)
    queues, after = np.full((BINS, 2), -1, np.int32), np.empty(len(ends), np.int32)
    lowest, merged = BINS, 0
    for edge in range(len(ends)):
        lowest = min(lowest, _push(queues, after, edge, graph.scores[edge]))
    keys, edges, filled = _table_of(ends, graph.gone)
    pool, in_use = np.empty((16, BINS), np.int32), _INT(0)
    pairs, scores = np.empty((nodes, 2), np.int64), np.empty(nodes, np.float32)
    while lowest < BINS:
        edge = _INT(queues[lowest, 0])
        if edge < 0:
            lowest += 1
            continue
        if graph.scores[edge] >= threshold:
            break
        queues[lowest, 0] = after[edge]
        if graph.gone[edge]:
            continue
        if graph.stale[edge]:
            graph.stale[edge] = False
            graph.scores[edge] = _score(graph, edge, pool, percent)
            lowest = min(lowest, _push(queues, after, edge, graph.scores[edge]))
            continue
        pairs[merged, 0] = min(ends[edge, 0], ends[edge, 1])
        pairs[merged, 1] = max(ends[edge, 0], ends[edge, 1])
        scores[merged] = graph.scores[edge]
        merged += 1
        added, pool, in_use = _join_regions(graph, edge, keys, edges, pool, in_use, percent)
        filled += added
        if 2 * filled > len(keys):
            keys, edges, filled = _table_of(ends, graph.gone)
    return pairs[:merged], scores[:merged]
