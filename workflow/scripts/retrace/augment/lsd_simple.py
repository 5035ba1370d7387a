"""Mirrored and transposed axes as a step of the family lsd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from retrace.augment.lsd import LsdAugmentation, Move
from retrace.geometry import Triple
from retrace.settings_model import SettingsModel

if TYPE_CHECKING:
    import numpy as np

AxisNumber = Annotated[int, Field(strict=True, ge=0, le=2)]
AxisNumbers = tuple[AxisNumber, ...]
"""Axes of a volume: 0 is z, 1 is y, 2 is x."""


class SimpleAugment(SettingsModel):
    """Mirrored and transposed axes."""

    mirror: AxisNumbers = Field(
        description="Axes that are flipped, each with probability 1/2 (0 is z, 1 is y, 2 is x)."
    )
    transpose: AxisNumbers = Field(description="Axes that are permuted with each other.")

    @model_validator(mode="after")
    def _no_axis_twice(self) -> Self:
        for axes in (self.mirror, self.transpose):
            if len(set(axes)) < len(axes):
                raise ValueError(f"{list(axes)} names an axis twice")
        return self


def draw(rng: np.random.Generator, shape: Triple, settings: SimpleAugment) -> Move:
    """An orientation of an output of `shape` voxels (z, y, x)."""
    from retrace.augment.simple import draw_simple

    return draw_simple(rng, shape, mirror=settings.mirror, transpose=settings.transpose)


SIMPLE = LsdAugmentation("Mirrored and transposed axes.", SimpleAugment, draw=draw)
