"""Scores of boundary maps, as means over sections, and the best threshold for each metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from retrace.evaluation.boundary_sections import BoundarySection, ThresholdedSection
from retrace.evaluation.metric import compute, conventions
from retrace.evaluation.metrics import BOUNDARY_METRICS

CONVENTION = (
    f"means over sections. {conventions(BOUNDARY_METRICS, '. ')}. "
    "Each metric has its own threshold, the best one on the validation sections"
)
"""The exact meaning of the numbers, which each evaluation contains."""


def score_section(section: BoundarySection, thresholds: Sequence[float]) -> np.ndarray:
    """All boundary metrics of one section at each threshold, (thresholds, metrics)."""
    cuts = (ThresholdedSection(section, threshold) for threshold in thresholds)
    return np.array([list(compute(BOUNDARY_METRICS, cut).values()) for cut in cuts])


def score_sections(sections: Iterable[BoundarySection], thresholds: Sequence[float]) -> np.ndarray:
    """The mean of the metrics over the sections that have objects, (thresholds, metrics).

    Raises ValueError if no section has an object.
    """
    scores = [score_section(section, thresholds) for section in sections if section.has_objects]
    if not scores:
        raise ValueError("no section holds an object to be scored")
    return np.asarray(np.mean(scores, axis=0))


def best_thresholds(thresholds: Sequence[float], scores: np.ndarray) -> dict[str, float]:
    """For each metric the threshold at which it is best, from scores (thresholds, metrics)."""
    return {
        metric.name: float(thresholds[metric.best(column.tolist())])
        for metric, column in zip(BOUNDARY_METRICS, scores.T, strict=True)
    }


def boundary_curve_rows(thresholds: Sequence[float], scores: np.ndarray) -> list[dict[str, float]]:
    """One JSON row for each threshold, from scores (thresholds, metrics)."""
    names = [metric.name for metric in BOUNDARY_METRICS]
    return [
        {"threshold": threshold, **dict(zip(names, map(float, row), strict=True))}
        for threshold, row in zip(thresholds, scores, strict=True)
    ]


def at_thresholds(
    chosen: Mapping[str, float], thresholds: Sequence[float], scores: np.ndarray
) -> dict[str, float]:
    """Each metric at its own chosen threshold, from scores (thresholds, metrics)."""
    return {
        metric.name: float(scores[list(thresholds).index(chosen[metric.name]), column])
        for column, metric in enumerate(BOUNDARY_METRICS)
    }
