"""Statistics of an object under a window, (10, S), from the sums over the window."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_VARIANCE_NM2 = 1e-3
"""Lower bound of variances (lsd.train.LsdExtractor)."""


def descriptors_of_sums(sums: Tensor, sigma_nm: float) -> Tensor:
    """Descriptors (10, S) in [0, 1] from the sums (10, S), in the order of `lsds.SUMS`."""
    return torch.cat([_of_slots(part, sigma_nm) for part in sums.split(1 << 16, dim=1)], dim=1)


def _of_slots(sums: Tensor, sigma_nm: float) -> Tensor:
    """The same for a number of slots small enough for the processor's cache."""
    xx, x, count, xy, y, yy, zx, z, zy, zz = sums
    count = torch.where(count == 0, 1, count)
    mean = torch.stack((z, y, x)) / count
    z, y, x = mean
    variance = (torch.stack((zz, yy, xx)) / count - mean.square()).clamp_(min=MIN_VARIANCE_NM2)
    covariance = torch.stack((zy, zx, xy)) / count - torch.stack((z * y, z * x, y * x))
    vz, vy, vx = variance
    pearson = covariance / torch.stack((vz * vy, vz * vx, vy * vx)).sqrt_()
    parts = (mean / sigma_nm * 0.5 + 0.5, variance / sigma_nm**2, pearson * 0.5 + 0.5, count[None])
    return torch.cat(parts).clamp_(0, 1)
