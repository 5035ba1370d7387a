"""Scores of a segmentation, from its contingency table with ground truth or its skeleton nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retrace.evaluation.contingency import Contingency
from retrace.evaluation.metric import compute, conventions, with_derived
from retrace.evaluation.metrics import SEGMENT_METRICS, SKELETON_METRICS
from retrace.evaluation.node_segments import NodeSegments

CONVENTION = (
    f"{conventions(SEGMENT_METRICS, '; ')}; voxels of truth 0, of background labels and outside "
    "the labels mask are ignored; segmentation 0 is an ordinary label; the truth is not relabelled"
)
"""The exact meaning of the numbers, which each evaluation contains."""


@dataclass(frozen=True)
class Scores:
    """The scores of one segmentation, by the name of the metric: `scores["voi_sum"]`."""

    values: Mapping[str, float]
    voxels: int
    """Number of scored voxels, or skeleton nodes."""

    def __getitem__(self, metric: str) -> float:
        return self.values[metric]

    def as_dict(self) -> dict[str, float]:
        """The scores as JSON values."""
        return dict(self.values)


def score(table: Contingency) -> Scores:
    """All segment metrics of a table; VOI and Rand as in funlib.evaluate.rand_voi.

    Raises ValueError for a table without voxels, which has no score.
    """
    if not table.voxels:
        raise ValueError("no voxel to score: the ground truth is 0 or masked everywhere")
    return Scores(compute(SEGMENT_METRICS, table), table.voxels)


def weighted_mean(scores: list[Scores]) -> Scores:
    """The mean over several volumes, weighted by their scored voxels.

    For VOI this is the score of the volumes taken as one, since they have no label in common.
    Derived metrics follow from the means of the others.
    """
    weights = np.array([item.voxels for item in scores], np.float64)
    weights /= weights.sum()
    means = {
        metric.name: float(weights @ [item[metric.name] for item in scores])
        for metric in SEGMENT_METRICS
        if metric.derive is None
    }
    return Scores(with_derived(SEGMENT_METRICS, means), sum(item.voxels for item in scores))


def skeleton_scores(nodes: NodeSegments) -> dict[str, float]:
    """All skeleton metrics of the segments at nodes, and how much was scored."""
    skeletons = nodes.skeletons
    return {
        **compute(SKELETON_METRICS, nodes),
        "nodes": len(skeletons.skeleton),
        "components": len(np.unique(skeletons.skeleton)),
        "segments": len(np.unique(nodes.segments)),
        "path_length_nm": float(skeletons.edge_length_nm.sum()),
    }
