"""Gaussian noise as a step of the family lsd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from retrace.augment.lsd import LsdAugmentation
from retrace.setting_types import Fraction, RangeFrom0
from retrace.settings_model import SettingsModel

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class NoiseAugment(SettingsModel):
    """Gaussian noise of a random strength."""

    sd: RangeFrom0 = Field(
        description="Range of the noise's standard deviation, drawn uniformly; raw is in [0, 1]."
    )
    probability: Fraction = Field(1, description="Probability that a block is changed.")


def change(raw: Tensor, rng: np.random.Generator, settings: NoiseAugment) -> Tensor:
    """`raw` (Z, Y, X) in [0, 1] with independent noise in each voxel, clipped to [0, 1]."""
    import numpy as np
    import torch

    if rng.random() >= settings.probability:
        return raw
    sd = rng.uniform(*settings.sd)
    noise = torch.from_numpy(rng.standard_normal(tuple(raw.shape), np.float32))
    return raw.add(noise.to(raw.device, raw.dtype), alpha=sd).clamp_(0, 1)


NOISE = LsdAugmentation("Gaussian noise.", NoiseAugment, change=change)
