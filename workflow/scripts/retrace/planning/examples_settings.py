"""Settings of the jobs that predict and score single examples."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from retrace.config.dataset_model import DatasetName
from retrace.config.elektronn_network import ElektronnNetworkSettings
from retrace.formats.examples_source import ExamplesSource
from retrace.setting_types import Device, Precision, WholeFrom0
from retrace.settings_model import NO_EFFECT, SettingsModel


class ScoredExamples(SettingsModel):
    """The dataset of the examples."""

    name: DatasetName = Field(description="Name of the dataset.")
    examples: ExamplesSource = Field(
        description="Where the examples are, and how they are divided."
    )


class ExamplesSettings(SettingsModel):
    """What `examples.py predict` and `examples.py evaluate` read."""

    dataset: ScoredExamples = Field(description="The examples.")
    network: ElektronnNetworkSettings = Field(description="The network, resolved for the dataset.")
    seed: WholeFrom0 = Field(description="Seed of the network's random parts.")
    device: Annotated[Device, NO_EFFECT] = Field("auto", description="Where the network runs.")
    precision: Precision = Field(
        "auto",
        description="Number format of the computation. auto: fp32, because predictions of examples "
        "are stored as float32.",
    )
