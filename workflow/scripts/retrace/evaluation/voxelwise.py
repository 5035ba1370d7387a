"""What programs that score predictions voxel by voxel share: command line, and entries of a split.

An entry is a box of a volume that its prediction, its labels and its region of interest share.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrace.command_line import add_job, parse_job
from retrace.errors import DataError
from retrace.geometry import NmBox, VoxelBox, triple
from retrace.storage.manifest import check_manifest
from retrace.storage.volumes import Volume, open_source, open_volume


def parse_args(argv: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """`settings`, `prediction` and `masks` by volume, `output` and `plot`."""
    parser = argparse.ArgumentParser(description=description)
    add_job(parser, files_by_name=["prediction", "masks"])
    parser.add_argument("--output", required=True, type=Path, help="evaluation.json")
    parser.add_argument("--plot", required=True, type=Path, help="png")
    return parse_job(parser, argv)


@dataclass(frozen=True)
class Entry:
    """What is scored of one volume, and what it is read from."""

    name: str
    """The volume, with the box where a split has several entries."""
    box: VoxelBox
    prediction: Volume
    labels: Volume
    mask: Volume | None
    sources: Mapping[str, Any]
    """The volume in the dataset."""

    def known(self, box: VoxelBox) -> np.ndarray:
        """Bool (Z, Y, X): where labels count."""
        return np.ones(box.shape, bool) if self.mask is None else self.mask.read(box) != 0


def open_entries(
    dataset: Mapping[str, Any],
    split: str,
    array: str,
    stores: Mapping[str, Path],
    masks: Mapping[str, Path],
) -> list[Entry]:
    """The entries of `validation` or `test`; `array`: of the stores, VOLUME to prediction.zarr.

    DataError where an entry has nothing in common with its prediction.
    """
    return [
        _open_entry(dataset, item, len(dataset[split]), array, stores, masks)
        for item in dataset[split]
    ]


def _open_entry(
    dataset: Mapping[str, Any],
    item: Mapping[str, Any],
    entries: int,
    array: str,
    stores: Mapping[str, Path],
    masks: Mapping[str, Path],
) -> Entry:
    name = item["volume"]
    check_manifest(stores[name])
    sources = dataset["volumes"][name]
    prediction, labels = open_volume(stores[name], array), open_source(sources["labels"])
    mask = open_volume(masks[name], "labels_mask") if name in masks else None
    box = prediction.box.intersect(labels.box)
    if item["roi_nm"]:
        roi = NmBox(triple(item["roi_nm"]["offset"]), triple(item["roi_nm"]["shape"]))
        box = box.intersect(roi.to_voxels(prediction.voxel_size_nm))
    if box.is_empty:
        raise DataError(f"{prediction.name} and {labels.name} share nothing of {item}")
    title = name if entries == 1 else f"{name} {box.offset}+{box.shape}"
    return Entry(title, box, prediction, labels, mask, sources)
