"""Counts a segmentation against ground truth, block by block, where both have voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from retrace.errors import DataError
from retrace.evaluation.contingency import Contingency, TableSum, count_block, empty_table
from retrace.evaluation.coverage import LABELLED, SCORED
from retrace.evaluation.ground_truth import GroundTruth
from retrace.evaluation.node_segments import sample_nodes
from retrace.evaluation.skeletons import Skeletons
from retrace.formats.placement import SAME_SIZE
from retrace.geometry import NmBox, Triple, VoxelBox, blocks, triple
from retrace.storage.shards import SINGLE_SHARD, Shard
from retrace.storage.value_checks import check_labels
from retrace.storage.volumes import Volume

BLOCK_SHAPE: Triple = (64, 256, 256)
"""Voxels (z, y, x) that a thread reads at once: two uint64 arrays of 32 MiB each."""


@dataclass(frozen=True)
class Counted:
    """A contingency table, and how much of the labelled region it covers."""

    table: Contingency
    label_voxels: int
    """Labelled voxels of the region that count."""

    @property
    def scored_voxels(self) -> int:
        """The labelled voxels that the segmentation covers too."""
        return self.table.voxels

    def coverage(self) -> dict[str, int]:
        """Both numbers as JSON values."""
        return {SCORED: self.scored_voxels, LABELLED: self.label_voxels}


def count_volumes(
    segmentation: Volume,
    ground_truth: GroundTruth,
    block_shape: Sequence[int] = BLOCK_SHAPE,
    threads: int = 1,
    shard: Shard = SINGLE_SHARD,
) -> Counted:
    """The table of a segmentation and ground truth where they overlap, in the blocks of a shard.

    Memory holds one block per thread and the table. Raises DataError if voxel sizes differ, if
    either is no integer array, or, for a whole volume, if no labelled voxel is covered.
    """
    return count_together([segmentation], ground_truth, block_shape, threads, shard)[0]


def count_together(
    segmentations: Sequence[Volume],
    ground_truth: GroundTruth,
    block_shape: Sequence[int] = BLOCK_SHAPE,
    threads: int = 1,
    shard: Shard = SINGLE_SHARD,
) -> list[Counted]:
    """`count_volumes` of several segmentations; the ground truth is read once."""
    for segmentation in segmentations:
        _check_pair(segmentation, ground_truth)
    boxes = shard.of(list(aligned_blocks(ground_truth.box, segmentations[0], block_shape)))
    totals = [TableSum() for _ in segmentations]
    labelled = 0
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for tables, voxels in pool.map(lambda box: _count(segmentations, ground_truth, box), boxes):
            labelled += voxels
            for total, table in zip(totals, tables, strict=True):
                total.add(table)
    counted = [Counted(total.table(), labelled) for total in totals]
    if shard == SINGLE_SHARD:
        for item, segmentation in zip(counted, segmentations, strict=True):
            check_scored(item, segmentation, ground_truth)
    return counted


def count_labelled(ground_truth: GroundTruth, threads: int = 1) -> int:
    """The number of labelled voxels that count, whatever a segmentation covers."""
    boxes = blocks(ground_truth.box, BLOCK_SHAPE)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        kept = pool.map(lambda box: ground_truth.read(box)[1], boxes)
        return sum(int(np.count_nonzero(keep)) for keep in kept)


def count_nodes(segmentation: Volume, skeletons: Skeletons) -> Counted:
    """The table of segments and skeletons, counted in nodes instead of voxels.

    Raises DataError if there are no nodes.
    """
    if not len(skeletons.skeleton):
        raise DataError(f"no skeleton node lies inside {segmentation.name}; correct `roi_nm`")
    table = count_block(sample_nodes(segmentation, skeletons), skeletons.skeleton)
    return Counted(table, table.voxels)


def check_scored(counted: Counted, segmentation: Volume, ground_truth: GroundTruth) -> None:
    """Raises DataError, with the likely reason, if no labelled voxel is covered."""
    if not counted.scored_voxels:
        raise DataError(_nothing_scored(segmentation, ground_truth, counted.label_voxels))


def _count(
    segmentations: Sequence[Volume], ground_truth: GroundTruth, box: VoxelBox
) -> tuple[list[Contingency], int]:
    """The tables of one block, and its labelled voxels."""
    labels, keep = ground_truth.read(box)
    labelled = int(np.count_nonzero(keep))
    tables = []
    for segmentation in segmentations:
        both = box.intersect(segmentation.box)
        part = both.slices(box.offset)
        tables.append(
            empty_table()
            if both.is_empty or not labelled
            else count_block(segmentation.read(both), labels[part], keep[part])
        )
    return tables, labelled


def aligned_blocks(
    box: VoxelBox, segmentation: Volume, block_shape: Sequence[int]
) -> Iterator[VoxelBox]:
    """Blocks of `box` on the grid of the segmentation, so that each of its chunks is read once."""
    begin = [
        o - (o - s) % b
        for o, s, b in zip(box.offset, segmentation.box.offset, block_shape, strict=True)
    ]
    shape = [e - b for e, b in zip(box.end, begin, strict=True)]
    for block in blocks(VoxelBox(triple(begin), triple(shape)), block_shape):
        part = block.intersect(box)
        if not part.is_empty:
            yield part


def _check_pair(segmentation: Volume, ground_truth: GroundTruth) -> None:
    labels = ground_truth.labels
    for volume in (segmentation, labels):
        check_labels(volume)
        if volume.channels:
            raise DataError(
                f"{volume.name} has {volume.channels} channels and shape {volume.array.shape}; "
                "labels and segmentations have the axes z, y, x: choose one `channel`"
            )
    for volume in (segmentation, *([ground_truth.mask] if ground_truth.mask else [])):
        if not np.allclose(volume.voxel_size_nm, labels.voxel_size_nm, rtol=SAME_SIZE, atol=0):
            raise DataError(
                f"{volume.name} has voxels of {list(volume.voxel_size_nm)} nm, the labels "
                f"{labels.name} of {list(labels.voxel_size_nm)} nm; only equal voxel "
                "sizes can be scored: resample one of them"
            )


def _nothing_scored(segmentation: Volume, ground_truth: GroundTruth, labelled: int) -> str:
    labels, size = ground_truth.labels, ground_truth.labels.voxel_size_nm
    region = _in_words(ground_truth.box.to_nm(size))
    if not labelled:
        return (
            f"{labels.name} has no label left in {region}: all 0 "
            "or below 0, background or masked; choose another `roi_nm`, or correct `background_ids`"
        )
    return (
        f"{segmentation.name} covers {_in_words(segmentation.box.to_nm(size))} and the labels "
        f"{labels.name} {region}: no labelled voxel lies in both; correct `offset_nm` or `roi_nm`"
    )


def _in_words(box: NmBox) -> str:
    return f"{list(box.offset)} to {list(box.end)} nm (z, y, x)"
