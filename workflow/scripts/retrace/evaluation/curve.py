"""Scores of fragments at every agglomeration threshold, without reading the volume again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrace.errors import DataError
from retrace.evaluation.contingency import Contingency
from retrace.evaluation.scores import Scores, score, weighted_mean
from retrace.segmentation.lut import segment_lut
from retrace.storage.manifest import reading
from retrace.storage.volumes import open_group


@dataclass(frozen=True)
class RegionGraph:
    """Edges between fragments, (E, 2), and the score at which each joins them, (E,)."""

    edges: np.ndarray
    scores: np.ndarray

    def segments(self, fragments: np.ndarray, threshold: float) -> np.ndarray:
        """The segment of each fragment id in `fragments`, any shape, at `threshold`; 0 stays 0.

        Fragments outside the scored region count too: they may join two fragments inside it.
        """
        nodes = np.union1d(self.edges.ravel(), fragments.ravel()).astype(np.uint64)
        lut = segment_lut(self.edges, self.scores, threshold, nodes)
        return lut[np.searchsorted(nodes, fragments)]


def open_region_graph(store: Path) -> RegionGraph:
    """The region graph in a store of fragments; DataError if it has none."""
    group = open_group(store)
    if "edges" not in group or "scores" not in group:
        raise DataError(f"{store} has no region graph (arrays edges, scores); run segment again")
    with reading(store):
        edges, scores = (np.asarray(group[name]) for name in ("edges", "scores"))
    return RegionGraph(edges, scores)


def agglomerated(table: Contingency, graph: RegionGraph, threshold: float) -> Contingency:
    """The table of the segments at `threshold`, from the table of the fragments."""
    return table.relabeled(graph.segments(table.segments, threshold))


def threshold_curve(
    table: Contingency, graph: RegionGraph, thresholds: Sequence[float]
) -> list[Scores]:
    """The scores at each threshold, from the table of the fragments."""
    return [score(agglomerated(table, graph, value)) for value in thresholds]


def pooled(curves: Sequence[Sequence[Scores]]) -> list[Scores]:
    """The curves of several volumes as one: at each threshold their `weighted_mean`."""
    return [weighted_mean(list(scores)) for scores in zip(*curves, strict=True)]


def best_threshold(thresholds: Sequence[float], scores: Sequence[Scores]) -> float:
    """The threshold with the smallest VOI sum; of equal ones, the lowest threshold."""
    sums = [item["voi_sum"] for item in scores]
    return float(thresholds[int(np.argmin(sums))])
