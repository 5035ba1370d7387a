"""Scores of fragments at every agglomeration threshold, without reading the volume again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrace.evaluation.contingency import Contingency
from retrace.evaluation.scores import Scores, score, weighted_mean
from retrace.segmentation.region_graph import RegionGraph


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
