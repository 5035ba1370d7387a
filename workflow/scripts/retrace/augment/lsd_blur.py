"""Gaussian blur as a step of the family lsd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from retrace.augment.lsd import LsdAugmentation
from retrace.setting_types import Fraction, NumberFrom0
from retrace.settings_model import SettingsModel

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class BlurAugment(SettingsModel):
    """Gaussian blur of a random strength."""

    max_sigma: tuple[NumberFrom0, NumberFrom0, NumberFrom0] = Field(
        description="Largest standard deviation of the Gaussian along z, y and x, voxels. One "
        "factor from 0 to 1, drawn uniformly, multiplies all three."
    )
    probability: Fraction = Field(1, description="Probability that a block is changed.")


def change(raw: Tensor, rng: np.random.Generator, settings: BlurAugment) -> Tensor:
    """`raw` (Z, Y, X), blurred; at its border the Gaussian is cut off and scaled to sum to 1."""
    import torch

    if rng.random() >= settings.probability:
        return raw
    factor = rng.random()
    for axis, largest in enumerate(settings.max_sigma):
        if factor * largest > 0:
            weights = gaussian_weights(raw.shape[axis], factor * largest).to(raw.device, raw.dtype)
            raw = torch.tensordot(weights, raw, ([1], [axis])).movedim(0, axis)
    return raw.contiguous()


def gaussian_weights(size: int, sigma: float) -> Tensor:
    """Weights (size, size) float64 of the voxels of an axis in each blurred one; rows sum to 1."""
    import torch

    place = torch.arange(size, dtype=torch.float64)
    weights = torch.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
    return weights / weights.sum(1, keepdim=True)


BLUR = LsdAugmentation("Gaussian blur.", BlurAugment, change=change)
