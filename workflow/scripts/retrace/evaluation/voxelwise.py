"""Predictions that are scored voxel by voxel, without segmentation: boundary maps and classes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrace.command_line import add_job, parse_job
from retrace.errors import DataError
from retrace.evaluation.coverage import LABELLED, SCORED
from retrace.evaluation.dataset import open_labels
from retrace.formats.label_ids import background_values, is_known
from retrace.geometry import VoxelBox
from retrace.planning.scored_dataset import ScoredDataset, ScoredEntry, ScoredSplit
from retrace.storage.manifest import check_manifest
from retrace.storage.volumes import Volume, open_volume


def parse_args(argv: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """The command line: a job with predictions and masks by volume, and the files to write."""
    parser = argparse.ArgumentParser(description=description)
    add_job(parser, files_by_name=["prediction", "masks"])
    parser.add_argument("--output", required=True, type=Path, help="evaluation.json")
    parser.add_argument("--plot", required=True, type=Path, help="png")
    return parse_job(parser, argv)


@dataclass(frozen=True)
class ScoredPrediction:
    """A prediction (C, Z, Y, X) and labels (Z, Y, X) of one entry, and the box to score."""

    name: str
    """The volume, with the box if its split has several entries."""
    entry: ScoredEntry
    box: VoxelBox
    """What prediction, labels and region of interest have in common, world voxels."""
    prediction: Volume
    labels: Volume
    mask: Volume | None
    background_ids: tuple[int, ...] = ()

    def coverage(self) -> dict[str, int]:
        """Voxels of the labelled region that are scored, and all of its voxels."""
        region = self.labels.box
        if self.entry.roi_nm:
            region = region.intersect(self.entry.roi_nm.to_voxels(self.labels.voxel_size_nm))
        return {SCORED: self.box.size, LABELLED: region.size}

    def known(self, box: VoxelBox) -> np.ndarray:
        """Where the labels of `box` count, (Z, Y, X) bool."""
        if self.mask is not None:
            return self.mask.read(box) != 0
        labels = self.labels.read(box)
        return is_known(labels, background_values(self.background_ids, labels.dtype))


def open_predictions(
    dataset: ScoredDataset,
    split: ScoredSplit,
    array: str,
    stores: Mapping[str, Path],
    masks: Mapping[str, Path],
) -> list[ScoredPrediction]:
    """The array `array` of the predictions of a split; `stores`: prediction.zarr by volume.

    Raises DataError if a prediction, its labels and the region have no voxel in common.
    """
    entries = dataset.entries(split)
    return [
        _open(dataset, entry, len(entries), array, stores[entry.volume], masks) for entry in entries
    ]


def _open(
    dataset: ScoredDataset,
    entry: ScoredEntry,
    entries: int,
    array: str,
    store: Path,
    masks: Mapping[str, Path],
) -> ScoredPrediction:
    check_manifest(store)
    prediction, labels = open_volume(store, array), open_labels(dataset, entry)
    name = entry.volume
    mask = open_volume(masks[name], "labels_mask") if name in masks else None
    box = prediction.box.intersect(labels.box)
    if entry.roi_nm:
        box = box.intersect(entry.roi_nm.to_voxels(prediction.voxel_size_nm))
    if box.is_empty:
        raise DataError(
            f"{prediction.name} and {labels.name} have no voxel of {entry.name} in common"
        )
    title = name if entries == 1 else f"{name} {box.offset}+{box.shape}"
    background = dataset.background_ids
    return ScoredPrediction(title, entry, box, prediction, labels, mask, background)
