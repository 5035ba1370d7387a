"""Contingency tables of a segmentation and ground truth: counted block by block, merged exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

UintArray = NDArray[np.uint64]
CountArray = NDArray[np.int64]

MERGE_AT_PAIRS = 1 << 20
"""Partial tables are merged when they have this many pairs more than the merged table."""


@dataclass(frozen=True)
class Contingency:
    """How many voxels are in segment `segments[k]` and in object `ground_truth[k]`: `counts[k]`.

    All three arrays have shape (pairs,). Each pair occurs once, sorted by segment, then object.
    Object 0 is never stored, as it is ignored; segment 0 is an ordinary label.
    """

    segments: UintArray
    ground_truth: UintArray
    counts: CountArray

    @property
    def voxels(self) -> int:
        """Number of counted voxels."""
        return int(self.counts.sum())

    @cached_property
    def ground_truth_totals(self) -> CountArray:
        """Voxels of the object of each pair, (pairs,)."""
        return _totals(self.ground_truth, self.counts)

    @cached_property
    def segment_totals(self) -> CountArray:
        """Voxels of the segment of each pair, (pairs,)."""
        return _totals(self.segments, self.counts)

    def relabeled(self, segments: UintArray) -> Contingency:
        """The table after each `self.segments[k]` became `segments[k]`, (pairs,)."""
        return _merged(segments.astype(np.uint64), self.ground_truth, self.counts)

    def majority(self) -> Contingency:
        """The table after each segment was joined to the object it overlaps most.

        About the best that any agglomeration of these segments can reach: a reference for
        fragments, not a proven optimum.
        """
        order = np.lexsort((-self.counts, self.segments))
        ids, first = np.unique(self.segments[order], return_index=True)
        objects = self.ground_truth[order][first]
        return self.relabeled(objects[np.searchsorted(ids, self.segments)])


def empty_table() -> Contingency:
    """A table without voxels."""
    none = np.zeros(0, np.uint64)
    return Contingency(none, none, np.zeros(0, np.int64))


def count_block(
    segments: NDArray[np.integer],
    ground_truth: NDArray[np.integer],
    keep: NDArray[np.bool_] | None = None,
) -> Contingency:
    """The table of two label arrays of equal shape; `keep` (the same shape) selects voxels.

    Neighbouring voxels mostly have the same pair of labels, so runs of equal pairs are collapsed
    first, and only the runs are sorted. Raises ValueError for different shapes.
    """
    if segments.shape != ground_truth.shape:
        raise ValueError(
            f"segments have shape {segments.shape}, the ground truth {ground_truth.shape}"
        )
    segments, ground_truth = segments.ravel(), ground_truth.ravel()
    if not ground_truth.size:
        return empty_table()
    use = ground_truth != 0 if keep is None else (ground_truth != 0) & keep.ravel()
    change = segments[1:] != segments[:-1]
    change |= ground_truth[1:] != ground_truth[:-1]
    change |= use[1:] != use[:-1]
    starts = np.concatenate(([0], np.flatnonzero(change) + 1))
    lengths = np.diff(starts, append=ground_truth.size)
    starts, lengths = starts[use[starts]], lengths[use[starts]]
    return _merged(
        segments[starts].astype(np.uint64),
        ground_truth[starts].astype(np.uint64),
        lengths.astype(np.int64),
    )


class TableSum:
    """Adds up tables, whatever their order; memory is bounded by the number of pairs."""

    def __init__(self) -> None:
        self._total, self._waiting, self._pairs = empty_table(), list[Contingency](), 0

    def add(self, table: Contingency) -> None:
        """Adds one table."""
        self._waiting.append(table)
        self._pairs += table.counts.size
        if self._pairs > MERGE_AT_PAIRS + self._total.counts.size:
            self._total, self._waiting, self._pairs = self.table(), [], 0

    def table(self) -> Contingency:
        """The sum so far."""
        return _sum([self._total, *self._waiting])


def merge_tables(tables: Iterable[Contingency]) -> Contingency:
    """The sum of the tables, whatever their order."""
    total = TableSum()
    for table in tables:
        total.add(table)
    return total.table()


def _sum(tables: list[Contingency]) -> Contingency:
    return _merged(
        np.concatenate([table.segments for table in tables]),
        np.concatenate([table.ground_truth for table in tables]),
        np.concatenate([table.counts for table in tables]),
    )


def _merged(segments: UintArray, ground_truth: UintArray, counts: CountArray) -> Contingency:
    if not counts.size:
        return empty_table()
    order = np.lexsort((ground_truth, segments))
    segments, ground_truth, counts = segments[order], ground_truth[order], counts[order]
    change = (segments[1:] != segments[:-1]) | (ground_truth[1:] != ground_truth[:-1])
    starts = np.concatenate(([0], np.flatnonzero(change) + 1))
    return Contingency(segments[starts], ground_truth[starts], np.add.reduceat(counts, starts))


def _totals(labels: UintArray, counts: CountArray) -> CountArray:
    ids, inverse = np.unique(labels, return_inverse=True)
    totals = np.zeros(ids.size, np.int64)
    np.add.at(totals, inverse, counts)
    return totals[inverse]
