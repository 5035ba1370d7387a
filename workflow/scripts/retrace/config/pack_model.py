"""Settings of a packed experiment: an RO-Crate, or a bundle."""

from __future__ import annotations

from pydantic import Field

from retrace.config.workflow import WorkflowConfig
from retrace.setting_types import Text
from retrace.settings_model import SettingsModel


class PackSettings(SettingsModel):
    """The packed experiment, and the configuration that it runs with."""

    name: Text = Field(description="Name of the experiment: DATASET_NETWORK.")
    target: Text = Field(description="Target that Snakemake runs.")
    dataset: Text = Field(description="Name of the dataset.")
    config: WorkflowConfig = Field(description="Configuration of the run.")
