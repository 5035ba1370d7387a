"""Contingency tables of two labelings, counted block by block and merged exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UintArray = NDArray[np.uint64]
CountArray = NDArray[np.int64]

MERGE_AT_PAIRS = 1 << 20
"""Partial tables are merged once they hold this many pairs more than the merged table."""


@dataclass(frozen=True)
class Contingency:
    """How many voxels carry segment `segments[k]` and truth `truths[k]` at once.

    All three arrays have shape (pairs,); every pair occurs once, sorted by segment, then truth.
    Truth 0 is never stored (it is ignored); segment 0 is an ordinary label.
    """

    segments: UintArray
    truths: UintArray
    counts: CountArray

    @property
    def voxels(self) -> int:
        """Number of counted voxels."""
        return int(self.counts.sum())

    @property
    def truth_totals(self) -> CountArray:
        """Voxels of the truth label of each pair, shape (pairs,)."""
        return _totals(self.truths, self.counts)

    @property
    def segment_totals(self) -> CountArray:
        """Voxels of the segment of each pair, shape (pairs,)."""
        return _totals(self.segments, self.counts)

    def relabeled(self, segments: UintArray) -> Contingency:
        """The table after segment `self.segments[k]` became `segments[k]`, shape (pairs,)."""
        return _merged(segments.astype(np.uint64), self.truths, self.counts)

    def majority(self) -> Contingency:
        """The table after each segment was joined to the truth it overlaps most.

        No agglomeration of these segments can reach a lower VOI merge plus split by much:
        it is the yardstick of the fragments, not a proven optimum.
        """
        order = np.lexsort((-self.counts, self.segments))
        ids, first = np.unique(self.segments[order], return_index=True)
        owner = self.truths[order][first]
        return self.relabeled(owner[np.searchsorted(ids, self.segments)])


def empty() -> Contingency:
    """A table without voxels."""
    none = np.zeros(0, np.uint64)
    return Contingency(none, none, np.zeros(0, np.int64))


def count_block(
    segments: NDArray[np.integer],
    truth: NDArray[np.integer],
    keep: NDArray[np.bool_] | None = None,
) -> Contingency:
    """Count one block; `segments` and `truth` have equal shape, `keep` (optional) selects voxels.

    Neighbouring voxels mostly carry the same pair, so runs are found first and only the
    runs are sorted.
    """
    if segments.shape != truth.shape:
        raise ValueError(f"segments have shape {segments.shape}, the truth {truth.shape}")
    segments, truth = segments.ravel(), truth.ravel()
    if not truth.size:
        return empty()
    use = truth != 0 if keep is None else (truth != 0) & keep.ravel()
    change = segments[1:] != segments[:-1]
    change |= truth[1:] != truth[:-1]
    change |= use[1:] != use[:-1]
    starts = np.concatenate(([0], np.flatnonzero(change) + 1))
    lengths = np.diff(starts, append=truth.size)
    starts, lengths = starts[use[starts]], lengths[use[starts]]
    return _merged(
        segments[starts].astype(np.uint64),
        truth[starts].astype(np.uint64),
        lengths.astype(np.int64),
    )


def merge(tables: Iterable[Contingency]) -> Contingency:
    """The sum of tables (any order gives the same); memory is bounded by the number of pairs."""
    total, waiting, held = empty(), [], 0
    for table in tables:
        waiting.append(table)
        held += table.counts.size
        if held > MERGE_AT_PAIRS + total.counts.size:
            total, waiting, held = _sum([total, *waiting]), [], 0
    return _sum([total, *waiting])


def _sum(tables: list[Contingency]) -> Contingency:
    return _merged(
        np.concatenate([table.segments for table in tables]),
        np.concatenate([table.truths for table in tables]),
        np.concatenate([table.counts for table in tables]),
    )


def _merged(segments: UintArray, truths: UintArray, counts: CountArray) -> Contingency:
    if not counts.size:
        return empty()
    order = np.lexsort((truths, segments))
    segments, truths, counts = segments[order], truths[order], counts[order]
    change = (segments[1:] != segments[:-1]) | (truths[1:] != truths[:-1])
    starts = np.concatenate(([0], np.flatnonzero(change) + 1))
    return Contingency(segments[starts], truths[starts], np.add.reduceat(counts, starts))


def _totals(labels: UintArray, counts: CountArray) -> CountArray:
    ids, inverse = np.unique(labels, return_inverse=True)
    totals = np.zeros(ids.size, np.int64)
    np.add.at(totals, inverse, counts)
    return totals[inverse]
