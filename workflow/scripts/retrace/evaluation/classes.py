"""Scores of classified voxels, overall and for each class."""

from __future__ import annotations

from typing import Any

from retrace.errors import DataError
from retrace.evaluation.class_tally import ClassTally
from retrace.evaluation.metric import compute, conventions
from retrace.evaluation.metrics import CLASS_METRICS

CONVENTION = (
    f"{conventions(CLASS_METRICS, '; ')}; probabilities stored as uint8 count "
    "as the middle of their step and are made to sum to 1"
)
"""The exact meaning of the numbers, which each evaluation contains."""


def class_scores(tally: ClassTally) -> dict[str, Any]:
    """All class metrics of a tally, and the scores of each class.

    Raises DataError if no voxel is labelled.
    """
    if not tally.voxels:
        raise DataError("no voxel of the test entries has a label; correct `labels` or `roi_nm`")
    return {
        "voxels": tally.voxels,
        **compute(CLASS_METRICS, tally),
        "per_class": [_of_class(tally, number) for number in range(tally.classes)],
    }


def _of_class(tally: ClassTally, number: int) -> dict[str, float | None]:
    hits = int(tally.confusion[number, number])
    true = int(tally.confusion[number].sum())
    predicted = int(tally.confusion[:, number].sum())
    either = true + predicted
    return {
        "share": float(tally.fractions[number]),
        "precision": hits / predicted if predicted else None,
        "recall": hits / true if true else None,
        "intersection_over_union": hits / (either - hits) if either else None,
    }
