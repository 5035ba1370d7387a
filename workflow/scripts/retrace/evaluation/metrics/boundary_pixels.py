"""Pixel error of a boundary map."""

from __future__ import annotations

from retrace.evaluation.boundary_sections import BoundarySection, ThresholdedSection
from retrace.evaluation.metric import Metric


def pixel_error(section: BoundarySection, threshold: float) -> float:
    """Fraction of the voxels with ground truth that are on the wrong side of `threshold`."""
    wrong = (section.interior > threshold) != (section.ground_truth > 0)
    return float(wrong[section.known].mean())


BOUNDARY_METRICS: tuple[Metric[ThresholdedSection], ...] = (
    Metric(
        "pixel_error",
        "pixel error",
        "fraction of voxels on the wrong side of the threshold",
        better="lower",
        value=lambda cut: pixel_error(cut.section, cut.threshold),
        convention="pixel_error: share of voxels on the wrong side of the threshold",
        in_tables=True,
    ),
)
