"""Boxes in voxels and boxes in nm, as different types; axis order z, y, x."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Generic, Self, TypeVar

from retrace.cropping import central_offset
from retrace.errors import DataError

Triple = tuple[int, int, int]
NmTriple = tuple[float, float, float]
"""Lengths or a position in nm (z, y, x); whole numbers are ints, and written as such."""

NM_DECIMALS = 6
"""Decimals of positions in nm, so that sums of fractions such as 4.6 are exact."""
ON_GRID = 1e-4
"""Voxels by which a position in nm may miss the voxel grid because decimals end."""

FARTHEST_NM = 2**53
"""Largest length or coordinate: fractions of 64 bits skip whole numbers beyond it."""

Number = TypeVar("Number", int, float)


def triple(values: Sequence[float]) -> Triple:
    """Three whole numbers (z, y, x) as ints; DataError for anything else."""
    if len(values) != 3 or any(int(v) != v for v in values):
        raise DataError(f"{list(values)} is not a (z, y, x) triple of whole numbers")
    z, y, x = (int(v) for v in values)
    return z, y, x


def nm_triple(values: Sequence[float]) -> NmTriple:
    """Three positions or lengths in nm (z, y, x); DataError for anything else."""
    z, y, x = (_plain(round(v, NM_DECIMALS)) for v in _three_numbers(values))
    return z, y, x


def checked_voxel_size(values: Sequence[float]) -> NmTriple:
    """A voxel size in nm (z, y, x), exactly as it is given; DataError for anything else."""
    z, y, x = (_plain(v) for v in _three_numbers(values))
    if min(z, y, x) <= 0:
        raise DataError(f"{[z, y, x]} nm (z, y, x) is no voxel size; each edge must be above 0")
    return z, y, x


def _three_numbers(values: Sequence[float]) -> list[float]:
    numbers = [v if isinstance(v, int) else float(v) for v in values]
    if len(numbers) != 3 or not all(abs(number) <= FARTHEST_NM for number in numbers):
        raise DataError(f"{list(values)} is not a (z, y, x) triple of numbers up to 2^53")
    return numbers


def _plain(value: float) -> float:
    """A whole number as int, all others unchanged."""
    return int(value) if int(value) == value else value


def whole_voxels(values_nm: Sequence[float], voxel_size_nm: Sequence[float]) -> Triple | None:
    """Lengths or a position in voxels (z, y, x), None if they are no whole numbers of voxels."""
    counts = [v / size for v, size in zip(values_nm, voxel_size_nm, strict=True)]
    if any(abs(count - round(count)) > ON_GRID for count in counts):
        return None
    return triple([round(count) for count in counts])


def voxels_to_cover(lengths_nm: Sequence[float], voxel_size_nm: Sequence[float]) -> Triple:
    """The fewest voxels (z, y, x) that are at least as long as `lengths_nm`."""
    pairs = zip(lengths_nm, voxel_size_nm, strict=True)
    return triple([math.ceil(length / size - ON_GRID) for length, size in pairs])


def pixel_factor(coarser_nm: Sequence[float], finer_nm: Sequence[float]) -> int:
    """How many of the finer pixels a coarser one is wide; DataError if that is no whole number."""
    factors = whole_voxels(coarser_nm, finer_nm)
    if factors is None or factors[1] < 1:
        raise DataError(
            f"voxels of {list(coarser_nm)} nm are no whole number of voxels of {list(finer_nm)} nm"
        )
    return factors[1]


def in_nm(voxels: Sequence[int], voxel_size_nm: Sequence[float]) -> NmTriple:
    """A position or a shape in voxels (z, y, x) as nm."""
    return nm_triple([n * size for n, size in zip(voxels, voxel_size_nm, strict=True)])


def shifted(
    offset_nm: Sequence[float], voxels: Sequence[int], voxel_size_nm: Sequence[float]
) -> NmTriple:
    """A position moved by whole voxels (z, y, x), nm."""
    moves = in_nm(voxels, voxel_size_nm)
    return nm_triple([start + move for start, move in zip(offset_nm, moves, strict=True)])


@dataclass(frozen=True)
class _Box(Generic[Number]):
    """An axis-aligned box: `offset` is its first corner, `shape` its extent, both (z, y, x)."""

    offset: tuple[Number, Number, Number]
    shape: tuple[Number, Number, Number]

    def __post_init__(self) -> None:
        object.__setattr__(self, "offset", self._triple(self.offset))
        object.__setattr__(self, "shape", self._triple(self.shape))

    @staticmethod
    def _triple(values: Sequence[Number]) -> tuple[Number, Number, Number]:
        raise NotImplementedError

    @property
    def end(self) -> tuple[Number, Number, Number]:
        """The corner just after the last voxel."""
        return self._triple([o + s for o, s in zip(self.offset, self.shape, strict=True)])

    @property
    def is_empty(self) -> bool:
        """Whether an edge has no length."""
        return any(s <= 0 for s in self.shape)

    @property
    def size(self) -> Number:
        """The volume in voxels or nm³, 0 for an empty box."""
        z, y, x = self.shape
        return z * y * x * (not self.is_empty)

    def intersect(self, other: Self) -> Self:
        """The overlap with another box; empty, with an edge of 0, if there is none."""
        begin = [max(a, b) for a, b in zip(self.offset, other.offset, strict=True)]
        end = [min(a, b) for a, b in zip(self.end, other.end, strict=True)]
        shape = [max(b, e) - b for b, e in zip(begin, end, strict=True)]
        return type(self)(self._triple(begin), self._triple(shape))

    def grow(self, amount: Sequence[Number]) -> Self:
        """The box extended by `amount` (z, y, x) on both sides of each axis; negative: shrunk."""
        offset = [o - a for o, a in zip(self.offset, amount, strict=True)]
        shape = [s + 2 * a for s, a in zip(self.shape, amount, strict=True)]
        return type(self)(self._triple(offset), self._triple(shape))

    def shift(self, by: Sequence[Number]) -> Self:
        """The box moved by `by` (z, y, x)."""
        moved = [o + b for o, b in zip(self.offset, by, strict=True)]
        return type(self)(self._triple(moved), self.shape)

    def contains(self, other: Self) -> bool:
        """Whether the other box is inside this one."""
        begins = zip(self.offset, other.offset, strict=True)
        ends = zip(self.end, other.end, strict=True)
        return all(a <= b for a, b in begins) and all(b <= a for a, b in ends)


class VoxelBox(_Box[int]):
    """A box in voxels of one volume's grid."""

    _triple = staticmethod(triple)

    def to_nm(self, voxel_size_nm: Sequence[float]) -> NmBox:
        """The same box in nm; `voxel_size_nm` (z, y, x)."""
        return NmBox(in_nm(self.offset, voxel_size_nm), in_nm(self.shape, voxel_size_nm))

    def central(self, shape: Sequence[int]) -> VoxelBox:
        """The box of this shape (z, y, x) in the middle of this one; see `central_offset`."""
        return VoxelBox(triple(central_offset(self.shape, shape)), triple(shape)).shift(self.offset)

    def slices(self, origin: Sequence[int] = (0, 0, 0)) -> tuple[slice, slice, slice]:
        """Slices (z, y, x) into an array whose first voxel is at `origin`."""
        z, y, x = (
            slice(b - o, e - o) for b, e, o in zip(self.offset, self.end, origin, strict=True)
        )
        return z, y, x


class NmBox(_Box[float]):
    """A box in world coordinates, nm."""

    _triple = staticmethod(nm_triple)

    def to_voxels(self, voxel_size_nm: Sequence[float]) -> VoxelBox:
        """The same box in voxels; DataError if it is off the voxel grid."""
        begin, shape = (whole_voxels(v, voxel_size_nm) for v in (self.offset, self.shape))
        if begin is None or shape is None:
            wrong = self.offset if begin is None else self.shape
            raise DataError(
                f"{list(wrong)} nm is no multiple of the voxel size {list(voxel_size_nm)} nm; "
                "choose offset and shape on the voxel grid"
            )
        return VoxelBox(begin, shape)


def clear_of(box: VoxelBox, hole: VoxelBox, kept: VoxelBox) -> VoxelBox:
    """The largest part of `box` that is a box, contains `kept`, and shares no voxel with `hole`.

    DataError if `kept` and `hole` overlap.
    """
    if box.intersect(hole).is_empty:
        return box
    parts = []
    for axis in range(3):
        begin, end = list(box.offset), list(box.end)
        if hole.end[axis] <= kept.offset[axis]:
            begin[axis] = hole.end[axis]
        elif hole.offset[axis] >= kept.end[axis]:
            end[axis] = hole.offset[axis]
        else:
            continue
        shape = triple([e - b for b, e in zip(begin, end, strict=True)])
        parts.append(VoxelBox(triple(begin), shape))
    if not parts:
        raise DataError(f"the boxes {kept} and {hole} (voxels) overlap; keep them apart")
    return max(parts, key=lambda part: part.size)


def chunk_count(shape: Sequence[int], chunk_shape: Sequence[int]) -> int:
    """Number of chunks of an array, those at its end included."""
    return math.prod(math.ceil(n / m) for n, m in zip(shape, chunk_shape, strict=True))


def chunk_indices(shape: Sequence[int], chunk_shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The indices of all chunks of an array, in ascending order.

    One by one: itertools.product would list each axis first, however long a wrong shape makes it.
    """
    if not shape:
        yield ()
        return
    for first in range(-(-shape[0] // chunk_shape[0])):
        for rest in chunk_indices(shape[1:], chunk_shape[1:]):
            yield (first, *rest)


def blocks(box: VoxelBox, block_shape: Sequence[int]) -> Iterator[VoxelBox]:
    """Blocks of `block_shape` (z, y, x) that tile `box` from its first corner, cut at its end."""
    starts = [range(b, e, s) for b, e, s in zip(box.offset, box.end, block_shape, strict=True)]
    for corner in product(*starts):
        yield VoxelBox(triple(corner), triple(block_shape)).intersect(box)
