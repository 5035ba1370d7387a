"""Random contrast and brightness, as gunpowder's IntensityAugment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def change_intensity(
    raw: Tensor,
    rng: np.random.Generator,
    *,
    scale: Sequence[float],
    shift: Sequence[float],
    per_section: bool,
) -> Tensor:
    """mean + (raw - mean) * scale + shift, clipped to [0, 1]; `raw` (Z, Y, X) in [0, 1].

    `scale` and `shift`: lowest and highest value, drawn uniformly. Mean, scale and shift are those
    of each section if `per_section`, else of the block.
    """
    count = raw.shape[0] if per_section else 1
    draws = np.stack([rng.uniform(low, high, count) for low, high in (scale, shift)])
    factor, summand = torch.from_numpy(draws).to(raw.device, raw.dtype)[:, :, None, None]
    mean = raw.mean(dim=(1, 2) if per_section else (0, 1, 2), keepdim=True)
    return (mean + (raw - mean) * factor + summand).clamp_(0, 1)
