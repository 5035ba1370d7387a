"""The part of the VOI that each split and each merge contributes, from a contingency table.

The voxels that an object and a segment have in common are a piece. An object consists of pieces,
one for each segment that it has voxels in; a segment consists of pieces, one for each object. The
largest piece of an object is its main piece (of several largest ones, that of the lowest segment
id), and a segment has a main piece in the same way. Every other piece is one error: a split is a
piece that another segment cuts off an object, a merge is a piece of another object in a segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retrace.evaluation.contingency import Contingency

Kind = Literal["split", "merge"]
KINDS: tuple[Kind, ...] = ("split", "merge")

SHARE = (
    "bits of a piece (i, j) = p(i, j) log2(T / p(i, j)) + its part of the main piece's same term, "
    "in proportion to the voxels outside the main piece; T = p(j) for splits, p(i) for merges. "
    "The bits of all splits add up to voi_split, of all merges to voi_merge; "
    "fraction = bits / voi_sum"
)
"""The exact meaning of the share of an error, which each list of errors contains."""


@dataclass(frozen=True)
class PairError:
    """A piece that is split from its object, or merged into its segment."""

    kind: Kind
    piece: int
    """The row of the piece in the table."""
    main: int
    """The row of the main piece of the same object (split) or segment (merge)."""
    bits: float
    """What it contributes to `voi_split` or `voi_merge`."""


@dataclass(frozen=True)
class Shares:
    """For each row of a table: the row of the main piece of its group, and its share.

    Both have shape (pairs,). The share of a main piece is 0.
    """

    main: NDArray[np.intp]
    bits: NDArray[np.float64]


def shares(table: Contingency, kind: Kind) -> Shares:
    """The shares of the pieces; groups are objects for splits, segments for merges."""
    split = kind == "split"
    groups, others = table.ground_truth, table.segments
    totals = table.ground_truth_totals
    if not split:
        groups, others, totals = table.segments, table.ground_truth, table.segment_totals
    counts = table.counts.astype(np.float64)
    terms = counts / counts.sum() * np.log2(totals / counts)
    main = _main_rows(groups, others, table.counts)
    outside = totals - table.counts[main]
    part = np.divide(counts, outside, out=np.zeros_like(counts), where=outside > 0)
    bits = terms + terms[main] * part
    bits[main == np.arange(counts.size)] = 0
    return Shares(main, bits)


def _main_rows(
    groups: NDArray[np.uint64], others: NDArray[np.uint64], counts: NDArray[np.int64]
) -> NDArray[np.intp]:
    """For each row the row of its group with the most voxels; of equal ones the lowest id."""
    order = np.lexsort((others, -counts, groups))
    _, first, inverse = np.unique(groups[order], return_index=True, return_inverse=True)
    main = np.empty(counts.size, np.intp)
    main[order] = order[first][inverse]
    return main


def number_of_errors(table: Contingency) -> Mapping[Kind, int]:
    """How many splits and merges there are in all."""
    pairs = table.counts.size
    return {
        "split": pairs - np.unique(table.ground_truth).size,
        "merge": pairs - np.unique(table.segments).size,
    }


def largest_errors(table: Contingency, count: int) -> list[PairError]:
    """The `count` errors of the largest share, the largest first.

    Of equal shares, splits come before merges, then the order is that of the table's rows.
    """
    errors: list[PairError] = []
    for kind in KINDS:
        found = shares(table, kind)
        rows = np.flatnonzero(found.main != np.arange(found.main.size))
        rows = rows[np.argsort(-found.bits[rows], kind="stable")][:count]
        errors += [
            PairError(kind, int(row), int(found.main[row]), float(found.bits[row])) for row in rows
        ]
    return sorted(errors, key=lambda error: -error.bits)[:count]
