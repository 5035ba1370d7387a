"""The largest value of each window: of values, or of their sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

Combine = Callable[[Tensor, Tensor], Tensor]


def shifted(x: Tensor, size: Sequence[int], combine: Combine = torch.maximum) -> Tensor:
    """Each window of `size` (z, y, x) of (N, C, Z, Y, X) combined, one a voxel.

    Axis by axis over shifted maps: on a CPU much faster than the library's pooling without
    gradients. With gradients it is not, and of equal values the first has to take all of it.
    """
    for axis, length in enumerate(size, start=2):
        kept = x.shape[axis] - length + 1
        x = reduce(combine, [x.narrow(axis, start, kept) for start in range(length)])
    return x


def larger_by_size(one: Tensor, other: Tensor) -> Tensor:
    """Of two values the one farther from 0, the positive one where both are as far."""
    high, low = torch.maximum(one, other), torch.minimum(one, other)
    return torch.where(high >= -low, high, low)


def max_pool(x: Tensor, size: Sequence[int], stride: Sequence[int]) -> Tensor:
    """(N, C, Y, X) or (N, C, Z, Y, X); windows within a section are pooled section by section."""
    if len(size) == 2:
        return functional.max_pool2d(x, tuple(size), tuple(stride))
    if size[0] == 1 and stride[0] == 1 and x.shape[1] > 1 and x.stride(1) == 1:
        sections = x.permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2)
        plane = functional.max_pool2d(sections, tuple(size[1:]), tuple(stride[1:]))
        return plane.permute(0, 2, 3, 1).unflatten(0, (len(x), -1)).permute(0, 4, 1, 2, 3)
    if size[0] == 1 and stride[0] == 1:
        plane = functional.max_pool2d(x.flatten(0, 1), tuple(size[1:]), tuple(stride[1:]))
        return plane.unflatten(0, x.shape[:2])
    return functional.max_pool3d(x, tuple(size), tuple(stride))


def maxabs_pool(x: Tensor, size: Sequence[int], stride: Sequence[int]) -> Tensor:
    """The value of each window that is farthest from 0, with its sign."""
    high, low = max_pool(x, size, stride), -max_pool(-x, size, stride)
    return torch.where(high >= -low, high, low)


def pool(x: Tensor, size: Sequence[int], mode: str, *, dense: bool = False) -> Tensor:
    """Windows of `size` beside each other, or, dense, one a voxel; mode "max" or "maxabs"."""
    if math.prod(size) == 1:
        return x
    if dense and not (torch.is_grad_enabled() and x.requires_grad):
        return shifted(x, size, larger_by_size if mode == "maxabs" else torch.maximum)
    stride = [1] * len(size) if dense else size
    return (maxabs_pool if mode == "maxabs" else max_pool)(x, size, stride)
