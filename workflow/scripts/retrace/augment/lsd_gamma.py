"""Grey values to the power of a random exponent as a step of the family lsd."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from retrace.augment.lsd import LsdAugmentation
from retrace.setting_types import Flag, Fraction, PositiveRange
from retrace.settings_model import SettingsModel

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class GammaAugment(SettingsModel):
    """Grey values to the power of a random exponent."""

    exponent: PositiveRange = Field(
        description="Range of the exponent; its logarithm is drawn uniformly. Exponents above 1 "
        "make raw darker."
    )
    per_section: Flag = Field(
        False, description="Whether each z section gets its own exponent, or all share one."
    )
    probability: Fraction = Field(
        1, description="Probability that a section, or the block, is changed."
    )


def change(raw: Tensor, rng: np.random.Generator, settings: GammaAugment) -> Tensor:
    """`raw` (Z, Y, X) in [0, 1] to the power of the exponents that are drawn."""
    import numpy as np
    import torch

    count = raw.shape[0] if settings.per_section else 1
    low, high = (math.log(end) for end in settings.exponent)
    drawn = np.exp(rng.uniform(low, high, count))
    changed = rng.random(count) < settings.probability
    if not changed.any():
        return raw
    exponents = np.where(changed, drawn, 1)
    powers = torch.from_numpy(exponents).to(raw.device, raw.dtype)[:, None, None]
    return raw.clamp(0, 1) ** powers


GAMMA = LsdAugmentation("Random exponent of the grey values.", GammaAugment, change=change)
