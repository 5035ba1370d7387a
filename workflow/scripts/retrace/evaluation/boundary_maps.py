"""Scores predicted boundary maps: thresholds from validation sections, metrics of test sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from retrace.errors import DataError
from retrace.evaluation.boundaries import (
    CONVENTION,
    at_thresholds,
    best_thresholds,
    boundary_curve_rows,
    score_sections,
)
from retrace.evaluation.boundary_sections import BoundarySection, objects_of_section
from retrace.evaluation.metrics import BOUNDARY_METRICS
from retrace.evaluation.plots import write_png
from retrace.evaluation.voxelwise import ScoredPrediction
from retrace.formats.label_values import compact
from retrace.geometry import VoxelBox
from retrace.progress import progress
from retrace.targets.boundary import grow_boundary


@dataclass(frozen=True)
class BoundaryScores:
    """Scores (thresholds, metrics) of the validation entries together, and of each test entry."""

    thresholds: Sequence[float]
    validation_entries: Sequence[str]
    validation: np.ndarray
    test: Mapping[str, np.ndarray]
    coverage: Mapping[str, Mapping[str, int]]
    """Of each test entry, how many voxels were scored and labelled."""

    @property
    def chosen(self) -> dict[str, float]:
        """For each metric the threshold that is best on the validation entries."""
        return best_thresholds(self.thresholds, self.validation)

    def at_chosen(self, entry: str) -> dict[str, float]:
        """Each metric of a test entry at its own threshold."""
        return at_thresholds(self.chosen, self.thresholds, self.test[entry])

    def as_dict(self) -> dict[str, Any]:
        """The scores as JSON values."""
        return {
            "convention": CONVENTION,
            "thresholds": self.chosen,
            "thresholds_chosen_on": list(self.validation_entries),
            "validation": boundary_curve_rows(self.thresholds, self.validation),
            "volumes": {
                name: {
                    **self.at_chosen(name),
                    **self.coverage[name],
                    "curve": boundary_curve_rows(self.thresholds, scores),
                    "curve_note": "not used to choose the thresholds",
                }
                for name, scores in self.test.items()
            },
        }


def score_boundary_maps(
    validation: Sequence[ScoredPrediction],
    test: Sequence[ScoredPrediction],
    thresholds: Sequence[float],
    grow_steps: int | None,
) -> BoundaryScores:
    """Scores predictions (C, Z, Y, X) whose channel 0 is the inside of cells.

    `grow_steps`: erosion of each label within its section, voxels; None: labels have boundaries.
    Raises DataError if an entry has no object.
    """
    curves = [score_entry(entry, grow_steps, thresholds) for entry in validation]
    names = [entry.name for entry in validation]
    of_test = {entry.name: score_entry(entry, grow_steps, thresholds) for entry in test}
    coverage = {entry.name: entry.coverage() for entry in test}
    return BoundaryScores(thresholds, names, np.mean(curves, axis=0), of_test, coverage)


def score_entry(
    entry: ScoredPrediction, grow_steps: int | None, thresholds: Sequence[float]
) -> np.ndarray:
    """The mean metrics over the sections of an entry, (thresholds, metrics)."""
    depth = entry.box.shape[0]
    sections = progress(_sections(entry, grow_steps), depth, f"score {entry.name}", "sections")
    try:
        return score_sections(sections, thresholds)
    except ValueError as error:
        raise DataError(f"{entry.labels.name}: {error}; correct `labels` of the dataset") from error


def _sections(entry: ScoredPrediction, grow_steps: int | None) -> Iterator[BoundarySection]:
    box = entry.box
    for z in range(box.offset[0], box.end[0]):
        part = VoxelBox((z, *box.offset[1:]), (1, *box.shape[1:]))
        interior = entry.prediction.read(part)[0, 0]
        scale = 255.0 if interior.dtype == np.uint8 else 1.0
        labels, known = entry.labels.read(part), entry.known(part)
        if grow_steps:
            numbers = torch.from_numpy(compact(labels))
            labels = grow_boundary(numbers, torch.from_numpy(known), grow_steps, True).numpy()
        yield BoundarySection(interior / scale, objects_of_section(labels[0]), known[0])


def plot_boundary_scores(scores: BoundaryScores, path: Path) -> None:
    """Writes a PNG: each metric of every test entry against the threshold; dotted: the chosen."""
    figure = Figure(figsize=(4 * len(BOUNDARY_METRICS), 3.5), layout="constrained")
    panels = figure.subplots(1, len(BOUNDARY_METRICS), squeeze=False)[0]
    for column, (metric, axes) in enumerate(zip(BOUNDARY_METRICS, panels, strict=True)):
        for name, values in scores.test.items():
            axes.plot(scores.thresholds, values[:, column], label=name)
        axes.axvline(scores.chosen[metric.name], color="grey", linestyle=":")
        axes.set(title=metric.heading, xlabel="threshold")
    panels[0].legend(fontsize="small")
    write_png(figure, path, dpi=120)
