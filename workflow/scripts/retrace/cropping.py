"""The middle of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Array = TypeVar("Array", "np.ndarray", "Tensor")


def central_offset(outer: Sequence[int], inner: Sequence[int]) -> list[int]:
    """First index on each axis of `inner` in the middle of `outer`, both shapes.

    Of an odd excess, the larger half is at the end.
    """
    return [(n - m) // 2 for n, m in zip(outer, inner, strict=True)]


def centre_crop(x: Array, shape: Sequence[int]) -> Array:
    """Central `shape` of the last axes of `x`, a view; see `central_offset`."""
    begin = central_offset(x.shape[-len(shape) :], shape)
    inside: list[slice] = [slice(b, b + n) for b, n in zip(begin, shape, strict=True)]
    index: tuple[EllipsisType | slice, ...] = (..., *inside)
    return x[index]


def middle(x: Array, largest: Sequence[int]) -> Array:
    """The middle of the last axes of `x`, a view of at most `largest` values along each."""
    sizes = x.shape[-len(largest) :]
    return centre_crop(x, [min(n, most) for n, most in zip(sizes, largest, strict=True)])
