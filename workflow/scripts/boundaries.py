"""Scores boundary maps: thresholds chosen on validation sections, metrics of the test sections.

    boundaries.py --settings JSON --prediction V=P.zarr ... --masks V=M.zarr ...
                  --output evaluation.json --plot PNG

The settings are one JSON object: `dataset` (name, volumes, validation, test), `array` of the
prediction, whose channel 0 is the inside of cells, `grow_boundary` of the network, and `thresholds`
[low, high, step].
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from retrace.geometry import NmBox, VoxelBox, triple
from retrace.manifest import atomic_write, check_manifest
from retrace.named import named_paths
from retrace.progress import progress
from retrace.segmentation.lut import threshold_list
from retrace.targets.boundary import grow_boundary
from retrace.volumes import Volume, noting_opened, open_source, open_volume, origin_of

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, type=json.loads, help="one JSON object")
    for name in ("prediction", "masks"):
        parser.add_argument(f"--{name}", nargs="*", default=[], metavar="VOLUME=PATH")
    parser.add_argument("--output", required=True, type=Path, help="evaluation.json")
    parser.add_argument("--plot", required=True, type=Path, help="png")
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Entry:
    """What is scored of one volume, and the volumes it is read from."""

    name: str
    box: VoxelBox
    prediction: Volume
    labels: Volume
    mask: Volume | None
    grow: Mapping[str, Any] | None

    def sections(self) -> Iterator[Section]:
        """The sections one after the other."""
        for z in range(self.box.offset[0], self.box.end[0]):
            yield self._section(VoxelBox((z, *self.box.offset[1:]), (1, *self.box.shape[1:])))

    def _section(self, part: VoxelBox) -> Section:
        values = self.prediction.read(part)[0, 0]
        scale = 255.0 if values.dtype == np.uint8 else 1.0
        labels = self.labels.read(part)
        known = np.ones(labels.shape, bool) if self.mask is None else self.mask.read(part) != 0
        if self.grow:
            as_numbers = torch.from_numpy(np.unique(labels, return_inverse=True)[1])
            as_numbers = as_numbers.reshape(labels.shape) + int(labels.min() != 0)
            grown = grow_boundary(as_numbers, torch.from_numpy(known), self.grow["steps"], True)
            labels = grown.numpy()
        return Section(values / scale, true_objects(labels[0]), known[0])


def open_entries(
    settings: Mapping[str, Any], split: str, stores: Mapping[str, Path], masks: Mapping[str, Path]
) -> list[Entry]:
    """The labelled entries of `validation` or `test`; DataError where one has nothing in common
    with its prediction."""
    found = []
    for item in settings["dataset"][split]:
        name = item["volume"]
        check_manifest(stores[name])
        prediction = open_volume(stores[name], settings["array"])
        labels = open_source(settings["dataset"]["volumes"][name]["labels"])
        mask = open_volume(masks[name], "labels_mask") if name in masks else None
        box = prediction.box.intersect(labels.box)
        if item["roi_nm"]:
            roi = NmBox(triple(item["roi_nm"]["offset"]), triple(item["roi_nm"]["shape"]))
            box = box.intersect(roi.to_voxels(prediction.voxel_size_nm))
        if box.is_empty:
            raise DataError(f"{prediction.name} and {labels.name} share nothing of {item}")
        title = name if len(settings["dataset"][split]) == 1 else f"{name} {box.offset}+{box.shape}"
        found.append(Entry(title, box, prediction, labels, mask, settings["grow_boundary"]))
    return found


def scored(entry: Entry, thresholds: Sequence[float]) -> np.ndarray:
    """The metrics of an entry, (thresholds, 3); DataError where it holds no object."""
    depth = entry.box.shape[0]
    sections = progress(entry.sections(), depth, f"score {entry.name}", "sections")
    try:
        return score_sections(sections, thresholds)
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
    begun, args = time.monotonic(), parse_args(argv)
    settings, masks = args.settings, named_paths(args.masks)
    stores = named_paths(args.prediction)
    thresholds = threshold_list(*settings["thresholds"])
    with noting_opened() as opened:
        held_out = open_entries(settings, "validation", stores, masks)
        on_validation = np.mean([scored(entry, thresholds) for entry in held_out], axis=0)
        chosen = best_thresholds(thresholds, on_validation)
        curves = {
            entry.name: scored(entry, thresholds)
            for entry in open_entries(settings, "test", stores, masks)
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
        "origin": origin_of(opened, [], settings, time.monotonic() - begun),
    }
    plot(curves, thresholds, chosen, args.plot)
    atomic_write(args.output, json.dumps(content, indent=1) + "\n")
    for name, scores in curves.items():
        found = at_thresholds(chosen, thresholds, scores)
        print(f"{name}: " + ", ".join(f"{k} {v:.4f}" for k, v in found.items()), flush=True)


if __name__ == "__main__":
    run(main)
