"""Settings of the jobs that convert weights of another program to a model file."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from retrace.config.any_network import AnyNetwork
from retrace.config.dataset_model import DatasetName
from retrace.config.znn_network import ZnnHead
from retrace.setting_types import Text
from retrace.settings_model import ONLY_TRAINED, SettingsModel


class ConversionSettings(SettingsModel):
    """A network whose weights are converted."""

    not_decided_by: ClassVar[frozenset[object]] = frozenset({ONLY_TRAINED})

    dataset: DatasetName = Field(description="Name of the dataset that it is used with.")
    network: AnyNetwork = Field(description="The network, resolved for the dataset.")


class OutputFilesSettings(SettingsModel):
    """A prediction that is written under ZNN's file names."""

    prefix: Text = Field(description="Start of the paths.")
    volume: Text = Field(description="Name of the volume.")
    heads: tuple[ZnnHead, ...] = Field(description="Outputs of the network, in order.")
