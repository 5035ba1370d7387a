"""Settings of the serial sections of a dataset that networks of the family seamless align."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from retrace.config.network_size import WeightedLayer, check_layers, check_patch
from retrace.formats.source import DefectMask, DefectMaskSource, Region
from retrace.setting_types import (
    Count,
    Flag,
    Fraction,
    InWords,
    NumberFrom0,
    Positive,
    Shape,
    Text,
    WholeFrom0,
)
from retrace.settings_model import SettingsModel

DEFECT_LEVELS = 5
"""Resolutions of the network that detects defects, each half of the one before."""
SMALLEST_SIDE_PX = 2 ** (DEFECT_LEVELS - 1)
"""It halves sections four times."""

StackName = Annotated[str, Field(pattern="^[A-Za-z0-9]+$"), InWords("a name of letters and digits")]
Side = Annotated[int, Field(strict=True, ge=SMALLEST_SIDE_PX)]
HeldOutFraction = Annotated[
    float, Field(strict=True, ge=0, lt=1), InWords("a number of at least 0 and less than 1")
]


class Reject(SettingsModel):
    """Places that are rejected when stacks are drawn; another place is drawn instead.

    Defaults are those of SEAMLeSS: clean_stack.py (filled, standard deviation) and cv_sampler.py
    (mean, mask).
    """

    least_filled: Fraction = Field(0.8, description="Lowest fraction of pixels other than 0.")
    least_std: NumberFrom0 = Field(
        10.0, description="Lowest standard deviation of a section, grey values of 255."
    )
    least_mean: NumberFrom0 = Field(
        1.0, description="Lowest mean of the stack, grey values of 255."
    )
    least_clean: Fraction = Field(
        0.01, description="Lowest fraction of the stack that the mask layer leaves."
    )
    attempts: Count = Field(200, description="Places tried for one stack.")


class StackSet(SettingsModel):
    """A set of training stacks, sampled at one mip; defaults as in SEAMLeSS's gen_stack.py."""

    mip: WholeFrom0 | None = Field(
        None, description="Level of the layer to sample. Absent: the level of the source."
    )
    count: Count = Field(
        100,
        description="Number of training stacks. With `coordinates`, the file decides the number.",
    )
    validation_count: WholeFrom0 = Field(
        0,
        description="Number of stacks that trainings are measured on while they run: on two "
        "batches, of different stacks if there are several. 0: trainings also use the sections of "
        "`validation_fraction`, and are not measured.",
    )
    test_count: WholeFrom0 = Field(0, description="Number of stacks from the held-out sections.")
    height: Annotated[int, Field(strict=True, ge=2)] = Field(10, description="Sections of a stack.")
    side: Side = Field(1152, description="Side of the square sections, pixels of that mip.")
    roi_nm: Region | None = Field(
        None, description="Where stacks are drawn from, nm. Absent: everywhere."
    )
    validation_fraction: HeldOutFraction = Field(
        0.1,
        description="Fraction of the sections that validation stacks are drawn from and training "
        "stacks are not; those before the test sections.",
    )
    test_fraction: HeldOutFraction = Field(
        0.2,
        description="Fraction of the sections that is held out for test stacks; the last ones.",
    )
    coordinates: Text | None = Field(
        None,
        description="File with the corners of the training stacks, as gen_stack writes it, or "
        "SEAMLeSS's list of (x, y, z, extent, H).",
    )
    reject: Reject = Field(default_factory=Reject, description="Which places are not used.")

    def count_of(self, split: str) -> int:
        """Number of stacks of a split: train, validation or test."""
        counts = {"train": self.count, "validation": self.validation_count, "test": self.test_count}
        return counts[split]


class SyntheticSections(SettingsModel):
    """Sections with known displacements: generated, or those of the volume, distorted."""

    phantom_shape: Shape | None = Field(
        None,
        description="Sections, rows and columns to generate. Absent: the volume's own sections "
        "are distorted.",
    )
    roi_nm: Region | None = Field(
        None, description="Part of the volume to distort, nm. Absent: all of it."
    )
    jitter_px: WholeFrom0 = Field(
        4, description="Largest translation of a section per axis, whole pixels."
    )
    warp_px: NumberFrom0 = Field(3.0, description="Largest smooth displacement per axis, pixels.")
    spacing_px: Annotated[int, Field(strict=True, ge=4)] = Field(
        64, description="Distance between the control points of the warp, pixels."
    )
    crack: Fraction = Field(0.0, description="Fraction of sections with a crack.")
    fold: Fraction = Field(0.0, description="Fraction of sections with a fold.")
    missing: Fraction = Field(0.0, description="Fraction of sections with a missing area.")
    contrast: Fraction = Field(0.3, description="Largest deviation of a section's gain from 1.")
    near_px: WholeFrom0 = Field(20, description="Radius of label 1 around a defect, pixels.")


class DefectDetector(SettingsModel):
    """The network that detects defects, and how its output becomes a mask.

    Threshold, smallest component and radius are those of SEAMLeSS's defect_detector.py.
    """

    labelled: tuple[Text, ...] = Field(
        (),
        description="Files of stacks with `masks` to train on, in addition to artificial defects.",
    )
    iterations: Count = Field(2000, description="Training iterations.")
    batch_size: Count = Field(4, description="Sections per iteration.")
    side: Annotated[int, Field(strict=True, ge=SMALLEST_SIDE_PX, multiple_of=16)] = Field(
        256, description="Side of the training patches, pixels; a multiple of 16."
    )
    learning_rate: Positive = Field(1e-3, description="Learning rate of Adam.")
    fmaps: Count = Field(16, description="Feature maps of the first level.")
    threshold: Fraction = Field(
        0.4, description="Smoothed probability from which on a pixel is a defect."
    )
    smallest_px: WholeFrom0 = Field(250, description="Components with fewer pixels are dropped.")
    near_px: WholeFrom0 = Field(75, description="Radius of label 1 around a defect, pixels.")

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        """Each level has blocks of three 3 x 3 convolutions; the coarsest level has the most."""
        maps = [self.fmaps * 2**level for level in range(DEFECT_LEVELS)]
        name = "alignment: defects"
        check_layers(name, (WeightedLayer("fmaps", 2 * n, n, 9) for n in maps for _ in range(6)))
        check_patch(name, "side", (self.side, self.side), self.fmaps, self.batch_size)
        return self


class AlignmentFile(SettingsModel):
    """Serial sections to align, and the stacks that networks are trained on."""

    volume: Text = Field(description="Volume whose raw holds the sections.")
    seed: WholeFrom0 = Field(
        0,
        description="Seed of all random draws: positions of stacks, distortions, artificial "
        "defects.",
    )
    made: SyntheticSections | None = Field(
        None,
        description="Makes synthetic sections with known displacements. They are written to "
        "results/DATASET/sections/layer, with their displacements and defects in truth.zarr next "
        "to it. Absent: the volume's own sections, whose displacements are unknown.",
    )
    stacks: dict[StackName, StackSet] = Field(
        default_factory=lambda: {"main": StackSet()},
        min_length=1,
        description="Sets of training stacks by name, each sampled at one mip.",
    )
    mask: DefectMask | None = Field(
        None, description="Layer that marks defects; its voxels may be larger."
    )
    defects: DefectDetector = Field(
        default_factory=DefectDetector,
        description="The network that detects defects, and how its output becomes a mask.",
    )
    detect_defects: Flag = Field(
        False,
        description="Whether `align` also masks defects that this network detects in all sections.",
    )


class Alignment(AlignmentFile):
    """Serial sections to align, with everything filled in."""

    mask: DefectMaskSource | None = Field(  # type: ignore[assignment]
        None, description="Layer that marks defects; its voxels may be larger."
    )
