"""Changed contrast and brightness as a step of the family lsd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from retrace.augment.lsd import LsdAugmentation
from retrace.setting_types import Flag, Range
from retrace.settings_model import SettingsModel

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class IntensityAugment(SettingsModel):
    """Changed contrast and brightness."""

    scale: Range = Field(description="Range of the factor applied around the mean.")
    shift: Range = Field(description="Range of the added brightness; raw is in [0, 1].")
    per_section: Flag = Field(
        description="Whether each z section gets its own values, or all share one."
    )


def change(raw: Tensor, rng: np.random.Generator, settings: IntensityAugment) -> Tensor:
    """`raw` (Z, Y, X) in [0, 1] with other contrast and brightness."""
    from retrace.augment.intensity import change_intensity

    return change_intensity(
        raw,
        rng,
        scale=settings.scale,
        shift=settings.shift,
        per_section=settings.per_section,
    )


INTENSITY = LsdAugmentation("Contrast and brightness.", IntensityAugment, change=change)
