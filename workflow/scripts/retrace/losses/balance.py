"""Class weights that balance connected and disconnected voxel pairs."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_FRACTION = 0.05
"""Fractions are clipped to [this, 1 - this], so weights are at most 10 (gunpowder)."""


def balance_weights(affinities: Tensor, mask: Tensor | None = None) -> Tensor:
    """Weight 1 / (2 fraction of its class) of each element, float32, 0 where `mask` is 0.

    `affinities`: 0 or 1, any shape; `mask` broadcasts against it. The fractions are over all
    channels and voxels in the mask together. Source: gunpowder, `BalanceLabels`.
    """
    positive = affinities > 0.5
    inside = torch.ones_like(positive) if mask is None else (mask != 0).expand_as(positive)
    fraction = (positive & inside).sum() / inside.sum().clamp(min=1)
    fraction = fraction.float().clamp(MIN_FRACTION, 1 - MIN_FRACTION)
    return torch.where(positive, 0.5 / fraction, 0.5 / (1 - fraction)) * inside
