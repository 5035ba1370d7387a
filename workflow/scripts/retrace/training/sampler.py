"""Random places of training patches in volumes.

A place depends only on the seed and the number of the batch. It is drawn uniformly and accepted if
enough of the block around it has ground truth (gunpowder's RandomLocation with `min_masked` and
RandomProvider).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from retrace.config.dataset_model import Entry
from retrace.errors import DataError
from retrace.geometry import Triple, VoxelBox, blocks, triple, voxels_to_cover
from retrace.planning.train_settings import TrainingDataset
from retrace.training.volumes import (
    LABELLED,
    SLAB_VOXELS,
    TrainingVolume,
    in_memory_if_room,
    open_training_volume,
    slabs,
)

Opened = TypeVar("Opened")

MAX_TRIES = 2000
TRIES_AT_ONCE = 100
MAX_CELLS = 1 << 26
"""Largest integral image (uint32 cells); larger volumes are counted in coarser cells."""


class GroundTruthCount:
    """Counts the voxels with ground truth in any box, with an integral image.

    Exact up to 2^26 voxels; above, boxes are rounded to cells of 2, 4 ... voxels per axis.
    """

    def __init__(self, volume: TrainingVolume) -> None:
        box = volume.labelled
        self.origin = np.array(box.offset)
        self.step = 1
        while box.size / self.step**3 > MAX_CELLS:
            self.step *= 2
        self.total = 0
        cells = [-(-n // self.step) for n in box.shape]
        counts = np.zeros([n + 1 for n in cells], dtype=np.uint32)
        depth = max(1, SLAB_VOXELS // (box.shape[1] * box.shape[2]) // self.step) * self.step
        for slab in blocks(box, (depth, box.shape[1], box.shape[2])):
            labelled = volume.read_codes(slab) == LABELLED
            self.total += int(labelled.sum())
            first = (slab.offset[0] - box.offset[0]) // self.step + 1
            summed = _sum_cells(labelled, self.step)
            counts[first : first + len(summed), 1:, 1:] = summed
        for axis in range(3):
            np.cumsum(counts, axis=axis, out=counts)
        self.counts = counts

    def inside(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Voxels (n,) with ground truth in the boxes [begin, end), both (n, 3) in world voxels."""
        limit = np.array(self.counts.shape) - 1
        low, high = (
            np.clip(np.round((corner - self.origin) / self.step).astype(int), 0, limit)
            for corner in (begin, end)
        )
        total = np.zeros(len(low), dtype=np.int64)
        for bits in range(8):
            corner = [high if bits >> axis & 1 else low for axis in range(3)]
            sign = -1 if (3 - bits.bit_count()) % 2 else 1
            at = tuple(corner[axis][:, axis] for axis in range(3))
            total += sign * self.counts[at].astype(np.int64)
        return total


def _sum_cells(labelled: np.ndarray, step: int) -> np.ndarray:
    """Counts of True (Z, Y, X) in cells of `step` voxels per axis."""
    if step == 1:
        return labelled
    pad = [(0, -n % step) for n in labelled.shape]
    z, y, x = np.pad(labelled, pad).shape
    cells = np.pad(labelled, pad).reshape(z // step, step, y // step, step, x // step, step)
    return cells.sum(axis=(1, 3, 5))


def _shift_range(limits: VoxelBox, needs: Sequence[VoxelBox]) -> tuple[np.ndarray, np.ndarray]:
    """First and last shift (voxels) that keep all `needs` inside `limits`; centred if none does."""
    begin = np.min([need.offset for need in needs], axis=0)
    end = np.max([need.end for need in needs], axis=0)
    low, high = np.array(limits.offset) - begin, np.array(limits.end) - end
    middle = (low + high) // 2
    fits = low <= high
    return np.where(fits, low, middle), np.where(fits, high, middle)


@dataclass(frozen=True)
class PatchSampler:
    """Draws the volume and place of a patch from the volumes of a dataset's `train` list."""

    volumes: tuple[TrainingVolume, ...]
    counts: tuple[GroundTruthCount, ...]
    padding: Triple
    min_masked: float

    def choose(self, rng: np.random.Generator) -> int:
        """Index of the volume that a batch is cut from."""
        weights = np.array([volume.probability for volume in self.volumes])
        return int(rng.choice(len(self.volumes), p=weights / weights.sum()))

    def place(
        self,
        rng: np.random.Generator,
        index: int,
        labels: VoxelBox,
        mask: VoxelBox,
        raw: VoxelBox | None = None,
    ) -> Triple:
        """A random shift (voxels) of the boxes that a patch reads.

        Uniform over the places where `labels` and `mask` stay inside the padded ground truth, `raw`
        (if set) stays inside the image, and at least `min_masked` of `mask` has ground truth.
        DataError if no place is found in 2000 tries.
        """
        volume, count = self.volumes[index], self.counts[index]
        low, high = _shift_range(volume.labelled.grow(self.padding), [labels, mask])
        if raw is not None:
            first, last = _shift_range(volume.image, [raw])
            low, high = np.maximum(low, first), np.maximum(np.minimum(high, last), low)
        best = 0.0
        for _ in range(MAX_TRIES // TRIES_AT_ONCE):
            shifts = rng.integers(low, high, size=(TRIES_AT_ONCE, 3), endpoint=True)
            begin = shifts + np.array(mask.offset)
            fraction = count.inside(begin, begin + np.array(mask.shape)) / mask.size
            good = np.flatnonzero((fraction >= self.min_masked) & (fraction > 0))
            if len(good):
                return triple(shifts[good[0]].tolist())
            best = max(best, float(fraction.max()))
        raise DataError(
            f"volume {volume.name!r}: no place found in {MAX_TRIES} tries where at least "
            f"{self.min_masked:g} of a block of {list(mask.shape)} voxels has ground truth (the "
            f"best had {best:.2f}); lower `min_masked` or `input_shape` of the network, or give a "
            "larger volume"
        )


def check_ground_truth(volume: TrainingVolume, count: GroundTruthCount) -> None:
    """DataError for a volume whose labels are empty or wholly masked."""
    if not count.total:
        raise DataError(
            f"volume {volume.name!r}: the labels are wholly masked; correct `background_ids`, or "
            "leave some of the volume for training (validation and test boxes are excluded)"
        )
    for slab in slabs(volume.labelled):
        labelled = volume.read_codes(slab) == LABELLED
        if (volume.read_labels(slab)[labelled] != 0).any():
            return
    raise DataError(
        f"volume {volume.name!r}: the labels are empty, there is no object in the part used for "
        f"training; correct `labels` ({volume.labels.name}) or `background_ids` of the dataset"
    )


class TooSmallError(DataError):
    """A volume that is smaller than a patch of the network."""


def open_unless_too_small(open_split: Callable[[], Opened]) -> Opened | None:
    """The opened validation split; None, with a printed line, if no patch fits into it.

    Training works without: a single held-out section suits networks of one section, not of several.
    """
    try:
        return open_split()
    except TooSmallError as error:
        print(f"[train] the validation split is not evaluated: {error}", flush=True)
        return None


def open_sampler(
    dataset: TrainingDataset,
    entries: Sequence[Entry],
    masks: Mapping[str, Path],
    *,
    padding_nm: Sequence[float],
    min_masked: float,
    field_of_view: Triple,
    processes: int = 1,
    is_measured: bool = False,
) -> PatchSampler:
    """Opens the volumes of `entries`; `masks`: the labels-mask store of each that has one.

    `padding_nm` (z, y, x): how far patches may extend beyond the ground truth. `field_of_view`: the
    smallest input of the network, voxels. `processes`: how many open the volumes and share the
    memory for them. `is_measured`: few patches are read, so that volumes stay where they are, and
    raw outside the entries serves as context, except in boxes that they exclude. DataError, with
    the volume's name, for one that cannot be trained on; TooSmallError if it is smaller than the
    field of view.
    """
    opened = [
        open_training_volume(dataset, e, masks.get(e.volume), has_context=is_measured)
        for e in entries
    ]
    for volume in opened:
        if any(n < m for n, m in zip(volume.image.shape, field_of_view, strict=True)):
            raise TooSmallError(
                f"volume {volume.name!r}: {list(volume.image.shape)} voxels of raw are smaller "
                f"than the field of view of the network, {list(field_of_view)}; take a larger "
                "volume or a smaller network (mtlsd_small, baseline_small)"
            )
    volumes = tuple(opened if is_measured else in_memory_if_room(opened, processes))
    counts = tuple(GroundTruthCount(volume) for volume in volumes)
    for volume, count in zip(volumes, counts, strict=True):
        check_ground_truth(volume, count)
    padding = voxels_to_cover(padding_nm, dataset.voxel_size_nm)
    return PatchSampler(volumes, counts, padding, min_masked)
