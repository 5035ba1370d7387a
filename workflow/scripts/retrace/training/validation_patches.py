"""Validation on fixed patches: the terms of the loss, and the VOI of a small segmentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from retrace.config.datasets import ISOTROPIC_BELOW
from retrace.cropping import middle
from retrace.device import uses_bf16
from retrace.errors import DataError
from retrace.evaluation.contingency import count_block
from retrace.evaluation.curve import best_threshold, pooled, threshold_curve
from retrace.evaluation.scores import Scores
from retrace.files import digest
from retrace.geometry import NmTriple
from retrace.planning.train_settings import TrainingDataset, TrainingExamples
from retrace.segmentation.agglomerate import region_graph
from retrace.segmentation.fragments import renumber, watershed_fragments
from retrace.segmentation.lut import threshold_list
from retrace.segmentation.region_graph import RegionGraph
from retrace.training.task import Batch, Measurement, Picture, Task, TrainingInputs
from retrace.training.validation import FixedBatches, mean_values
from retrace.training.validation_picture import validation_image

PATCHES = 3
"""Patches of a measurement; at the shortest interval they cost about 3 % of the training."""
SEED = 0
"""Seed of their places: all trainings on a dataset are measured on the same patches."""
LARGEST = (64, 128, 128)
"""Largest box (z, y, x) that is segmented, voxels."""
THRESHOLDS = threshold_list(0, 1, 0.05)
MERGE_FUNCTION = "hist_quant_75"


@dataclass(frozen=True)
class LabelledAffinities:
    """What a VOI is computed from: affinities (C, Z, Y, X) in [0, 1], and labels (Z, Y, X)."""

    affinities: Tensor
    labels: Tensor


@dataclass(frozen=True)
class PatchValidation(FixedBatches):
    """Measures networks on fixed patches.

    `affinities`: from outputs and batch what is segmented; None for networks without affinities.
    """

    in_xy: bool = False
    """Whether fragments are made section by section."""
    affinities: Callable[[Mapping[str, Tensor], Batch], LabelledAffinities] | None = None

    def measure(self, module: nn.Module, iteration: int) -> Measurement:
        """The means over the patches of the loss and its terms, and the VOI of all patches."""
        rows, segmented = [], []
        pictures: Mapping[str, Picture] = {}
        for batch, outputs, row in self.measured(module):
            rows.append(row)
            pictures = pictures or self.task.pictures(outputs, batch)
            if self.affinities is not None:
                segmented.append(threshold_scores(self.affinities(outputs, batch), self.in_xy))
        return Measurement({**mean_values(rows), **_best(segmented)}, validation_image(pictures))


def threshold_scores(sample: LabelledAffinities, in_xy: bool) -> list[Scores] | None:
    """The scores at each of THRESHOLDS of a patch; None if no voxel has a label."""
    labels = middle(sample.labels, LARGEST).cpu().numpy()
    if not labels.any():
        return None
    affinities = np.ascontiguousarray(middle(sample.affinities, LARGEST).float().cpu().numpy())
    fragments = renumber(watershed_fragments(affinities, in_xy=in_xy))
    graph = RegionGraph(*region_graph(affinities, fragments, MERGE_FUNCTION))
    return threshold_curve(count_block(fragments, labels), graph, THRESHOLDS)


def _best(curves: Sequence[list[Scores] | None]) -> dict[str, float | None]:
    """VOI of all patches together at their best threshold; nothing without a segmentation."""
    known = [curve for curve in curves if curve is not None]
    if not known:
        return {}
    scores = pooled(known)
    threshold = best_threshold(THRESHOLDS, scores)
    best = scores[THRESHOLDS.index(threshold)]
    values: dict[str, float | None] = {n: best[n] for n in ("voi_sum", "voi_split", "voi_merge")}
    return {**values, "threshold": threshold}


def identity_of(inputs: TrainingInputs) -> str:
    """A digest of the validation entries, their volumes, and how patches are chosen.

    In a job, also of the versions of files that are only measured on; the others name the work.
    """
    dataset = inputs.settings.dataset
    if isinstance(dataset, TrainingExamples):
        return digest(dataset.examples.plain())
    entries = [entry.plain() for entry in dataset.validation]
    names = sorted({entry.volume for entry in dataset.validation})
    volumes = [dataset.volumes[name].plain() for name in names]
    return digest([entries, volumes, inputs.measured, PATCHES, SEED])


def is_anisotropic(voxel_size_nm: NmTriple) -> bool:
    """Whether a segmentation begins section by section."""
    return max(voxel_size_nm) / min(voxel_size_nm) >= ISOTROPIC_BELOW


def patch_validation(
    task: Task,
    inputs: TrainingInputs,
    affinities: Callable[[Mapping[str, Tensor], Batch], LabelledAffinities] | None,
) -> PatchValidation | None:
    """Measures on the first batches of a task of the validation split.

    None, with a printed line, where no patch has a label.
    """
    settings = inputs.settings
    dataset = settings.dataset
    assert isinstance(dataset, TrainingDataset)
    try:
        batches = [task.batch(number) for number in range(PATCHES)]
    except DataError as error:
        print(f"[train] the validation split is not evaluated: {error}", flush=True)
        return None
    return PatchValidation(
        task,
        batches,
        every=settings.validation.every,
        bf16=uses_bf16(settings.precision, inputs.device),
        identity=identity_of(inputs),
        in_xy=is_anisotropic(dataset.voxel_size_nm),
        affinities=affinities,
    )
