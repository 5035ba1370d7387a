"""Max pooling in 2-D and 3-D: the largest value of each window, or the one largest in magnitude."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

Combine = Callable[[Tensor, Tensor], Tensor]
"""An elementwise function of two maps, such as `torch.maximum`."""


def sliding_window(x: Tensor, size: Sequence[int], combine: Combine = torch.maximum) -> Tensor:
    """Windows of `size` (z, y, x) of `x` (N, C, Z, Y, X) at stride 1, reduced by `combine`.

    Axis by axis over shifted maps, which without gradients is much faster on a CPU than torch's
    pooling. With gradients it is not, and torch's pooling then also passes the whole gradient to
    the first of equal values, which training relies on.
    """
    for axis, length in enumerate(size, start=2):
        kept = x.shape[axis] - length + 1
        x = reduce(combine, [x.narrow(axis, start, kept) for start in range(length)])
    return x


def larger_magnitude(one: Tensor, other: Tensor) -> Tensor:
    """Elementwise the value farther from 0; of equally far ones the positive."""
    high, low = torch.maximum(one, other), torch.minimum(one, other)
    return torch.where(high >= -low, high, low)


def max_pool(x: Tensor, size: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Valid max pooling of `x` (N, C, Y, X) or (N, C, Z, Y, X), channels-last format kept.

    Windows within a section are pooled section by section in 2-D, which is faster on CPUs.
    """
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


def halve(x: Tensor) -> Tensor:
    """The largest value of each square of 2 x 2 pixels of `x` (..., Y, X), each used once.

    Without gradients rows and then columns are compared as a whole, which is much faster on a CPU
    than torch's pooling unless channels are last.
    """
    if x.device.type != "cpu" or (torch.is_grad_enabled() and x.requires_grad):
        return functional.max_pool2d(x, 2)
    height, width = (size // 2 * 2 for size in x.shape[-2:])
    rows = torch.maximum(x[..., 0:height:2, :width], x[..., 1:height:2, :width])
    return torch.maximum(rows[..., 0::2], rows[..., 1::2])


def maxabs_pool(x: Tensor, size: Sequence[int], stride: Sequence[int]) -> Tensor:
    """The value of each window that is farthest from 0, with its sign; shapes as `max_pool`."""
    high, low = max_pool(x, size, stride), -max_pool(-x, size, stride)
    return torch.where(high >= -low, high, low)


def pool(x: Tensor, size: Sequence[int], mode: str, *, dense: bool = False) -> Tensor:
    """ELEKTRONN's pooling of `x` (N, C, [Z,] Y, X) with windows of `size`; mode "max" or "maxabs".

    The stride is the window, or 1 where `dense`. Source: ELEKTRONN, elektronn/net/pooling.py.
    """
    if math.prod(size) == 1:
        return x
    if dense and not (torch.is_grad_enabled() and x.requires_grad):
        return sliding_window(x, size, larger_magnitude if mode == "maxabs" else torch.maximum)
    stride = [1] * len(size) if dense else size
    return (maxabs_pool if mode == "maxabs" else max_pool)(x, size, stride)
