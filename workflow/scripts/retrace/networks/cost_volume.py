"""Compares feature maps at every shift, and averages over windows: compiled, or in torch.

Where there is numba, compiled code computes float32 on a CPU; torch computes the rest. Results
agree to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrace.networks.strips import in_strips

SHORTEST = 1e-4
"""Lower bound on the length that maps are divided by."""


def local_correlation(source: Tensor, target: Tensor, radius: int) -> Tensor:
    """Cost volume (N, (2 radius + 1)^2, H, W): correlation of `target` at r with `source` at r + d.

    For all shifts d of up to `radius` px, row by row. The C feature maps (N, C, H, W) are
    standardised at each pixel, so values lie in [-1, 1]; 0 where r + d is outside (Sun et al. 2018,
    PWC-Net, section 3).
    """
    centre, moved = _standardised(target), _standardised(source)
    if _is_compiled(centre) and _is_compiled(moved):
        compiled: Tensor = _ShiftProducts.apply(moved, centre, radius)
        return compiled
    height, width = target.shape[-2:]
    padded = functional.pad(moved, [radius] * 4)
    steps = range(2 * radius + 1)
    products = [
        (centre * padded[..., y : y + height, x : x + width]).sum(1) for y in steps for x in steps
    ]
    return torch.stack(products, dim=1)


def window_means(x: Tensor, radius: int) -> Tensor:
    """Means of `x` (N, C, H, W) over squares of side 2 radius + 1 px, of the pixels inside.

    Separable: the mean over a square is that of the means over its columns.
    """
    if _is_compiled(x):
        compiled: Tensor = _WindowMeans.apply(x, radius)
        return compiled
    side = 2 * radius + 1
    rows = functional.avg_pool2d(x, (side, 1), 1, (radius, 0), count_include_pad=False)
    return functional.avg_pool2d(rows, (1, side), 1, (0, radius), count_include_pad=False)


@cache
def _kernels() -> Any:
    """The compiled loops, or None: a packaged network has only torch.

    Imported when they are needed: numba takes most of a second.
    """
    try:
        from retrace.networks import shift_kernels
    except ImportError:
        return None
    return shift_kernels


def _is_compiled(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and _kernels() is not None


def _standardised(maps: Tensor) -> Tensor:
    """`maps` (N, C, H, W) with mean 0 and length 1 over the channels of each pixel."""
    if not _is_compiled(maps) or (torch.is_grad_enabled() and maps.requires_grad):
        return functional.normalize(maps - maps.mean(1, keepdim=True), dim=1, eps=SHORTEST)
    return _filled(_kernels().standardise_rows, maps.shape, maps, SHORTEST)


def _filled(kernel: Callable[..., None], shape: torch.Size, *inputs: Tensor | float) -> Tensor:
    """(N, C, H, W) that `kernel` fills row by row for each image, in strips on torch's threads.

    It gets an image of the result and of each tensor among `inputs`, the other `inputs`, and the
    first and the last row, exclusive, of a strip.
    """
    result = torch.empty(shape)
    whole = [x.contiguous().numpy() if isinstance(x, Tensor) else x for x in inputs]
    filled = result.numpy()
    for image in range(shape[0]):
        parts = [x[image] if isinstance(x, np.ndarray) else x for x in whole]
        in_strips(shape[2], partial(kernel, filled[image], *parts))
    return result


class _ShiftProducts(torch.autograd.Function):
    """Sums over the channels of maps' products (N, C, H, W), at every shift of the first."""

    @staticmethod
    def forward(ctx: Any, moved: Tensor, centre: Tensor, radius: int) -> Tensor:
        ctx.save_for_backward(moved, centre)
        ctx.radius = radius
        count, _, height, width = centre.shape
        shape = torch.Size((count, (2 * radius + 1) ** 2, height, width))
        return _filled(_kernels().multiply_shifts, shape, moved, centre, radius)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        moved, centre = ctx.saved_tensors
        sums = [
            _filled(_kernels().sum_shifts, other.shape, gradients[0], other, ctx.radius, sign)
            if used
            else None
            for other, sign, used in zip(
                (centre, moved), (-1, 1), ctx.needs_input_grad, strict=False
            )
        ]
        return sums[0], sums[1], None


class _WindowMeans(torch.autograd.Function):
    """`window_means`; the gradient is a sum over the same windows, of gradients over counts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, radius: int) -> Tensor:
        ctx.radius = radius
        return _filled(_kernels().average_rows, x.shape, x, radius)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        rows, columns = (_inside_window(size, ctx.radius) for size in gradient.shape[-2:])
        counts = rows[:, None] * columns
        return _filled(
            _kernels().average_rows, gradient.shape, gradient / counts, ctx.radius
        ) * counts, None


def _inside_window(size: int, radius: int) -> Tensor:
    """Pixels (size,) of an axis in the window of each."""
    places = torch.arange(size)
    reach = (places + radius).clamp(max=size - 1) - (places - radius).clamp(min=0)
    return (reach + 1).float()
