"""Settings of the jobs that train an alignment network, align a stack, and score it."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from retrace.config.alignment_model import DefectDetector, HeldOutFraction
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.formats.source import DefectMaskSource, Source
from retrace.planning.train_settings import MeasuredTraining
from retrace.setting_types import (
    DEFAULT_ZARR_FORMAT,
    Count,
    Device,
    Flag,
    NmSize,
    Text,
    WholeFrom0,
    ZarrFormat,
)
from retrace.settings_model import NO_EFFECT, SettingsModel


class FitSettings(MeasuredTraining):
    """What `align.py train` reads."""

    dataset: Text = Field(description="Name of the dataset.")
    voxel_size_nm: NmSize = Field(description="Voxel size (z, y, x), nm.")
    network: SeamlessNetworkSettings = Field(description="The network.")
    epochs: Count | None = Field(None, description="Epochs. None: those of the network.")
    iterations: Count | None = Field(None, description="The last iteration; overrides `epochs`.")
    run: Text | None = Field(
        None, description="Name of the run. None: experiment, digest and last iteration."
    )
    seed: WholeFrom0 = Field(description="Seed of the weights and the pairs.")


class ScheduleSettings(SettingsModel):
    """What `align.py schedule` reads of the settings of a training."""

    model_config = ConfigDict(extra="ignore")

    network: SeamlessNetworkSettings = Field(description="The network.")


class AlignSettings(SettingsModel):
    """What `align.py stack` reads."""

    dataset: Text = Field(description="Name of the dataset.")
    network: SeamlessNetworkSettings = Field(description="The network.")
    sections: Source = Field(description="The sections, at the mip of the fields.")
    fine: Source | None = Field(None, description="The sections to render, at a finer mip.")
    mask: DefectMaskSource | None = Field(None, description="Layer that marks defects.")
    detect: DefectDetector | None = Field(
        None, description="How the output of the network that detects defects becomes a mask."
    )
    near_px: WholeFrom0 = Field(0, description="Radius of label 1 around a defect, pixels.")
    gzip: Flag = Field(description="Whether the layers are compressed.")
    zarr_format: ZarrFormat = Field(
        DEFAULT_ZARR_FORMAT, description="Format of the store: 2, or 3 with shards."
    )
    device: Annotated[Device, NO_EFFECT] = Field("auto", description="Where the network runs.")


class ScoreAlignmentSettings(SettingsModel):
    """What `align.py evaluate` reads."""

    dataset: Text = Field(description="Name of the dataset.")
    network: Text = Field(description="Name of the network.")
    sections: Source = Field(description="The sections before alignment.")
    test_fraction: HeldOutFraction = Field(
        description="Fraction of the sections, the last ones, held out from training."
    )
    device: Annotated[Device, NO_EFFECT] = Field("auto", description="Has no effect.")
