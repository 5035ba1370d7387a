"""Hierarchical agglomeration of fragments with waterz, and the region graph with merge scores.

Sheridan et al. 2023 use `hist_quant_75`: the score of an edge is 1 - the 75th percentile of the
affinities between its two fragments (256-bin histogram). Edges merge from score 0 to score 1.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import waterz

from retrace.errors import ConfigError, nearest
from retrace.segmentation.fragments import highest_value
from retrace.segmentation.lut import NEVER, segment_lut

QUEUE_BINS = 256
"""Bins of waterz's priority queue: scores within a bin merge in any order."""
EPSILON_QUANTILE = 25
"""Quantile of the first agglomeration, which is part of the fragment step (`epsilon`)."""

_QUANTILES = (10, 25, 50, 75, 90)


def _quantile_score(quantile: int, init_max: bool) -> str:
    start = "true" if init_max else "false"
    provider = f"HistogramQuantileAffinity<RegionGraphType, {quantile}, ScoreValue, 256, {start}>"
    return f"OneMinus<{provider}>"


MERGE_FUNCTIONS: dict[str, str] = {
    "mean": "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>",
    **{f"hist_quant_{q}": _quantile_score(q, False) for q in _QUANTILES},
    **{f"hist_quant_{q}_initmax": _quantile_score(q, True) for q in _QUANTILES},
}
"""Merge functions by name (as in the lsd code); waterz's wheel contains all of them compiled."""

_LOCK = threading.Lock()
"""waterz keeps its state in static variables, and `_silent` redirects the output of the process."""


@contextmanager
def _silent() -> Iterator[None]:
    """Runs waterz alone and without output: it prints every step from C++."""
    with _LOCK, _discard_output():
        yield


@contextmanager
def _discard_output() -> Iterator[None]:
    """Discards what Python prints and what C++ writes to the standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):
            os.dup2(nothing.fileno(), 1)
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _as_float(affinities: np.ndarray) -> np.ndarray:
    """The first three channels (3, Z, Y, X) as waterz needs them: contiguous float32 in [0, 1]."""
    scaled = affinities[:3].astype(np.float32)
    scaled /= highest_value(affinities)
    return np.ascontiguousarray(scaled)


def merge_score_type(name: str) -> str:
    """waterz's C++ type of a merge function; ConfigError for an unknown name."""
    if name not in MERGE_FUNCTIONS:
        raise ConfigError(f"no merge function {name!r}; {nearest(name, MERGE_FUNCTIONS)}")
    return MERGE_FUNCTIONS[name]


def epsilon_agglomerate(
    affinities: np.ndarray, fragments: np.ndarray, epsilon: float
) -> np.ndarray:
    """Fragments (Z, Y, X) uint64 after merging edges with a quantile-25 score below `epsilon`."""
    steps = waterz.agglomerate(
        _as_float(affinities),
        [epsilon],
        fragments=np.array(fragments, dtype=np.uint64, order="C"),
        scoring_function=_quantile_score(EPSILON_QUANTILE, False),
        discretize_queue=QUEUE_BINS,
    )
    with _silent():
        (merged,) = list(steps)
    return np.asarray(merged)


def region_graph(
    affinities: np.ndarray, fragments: np.ndarray, merge_function: str
) -> tuple[np.ndarray, np.ndarray]:
    """Edges (E, 2) uint64 between touching fragments, u < v, sorted; scores (E,) float32.

    The score of an edge is that of the merge which connected its two fragments, while waterz
    merged everything below 1; NaN if none did. `affinities` (C >= 3, Z, Y, X); `fragments`
    (Z, Y, X) with compact ids, 0 for background. Raises ConfigError for an unknown function.
    """
    score_type = merge_score_type(merge_function)
    if not fragments.any():
        return np.empty((0, 2), dtype=np.uint64), np.empty(0, dtype=np.float32)
    steps = waterz.agglomerate(
        _as_float(affinities),
        # Below every score: the first step merges nothing and lists all edges.
        [-1.0, 1.0],
        fragments=np.array(fragments, dtype=np.uint64, order="C"),
        scoring_function=score_type,
        discretize_queue=QUEUE_BINS,
        return_merge_history=True,
        return_region_graph=True,
    )
    with _silent():
        (_, _, contacts), (_, history, _) = list(steps)
    pairs = [(min(c["u"], c["v"]), max(c["u"], c["v"])) for c in contacts]
    edges = np.unique(np.array(pairs, dtype=np.uint64).reshape(-1, 2), axis=0)
    return edges, connection_scores(history, edges, int(fragments.max()))


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


def _merge_tree(
    history: Sequence[dict[str, Any]], largest_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """The parent of each region and the merge that attached it, both (largest_id + 1,).

    Union by size, so no path to a root is longer than log2(n).
    """
    parent = np.arange(largest_id + 1)
    attached = np.full(largest_id + 1, len(history), dtype=np.int64)
    size = [1] * (largest_id + 1)
    root_of_region = list(range(largest_id + 1))
    for time, merge in enumerate(history):
        large, small = root_of_region[merge["a"]], root_of_region[merge["b"]]
        if size[large] < size[small]:
            large, small = small, large
        parent[small], attached[small] = large, time
        size[large] += size[small]
        root_of_region[merge["c"]] = large
    return parent, attached


def connection_scores(
    history: Sequence[dict[str, Any]], edges: np.ndarray, largest_id: int
) -> np.ndarray:
    """Score (E,) float32 of the merge that first connected the two ends of each edge, or NaN.

    `history`: the merges in order, each {a, b, c, score}: regions a and b became c. All edges climb
    the tree of merges together, each from the end that was attached first, until its ends meet.
    """
    parent, attached = _merge_tree(history, largest_id)
    u, v = edges[:, 0].astype(np.int64), edges[:, 1].astype(np.int64)
    met_at = np.full(len(edges), -1, dtype=np.int64)
    apart = u != v
    while apart.any():
        first = np.minimum(attached[u], attached[v])
        met_at[apart] = first[apart]
        apart &= first < len(history)
        step_u = apart & (attached[u] == first)
        step_v = apart & (attached[v] == first) & ~step_u
        u[step_u], v[step_v] = parent[u[step_u]], parent[v[step_v]]
        apart &= u != v
    scores = np.array([*(merge["score"] for merge in history), NEVER], dtype=np.float32)
    return scores[met_at]
