"""Variation of information and adapted Rand scores of a contingency table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrace.evaluation.contingency import Contingency

CONVENTION = (
    "voi_split = H(segmentation | truth), voi_merge = H(truth | segmentation), in bits (log2); "
    "rand_merge = precision = sum p_ij^2 / sum p_i^2 (i: segments), "
    "rand_split = recall = sum p_ij^2 / sum p_j^2 (j: truth), "
    "adapted_rand_error = 1 - 2PR/(P+R); voxels of truth 0, of background labels and outside the "
    "labels mask are ignored; segmentation 0 is an ordinary label; the truth is not relabelled"
)
"""The exact meaning of every number, written into each evaluation."""


@dataclass(frozen=True)
class Scores:
    """Scores of one segmentation against one truth (see `CONVENTION`)."""

    voi_split: float
    voi_merge: float
    rand_split: float
    rand_merge: float
    voxels: int

    @property
    def voi_sum(self) -> float:
        """VOI in bits."""
        return self.voi_split + self.voi_merge

    @property
    def adapted_rand_error(self) -> float:
        """1 - harmonic mean of Rand precision and recall, in [0, 1]."""
        return 1 - 2 * self.rand_merge * self.rand_split / (self.rand_merge + self.rand_split)

    def as_dict(self) -> dict[str, float]:
        """The numbers as they are written to JSON."""
        return {
            "voi_split": self.voi_split,
            "voi_merge": self.voi_merge,
            "voi_sum": self.voi_sum,
            "adapted_rand_error": self.adapted_rand_error,
            "rand_split": self.rand_split,
            "rand_merge": self.rand_merge,
        }


def score(table: Contingency) -> Scores:
    """VOI and Rand scores of a table (definitions of funlib.evaluate.rand_voi).

    Raises ValueError for a table without voxels: no score exists there.
    """
    if not table.voxels:
        raise ValueError("no voxel to score: the truth is 0 or masked everywhere")
    counts = table.counts.astype(np.float64)
    in_truth = table.truth_totals.astype(np.float64)
    in_segment = table.segment_totals.astype(np.float64)
    voxels = counts.sum()
    together = float((counts * counts).sum())
    return Scores(
        voi_split=float((counts / voxels) @ np.log2(in_truth / counts)),
        voi_merge=float((counts / voxels) @ np.log2(in_segment / counts)),
        # sum_j n_j^2 = sum over pairs of n_ij * n_j
        rand_split=together / float(counts @ in_truth),
        rand_merge=together / float(counts @ in_segment),
        voxels=int(voxels),
    )
