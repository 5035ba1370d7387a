"""Elastic deformation as a step of the family lsd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from retrace.augment.lsd import LsdAugmentation, Move
from retrace.geometry import Triple
from retrace.setting_types import Count, Fraction, NumberFrom0, Range, Shape, WholeFrom0
from retrace.settings_model import SettingsModel

if TYPE_CHECKING:
    import numpy as np


class ElasticAugment(SettingsModel):
    """Elastic deformation, rotation, and misaligned sections."""

    control_spacing: Shape = Field(description="Distance between control points, voxels.")
    jitter_sigma: tuple[NumberFrom0, NumberFrom0, NumberFrom0] = Field(
        description="Standard deviation of the control points' displacement, voxels."
    )
    rotation: Range = Field(description="Range of the rotation in the y/x plane, radians.")
    slip_probability: Fraction = Field(description="Probability that one section is shifted alone.")
    shift_probability: Fraction = Field(
        description="Probability that a section and all sections after it are shifted."
    )
    max_misalign: WholeFrom0 = Field(description="Largest shift of a section, voxels.")
    subsample: Count = Field(
        description="The displacement is computed on a grid coarser by this factor, then "
        "interpolated."
    )


def draw(rng: np.random.Generator, shape: Triple, settings: ElasticAugment) -> Move:
    """A deformation of an output of `shape` voxels (z, y, x)."""
    from retrace.augment.elastic import draw_elastic

    return draw_elastic(
        rng,
        shape,
        control_spacing=settings.control_spacing,
        jitter_sigma=settings.jitter_sigma,
        rotation=settings.rotation,
        slip_probability=settings.slip_probability,
        shift_probability=settings.shift_probability,
        max_misalign=settings.max_misalign,
        subsample=settings.subsample,
    )


ELASTIC = LsdAugmentation(
    "Elastic deformation, rotation, misaligned sections.", ElasticAugment, draw=draw
)
