"""Max filters of ZNN's networks together with the ReLU before them and the phases behind them.

In turn, these three write and read each map several times; compiled, they take a single pass.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from retrace.networks.strips import in_strips
from retrace.znn.graph import Shape

LARGEST_WINDOW = 255
"""Voxels of a window are numbered in one byte, and `filter_kernels.NOWHERE` is none of them."""


@cache
def _filter_kernels() -> Any:
    """The compiled loops, or None: a packaged network has only torch.

    Imported when they are needed: numba takes most of a second.
    """
    try:
        from retrace.networks import filter_kernels
    except ImportError:
        return None
    return filter_kernels


def is_fused(x: Tensor) -> bool:
    """Whether `filter_and_split` computes maps such as `x` (N, C, Z, Y, X): float32 on a CPU.

    Only in channels-last memory format. A record of a pass has torch's operations.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and x.shape[1] > 1
        and x.is_contiguous(memory_format=torch.channels_last_3d)
        and _filter_kernels() is not None
    )


def is_within_section(size: Shape, step: Shape) -> bool:
    """Whether `filter_and_split` computes windows of `size` and phases of `step` (z, y, x)."""
    return size[0] == step[0] == 1 and math.prod(size) < LARGEST_WINDOW


def filter_and_split(x: Tensor, size: Shape, step: Shape, before: Shape, rectify: bool) -> Tensor:
    """`split_phases(max_pool(relu(x), size), step, before)`, ReLU if `rectify`; bit by bit."""
    fused: Tensor = _FilterAndSplit.apply(x, size, step, before, rectify)
    return fused


def _rows(x: Tensor) -> Any:
    """(N, Z, Y, X, C) in the memory of `x` (N, C, Z, Y, X), for compiled code."""
    return x.detach().permute(0, 2, 3, 4, 1).numpy()


def _places(count: int, step: Shape, before: Shape) -> Any:
    """(N, sy, sx): which map of the result is a phase of each of `count` maps."""
    (_, sy, sx), (z, y, x) = step, before
    order = torch.arange(count * sy * sx).view(z, sy, y, sx, x, count // (z * y * x))
    return order.permute(0, 2, 4, 5, 1, 3).reshape(count, sy, sx).numpy()


class _FilterAndSplit(torch.autograd.Function):
    """`filter_and_split`; what it keeps is the number of a voxel of each window, one byte."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, size: Shape, step: Shape, before: Shape, rectify: bool
    ) -> Tensor:
        count, channels, depth, height, width = x.shape
        valid = height - size[1] + 1, width - size[2] + 1
        edges = [-(-voxels // s) for voxels, s in zip(valid, step[1:], strict=True)]
        shape = (count * math.prod(step), channels, depth, *edges)
        result = torch.empty(shape, memory_format=torch.channels_last_3d)
        taps = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last_3d)
        places = _places(count, step, before)
        values, numbers, maps = (_rows(t) for t in (result, taps, x))

        def fill(first: int, stop: int) -> None:
            _filter_kernels().filter_rows(
                values, numbers, maps, places, size[1:], rectify, first, stop
            )

        in_strips(count * depth * edges[0] * step[1], fill)
        ctx.save_for_backward(taps)
        ctx.size, ctx.places, ctx.shape = size, places, x.shape
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (taps,) = ctx.saved_tensors
        given = gradients[0].contiguous(memory_format=torch.channels_last_3d)
        result = torch.empty(ctx.shape, memory_format=torch.channels_last_3d)
        sums, gradient, numbers = (_rows(t) for t in (result, given, taps))
        places, window = ctx.places, ctx.size[1:]

        def fill(first: int, stop: int) -> None:
            _filter_kernels().spread_rows(sums, gradient, numbers, places, window, first, stop)

        in_strips(math.prod(ctx.shape) // (ctx.shape[1] * ctx.shape[4]), fill)
        return result, None, None, None, None
