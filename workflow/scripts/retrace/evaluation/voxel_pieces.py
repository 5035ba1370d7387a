"""Pieces of a segmentation in its volume: where they touch, come closest, and their boxes.

All is counted in blocks, and by cells of the world, so that nothing depends on the blocks. Memory
holds one block per thread, and a row for each piece and each contact in a cell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from retrace.evaluation.counting import BLOCK_SHAPE, aligned_blocks
from retrace.evaluation.error_places import Neighbours, Place
from retrace.evaluation.error_shares import PairError
from retrace.evaluation.pair_blocks import CELL, PairVolume, cell_box, faces, spans
from retrace.geometry import NmBox, VoxelBox, triple

CLOSE = 1e-9
"""Relative difference below which two distances are equal."""


@dataclass(frozen=True)
class VoxelPieces:
    """The tracked pieces of a volume; `contacts` rows of [piece, piece, cell (3), faces], sorted,
    `spans` as of `pair_blocks.spans`, one for each piece and cell, sorted.
    """

    volume: PairVolume
    contacts: np.ndarray
    spans: np.ndarray

    @cached_property
    def size(self) -> np.ndarray:
        """The voxel size (z, y, x), nm."""
        return np.asarray(self.volume.ground_truth.labels.voxel_size_nm, np.float64)

    def neighbours(self) -> Neighbours:
        """Pieces that share faces within a group, and how many faces."""
        near: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for first, second, *_, count in self.contacts.tolist():
            near[first][second] += count
            near[second][first] += count
        return near

    def contact(self, error: PairError, other: int) -> Place:
        """The middle face in the cell with the most faces between the piece and another one."""
        pair = sorted((error.piece, other))
        found = self.contacts[(self.contacts[:, :2] == pair).all(axis=1)]
        cell = found[np.argmax(found[:, 5])][2:5]
        box = cell_box(tuple(cell.tolist())).intersect(self.volume.box)
        read = VoxelBox(box.offset, triple([n + 1 for n in box.shape])).intersect(self.volume.box)
        at, low, high = faces(self.volume.read(read), box.shape)
        between = (np.minimum(low, high) == pair[0]) & (np.maximum(low, high) == pair[1])
        at = at[between]
        # In halves of voxels: the centre of a voxel is 2 n + 1, of a face one more on its axis.
        halves = 2 * (at[:, :3] + read.offset) + 1 + (at[:, 3:] == np.arange(3))
        return Place(tuple((middle_of(halves, self.size) * self.size / 2).tolist()), 0.0, {})

    def box(self, piece: int) -> NmBox:
        """The box of a piece."""
        found = self._spans_of([piece])
        low, high = found[:, 4:7].min(axis=0), found[:, 7:10].max(axis=0)
        box = VoxelBox(triple(low.tolist()), triple((high - low).tolist()))
        return box.to_nm(self.volume.ground_truth.labels.voxel_size_nm)

    def closest(self, error: PairError, others: Collection[int]) -> tuple[int, Place]:
        """The piece of `others` that comes closest, and the middle between the nearest voxels.

        Only cells that can hold a pair of voxels nearer than the best so far are read.
        """
        own, rest = self._spans_of([error.piece]), self._spans_of(others)
        best, found = np.inf, None
        for bound, mine, theirs in self._near_cells(own, rest):
            if bound >= best * (1 - CLOSE):
                break
            distance, points = self._nearest_voxels(own[mine], rest[theirs])
            if distance < best * (1 - CLOSE):
                best, found = distance, (int(rest[theirs, 0]), points)
        assert found is not None
        return found[0], Place(tuple(found[1].tolist()), float(best), {})

    def _spans_of(self, pieces: Collection[int]) -> np.ndarray:
        return self.spans[np.isin(self.spans[:, 0], list(pieces))]

    def _near_cells(self, own: np.ndarray, others: np.ndarray) -> Iterator[tuple[float, int, int]]:
        """Pairs of rows of both lists of spans that may be nearest, the nearest bound first."""
        centres = [(s[:, 4:7] + s[:, 7:10]) / 2 * self.size for s in (own, others)]
        reach, nearest = cKDTree(centres[1]).query(centres[0])
        lower_mine = int(np.argmin(reach))
        limit = self._bounds(own[lower_mine], others[nearest[lower_mine]][None])[1][0]
        tree, pairs = cKDTree(centres[1]), []
        for mine, near in enumerate(
            tree.query_ball_point(centres[0], limit + CELL * np.linalg.norm(self.size))
        ):
            rows = np.array(sorted(near), np.int64)
            bounds = self._bounds(own[mine], others[rows])[0]
            pairs += [
                (float(bound), mine, int(row))
                for bound, row in zip(bounds, rows, strict=True)
                if bound <= limit * (1 + CLOSE)
            ]
        yield from sorted(pairs)

    def _bounds(self, span: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The least and largest distance of voxel centres of a span and of others, nm."""
        begin, end = span[4:7], span[7:10] - 1
        other_begin, other_end = others[:, 4:7], others[:, 7:10] - 1
        gap = np.maximum(0, np.maximum(other_begin - end, begin - other_end))
        widest = np.maximum(other_end - begin, end - other_begin)
        return (
            np.linalg.norm(gap * self.size, axis=1),
            np.linalg.norm(widest * self.size, axis=1),
        )

    def _nearest_voxels(self, mine: np.ndarray, theirs: np.ndarray) -> tuple[float, np.ndarray]:
        """The distance of the nearest voxel centres of two spans, and the middle between, nm."""
        centres = [self._voxels(span) for span in (mine, theirs)]
        tree = cKDTree(centres[1] * self.size)
        distance, index = tree.query(centres[0] * self.size)
        nearest = distance <= distance.min() * (1 + CLOSE)
        # Sums of two voxel centres are the middle in halves of voxels.
        halves = 2 * (centres[0][nearest] + centres[1][index[nearest]])
        return float(distance.min()), middle_of(halves, self.size) * self.size / 4

    def _voxels(self, span: np.ndarray) -> np.ndarray:
        """The voxel centres (voxels, 3) of a piece in a cell, in voxels."""
        low, high = span[4:7], span[7:10]
        box = VoxelBox(triple(low.tolist()), triple((high - low).tolist()))
        return np.asarray(np.argwhere(self.volume.read(box) == span[0]) + low + 0.5)


def middle_of(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Of points (n, 3) the one that is nearest to their mean; of equal ones the first in order."""
    points = np.unique(points, axis=0)
    distances = (((points - points.mean(axis=0)) * size) ** 2).sum(axis=1)
    return np.asarray(points[np.argmin(np.round(distances, 6))])


def locate(
    volume: PairVolume, block_shape: Sequence[int] = BLOCK_SHAPE, threads: int = 1
) -> VoxelPieces:
    """Reads a volume once and finds all contacts and spans of its tracked pieces."""
    boxes = list(aligned_blocks(volume.box, volume.segmentation, block_shape))
    with ThreadPoolExecutor(max(1, threads)) as pool:
        found = list(pool.map(lambda box: _locate_in(volume, box), boxes))
    contacts = np.concatenate([np.zeros((0, 6), np.int64), *(c for c, _ in found)])
    places = np.concatenate([np.zeros((0, 10), np.int64), *(s for _, s in found)])
    return VoxelPieces(volume, _summed(contacts), _united(places))


def _locate_in(volume: PairVolume, box: VoxelBox) -> tuple[np.ndarray, np.ndarray]:
    """The contacts and spans of a block; faces to the next blocks are counted here."""
    read = VoxelBox(box.offset, triple([n + 1 for n in box.shape])).intersect(volume.box)
    rows = volume.read(read)
    at, low, high = faces(rows, box.shape)
    keep = volume.touch(low, high)
    pairs = np.minimum(low, high)[keep], np.maximum(low, high)[keep]
    contacts = _count_in_cells(pairs, at[keep, :3] + box.offset, volume.table.counts.size)
    return contacts, spans(rows[box.slices(box.offset)], box)


def _count_in_cells(
    pairs: tuple[np.ndarray, np.ndarray], voxels: np.ndarray, pieces: int
) -> np.ndarray:
    """Contacts of one block: faces between `pairs` of pieces below `pieces`, at lower `voxels`."""
    if not len(voxels):
        return np.zeros((0, 6), np.int64)
    cells = voxels // CELL
    first = cells.min(axis=0)
    shape = cells.max(axis=0) - first + 1
    sizes = (pieces, pieces, *shape.tolist())
    # One number for each pair and cell: numpy sorts numbers much faster than rows.
    keys = np.ravel_multi_index((*pairs, *(cells - first).T), sizes)
    distinct, counts = np.unique(keys, return_counts=True)
    columns = np.column_stack([*np.unravel_index(distinct, sizes), counts])
    columns[:, 2:5] += first
    return columns.astype(np.int64)


def _groups(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order that sorts rows of keys (n, k), and where in it each distinct row begins."""
    order = np.lexsort(keys.T[::-1])
    ordered = keys[order]
    return order, np.flatnonzero(
        np.concatenate(([True], (ordered[1:] != ordered[:-1]).any(axis=1)))
    )


def _summed(contacts: np.ndarray) -> np.ndarray:
    """Contacts with each pair and cell once, sorted; faces are added up."""
    if not len(contacts):
        return contacts
    order, begins = _groups(contacts[:, :5])
    counts = np.add.reduceat(contacts[order, 5], begins)
    return np.column_stack([contacts[order][begins, :5], counts])


def _united(places: np.ndarray) -> np.ndarray:
    """Spans with each piece and cell once, sorted; boxes are joined."""
    order, begins = _groups(places[:, :4])
    ordered = places[order]
    low = np.minimum.reduceat(ordered[:, 4:7], begins)
    high = np.maximum.reduceat(ordered[:, 7:10], begins)
    return np.column_stack([ordered[begins, :4], low, high])
