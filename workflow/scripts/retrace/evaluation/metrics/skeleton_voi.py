"""Variation of information over skeleton nodes instead of voxels."""

from __future__ import annotations

from retrace.evaluation.metric import Metric
from retrace.evaluation.metrics.segment_information import voi_merge, voi_split
from retrace.evaluation.node_segments import NodeSegments

SKELETON_METRICS: tuple[Metric[NodeSegments], ...] = (
    Metric(
        "node_voi_split",
        "VOI split of nodes",
        "`voi_split` over nodes instead of voxels",
        better="lower",
        unit="bits",
        value=lambda nodes: voi_split(nodes.table),
    ),
    Metric(
        "node_voi_merge",
        "VOI merge of nodes",
        "`voi_merge` over nodes instead of voxels",
        better="lower",
        unit="bits",
        value=lambda nodes: voi_merge(nodes.table),
    ),
)
