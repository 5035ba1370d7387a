"""Ternary masks of defects in sections, and operations on masks.

A ternary mask is 0 far from any defect, 1 near one, 2 inside one (SEAMLeSS, README; the operations
are those of its masks.py). Masks hold labels, not weights: what a label weighs is up to a loss. No
function changes its argument or passes gradients.

All functions take (..., H, W) tensors of any type and return the same shape and type. A radius is
in pixels, in the Chebyshev metric (a square window).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from retrace.errors import DataError

CLEAN, NEAR, INSIDE = 0, 1, 2


def check_ternary(mask: Tensor, name: str = "mask") -> None:
    """DataError unless `mask` (..., H, W) holds only 0, 1 and 2; `name` is for the message."""
    wrong = [float(v) for v in torch.unique(mask) if float(v) not in (CLEAN, NEAR, INSIDE)]
    if wrong:
        raise DataError(
            f"{name} holds {wrong[:5]}; a mask of sections has 0 (clean), 1 (near a defect) and 2 "
            "(inside one)"
        )


def union(*masks: Tensor) -> Tensor:
    """The largest label at each pixel of `masks`, (..., H, W)."""
    result = masks[0].detach()
    for mask in masks[1:]:
        result = torch.maximum(result, mask.detach())
    return result


def intersect(*masks: Tensor) -> Tensor:
    """The smallest label at each pixel of `masks`, (..., H, W)."""
    result = masks[0].detach()
    for mask in masks[1:]:
        result = torch.minimum(result, mask.detach())
    return result


def invert(mask: Tensor, highest: int = INSIDE) -> Tensor:
    """`highest` - label, (..., H, W); `highest` is 1 for a binary mask."""
    return highest - mask.detach()


def _local_maximum(mask: Tensor, radius: int) -> Tensor:
    """Maximum over the square of side 2 radius + 1, within the image."""
    result = mask.detach().clone()
    for axis in (-2, -1):  # separable: the maximum over a square is that over its columns' maxima
        result = _running_maximum(result, radius, axis)
    return result


def _running_maximum(mask: Tensor, radius: int, axis: int) -> Tensor:
    """Maximum over 2 radius + 1 pixels along an axis, from maxima over half as many."""
    reach = [0, 0] * (-1 - axis) + [radius, radius]
    lowest = False if mask.dtype == torch.bool else _lowest(mask.dtype)
    maxima, size = functional.pad(mask, reach, value=lowest), 1
    while size < 2 * radius + 1:
        step = min(size, 2 * radius + 1 - size)
        kept = maxima.shape[axis] - step
        maxima = torch.maximum(maxima.narrow(axis, 0, kept), maxima.narrow(axis, step, kept))
        size += step
    return maxima


def _lowest(dtype: torch.dtype) -> float:
    """The smallest value of a type."""
    return torch.finfo(dtype).min if dtype.is_floating_point else torch.iinfo(dtype).min


def dilate(mask: Tensor, radius: int) -> Tensor:
    """The largest label within `radius` px of each pixel, (..., H, W)."""
    return _local_maximum(mask, radius)


def contract(mask: Tensor, radius: int) -> Tensor:
    """The smallest label within `radius` px of each pixel, (..., H, W), inside the image."""
    if mask.dtype == torch.bool:
        return ~_local_maximum(~mask, radius)
    return (-_local_maximum(-mask.to(torch.float32), radius)).to(mask.dtype)


def low_pass(mask: Tensor, radius: int = 1) -> Tensor:
    """Morphological closing, (..., H, W): fills holes and gaps narrower than 2 radius + 1 px."""
    return contract(dilate(mask, radius), radius)


def ceil_binary(values: Tensor) -> Tensor:
    """1 where `values` (..., H, W) are above 0, else 0: rounds up an interpolated binary mask."""
    return (values.detach() > 0).to(values.dtype)


def ternary(inside: Tensor, radius: int) -> Tensor:
    """Ternary mask (..., H, W) uint8: 2 in a defect (`inside`, bool), 1 within `radius` px, else 0.

    b + dilate(b, radius) (SEAMLeSS, defect_detector.py).
    """
    binary = inside.to(torch.uint8)
    return binary + dilate(binary, radius)
