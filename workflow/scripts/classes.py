"""Scores classes of voxels: error and negative log-likelihood of the test entries.

    classes.py --settings JSON --prediction V=P.zarr ... --masks V=M.zarr ...
               --output evaluation.json --plot PNG

The settings are one JSON object: `dataset` (name, volumes, test), and `grow_boundary`,
`labels_are_classes`, `n_lab` of the network.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from retrace.elektronn.architecture import HEAD
from retrace.errors import DataError, run
from retrace.evaluation.classes import CONVENTION, Tally, probabilities_of, summary
from retrace.geometry import NmBox, VoxelBox, blocks, triple
from retrace.manifest import atomic_write, check_manifest
from retrace.named import named_paths
from retrace.progress import progress
from retrace.targets.classes import IGNORED, class_labels
from retrace.volumes import Volume, open_source, open_volume

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

SLAB = 16
"""Sections that are scored at once."""


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
    raw: Volume
    prediction: Volume
    labels: Volume
    mask: Volume | None
    settings: Mapping[str, Any]

    def slabs(self) -> Iterator[VoxelBox]:
        """Boxes that are read at once."""
        return blocks(self.box, (SLAB, *self.box.shape[1:]))

    def probabilities(self, box: VoxelBox) -> np.ndarray:
        """(C, Z, Y, X) float."""
        return probabilities_of(self.prediction.read(box))

    def classes(self, box: VoxelBox) -> np.ndarray:
        """(Z, Y, X) int64, below 0 where nothing is scored."""
        grown = self.settings["grow_boundary"]
        ring = grown["steps"] if grown else 0
        around = box.grow((ring,) * 3).intersect(self.labels.box)
        labels = self.labels.read(around)
        known = np.ones(labels.shape, bool) if self.mask is None else self.mask.read(around) != 0
        if not self.settings["labels_are_classes"]:
            # Numbers of 64 bits do not fit; only which are 0 and which are equal counts.
            ids, labels = np.unique(labels, return_inverse=True)
            labels = labels.reshape(around.shape) + int(ids[0] != 0)
        found = class_labels(
            torch.from_numpy(labels.astype(np.int64)),
            torch.from_numpy(known),
            are_classes=self.settings["labels_are_classes"],
            grow_boundary=grown,
        )
        return found.numpy()[box.slices(around.offset)]


def open_entries(
    settings: Mapping[str, Any], stores: Mapping[str, Path], masks: Mapping[str, Path]
) -> list[Entry]:
    """The labelled entries of `test`; DataError where one has nothing in common with its
    prediction."""
    found = []
    for item in settings["dataset"]["test"]:
        name = item["volume"]
        check_manifest(stores[name])
        prediction = open_volume(stores[name], HEAD)
        sources = settings["dataset"]["volumes"][name]
        labels, raw = open_source(sources["labels"]), open_source(sources["raw"])
        mask = open_volume(masks[name], "labels_mask") if name in masks else None
        box = prediction.box.intersect(labels.box)
        if item["roi_nm"]:
            roi = NmBox(triple(item["roi_nm"]["offset"]), triple(item["roi_nm"]["shape"]))
            box = box.intersect(roi.to_voxels(prediction.voxel_size_nm))
        if box.is_empty:
            raise DataError(f"{prediction.name} and {labels.name} share nothing of {item}")
        title = name if len(settings["dataset"]["test"]) == 1 else f"{name} {box.offset}"
        found.append(Entry(title, box, raw, prediction, labels, mask, settings))
    return found


def scored(entry: Entry) -> Tally:
    """Everything that is counted of an entry."""
    tally = Tally(entry.settings["n_lab"])
    slabs = list(entry.slabs())
    for box in progress(slabs, len(slabs), f"score {entry.name}", "slabs"):
        tally.add(entry.probabilities(box), entry.classes(box), entry.labels.name)
    return tally


def plot(entries: Sequence[Entry], path: Path) -> None:
    """The middle section of each entry: image, classes, and the probability of class 1."""
    shape = (len(entries), 3)
    figure, axes = pyplot.subplots(
        *shape, figsize=(12, 4 * len(entries)), layout="constrained", squeeze=False
    )
    for row, entry in zip(axes, entries, strict=True):
        begin = (entry.box.offset[0] + entry.box.shape[0] // 2, *entry.box.offset[1:])
        box = VoxelBox(begin, (1, *entry.box.shape[1:]))
        channel = () if not entry.raw.channels else (0,)
        classes = entry.classes(box)[0]
        shown = np.ma.masked_equal(classes, IGNORED)
        last = entry.settings["n_lab"] - 1
        row[0].imshow(entry.raw.read(box)[channel][0], cmap="gray")
        row[1].imshow(shown, vmin=0, vmax=last, cmap="viridis", interpolation="none")
        row[2].imshow(entry.probabilities(box)[min(1, last), 0], vmin=0, vmax=1, cmap="viridis")
        for axis, title in zip(row, (entry.name, "labels", "probability of class 1"), strict=True):
            axis.set(title=f"{title}, z {begin[0]}", xticks=[], yticks=[])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    stores, masks = named_paths(args.prediction), named_paths(args.masks)
    entries = open_entries(args.settings, stores, masks)
    tallies = {entry.name: scored(entry) for entry in entries}
    content = {
        "dataset": args.settings["dataset"]["name"],
        "convention": CONVENTION,
        "volumes": {name: summary(tally) for name, tally in tallies.items()},
        "all": summary(sum(tallies.values(), Tally(args.settings["n_lab"]))),
    }
    plot(entries, args.plot)
    atomic_write(args.output, json.dumps(content, indent=1) + "\n")
    for name, tally in tallies.items():
        found = summary(tally)
        print(
            f"{name}: error {found['error']:.4f}, NLL {found['nll']:.4f}; knowing the shares of "
            f"the classes alone {found['error_of_commonest']:.4f} and {found['nll_of_shares']:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    run(main)
