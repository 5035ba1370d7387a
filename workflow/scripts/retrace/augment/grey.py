"""Changes of contrast, brightness and gamma as ELEKTRONN draws them.

Source: ELEKTRONN, elektronn/training/trainutils.py (greyAugment).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Grey:
    """v becomes clip(factor v + summand, 0, 1) to the power of gamma, for each listed channel."""

    channels: tuple[int, ...]
    factors: tuple[float, ...]
    summands: tuple[float, ...]
    gammas: tuple[float, ...]

    def apply(self, image: Tensor) -> Tensor:
        """`image` (C, ...) in [0, 1], a changed copy."""
        changed = image.clone()
        rows = zip(self.channels, self.factors, self.summands, self.gammas, strict=True)
        for channel, factor, summand, gamma in rows:
            values = (image[channel] * factor + summand).clamp_(0, 1)
            changed[channel] = torch.pow(values, gamma)
        return changed


def grey_of(numbers: np.ndarray, channels: Sequence[int]) -> Grey:
    """The change that uniform `numbers` (3, channels) in [0, 1) stand for."""
    factors, summands, gammas = numbers
    return Grey(
        tuple(channels),
        tuple((1 + 0.3 * (factors - 0.5)).tolist()),
        tuple((0.3 * (summands - 0.5)).tolist()),
        tuple((2.0 ** (2 * gammas - 1)).tolist()),
    )


def draw_grey(rng: np.random.Generator, channels: Sequence[int]) -> Grey:
    """Factors, then summands, then gammas, each of all channels."""
    return grey_of(rng.random((3, len(channels))), channels)
