"""Masks of sections as label images, and their algebra.

A ternary mask has 0 where a pixel is far from every defect, 1 near one, 2 inside one (SEAMLeSS,
README, conventions; the operations are those of its masks.py). Masks are labels, not weights: what
a label weighs is a loss's own business. No function changes its argument or carries gradients.

All take (..., H, W) tensors of any type and give that type back; radii are pixels (Chebyshev).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from retrace.errors import DataError

CLEAN, NEAR, INSIDE = 0, 1, 2


def check_ternary(mask: Tensor, name: str = "mask") -> None:
    """Refuses labels other than 0, 1 and 2 (DataError)."""
    found = [float(v) for v in torch.unique(mask) if float(v) not in (CLEAN, NEAR, INSIDE)]
    if found:
        raise DataError(
            f"{name} holds {found[:5]}; a mask of sections has 0 (clean), 1 (near a defect) and 2 "
            "(inside one)"
        )


def union(*masks: Tensor) -> Tensor:
    """The greatest label at each pixel."""
    result = masks[0].detach()
    for mask in masks[1:]:
        result = torch.maximum(result, mask.detach())
    return result


def intersect(*masks: Tensor) -> Tensor:
    """The smallest label at each pixel."""
    result = masks[0].detach()
    for mask in masks[1:]:
        result = torch.minimum(result, mask.detach())
    return result


def invert(mask: Tensor, highest: int = INSIDE) -> Tensor:
    """`highest` minus the label; 1 for a binary mask. Twice gives the mask back."""
    return highest - mask.detach()


def _extreme(mask: Tensor, radius: int) -> Tensor:
    """Maximum over the square of side 2 radius + 1, of what of it lies in the image."""
    if radius == 0:
        return mask.detach().clone()
    kind, height, width = mask.dtype, *mask.shape[-2:]
    flat = mask.detach().reshape(1, -1, height, width).to(torch.float32)
    # Along one axis after the other: a square's maximum is that of its columns' maxima.
    rows = functional.max_pool2d(flat, (2 * radius + 1, 1), 1, (radius, 0))
    both = functional.max_pool2d(rows, (1, 2 * radius + 1), 1, (0, radius))
    return both.reshape(mask.shape).to(kind)


def dilate(mask: Tensor, radius: int) -> Tensor:
    """The greatest label within `radius` of each pixel."""
    return _extreme(mask, radius)


def contract(mask: Tensor, radius: int) -> Tensor:
    """The smallest label within `radius` of each pixel; outside the image nothing is assumed."""
    if mask.dtype == torch.bool:
        return ~_extreme(~mask, radius)
    return (-_extreme(-mask.to(torch.float32), radius)).to(mask.dtype)


def low_pass(mask: Tensor, radius: int = 1) -> Tensor:
    """Closing: holes and gaps narrower than 2 radius + 1 are filled, larger ones stay."""
    return contract(dilate(mask, radius), radius)


def ceil_binary(values: Tensor) -> Tensor:
    """1 wherever `values` is above 0: of a mask that was resampled between pixels."""
    return (values.detach() > 0).to(values.dtype)


def ternary(inside: Tensor, radius: int) -> Tensor:
    """uint8 labels from what lies inside a defect (booleans): 2 there, 1 within `radius`, else 0.

    The mask is b + dilate(b, radius) (SEAMLeSS, defect_detector.py).
    """
    binary = inside.to(torch.uint8)
    return binary + dilate(binary, radius)
