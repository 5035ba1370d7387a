"""Brightness and contrast as gunpowder's IntensityAugment defines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def change_intensity(raw: Tensor, rng: np.random.Generator, step: Mapping[str, Any]) -> Tensor:
    """mean + (raw - mean) * scale + shift, clipped to [0, 1]; `raw` (Z, Y, X) in [0, 1].

    With `per_section` mean, scale and shift belong to one section, otherwise to the block.
    """
    count = raw.shape[0] if step["per_section"] else 1
    factors = np.stack(
        [rng.uniform(low, high, count) for low, high in (step["scale"], step["shift"])]
    )
    scale, shift = torch.from_numpy(factors).to(raw.device, raw.dtype)[:, :, None, None]
    mean = raw.mean(dim=(1, 2) if step["per_section"] else (0, 1, 2), keepdim=True)
    return (mean + (raw - mean) * scale + shift).clamp_(0, 1)
