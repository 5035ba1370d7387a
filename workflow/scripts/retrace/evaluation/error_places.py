"""Where errors are: at the contact of two pieces, or where they come closest.

Pieces of a group (of the object of a split, of the segment of a merge) that touch form a tree whose
root is the main piece. An error is placed where its piece touches its parent in that tree. A piece
that nothing connects to the main piece is placed where it comes closest to a larger one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from retrace.evaluation.contingency import Contingency
from retrace.evaluation.error_shares import KINDS, Kind, PairError
from retrace.evaluation.metrics.segment_information import voi_merge, voi_split
from retrace.geometry import NmBox, nm_triple

Neighbours = Mapping[int, Mapping[int, int]]
"""By piece (row of a table) the pieces of the same group that it touches, and how often."""


@dataclass(frozen=True)
class Place:
    """A position (z, y, x) between two pieces, nm."""

    point_nm: tuple[float, ...]
    gap_nm: float
    """Distance of the two nearest voxel centres or nodes; 0 where the pieces touch."""
    extra: Mapping[str, Any]
    """More values of this place, as JSON."""


class Pieces(Protocol):
    """Where the pieces of a table are."""

    def neighbours(self) -> Neighbours:
        """Pieces that touch within a group."""

    def contact(self, error: PairError, other: int) -> Place:
        """A place where the piece of an error touches another one."""

    def closest(self, error: PairError, others: Collection[int]) -> tuple[int, Place]:
        """The piece of `others` that comes closest to the error's, and where."""

    def box(self, piece: int) -> NmBox:
        """The box of a piece."""


@dataclass(frozen=True)
class PlacedError:
    """An error with its place; `other` is the piece (row of the table) that it is placed at."""

    error: PairError
    other: int
    place: Place
    box_nm: NmBox
    """The box of the error's piece."""


def group_of(table: Contingency, kind: Kind) -> np.ndarray:
    """The object (split) or segment (merge) of each row, (pairs,)."""
    return table.ground_truth if kind == "split" else table.segments


def tracked_rows(table: Contingency, errors: Iterable[PairError]) -> dict[Kind, np.ndarray]:
    """By kind all rows of the groups that the errors are in: what must be located."""
    mains = {kind: [error.main for error in errors if error.kind == kind] for kind in KINDS}
    return {
        kind: np.flatnonzero(np.isin(groups, groups[mains[kind]]))
        for kind in KINDS
        for groups in [group_of(table, kind)]
    }


def place_errors(
    table: Contingency, errors: Sequence[PairError], pieces: Pieces
) -> list[PlacedError]:
    """Each error with its place, in the order of `errors`."""
    parents: dict[tuple[Kind, int], dict[int, int]] = {}
    neighbours = pieces.neighbours()
    placed = []
    for error in errors:
        key = (error.kind, error.main)
        if key not in parents:
            parents[key] = _tree(table, error, neighbours)
        if (parent := parents[key].get(error.piece)) is not None:
            place = pieces.contact(error, parent)
        else:
            parent, place = pieces.closest(error, _larger(table, error))
        placed.append(PlacedError(error, parent, place, pieces.box(error.piece)))
    return placed


def _members(table: Contingency, error: PairError) -> np.ndarray:
    """The rows of an error's group, the largest first, of equal ones in the table's order."""
    groups = group_of(table, error.kind)
    rows = np.flatnonzero(groups == groups[error.main])
    return np.asarray(rows[np.argsort(-table.counts[rows], kind="stable")])


def _larger(table: Contingency, error: PairError) -> list[int]:
    """The rows of the error's group that come before its piece in the order of `_members`."""
    rows = _members(table, error).tolist()
    return rows[: rows.index(error.piece)] or [error.main]


def _tree(table: Contingency, error: PairError, neighbours: Neighbours) -> dict[int, int]:
    """The parent of each piece of the error's group that touches another one, but of no root."""
    rows = _members(table, error).tolist()
    free = set(rows)
    parents: dict[int, int] = {}
    for root in [error.main, *rows]:
        layer = [root] if root in free else []
        free.discard(root)
        while layer:
            layer_parents = _next_layer(layer, free, neighbours)
            parents |= layer_parents
            layer = sorted(layer_parents)
            free.difference_update(layer)
    return parents


def _next_layer(
    layer: Sequence[int], free: Collection[int], neighbours: Neighbours
) -> dict[int, int]:
    """Each free neighbour of a layer, and the piece of the layer that it touches most."""
    best: dict[int, tuple[int, int]] = {}
    for parent in layer:
        for child, places in neighbours.get(parent, {}).items():
            if child in free:
                best[child] = max(best.get(child, (0, 0)), (places, -parent))
    return {child: -negative for child, (_, negative) in best.items()}


def error_rows(
    table: Contingency, placed: Sequence[PlacedError], unit: str
) -> list[dict[str, Any]]:
    """The errors as rows of JSON; `unit`: what the table counts, `voxels` or `nodes`."""
    total = voi_split(table) + voi_merge(table)
    return [
        {
            "rank": rank,
            "kind": item.error.kind,
            "segments": _ids(table.segments, item),
            "ground_truth": _ids(table.ground_truth, item),
            unit: int(table.counts[item.error.piece]),
            "voi_bits": item.error.bits,
            "voi_fraction": item.error.bits / total,
            "point_nm": list(nm_triple(item.place.point_nm)),
            "gap_nm": round(item.place.gap_nm, 6),
            "box_nm": {"offset": list(item.box_nm.offset), "shape": list(item.box_nm.shape)},
            **item.place.extra,
        }
        for rank, item in enumerate(placed, 1)
    ]


def _ids(ids: np.ndarray, item: PlacedError) -> list[int]:
    """The piece's id, and the other piece's where that differs."""
    return list(dict.fromkeys(int(ids[row]) for row in (item.error.piece, item.other)))
