"""Settings of the jobs that convert weights of another program to a model file."""

from __future__ import annotations

from pydantic import Field

from retrace.config.any_network import AnyNetwork
from retrace.config.dataset_model import DatasetName
from retrace.settings_model import SettingsModel


class ConversionSettings(SettingsModel):
    """A network whose weights are converted."""

    dataset: DatasetName = Field(description="Name of the dataset that it is used with.")
    network: AnyNetwork = Field(description="The network, resolved for the dataset.")
