"""Settings of the jobs that distort sections, sample stacks, and detect defects."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from retrace.config.alignment_model import DefectDetector, StackSet, SyntheticSections
from retrace.formats.source import DefectMaskSource, Source
from retrace.setting_types import Device, Flag, Fraction, NmSize, Text, WholeFrom0
from retrace.settings_model import NO_EFFECT, SettingsModel

StackSplit = Literal["train", "validation", "test"]


class DistortSettings(SettingsModel):
    """What `stacks.py make` reads: sections to distort, or how to generate them."""

    made: SyntheticSections = Field(description="The distortions.")
    seed: WholeFrom0 = Field(description="Seed of the distortions.")
    voxel_size_nm: NmSize = Field(description="Voxel size of generated sections (z, y, x), nm.")
    raw: Source | None = Field(None, description="Sections to distort. None: generated ones.")


class SampleSettings(SettingsModel):
    """What `stacks.py gen_stack` reads: where stacks are sampled, and how many."""

    name: Text = Field(description="Name of the data set in the file.")
    split: StackSplit = Field(description="The sections to sample from.")
    seed: WholeFrom0 = Field(description="Seed of the places.")
    source: Source = Field(description="The sections.")
    mask: DefectMaskSource | None = Field(None, description="Layer that marks defects.")
    near_px: WholeFrom0 = Field(description="Radius of label 1 around a defect, pixels.")
    stacks: StackSet = Field(description="Size and number of the stacks, and which are rejected.")


class TrainDefectsSettings(SettingsModel):
    """What `defects.py train` reads."""

    defects: DefectDetector = Field(description="The network and its training.")
    seed: WholeFrom0 = Field(description="Seed of the weights and the patches.")
    device: Annotated[Device, NO_EFFECT] = Field(description="Where the network is trained.")


class MaskStacksSettings(SettingsModel):
    """What `defects.py mask` reads."""

    threshold: Fraction = Field(description="Lowest probability of a defect.")
    smallest_px: WholeFrom0 = Field(description="Components with fewer pixels are dropped.")
    near_px: WholeFrom0 = Field(description="Radius of label 1 around a defect, pixels.")
    keep_given: Flag = Field(description="Whether masks in the file are kept as well.")
    device: Annotated[Device, NO_EFFECT] = Field(description="Where the network runs.")
