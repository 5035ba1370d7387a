"""Scores predicted classes of voxels, section by section, and draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from retrace.evaluation.class_tally import ClassTally, probabilities_of
from retrace.evaluation.plots import write_png
from retrace.evaluation.voxelwise import ScoredPrediction
from retrace.formats.label_values import compact
from retrace.geometry import VoxelBox, blocks
from retrace.progress import progress
from retrace.setting_types import GrowBoundary
from retrace.storage.volumes import Volume
from retrace.targets.classes import IGNORED, class_labels

SLAB = 16
"""Number of sections that are scored at once."""


@dataclass(frozen=True)
class ClassMap:
    """A prediction of classes (C, Z, Y, X), with the raw and the meaning of the labels.

    `are_classes`: whether label values are classes. Otherwise they are objects, and class 1 is the
    boundary: label 0, and the voxels that `grow_boundary` (steps, only_xy) erodes from objects.
    """

    scored: ScoredPrediction
    raw: Volume
    classes: int
    are_classes: bool
    grow_boundary: GrowBoundary | None

    def probabilities(self, box: VoxelBox) -> np.ndarray:
        """The probability of each class, (C, Z, Y, X) float."""
        return probabilities_of(self.scored.prediction.read(box))

    def labels(self, box: VoxelBox) -> np.ndarray:
        """The class of each voxel, (Z, Y, X) int64; negative where no class is scored."""
        ring = self.grow_boundary.steps if self.grow_boundary else 0
        around = box.grow((ring,) * 3).intersect(self.scored.labels.box)
        values = self.scored.labels.read(around)
        classes = class_labels(
            torch.from_numpy(_as_int64(values if self.are_classes else compact(values))),
            torch.from_numpy(self.scored.known(around)),
            are_classes=self.are_classes,
            boundary_steps=ring,
            only_xy=bool(self.grow_boundary and self.grow_boundary.only_xy),
        )
        return np.asarray(classes.numpy()[box.slices(around.offset)])

    def tally(self) -> ClassTally:
        """The counts of this entry."""
        tally, scored = ClassTally(self.classes), self.scored
        slabs = list(blocks(scored.box, (SLAB, *scored.box.shape[1:])))
        for box in progress(slabs, len(slabs), f"score {scored.name}", "slabs"):
            tally.add(self.probabilities(box), self.labels(box), scored.labels.name)
        return tally


def _as_int64(labels: np.ndarray) -> np.ndarray:
    """Labels as int64, same shape; what is too large becomes the largest number, never negative."""
    if labels.dtype.kind == "u":
        labels = np.minimum(labels.astype(np.uint64), np.iinfo(np.int64).max)
    return labels.astype(np.int64)


def plot_class_maps(maps: Sequence[ClassMap], path: Path) -> None:
    """Writes a PNG of the middle section of each entry: raw, labels, probability of class 1."""
    figure = Figure(figsize=(12, 4 * len(maps)), layout="constrained")
    for row, one in zip(figure.subplots(len(maps), 3, squeeze=False), maps, strict=True):
        box = one.scored.box
        z = box.offset[0] + box.shape[0] // 2
        section = VoxelBox((z, *box.offset[1:]), (1, *box.shape[1:]))
        channel = () if not one.raw.channels else (0,)
        last = one.classes - 1
        labels = np.ma.masked_equal(one.labels(section)[0], IGNORED)
        row[0].imshow(one.raw.read(section)[channel][0], cmap="gray")
        row[1].imshow(labels, vmin=0, vmax=last, cmap="viridis", interpolation="none")
        probability = one.probabilities(section)[min(1, last), 0]
        row[2].imshow(probability, vmin=0, vmax=1, cmap="viridis")
        titles = (one.scored.name, "labels", "probability of class 1")
        for axes, title in zip(row, titles, strict=True):
            axes.set(title=f"{title}, z {z}", xticks=[], yticks=[])
    write_png(figure, path, dpi=100)
