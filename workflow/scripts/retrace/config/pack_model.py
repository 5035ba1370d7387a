"""Settings of a packed experiment: an RO-Crate, or a bundle."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retrace.config.workflow import WorkflowConfig
from retrace.setting_types import Text
from retrace.settings_model import SettingsModel


class PackedConfiguration(SettingsModel):
    """A configuration of ZNN among the packed files, which names other files."""

    path: Text = Field(description="Path of the .cfg or .spec.")
    base: Text | None = Field(
        None, description="Of a .spec, the folder of the .cfg that names it, if there is one."
    )
    kind: Literal["cfg", "spec"] = Field(description="What it is.")


class PackSettings(SettingsModel):
    """The packed experiment, and the configuration that it runs with."""

    name: Text = Field(description="Name of the experiment: DATASET_NETWORK.")
    target: Text = Field(description="Target that Snakemake runs.")
    dataset: Text = Field(description="Name of the dataset.")
    config: WorkflowConfig = Field(description="Configuration of the run.")
    networks: tuple[Text, ...] = Field((), description="Networks that the target needs.")
    configurations: tuple[PackedConfiguration, ...] = Field(
        (), description="Configurations of ZNN among the packed files."
    )
