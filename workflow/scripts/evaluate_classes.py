"""Scores classes of voxels: error and negative log-likelihood of the test entries.

    classes.py --settings JSON --prediction V=P.zarr ... --masks V=M.zarr ...
               --output evaluation.json --plot PNG

The settings are one JSON object: `dataset` (name, volumes, test), and `grow_boundary`,
`labels_are_classes`, `n_lab` of the network.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from retrace.elektronn.architecture import HEAD
from retrace.errors import run
from retrace.evaluation.classes import CONVENTION, Tally, probabilities_of, summary
from retrace.evaluation.voxelwise import Entry, open_entries, parse_args
from retrace.files import atomic_write
from retrace.formats.label_values import compact
from retrace.geometry import VoxelBox, blocks
from retrace.progress import progress
from retrace.storage.reads import origin_of_opened
from retrace.storage.volumes import Volume, open_source, recording_opened
from retrace.targets.classes import IGNORED, class_labels

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

SLAB = 16
"""Sections that are scored at once."""


@dataclass(frozen=True)
class Classified:
    """An entry with what its network says about labels and classes."""

    entry: Entry
    raw: Volume
    settings: Mapping[str, Any]

    def slabs(self) -> Iterator[VoxelBox]:
        """Boxes that are read at once."""
        return blocks(self.entry.box, (SLAB, *self.entry.box.shape[1:]))

    def probabilities(self, box: VoxelBox) -> np.ndarray:
        """(C, Z, Y, X) float."""
        return probabilities_of(self.entry.prediction.read(box))

    def classes(self, box: VoxelBox) -> np.ndarray:
        """(Z, Y, X) int64, below 0 where nothing is scored."""
        grown, are_classes = (self.settings[k] for k in ("grow_boundary", "labels_are_classes"))
        ring = grown["steps"] if grown else 0
        around = box.grow((ring,) * 3).intersect(self.entry.labels.box)
        labels = self.entry.labels.read(around)
        found = class_labels(
            torch.from_numpy((labels if are_classes else compact(labels)).astype(np.int64)),
            torch.from_numpy(self.entry.known(around)),
            are_classes=are_classes,
            grow_boundary=grown,
        )
        return found.numpy()[box.slices(around.offset)]


def scored(found: Classified) -> Tally:
    """Everything that is counted of an entry."""
    tally = Tally(found.settings["n_lab"])
    slabs, entry = list(found.slabs()), found.entry
    for box in progress(slabs, len(slabs), f"score {entry.name}", "slabs"):
        tally.add(found.probabilities(box), found.classes(box), entry.labels.name)
    return tally


def plot(entries: Sequence[Classified], path: Path) -> None:
    """The middle section of each entry: image, classes, and the probability of class 1."""
    shape = (len(entries), 3)
    figure, axes = pyplot.subplots(
        *shape, figsize=(12, 4 * len(entries)), layout="constrained", squeeze=False
    )
    for row, found in zip(axes, entries, strict=True):
        entry = found.entry
        begin = (entry.box.offset[0] + entry.box.shape[0] // 2, *entry.box.offset[1:])
        box = VoxelBox(begin, (1, *entry.box.shape[1:]))
        channel = () if not found.raw.channels else (0,)
        classes = found.classes(box)[0]
        shown = np.ma.masked_equal(classes, IGNORED)
        last = found.settings["n_lab"] - 1
        row[0].imshow(found.raw.read(box)[channel][0], cmap="gray")
        row[1].imshow(shown, vmin=0, vmax=last, cmap="viridis", interpolation="none")
        row[2].imshow(found.probabilities(box)[min(1, last), 0], vmin=0, vmax=1, cmap="viridis")
        for axis, title in zip(row, (entry.name, "labels", "probability of class 1"), strict=True):
            axis.set(title=f"{title}, z {begin[0]}", xticks=[], yticks=[])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    begun = time.monotonic()
    args = parse_args(argv, __doc__)
    stores, masks = args.prediction, args.masks
    with recording_opened() as opened:
        entries = [
            Classified(entry, open_source(entry.sources["raw"]), args.settings)
            for entry in open_entries(args.settings["dataset"], "test", HEAD, stores, masks)
        ]
        tallies = {found.entry.name: scored(found) for found in entries}
    content = {
        "dataset": args.settings["dataset"]["name"],
        "convention": CONVENTION,
        "volumes": {name: summary(tally) for name, tally in tallies.items()},
        "all": summary(sum(tallies.values(), Tally(args.settings["n_lab"]))),
        "origin": origin_of_opened(opened, [], args.settings, time.monotonic() - begun),
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
