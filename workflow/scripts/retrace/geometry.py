"""Boxes in voxels and boxes in nm, as different types; axis order z, y, x."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

from retrace.errors import DataError

Triple = tuple[int, int, int]


def triple(values: Sequence[int]) -> Triple:
    """Three whole numbers (z, y, x) as ints; DataError for anything else."""
    if len(values) != 3 or any(int(v) != v for v in values):
        raise DataError(f"{list(values)} is not a (z, y, x) triple of whole numbers")
    z, y, x = (int(v) for v in values)
    return z, y, x


@dataclass(frozen=True)
class _Box:
    """An axis-aligned box: `offset` is its first corner, `shape` its extent, both (z, y, x)."""

    offset: Triple
    shape: Triple

    def __post_init__(self) -> None:
        object.__setattr__(self, "offset", triple(self.offset))
        object.__setattr__(self, "shape", triple(self.shape))

    @property
    def end(self) -> Triple:
        """The corner just after the last voxel."""
        return triple([o + s for o, s in zip(self.offset, self.shape, strict=True)])

    @property
    def is_empty(self) -> bool:
        """Whether an edge has no length."""
        return any(s <= 0 for s in self.shape)

    @property
    def size(self) -> int:
        """The volume in voxels or nm³, 0 for an empty box."""
        z, y, x = self.shape
        return 0 if self.is_empty else z * y * x

    def intersect(self, other: Self) -> Self:
        """The overlap with another box; empty, with an edge of 0, if there is none."""
        begin = [max(a, b) for a, b in zip(self.offset, other.offset, strict=True)]
        end = [min(a, b) for a, b in zip(self.end, other.end, strict=True)]
        shape = [max(0, e - b) for b, e in zip(begin, end, strict=True)]
        return type(self)(triple(begin), triple(shape))

    def grow(self, amount: Sequence[int]) -> Self:
        """The box extended by `amount` (z, y, x) on both sides of each axis; negative: shrunk."""
        offset = [o - a for o, a in zip(self.offset, amount, strict=True)]
        shape = [s + 2 * a for s, a in zip(self.shape, amount, strict=True)]
        return type(self)(triple(offset), triple(shape))

    def shift(self, by: Sequence[int]) -> Self:
        """The box moved by `by` (z, y, x)."""
        return type(self)(triple([o + b for o, b in zip(self.offset, by, strict=True)]), self.shape)

    def contains(self, other: Self) -> bool:
        """Whether the other box is inside this one."""
        return self.intersect(other) == other


class VoxelBox(_Box):
    """A box in voxels of one volume's grid."""

    def to_nm(self, voxel_size_nm: Sequence[int]) -> NmBox:
        """The same box in nm; `voxel_size_nm` (z, y, x)."""
        offset = [o * v for o, v in zip(self.offset, voxel_size_nm, strict=True)]
        shape = [s * v for s, v in zip(self.shape, voxel_size_nm, strict=True)]
        return NmBox(triple(offset), triple(shape))

    def slices(self, origin: Sequence[int] = (0, 0, 0)) -> tuple[slice, slice, slice]:
        """Slices (z, y, x) into an array whose first voxel is at `origin`."""
        z, y, x = (
            slice(b - o, e - o) for b, e, o in zip(self.offset, self.end, origin, strict=True)
        )
        return z, y, x


class NmBox(_Box):
    """A box in world coordinates, nm."""

    def to_voxels(self, voxel_size_nm: Sequence[int]) -> VoxelBox:
        """The same box in voxels; DataError if it is off the voxel grid."""
        for values in (self.offset, self.shape):
            if any(v % size for v, size in zip(values, voxel_size_nm, strict=True)):
                raise DataError(
                    f"{list(values)} nm is no multiple of the voxel size {list(voxel_size_nm)} nm; "
                    "choose offset and shape on the voxel grid"
                )
        offset = [o // v for o, v in zip(self.offset, voxel_size_nm, strict=True)]
        shape = [s // v for s, v in zip(self.shape, voxel_size_nm, strict=True)]
        return VoxelBox(triple(offset), triple(shape))


def chunk_count(shape: Sequence[int], chunk_shape: Sequence[int]) -> int:
    """Number of chunks of an array, those at its end included."""
    return math.prod(math.ceil(n / m) for n, m in zip(shape, chunk_shape, strict=True))


def blocks(box: VoxelBox, block_shape: Sequence[int]) -> Iterator[VoxelBox]:
    """Blocks of `block_shape` (z, y, x) that tile `box` from its first corner, cut at its end."""
    starts = [range(b, e, s) for b, e, s in zip(box.offset, box.end, block_shape, strict=True)]
    for corner in product(*starts):
        yield VoxelBox(triple(corner), triple(block_shape)).intersect(box)
