"""Rand and information scores of the objects between thinned boundaries.

Arganda-Carreras et al. 2015 (Frontiers in Neuroanatomy 9:142), the metrics of the ISBI 2012
challenge. In the tables here, segment 0 stands for the voxels of lines, each a separate segment.
"""

from __future__ import annotations

import numpy as np

from retrace.evaluation.boundary_sections import ThresholdedSection
from retrace.evaluation.contingency import Contingency
from retrace.evaluation.metric import Metric

CONVENTION = (
    "Then the boundary, voxels whose interior probability is not above the threshold, is thinned "
    "to lines; segments are the components of 4 neighbours between them, voxels of lines each a "
    "segment of its own; voxels of true boundaries are ignored, true objects are components of 4 "
    "neighbours. "
    "v_rand = sum p_ij^2 / (sum s_i^2 / 2 + sum t_j^2 / 2), v_info = 2 I(S, T) / (H(S) + H(T)); "
    "1 is perfect"
)


def v_rand(table: Contingency) -> float:
    """Foreground-restricted Rand score, in [0, 1], of a table whose segment 0 is single voxels."""
    single = table.segments == 0
    counts = table.counts.astype(np.float64)
    together = float(np.where(single, counts, counts**2).sum())
    in_segments = float(np.where(single, counts, counts * table.segment_totals).sum())
    in_objects = float((counts * table.ground_truth_totals).sum())
    return together / (0.5 * in_segments + 0.5 * in_objects)


def v_info(table: Contingency) -> float:
    """Foreground-restricted information score, in [0, 1], of a table whose segment 0 is single
    voxels."""
    voxels = table.voxels
    fraction = table.counts / voxels
    single = table.segments == 0
    of_segment = np.where(single, 1, table.segment_totals) / voxels
    in_pair = np.where(single, 1, table.counts) / voxels
    of_object = table.ground_truth_totals / voxels
    information = float((fraction * np.log2(in_pair / (of_segment * of_object))).sum())
    entropies = -float((fraction * (np.log2(of_segment) + np.log2(of_object))).sum())
    return 2 * information / entropies if entropies else 1.0


BOUNDARY_METRICS: tuple[Metric[ThresholdedSection], ...] = (
    Metric(
        "v_rand",
        "V_Rand",
        "Σ p(i, j)² / (½ Σ s(i)² + ½ Σ t(j)²)",
        better="higher",
        value=lambda cut: v_rand(cut.table),
        convention=CONVENTION,
        in_tables=True,
    ),
    Metric(
        "v_info",
        "V_Info",
        "2 I(S, T) / (H(S) + H(T))",
        better="higher",
        value=lambda cut: v_info(cut.table),
        convention=CONVENTION,
        in_tables=True,
    ),
)
