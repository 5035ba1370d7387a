"""Defects of single sections as a step of the family lsd, after gunpowder's DefectAugment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from retrace.augment.lsd import LsdAugmentation
from retrace.setting_types import Fraction
from retrace.settings_model import SettingsModel

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class DefectsAugment(SettingsModel):
    """Defects of single z sections, at most one for each section; labels stay as they are."""

    missing: Fraction = Field(0, description="Probability that a section is missing, and so black.")
    low_contrast: Fraction = Field(0, description="Probability that a section has a low contrast.")
    contrast: Fraction = Field(
        0.1, description="Factor of the deviations from its mean in a section of low contrast."
    )
    missing_area: Fraction = Field(
        0,
        description="Probability that an ellipse of a section is missing: black, or of one grey. "
        "Its half axes are 1/16 to 1/4 of the section's sides.",
    )

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        total = self.missing + self.low_contrast + self.missing_area
        if total > 1:
            raise ValueError(
                f"`missing`, `low_contrast` and `missing_area` sum to {total:g}, but a section has "
                "at most one defect; lower them to a sum of at most 1"
            )
        return self


def change(raw: Tensor, rng: np.random.Generator, settings: DefectsAugment) -> Tensor:
    """`raw` (Z, Y, X) in [0, 1] with defects in the sections that are drawn."""
    chances = rng.random(raw.shape[0])
    missing = settings.missing
    low_contrast = missing + settings.low_contrast
    missing_area = low_contrast + settings.missing_area
    raw = raw.clone()
    for section, chance in zip(raw, chances, strict=True):
        if chance < missing:
            section.zero_()
        elif chance < low_contrast:
            mean = section.mean()
            section.copy_(mean + (section - mean) * settings.contrast)
        elif chance < missing_area:
            section.copy_(_with_missing_area(section, rng))
    return raw


def _with_missing_area(section: Tensor, rng: np.random.Generator) -> Tensor:
    """A section (Y, X) in which an ellipse is missing."""
    from retrace.augment.artificial_defects import draw_missing

    area = draw_missing(rng, (section.shape[0], section.shape[1])).to(section.device)
    return area.fill.to(section.dtype).where(area.inside, section)


DEFECTS = LsdAugmentation("Defects of single sections.", DefectsAugment, change=change)
