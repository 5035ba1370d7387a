"""Variation of information (VOI): by how many bits objects are split and merged."""

from __future__ import annotations

import numpy as np

from retrace.evaluation.contingency import Contingency
from retrace.evaluation.metric import Metric

CONVENTION = (
    "voi_split = H(segmentation | truth), voi_merge = H(truth | segmentation), in bits (log2)"
)


def voi_split(table: Contingency) -> float:
    """H(segmentation | ground truth) in bits: 0 if no object is split."""
    counts = table.counts.astype(np.float64)
    in_object = table.ground_truth_totals.astype(np.float64)
    return float((counts / counts.sum()) @ np.log2(in_object / counts))


def voi_merge(table: Contingency) -> float:
    """H(ground truth | segmentation) in bits: 0 if no two objects are merged."""
    counts = table.counts.astype(np.float64)
    in_segment = table.segment_totals.astype(np.float64)
    return float((counts / counts.sum()) @ np.log2(in_segment / counts))


SEGMENT_METRICS: tuple[Metric[Contingency], ...] = (
    Metric(
        "voi_split",
        "VOI split",
        "H(segmentation given ground truth) = Σ p(i, j) log₂ (p(j) / p(i, j))",
        better="lower",
        unit="bits",
        value=voi_split,
        convention=CONVENTION,
        in_tables=True,
    ),
    Metric(
        "voi_merge",
        "VOI merge",
        "H(ground truth given segmentation) = Σ p(i, j) log₂ (p(i) / p(i, j))",
        better="lower",
        unit="bits",
        value=voi_merge,
        convention=CONVENTION,
        in_tables=True,
    ),
    Metric(
        "voi_sum",
        "VOI",
        "`voi_split` + `voi_merge`, the variation of information; chooses the threshold",
        better="lower",
        unit="bits",
        derive=lambda values: values["voi_split"] + values["voi_merge"],
        convention=CONVENTION,
        in_tables=True,
    ),
)
