"""Scores boundary maps: thresholds chosen on validation sections, metrics of the test sections.

    boundaries.py --settings JSON --prediction V=P.zarr ... --masks V=M.zarr ...
                  --output evaluation.json --plot PNG

The settings are one JSON object: `dataset` (name, volumes, validation, test), `array` of the
prediction, whose channel 0 is the inside of cells, `grow_boundary` of the network, and `thresholds`
[low, high, step].
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from retrace.errors import DataError, run
from retrace.evaluation.boundaries import (
    CONVENTION,
    METRICS,
    Section,
    best_thresholds,
    score_sections,
    true_objects,
)
from retrace.evaluation.voxelwise import Entry, open_entries, parse_args
from retrace.files import atomic_write
from retrace.formats.label_values import compact
from retrace.geometry import VoxelBox
from retrace.progress import progress
from retrace.segmentation.lut import threshold_list
from retrace.storage.reads import origin_of_opened
from retrace.storage.volumes import recording_opened
from retrace.targets.boundary import grow_boundary

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402


def sections(entry: Entry, grow: Mapping[str, Any] | None) -> Iterator[Section]:
    """The sections of an entry one after the other, boundaries grown as `grow` says."""
    for z in range(entry.box.offset[0], entry.box.end[0]):
        yield _section(entry, grow, VoxelBox((z, *entry.box.offset[1:]), (1, *entry.box.shape[1:])))


def _section(entry: Entry, grow: Mapping[str, Any] | None, part: VoxelBox) -> Section:
    values = entry.prediction.read(part)[0, 0]
    scale = 255.0 if values.dtype == np.uint8 else 1.0
    labels, known = entry.labels.read(part), entry.known(part)
    if grow:
        numbers = torch.from_numpy(compact(labels))
        labels = grow_boundary(numbers, torch.from_numpy(known), grow["steps"], True).numpy()
    return Section(values / scale, true_objects(labels[0]), known[0])


def scored(entry: Entry, grow: Mapping[str, Any] | None, thresholds: Sequence[float]) -> np.ndarray:
    """The metrics of an entry, (thresholds, 3); DataError where it holds no object."""
    depth = entry.box.shape[0]
    found = progress(sections(entry, grow), depth, f"score {entry.name}", "sections")
    try:
        return score_sections(found, thresholds)
    except ValueError as error:
        raise DataError(f"{entry.labels.name}: {error}; correct `labels` of the dataset") from error


def as_rows(thresholds: Sequence[float], scores: np.ndarray) -> list[dict[str, float]]:
    """One row a threshold."""
    return [
        {"threshold": t, **dict(zip(METRICS, map(float, row), strict=True))}
        for t, row in zip(thresholds, scores, strict=True)
    ]


def at_thresholds(
    chosen: Mapping[str, float], thresholds: Sequence[float], scores: np.ndarray
) -> dict[str, float]:
    """Each metric at its own threshold."""
    return {
        metric: float(scores[list(thresholds).index(chosen[metric]), column])
        for column, metric in enumerate(METRICS)
    }


def plot(
    curves: Mapping[str, np.ndarray],
    thresholds: Sequence[float],
    chosen: Mapping[str, float],
    path: Path,
) -> None:
    """The metrics of every test entry at every threshold, the chosen ones marked."""
    figure, axes = pyplot.subplots(1, len(METRICS), figsize=(12, 3.5), layout="constrained")
    for column, (metric, axis) in enumerate(zip(METRICS, axes, strict=True)):
        for name, scores in curves.items():
            axis.plot(thresholds, scores[:, column], label=name)
        axis.axvline(chosen[metric], color="grey", linestyle=":")
        axis.set(title=metric, xlabel="threshold")
    axes[0].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    begun, args = time.monotonic(), parse_args(argv, __doc__)
    settings, grow = args.settings, args.settings["grow_boundary"]
    files = settings["array"], args.prediction, args.masks
    thresholds = threshold_list(*settings["thresholds"])
    with recording_opened() as opened:
        held_out = open_entries(settings["dataset"], "validation", *files)
        on_validation = np.mean([scored(entry, grow, thresholds) for entry in held_out], axis=0)
        chosen = best_thresholds(thresholds, on_validation)
        curves = {
            entry.name: scored(entry, grow, thresholds)
            for entry in open_entries(settings["dataset"], "test", *files)
        }
    content = {
        "dataset": settings["dataset"]["name"],
        "convention": CONVENTION,
        "thresholds": chosen,
        "thresholds_chosen_on": [entry.name for entry in held_out],
        "validation": as_rows(thresholds, on_validation),
        "volumes": {
            name: {
                **at_thresholds(chosen, thresholds, scores),
                "curve": as_rows(thresholds, scores),
                "curve_note": "not used to choose the thresholds",
            }
            for name, scores in curves.items()
        },
        "origin": origin_of_opened(opened, [], settings, time.monotonic() - begun),
    }
    plot(curves, thresholds, chosen, args.plot)
    atomic_write(args.output, json.dumps(content, indent=1) + "\n")
    for name, scores in curves.items():
        found = at_thresholds(chosen, thresholds, scores)
        print(f"{name}: " + ", ".join(f"{k} {v:.4f}" for k, v in found.items()), flush=True)


if __name__ == "__main__":
    run(main)
