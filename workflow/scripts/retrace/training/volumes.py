"""Volumes to train on: raw, labels and where these are known, opened, checked, and in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrace.config.dataset_model import Entry
from retrace.config.network_settings import VoxelNetworkSettings
from retrace.errors import DataError
from retrace.formats.label_ids import background_values, is_known
from retrace.formats.label_values import compact
from retrace.formats.placement import check_place_in_image
from retrace.formats.source import Region, Source
from retrace.geometry import NmBox, NmTriple, VoxelBox, blocks, clear_of
from retrace.machine_limits import free_memory
from retrace.planning.train_settings import TrainingDataset
from retrace.storage.images import open_image
from retrace.storage.labels_mask import MASK_ARRAY
from retrace.storage.value_checks import check_labels, check_not_blank, check_raw
from retrace.storage.volumes import Volume, open_source, open_volume

UNLABELLED, LABELLED, EXCLUDED = 0, 1, 2
"""Codes of a voxel: without ground truth, with it, or held out for validation or test."""
SLAB_VOXELS = 1 << 25
"""Voxels that are checked or counted at once."""


def slabs(box: VoxelBox) -> Iterator[VoxelBox]:
    """The box in slabs of about SLAB_VOXELS voxels."""
    depth = max(1, SLAB_VOXELS // max(1, box.shape[1] * box.shape[2]))
    return blocks(box, (depth, box.shape[1], box.shape[2]))


@dataclass(frozen=True)
class TrainingVolume:
    """One entry of a dataset's `train` or `validation` list, its arrays opened and checked.

    Raw is read inside `visible`, labels inside `labelled`; outside, both count as absent.
    `excluded` boxes belong to validation or test. Boxes are in voxels from the world's origin.
    `mirrors`: patches may leave `visible`, and see raw mirrored at its border there.
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
    mirrors: bool = False

    @property
    def image(self) -> VoxelBox:
        """The box in which the raw of a patch stays, where it fits."""
        return self.raw.box if self.mirrors else self.visible

    def read_raw(self, box: VoxelBox) -> np.ndarray:
        """Raw as stored, (Z, Y, X); 0 where absent, or mirrored."""
        if self.mirrors:
            return _read_mirrored(self.raw, box, self.visible)
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
        if not self.background_ids and self.labels.dtype.kind == "u":
            return np.full(box.shape, LABELLED, dtype=np.uint8)
        labels = self.labels.read(box)
        known = is_known(labels, background_values(self.background_ids, labels.dtype))
        return known.astype(np.uint8)

    def read_labels(self, box: VoxelBox) -> np.ndarray:
        """Object ids, (Z, Y, X) int32; 0 = background, absent or excluded.

        Ids too large for int32 are renumbered within the block: only equality matters in a batch.
        """
        return _as_int32(self.read_ids(box))

    def read_ids(self, box: VoxelBox) -> np.ndarray:
        """Object ids or classes as stored, (Z, Y, X); 0 = background, absent or excluded."""
        labels = _read_within(self.labels, box, self.labelled)
        background = background_values(self.background_ids, labels.dtype)
        labels[~is_known(labels, background)] = 0
        for hole in self.excluded:
            labels[hole.intersect(box).slices(box.offset)] = 0
        return labels


def _read_within(volume: Volume, box: VoxelBox, limits: VoxelBox) -> np.ndarray:
    """The voxels of `box`, 0 outside `limits`; always a new array."""
    inside = box.intersect(limits)
    result = np.zeros(box.shape, dtype=volume.dtype)
    if not inside.is_empty:
        result[inside.slices(box.offset)] = volume.read(inside)
    return result


def _read_mirrored(volume: Volume, box: VoxelBox, limits: VoxelBox) -> np.ndarray:
    """The voxels of `box`, those outside `limits` mirrored at its border."""
    inside = box.intersect(limits)
    ends = zip(box.offset, inside.offset, inside.end, box.end, strict=True)
    widths = [(first - begin, end - last) for begin, first, last, end in ends]
    return np.pad(volume.read(inside), widths, mode="symmetric")


def _as_int32(labels: np.ndarray) -> np.ndarray:
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low >= 0 and high <= np.iinfo(np.int32).max:
        return labels.astype(np.int32)
    return compact(labels)


def open_training_volume(
    dataset: TrainingDataset,
    entry: Entry,
    mask_path: Path | None,
    labels_source: Source | None = None,
    *,
    has_context: bool = False,
) -> TrainingVolume:
    """Opens and checks the volume of one entry of `train`; DataError if it cannot be used.

    `labels_source`: labels to read instead of those of the volume. `has_context`: whether raw is
    seen outside the entry's box, too; then no voxel of the boxes `exclude_nm` is read.
    """
    name = entry.volume
    sources = dataset.volumes[name]
    chosen = labels_source or sources.labels
    if chosen is None:
        raise DataError(f"volume {name!r} has no `labels` to train on; add them to the dataset")
    raw, labels = open_image(sources.raw), open_source(chosen)
    check_place_in_image(labels.place, raw.place)
    mask = open_volume(mask_path, MASK_ARRAY) if mask_path else None
    _check_agreement(name, dataset, [v for v in (raw, labels, mask) if v is not None])
    visible, labelled, excluded = _boxes(entry, raw, labels, has_context)
    _check_overlap(name, raw, labels, mask, visible, labelled)
    check_raw(raw, visible)
    check_not_blank(raw, visible)
    check_labels(labels)
    return TrainingVolume(
        name=name,
        raw=raw,
        labels=labels,
        mask=mask,
        visible=visible,
        labelled=labelled,
        excluded=excluded,
        background_ids=dataset.background_ids,
        probability=1.0 if entry.probability is None else float(entry.probability),
        mirrors=has_context,
    )


def _boxes(
    entry: Entry, raw: Volume, labels: Volume, has_context: bool
) -> tuple[VoxelBox, VoxelBox, tuple[VoxelBox, ...]]:
    """What is seen, what is labelled, and the parts of that which are left out, voxels."""
    visible, labelled = raw.box, labels.box
    if entry.roi_nm is not None:
        roi = _voxels(entry.roi_nm, raw.voxel_size_nm)
        labelled = labelled.intersect(roi)
        visible = visible if has_context else visible.intersect(roi)
    excluded = [_voxels(box, raw.voxel_size_nm) for box in entry.exclude_nm]
    if has_context:
        for hole in excluded:
            visible = clear_of(visible, hole, labelled)
    holes = [hole.intersect(labelled) for hole in excluded]
    return visible, labelled, tuple(hole for hole in holes if not hole.is_empty)


def _voxels(box: Region, voxel_size_nm: NmTriple) -> VoxelBox:
    return NmBox(box.offset, box.shape).to_voxels(voxel_size_nm)


def _check_agreement(name: str, dataset: TrainingDataset, volumes: Sequence[Volume]) -> None:
    expected = dataset.voxel_size_nm
    for volume in volumes:
        if volume.channels:
            raise DataError(f"{volume.name} has channels; volume {name!r} needs (z, y, x)")
        if volume.voxel_size_nm != expected:
            raise DataError(
                f"{volume.name} has voxels of {list(volume.voxel_size_nm)} nm, dataset "
                f"{dataset.name!r} says {list(expected)} nm; correct `voxel_size_nm`"
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


def check_classes(volume: TrainingVolume, network: VoxelNetworkSettings) -> None:
    """DataError for a label outside the network's classes 0 to `n_lab` - 1."""
    count = network.n_lab
    assert count is not None
    for slab in slabs(volume.labelled):
        wrong = sorted({int(v) for v in np.unique(volume.read_ids(slab)) if v >= count})
        if wrong:
            raise DataError(
                f"volume {volume.name!r}: the labels hold {wrong[:5]}, and network "
                f"{network.name!r} has the classes 0 to {count - 1} (`n_lab`, or the maps of a "
                "network of ZNN); correct that number or the labels, or drop `objects: classes` if "
                "they number objects"
            )


def _memory_bytes() -> int:
    """Memory to hold volumes in, bytes: half of what is free."""
    return free_memory() // 2


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


def in_memory_if_room(
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
