"""How well two aligned sections match around each pixel, and the better of two fields."""

from __future__ import annotations

import torch
from torch import Tensor

from retrace.displacement import smooth

WINDOW_PX = 12.0
"""Standard deviation, pixels, of the Gaussian window that correlations are computed in."""
LARGEST_UNLIKE = 0.2
"""Part of a tile below the lowest correlation from which on the tile counts as badly aligned."""
SHARPNESS = 20.0
"""Factor on the difference of two correlations before the logistic function that weights them."""
BLEND_PX = 8.0
"""Standard deviation, pixels, of the smoothing of these weights."""
LEAST_VARIANCE = 1e-6


def likeness(one: Tensor, other: Tensor) -> Tensor:
    """Correlation coefficient of two images (1, 1, H, W) around each pixel, (1, 1, H, W)."""
    parts = torch.cat([one, other, one * one, other * other, one * other])
    mean, other_mean, square, other_square, product = smooth(parts, WINDOW_PX).split(1)
    variance = (square - mean * mean).clamp(min=LEAST_VARIANCE)
    other_variance = (other_square - other_mean * other_mean).clamp(min=LEAST_VARIANCE)
    return (product - mean * other_mean) / (variance * other_variance).sqrt()


def unlike(correlation: Tensor, lowest: float) -> bool:
    """Whether much of a correlation (1, 1, H, W) is below `lowest`."""
    return float((correlation < lowest).float().mean()) > LARGEST_UNLIKE


def better_of(
    field: Tensor, correlation: Tensor, other: Tensor, other_correlation: Tensor
) -> Tensor:
    """Of two fields (1, 2, H, W), the one that aligns better, blended smoothly.

    `correlation`, `other_correlation` (1, 1, H, W): `likeness` after alignment with each.
    """
    weight = torch.sigmoid(SHARPNESS * (other_correlation - correlation))
    return torch.lerp(field, other, smooth(weight, BLEND_PX))
