"""Blocks of a segmentation and its ground truth as pieces: rows of their contingency table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from scipy import ndimage

from retrace.evaluation.contingency import Contingency
from retrace.evaluation.error_places import group_of
from retrace.evaluation.error_shares import KINDS, Kind
from retrace.evaluation.ground_truth import GroundTruth
from retrace.geometry import Triple, VoxelBox, triple
from retrace.storage.volumes import Volume

CELL = 32
"""Edge of a cell, voxels. Cells tile the world from voxel 0, whatever the blocks are."""
NO_PIECE = -1


@dataclass(frozen=True)
class PairVolume:
    """A segmentation and ground truth, read as rows of their table.

    `tracked`: by kind the rows to locate.
    """

    segmentation: Volume
    ground_truth: GroundTruth
    table: Contingency
    tracked: Mapping[Kind, np.ndarray]

    @cached_property
    def box(self) -> VoxelBox:
        """What both cover, voxels."""
        return self.ground_truth.box.intersect(self.segmentation.box)

    @cached_property
    def rows(self) -> np.ndarray:
        """All tracked rows, ascending."""
        return np.union1d(*self.tracked.values())

    @cached_property
    def _codes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The ids of segments and of objects that are tracked, and the code of each row."""
        segments, at = np.unique(self.table.segments[self.rows], return_inverse=True)
        objects, where = np.unique(self.table.ground_truth[self.rows], return_inverse=True)
        return segments, objects, at.astype(np.int64) * objects.size + where

    def read(self, box: VoxelBox) -> np.ndarray:
        """The row of each voxel of `box` (Z, Y, X), -1 where none is tracked; int64.

        Voxels that do not count have none.
        """
        labels, keep = self.ground_truth.read(box)
        segments = self.segmentation.read(box)
        flat_segments, flat_labels, flat_keep = segments.ravel(), labels.ravel(), keep.ravel()
        change = flat_segments[1:] != flat_segments[:-1]
        change |= flat_labels[1:] != flat_labels[:-1]
        change |= flat_keep[1:] != flat_keep[:-1]
        starts = np.concatenate(([0], np.flatnonzero(change) + 1))
        lengths = np.diff(starts, append=labels.size)
        rows = self._rows_of(flat_segments[starts], flat_labels[starts])
        rows[~flat_keep[starts]] = NO_PIECE
        return np.repeat(rows, lengths).reshape(labels.shape)

    def _rows_of(self, segments: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """The tracked row of each pair of ids, -1 for others; all (pairs,)."""
        known_segments, known_objects, codes = self._codes
        at, has_segment = _position(known_segments, segments.astype(np.uint64))
        where, has_object = _position(known_objects, objects.astype(np.uint64))
        row, has_row = _position(codes, at * known_objects.size + where)
        return np.where(has_segment & has_object & has_row, self.rows[row], NO_PIECE)

    @cached_property
    def _groups(self) -> dict[Kind, np.ndarray]:
        """By kind the number of each row's group, (pairs,); -1 for rows that are not tracked."""
        groups = {}
        for kind in KINDS:
            numbers = np.unique(group_of(self.table, kind), return_inverse=True)[1]
            tracked = np.isin(np.arange(numbers.size), self.tracked[kind])
            groups[kind] = np.where(tracked, numbers, -1)
        return groups

    def touch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Whether two pieces, rows (n,), differ and are in the same tracked group."""
        same = [(g[first] == g[second]) & (g[first] >= 0) for g in self._groups.values()]
        return np.asarray((first != second) & (same[0] | same[1]))


def _position(sorted_ids: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The position of each id in sorted ids, and whether it is there; both (ids,)."""
    at = np.minimum(np.searchsorted(sorted_ids, ids), max(sorted_ids.size - 1, 0))
    return at, sorted_ids[at] == ids


def faces(rows: np.ndarray, core: Triple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces between different pieces: lower voxels and axis (faces, 4), and the rows on both sides.

    `rows` (Z, Y, X). The lower voxel of each face is in the first `core` voxels (z, y, x).
    """
    places, low, high = [], [], []
    for axis in range(3):
        length = min(core[axis], rows.shape[axis] - 1)
        inner = tuple(slice(0, length if a == axis else core[a]) for a in range(3))
        outer = tuple(slice(1, length + 1) if a == axis else slice(0, core[a]) for a in range(3))
        first, second = rows[inner], rows[outer]
        at = np.argwhere((first != second) & (first != NO_PIECE) & (second != NO_PIECE))
        places.append(np.column_stack([at, np.full(len(at), axis)]))
        low.append(first[tuple(at.T)])
        high.append(second[tuple(at.T)])
    return np.concatenate(places), np.concatenate(low), np.concatenate(high)


def cells_of(box: VoxelBox) -> list[VoxelBox]:
    """The cells that a box has voxels of, cut to the box."""
    ranges = [
        range(begin // CELL, -(-end // CELL))
        for begin, end in zip(box.offset, box.end, strict=True)
    ]
    return [cell_box(cell).intersect(box) for cell in product(*ranges)]


def cell_box(cell: tuple[int, ...]) -> VoxelBox:
    """The box of a cell (z, y, x)."""
    return VoxelBox(triple([CELL * index for index in cell]), (CELL, CELL, CELL))


def spans(rows: np.ndarray, box: VoxelBox) -> np.ndarray:
    """Where each piece is: rows of [piece, cell (3), first voxel (3), last voxel + 1 (3)], int64.

    `rows` (Z, Y, X) are the pieces of `box`.
    """
    present = np.zeros(rows.max(initial=0) + 2, np.bool_)
    present[rows] = True  # the last one is that of no piece
    present[NO_PIECE] = False
    local = np.where(present, np.cumsum(present), 0)[rows]
    pieces = np.flatnonzero(present)
    found = [np.zeros((0, 10), np.int64)]
    for cell in cells_of(box):
        part = local[cell.slices(box.offset)]
        index = [offset // CELL for offset in cell.offset]
        for number, place in enumerate(ndimage.find_objects(part, len(pieces))):
            if place is not None:
                low = [s.start + o for s, o in zip(place, cell.offset, strict=True)]
                high = [s.stop + o for s, o in zip(place, cell.offset, strict=True)]
                found.append(np.array([[pieces[number], *index, *low, *high]]))
    return np.concatenate(found)
