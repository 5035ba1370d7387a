"""Where fragments touch: pairs of neighbouring fragments and the affinities between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrace.compiled import compiled


@dataclass(frozen=True)
class Contacts:
    """Pairs of touching fragments with the affinities of the voxel faces between them."""

    edges: np.ndarray
    """(E, 2) int32, u < v, sorted."""
    starts: np.ndarray
    """Where the affinities of each edge begin in `values`, (E + 1,) int64."""
    values: np.ndarray
    """Affinities in [0, 1], float32, of each edge in the order of voxels."""


def find_contacts(affinities: np.ndarray, fragments: np.ndarray, highest: float) -> Contacts:
    """The contacts of `fragments` (Z, Y, X) with ids below 2^31; 0 touches nothing.

    `affinities` (C >= 3, Z, Y, X) to the previous voxel along z, y and x; `highest` counts as 1.
    """
    ids = np.ascontiguousarray(fragments, np.int32)
    count = _count_faces(ids)
    sides, values = np.empty((count, 2), np.int32), np.empty(count, np.float32)
    _list_faces(affinities[:3], ids, np.float32(highest), sides, values)
    edge_of_face = np.empty(count, np.int32)
    ends = _number_pairs(sides, np.full(int(ids.max(initial=0)) + 1, -1, np.int32), edge_of_face)
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    edge_of_face = rank.astype(np.int32)[edge_of_face]
    starts = np.append(0, np.cumsum(np.bincount(edge_of_face, minlength=len(order))))
    grouped = np.empty_like(values)
    _group(edge_of_face, values, starts[:-1].copy(), grouped)
    return Contacts(ends[order], starts, grouped)


@compiled
def _previous(ids: np.ndarray, z: int, y: int, x: int) -> tuple[int, int, int]:
    """Fragments of the voxels before it along z, y and x; at the border its own."""
    own = ids[z, y, x]
    return (
        ids[z - 1, y, x] if z > 0 else own,
        ids[z, y - 1, x] if y > 0 else own,
        ids[z, y, x - 1] if x > 0 else own,
    )


@compiled
def _count_faces(ids: np.ndarray) -> int:
    depth, height, width = ids.shape
    count = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                own = ids[z, y, x]
                if own == 0:
                    continue
                before, above, left = _previous(ids, z, y, x)
                if before != own or above != own or left != own:
                    for other in (before, above, left):
                        count += other != own and other != 0
    return count


@compiled
def _number_of(low: int, high: int, first: np.ndarray, after: np.ndarray, ends: np.ndarray) -> int:
    """The number of the pair `low` < `high`, or -1.

    `first` (ids,) and `after` (E,) list the pairs of each lower id. The one that is found moves to
    the front, where the next voxels look for it.
    """
    before, pair = -1, first[low]
    while pair >= 0 and ends[pair, 1] != high:
        before, pair = pair, after[pair]
    if pair >= 0 and before >= 0:
        after[before] = after[pair]
        after[pair] = first[low]
        first[low] = pair
    return pair


@compiled
def _longer(ends: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lists with room for twice as many pairs."""
    more_ends, more_after = (
        np.empty((2 * len(ends), 2), np.int32),
        np.empty(2 * len(ends), np.int32),
    )
    for i in range(len(ends)):
        more_ends[i, 0], more_ends[i, 1], more_after[i] = ends[i, 0], ends[i, 1], after[i]
    return more_ends, more_after


@compiled
def _list_faces(
    affinities: np.ndarray,
    ids: np.ndarray,
    highest: np.float32,
    sides: np.ndarray,
    values: np.ndarray,
) -> None:
    """Writes the two fragments of each face, the smaller first, and the affinity across it."""
    depth, height, width = ids.shape
    face = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                own = ids[z, y, x]
                if own == 0:
                    continue
                before, above, left = _previous(ids, z, y, x)
                if before == own and above == own and left == own:
                    continue
                for axis, other in enumerate((before, above, left)):
                    if other != own and other != 0:
                        sides[face, 0], sides[face, 1] = min(own, other), max(own, other)
                        values[face] = np.float32(affinities[axis, z, y, x]) / highest
                        face += 1


@compiled
def _number_pairs(sides: np.ndarray, first: np.ndarray, edge_of_face: np.ndarray) -> np.ndarray:
    """Writes the number of the pair of each face; the pairs (E, 2). `first` (ids,) is filled -1."""
    ends, after = np.empty((512, 2), np.int32), np.empty(512, np.int32)
    used = 0
    for face in range(len(sides)):
        low, high = sides[face, 0], sides[face, 1]
        number = _number_of(low, high, first, after, ends)
        if number < 0:
            if used == len(ends):
                ends, after = _longer(ends, after)
            ends[used, 0], ends[used, 1] = low, high
            after[used], first[low] = first[low], used
            number = used
            used += 1
        edge_of_face[face] = number
    return ends[:used]


@compiled
def _group(edge_of_face: np.ndarray, values: np.ndarray, at: np.ndarray, out: np.ndarray) -> None:
    """Writes the values edge after edge; `at` (E,) begins as the first place of each edge."""
    for face in range(len(values)):
        edge = edge_of_face[face]
        out[at[edge]] = values[face]
        at[edge] += 1
