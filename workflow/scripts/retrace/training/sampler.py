"""Where training patches are cut: volumes, their ground truth, and random places in them.

A place depends only on the seed and the number of the batch. It is drawn uniformly and accepted if
enough of the block around it has ground truth (gunpowder's RandomLocation with `min_masked` and
RandomProvider).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from retrace.errors import DataError
from retrace.formats.label_values import compact
from retrace.geometry import NmBox, Triple, VoxelBox, blocks, triple
from retrace.storage.value_checks import check_labels, check_raw
from retrace.storage.volumes import Volume, open_source, open_volume

Split = TypeVar("Split")

UNLABELLED, LABELLED, EXCLUDED = 0, 1, 2
"""Codes of a voxel: without ground truth, with it, or held out for validation or test."""

MAX_TRIES = 2000
TRIES_AT_ONCE = 100
SLAB_VOXELS = 1 << 25
MAX_CELLS = 1 << 26
"""Largest integral image (uint32 cells); larger volumes are counted in coarser cells."""

MASK_ARRAY = "labels_mask"


def batch_generator(seed: int, iteration: int) -> np.random.Generator:
    """The random generator of one batch, independent of workers, order and restarts."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, iteration], dtype=np.uint64)))


def network_seed(seed: int, number: int) -> int:
    """The torch seed for a network's own randomness on one batch, such as dropout.

    Hashed, because torch's CPU generator uses only the lower 32 bits of a seed.
    """
    return int(batch_generator(seed, number).bit_generator.random_raw()) >> 1


def _slabs(box: VoxelBox) -> Iterator[VoxelBox]:
    depth = max(1, SLAB_VOXELS // max(1, box.shape[1] * box.shape[2]))
    return blocks(box, (depth, box.shape[1], box.shape[2]))


@dataclass(frozen=True)
class TrainingVolume:
    """One entry of a dataset's `train` list, its arrays opened and checked.

    Raw is read inside `visible`, labels inside `labelled`; outside, both count as absent.
    `excluded` boxes belong to validation or test. Boxes are in voxels from the world's origin.
    """

    name: str
    raw: Volume
    labels: Volume
    mask: Volume | None
    visible: VoxelBox
    labelled: VoxelBox
    excluded: tuple[VoxelBox, ...]
    background_ids: tuple[int, ...]
    probability: float

    def read_raw(self, box: VoxelBox) -> np.ndarray:
        """Raw as stored, (Z, Y, X); 0 where absent."""
        return _read_within(self.raw, box, self.visible)

    def read_codes(self, box: VoxelBox) -> np.ndarray:
        """UNLABELLED, LABELLED or EXCLUDED per voxel, (Z, Y, X) uint8."""
        inside = box.intersect(self.labelled)
        codes = np.full(box.shape, UNLABELLED, dtype=np.uint8)
        if not inside.is_empty:
            codes[inside.slices(box.offset)] = self._is_labelled(inside)
        for hole in self.excluded:
            codes[hole.intersect(box).slices(box.offset)] = EXCLUDED
        return codes

    def _is_labelled(self, box: VoxelBox) -> np.ndarray:
        if self.mask is not None:
            return (self.mask.read(box) != 0).astype(np.uint8)
        if not self.background_ids:
            return np.full(box.shape, LABELLED, dtype=np.uint8)
        return (~np.isin(self.labels.read(box), self.background_ids)).astype(np.uint8)

    def read_labels(self, box: VoxelBox) -> np.ndarray:
        """Object ids, (Z, Y, X) int32; 0 = background, absent or excluded.

        Ids too large for int32 are renumbered within the block: only equality matters in a batch.
        """
        labels = _read_within(self.labels, box, self.labelled)
        if labels.dtype.kind == "i":  # below 0: unlabelled, as in the mask
            labels[labels < 0] = 0
        for number in self.background_ids:
            if number <= np.iinfo(labels.dtype).max:
                labels[labels == labels.dtype.type(number)] = 0
        for hole in self.excluded:
            labels[hole.intersect(box).slices(box.offset)] = 0
        return _as_int32(labels)


def _read_within(volume: Volume, box: VoxelBox, limits: VoxelBox) -> np.ndarray:
    """The voxels of `box`, 0 outside `limits`; always a new array."""
    inside = box.intersect(limits)
    result = np.zeros(box.shape, dtype=volume.dtype)
    if not inside.is_empty:
        result[inside.slices(box.offset)] = volume.read(inside)
    return result


def _as_int32(labels: np.ndarray) -> np.ndarray:
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low >= 0 and high <= np.iinfo(np.int32).max:
        return labels.astype(np.int32)
    return compact(labels)


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
        (if given) stays inside the image, and at least `min_masked` of `mask` has ground truth.
        DataError if no place is found in 2000 tries.
        """
        volume, count = self.volumes[index], self.counts[index]
        low, high = _shift_range(volume.labelled.grow(self.padding), [labels, mask])
        if raw is not None:
            first, last = _shift_range(volume.visible, [raw])
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


def open_training_volume(
    dataset: Mapping[str, Any], entry: Mapping[str, Any], mask_path: Path | None
) -> TrainingVolume:
    """Opens and checks the volume of one entry of `train`; DataError if it cannot be used."""
    name = entry["volume"]
    sources = dataset["volumes"][name]
    raw, labels = open_source(sources["raw"]), open_source(sources["labels"])
    mask = open_volume(mask_path, MASK_ARRAY) if mask_path else None
    _check_agreement(name, dataset, [v for v in (raw, labels, mask) if v is not None])
    visible, labelled = raw.box, labels.box
    if entry.get("roi_nm"):
        roi = _voxels(entry["roi_nm"], raw.voxel_size_nm)
        visible, labelled = visible.intersect(roi), labelled.intersect(roi)
    _check_overlap(name, raw, labels, mask, visible, labelled)
    check_raw(raw, visible)
    check_labels(labels)
    excluded = (_voxels(box, raw.voxel_size_nm) for box in entry.get("exclude_nm") or [])
    holes = [hole.intersect(labelled) for hole in excluded]
    return TrainingVolume(
        name=name,
        raw=raw,
        labels=labels,
        mask=mask,
        visible=visible,
        labelled=labelled,
        excluded=tuple(hole for hole in holes if not hole.is_empty),
        background_ids=tuple(dataset.get("background_ids") or ()),
        probability=1.0 if entry.get("probability") is None else float(entry["probability"]),
    )


def _voxels(box: Mapping[str, Any], voxel_size_nm: Triple) -> VoxelBox:
    return NmBox(triple(box["offset"]), triple(box["shape"])).to_voxels(voxel_size_nm)


def _check_agreement(name: str, dataset: Mapping[str, Any], volumes: Sequence[Volume]) -> None:
    expected = triple(dataset["voxel_size_nm"])
    for volume in volumes:
        if volume.channels:
            raise DataError(f"{volume.name} has channels; volume {name!r} needs (z, y, x)")
        if volume.voxel_size_nm != expected:
            raise DataError(
                f"{volume.name} has voxels of {list(volume.voxel_size_nm)} nm, dataset "
                f"{dataset['name']!r} says {list(expected)} nm; correct `voxel_size_nm`"
            )


def _check_overlap(
    name: str,
    raw: Volume,
    labels: Volume,
    mask: Volume | None,
    visible: VoxelBox,
    labelled: VoxelBox,
) -> None:
    if labelled.intersect(visible).is_empty:
        raise DataError(
            f"volume {name!r}: raw and labels do not overlap (within roi_nm, if given): raw "
            f"{_nm(raw)}, labels {_nm(labels)}; correct `offset_nm` or `roi_nm` of the dataset"
        )
    if mask is not None and not mask.box.contains(labelled):
        raise DataError(
            f"{mask.name} {_nm(mask)} does not cover the labels {_nm(labels)}; delete the mask and "
            "run the rule that makes it again"
        )


def _nm(volume: Volume) -> str:
    box = volume.box.to_nm(volume.voxel_size_nm)
    return f"from {list(box.offset)} to {list(box.end)} nm"


def check_ground_truth(volume: TrainingVolume, count: GroundTruthCount) -> None:
    """DataError for a volume whose labels are empty or wholly masked."""
    if not count.total:
        raise DataError(
            f"volume {volume.name!r}: the labels are wholly masked; correct `background_ids`, or "
            "leave some of the volume for training (validation and test boxes are excluded)"
        )
    for slab in _slabs(volume.labelled):
        labelled = volume.read_codes(slab) == LABELLED
        if (volume.read_labels(slab)[labelled] != 0).any():
            return
    raise DataError(
        f"volume {volume.name!r}: the labels are empty, there is no object in the part used for "
        f"training; correct `labels` ({volume.labels.name}) or `background_ids` of the dataset"
    )


def check_classes(volume: TrainingVolume, network: str, count: int) -> None:
    """DataError for a label outside the network's classes 0 to `count` - 1."""
    for slab in _slabs(volume.labelled):
        wrong = sorted({int(v) for v in np.unique(volume.read_labels(slab)) if v >= count})
        if wrong:
            raise DataError(
                f"volume {volume.name!r}: the labels hold {wrong[:5]}, and network {network!r} has "
                f"the classes 0 to {count - 1} (`n_lab`, or the maps of a network of ZNN); correct "
                "that number or the labels, or drop `objects: classes` where they number objects"
            )


def _memory_bytes() -> int:
    """Memory to hold volumes in: half of what the machine or the job's control group has free."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        free = min(free, int(text) - used)
    return free // 2


def _volume_of_array(source: Volume, array: np.ndarray, box: VoxelBox) -> Volume:
    """A volume of `array`, the contents of `box` of `source`."""
    return replace(source, array=array, offset_nm=box.to_nm(source.voxel_size_nm).offset)


def _in_memory(volume: TrainingVolume) -> TrainingVolume:
    """The same volume with its usable part in memory (raw as stored, labels int32)."""
    raw = volume.visible
    return replace(
        labels_in_memory(volume), raw=_volume_of_array(volume.raw, volume.read_raw(raw), raw)
    )


def labels_in_memory(volume: TrainingVolume) -> TrainingVolume:
    """The same volume with its labels (int32) and its mask of known labels in memory."""
    box = volume.labelled
    mask = (volume.read_codes(box) == LABELLED).astype(np.uint8)
    return replace(
        volume,
        labels=_volume_of_array(volume.labels, volume.read_labels(box), box),
        mask=_volume_of_array(volume.labels, mask, box),
        background_ids=(),
    )


def _in_memory_if_room(
    volumes: Sequence[TrainingVolume], processes: int
) -> Iterator[TrainingVolume]:
    """Each volume, in memory while there is room; the others are read block by block."""
    room = _memory_bytes() // processes
    for volume in volumes:
        needed = volume.visible.size * volume.raw.dtype.itemsize + volume.labelled.size * 5
        if needed <= room:
            room -= needed
            yield _in_memory(volume)
        else:
            yield volume


class TooSmallError(DataError):
    """A volume that is smaller than a patch of the network."""


def open_unless_too_small(open_split: Callable[[], Split]) -> Split | None:
    """The opened validation split; None, with a printed line, if no patch fits into it.

    Training works without: a single held-out section suits networks of one section, not of several.
    """
    try:
        return open_split()
    except TooSmallError as error:
        print(f"[train] the validation split is not evaluated: {error}", flush=True)
        return None


def open_sampler(
    dataset: Mapping[str, Any],
    masks: Mapping[str, Path],
    *,
    padding_nm: Sequence[int],
    min_masked: float,
    field_of_view: Triple,
    processes: int = 1,
) -> PatchSampler:
    """Opens all entries of `train`; `masks`: the labels-mask store of each volume that has one.

    `padding_nm` (z, y, x): how far patches may extend beyond the ground truth. `field_of_view`: the
    smallest input of the network, voxels. `processes`: how many open the volumes and share the
    memory for them. DataError, with the volume's name, for one that cannot be trained on;
    TooSmallError if it is smaller than the field of view.
    """
    opened = [open_training_volume(dataset, e, masks.get(e["volume"])) for e in dataset["train"]]
    for volume in opened:
        if any(n < m for n, m in zip(volume.visible.shape, field_of_view, strict=True)):
            raise TooSmallError(
                f"volume {volume.name!r}: {list(volume.visible.shape)} voxels of raw are smaller "
                f"than the field of view of the network, {list(field_of_view)}; take a larger "
                "volume or a smaller network (mtlsd_small, baseline_small)"
            )
    volumes = tuple(_in_memory_if_room(opened, processes))
    counts = tuple(GroundTruthCount(volume) for volume in volumes)
    for volume, count in zip(volumes, counts, strict=True):
        check_ground_truth(volume, count)
    size = dataset["voxel_size_nm"]
    padding = triple([-(-p // v) for p, v in zip(padding_nm, size, strict=True)])
    return PatchSampler(volumes, counts, padding, min_masked)
