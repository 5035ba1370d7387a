"""Counting two volumes against each other, block by block, where both of them lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from retrace.errors import DataError
from retrace.evaluation.contingency import Contingency, count_block, empty, merge
from retrace.geometry import NmBox, Triple, VoxelBox, blocks, triple
from retrace.storage.shards import SINGLE_SHARD, Shard
from retrace.storage.value_checks import check_labels
from retrace.storage.volumes import Volume

BLOCK_SHAPE: Triple = (64, 256, 256)
"""Voxels read at once per thread (z, y, x); 4 million voxels are 64 MiB of two uint64 arrays."""


@dataclass(frozen=True)
class Truth:
    """Ground truth of one region: labels, what to leave out of them, and where.

    `roi_nm` restricts the scored region; `ignored_ids` (background labels) and voxels where
    `mask` is 0 or absent do not count, as do voxels of label 0.
    """

    labels: Volume
    mask: Volume | None = None
    roi_nm: NmBox | None = None
    ignored_ids: tuple[int, ...] = ()

    @property
    def box(self) -> VoxelBox:
        """The region in voxels of the labels."""
        if self.roi_nm is None:
            return self.labels.box
        return self.labels.box.intersect(self.roi_nm.to_voxels(self.labels.voxel_size_nm))

    def read(self, box: VoxelBox) -> tuple[np.ndarray, np.ndarray]:
        """Labels and which voxels of them count, both (z, y, x) of `box`."""
        labels = self.labels.read(box)
        keep = labels != 0
        limit = np.iinfo(labels.dtype).max
        ignored = [label for label in self.ignored_ids if 0 < label <= limit]
        if ignored:
            keep &= np.isin(labels, np.array(ignored, labels.dtype), invert=True)
        if self.mask is not None:
            keep &= self.mask.read(box, fill=0) != 0
        return labels, keep


@dataclass(frozen=True)
class Counted:
    """A contingency table, and how much of the labelled region it covers."""

    table: Contingency
    label_voxels: int
    """Voxels of the region that carry a label that counts."""

    @property
    def scored_voxels(self) -> int:
        """Those of them that the segmentation covers too."""
        return self.table.voxels


def count_volumes(
    segmentation: Volume,
    truth: Truth,
    block_shape: Sequence[int] = BLOCK_SHAPE,
    threads: int = 1,
    shard: Shard = SINGLE_SHARD,
) -> Counted:
    """Contingency of a segmentation and the truth where they overlap, in a share of the blocks.

    Memory holds one block per thread and the table. Raises DataError where voxel sizes differ,
    either is not an integer array, or, of a whole, no labelled voxel is covered.
    """
    _check_pair(segmentation, truth)
    places = shard.of(list(_aligned_blocks(truth.box, segmentation, block_shape)))

    def count(box: VoxelBox) -> tuple[Contingency, int]:
        return _count(segmentation, truth, box)

    labelled = 0
    with ThreadPoolExecutor(max(1, threads)) as pool:

        def tables() -> Iterator[Contingency]:
            nonlocal labelled
            for table, voxels in pool.map(count, places):
                labelled += voxels
                yield table

        total = merge(tables())
    counted = Counted(total, labelled)
    if shard == SINGLE_SHARD:
        check_scored(counted, segmentation, truth)
    return counted


def check_scored(counted: Counted, segmentation: Volume, truth: Truth) -> None:
    """DataError with the likely reason where no labelled voxel is covered by the segmentation."""
    if not counted.scored_voxels:
        raise DataError(_nothing_scored(segmentation, truth, counted.label_voxels))


def _count(segmentation: Volume, truth: Truth, box: VoxelBox) -> tuple[Contingency, int]:
    labels, keep = truth.read(box)
    both = box.intersect(segmentation.box)
    labelled = int(np.count_nonzero(keep))
    if both.is_empty or not labelled:
        return empty(), labelled
    part = both.slices(box.offset)
    return count_block(segmentation.read(both), labels[part], keep[part]), labelled


def _aligned_blocks(
    box: VoxelBox, segmentation: Volume, block_shape: Sequence[int]
) -> Iterator[VoxelBox]:
    """Blocks of `box` on the segmentation's grid, so that its chunks are decoded once."""
    begin = [
        o - (o - s) % b
        for o, s, b in zip(box.offset, segmentation.box.offset, block_shape, strict=True)
    ]
    shape = [e - b for e, b in zip(box.end, begin, strict=True)]
    for block in blocks(VoxelBox(triple(begin), triple(shape)), block_shape):
        part = block.intersect(box)
        if not part.is_empty:
            yield part


def _check_pair(segmentation: Volume, truth: Truth) -> None:
    for volume in (segmentation, truth.labels):
        check_labels(volume)
    for volume in (segmentation, *([truth.mask] if truth.mask else [])):
        if volume.voxel_size_nm != truth.labels.voxel_size_nm:
            raise DataError(
                f"{volume.name} has voxels of {list(volume.voxel_size_nm)} nm, the labels "
                f"{truth.labels.name} of {list(truth.labels.voxel_size_nm)} nm; only equal voxel "
                "sizes can be scored: resample one of them"
            )


def _nothing_scored(segmentation: Volume, truth: Truth, labelled: int) -> str:
    size = truth.labels.voxel_size_nm
    if not labelled:
        return (
            f"{truth.labels.name} has no label left in {truth.box.to_nm(size)}: all 0, background "
            "or masked; choose another `roi_nm`, or correct `background_ids`"
        )
    return (
        f"{segmentation.name} covers {segmentation.box.to_nm(size)} and the labels "
        f"{truth.labels.name} {truth.box.to_nm(size)}: no labelled voxel lies in both; "
        "correct `offset_nm` or `roi_nm`"
    )
