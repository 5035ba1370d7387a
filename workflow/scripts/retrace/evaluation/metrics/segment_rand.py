"""Adapted Rand scores: the fraction of voxel pairs that are correctly joined."""

from __future__ import annotations

import numpy as np

from retrace.evaluation.contingency import Contingency
from retrace.evaluation.metric import Metric

CONVENTION = (
    "rand_merge = precision = sum p_ij^2 / sum p_i^2 (i: segments), "
    "rand_split = recall = sum p_ij^2 / sum p_j^2 (j: truth), "
    "adapted_rand_error = 1 - 2PR/(P+R)"
)


def rand_split(table: Contingency) -> float:
    """Rand recall: of the voxel pairs in one object, the fraction in one segment; in [0, 1]."""
    counts = table.counts.astype(np.float64)
    # sum_j n_j^2 = sum over pairs of n_ij * n_j
    return float((counts * counts).sum()) / float(
        counts @ table.ground_truth_totals.astype(np.float64)
    )


def rand_merge(table: Contingency) -> float:
    """Rand precision: of the voxel pairs in one segment, the fraction in one object; in [0, 1]."""
    counts = table.counts.astype(np.float64)
    return float((counts * counts).sum()) / float(counts @ table.segment_totals.astype(np.float64))


SEGMENT_METRICS: tuple[Metric[Contingency], ...] = (
    Metric(
        "adapted_rand_error",
        "adapted Rand error",
        "1 − 2PR / (P + R), with P = `rand_merge` and R = `rand_split`",
        better="lower",
        derive=lambda values: (
            1
            - 2
            * values["rand_merge"]
            * values["rand_split"]
            / (values["rand_merge"] + values["rand_split"])
        ),
        convention=CONVENTION,
        in_tables=True,
    ),
    Metric(
        "rand_split",
        "Rand recall",
        "recall R = Σ p(i, j)² / Σ p(j)²",
        better="higher",
        value=rand_split,
        convention=CONVENTION,
    ),
    Metric(
        "rand_merge",
        "Rand precision",
        "precision P = Σ p(i, j)² / Σ p(i)²",
        better="higher",
        value=rand_merge,
        convention=CONVENTION,
    ),
)
