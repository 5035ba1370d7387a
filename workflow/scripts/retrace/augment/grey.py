"""ELEKTRONN's random changes of contrast, brightness and gamma.

Source: ELEKTRONN, elektronn/training/trainutils.py (greyAugment).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class GreyChange:
    """In each of `channels` a value v becomes clip(factor v + summand, 0, 1) ** gamma."""

    channels: tuple[int, ...]
    factors: tuple[float, ...]
    summands: tuple[float, ...]
    gammas: tuple[float, ...]

    def apply(self, image: Tensor) -> Tensor:
        """A changed copy of `image` (C, ...), values in [0, 1]."""
        changed = image.clone()
        rows = zip(self.channels, self.factors, self.summands, self.gammas, strict=True)
        for channel, factor, summand, gamma in rows:
            values = (image[channel] * factor + summand).clamp_(0, 1)
            changed[channel] = torch.pow(values, gamma)
        return changed


def grey_change(numbers: np.ndarray, channels: Sequence[int]) -> GreyChange:
    """The change for uniform random `numbers` (3, channels) in [0, 1)."""
    factors, summands, gammas = numbers
    return GreyChange(
        tuple(channels),
        tuple((1 + 0.3 * (factors - 0.5)).tolist()),
        tuple((0.3 * (summands - 0.5)).tolist()),
        tuple((2.0 ** (2 * gammas - 1)).tolist()),
    )


def draw_grey_change(rng: np.random.Generator, channels: Sequence[int]) -> GreyChange:
    """Draws all factors, then all summands, then all gammas."""
    return grey_change(rng.random((3, len(channels))), channels)
