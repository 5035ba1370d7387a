"""Settings of a package: the network, the dataset that it was trained on, authors and licence."""

from __future__ import annotations

from pydantic import Field

from retrace.config.any_network import AnyNetwork
from retrace.config.dataset_model import DatasetName
from retrace.config.workflow import Package
from retrace.formats.normalize import Normalize
from retrace.setting_types import NmSize
from retrace.settings_model import SettingsModel


class PackagedDataset(SettingsModel):
    """The dataset in a package's description."""

    name: DatasetName = Field(description="Name of the dataset.")
    voxel_size_nm: NmSize | None = Field(
        None, description="Voxel size (z, y, x), nm. Absent: single examples."
    )
    normalize: tuple[Normalize, ...] = Field(
        (), description="How its images became grey values; empty if they are stored as such."
    )


class PackageSettings(Package):
    """A package: a network, its dataset, authors and licence."""

    network: AnyNetwork = Field(description="The network, with the settings of its family.")
    dataset: PackagedDataset = Field(description="The dataset that it was trained on.")
