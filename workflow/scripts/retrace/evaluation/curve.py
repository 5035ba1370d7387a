"""Scores of one fragmentation at every agglomeration threshold, without reading it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from retrace.errors import DataError
from retrace.evaluation.contingency import Contingency
from retrace.evaluation.counting import Counted
from retrace.evaluation.scores import Scores, score
from retrace.segmentation.lut import segment_lut
from retrace.storage.manifest import reading


@dataclass(frozen=True)
class RegionGraph:
    """Edges between fragments, (edges, 2), and the score at which each one joins them."""

    edges: np.ndarray
    scores: np.ndarray

    def segments(self, fragments: np.ndarray, threshold: float) -> np.ndarray:
        """The segment of each fragment id of `fragments`, any shape, at `threshold`; 0 stays 0.

        Fragments outside the scored region take part: they may join two fragments inside it.
        """
        nodes = np.union1d(self.edges.ravel(), fragments.ravel()).astype(np.uint64)
        lut = segment_lut(self.edges, self.scores, threshold, nodes)
        return lut[np.searchsorted(nodes, fragments)]


def open_region_graph(store: Path) -> RegionGraph:
    """The region graph saved in a fragments store; DataError where it has none."""
    group = zarr.open_group(store, mode="r")
    if "edges" not in group or "scores" not in group:
        raise DataError(f"{store} has no region graph (arrays edges, scores); run segment again")
    with reading(store):
        edges, scores = (np.asarray(group[name]) for name in ("edges", "scores"))
    return RegionGraph(edges, scores)


def agglomerated(table: Contingency, graph: RegionGraph, threshold: float) -> Contingency:
    """The table of the segments at `threshold`, from the table of the fragments."""
    return table.relabeled(graph.segments(table.segments, threshold))


def threshold_curve(
    counted: Counted, graph: RegionGraph, thresholds: Sequence[float]
) -> list[Scores]:
    """One score per threshold."""
    return [score(agglomerated(counted.table, graph, value)) for value in thresholds]


def pooled(curves: Sequence[Sequence[Scores]]) -> list[Scores]:
    """Per threshold the mean over volumes, weighted by their scored voxels.

    For VOI this is the score of the volumes taken as one, since they share no label.
    """
    return [_weighted(same) for same in zip(*curves, strict=True)]


def _weighted(scores: Sequence[Scores]) -> Scores:
    weights = np.array([item.voxels for item in scores], np.float64)
    weights /= weights.sum()

    def mean(name: str) -> float:
        return float(weights @ [getattr(item, name) for item in scores])

    return Scores(
        mean("voi_split"),
        mean("voi_merge"),
        mean("rand_split"),
        mean("rand_merge"),
        sum(item.voxels for item in scores),
    )


def best(thresholds: Sequence[float], scores: Sequence[Scores]) -> float:
    """The threshold of the least VOI sum, the lowest one among equals."""
    sums = [item.voi_sum for item in scores]
    return float(thresholds[int(np.argmin(sums))])
