"""Settings of the report: the configuration, and the experiments on the page."""

from __future__ import annotations

from pydantic import Field

from retrace.config.any_network import AnyNetwork
from retrace.config.dataset_model import DatasetName, Entry
from retrace.config.view_model import ViewLayerSource
from retrace.config.workflow import WorkflowConfig
from retrace.planning.segment_settings import SegmentationSettings
from retrace.setting_types import Count, NmSize, Text
from retrace.settings_model import SettingsModel


class ReportedDataset(SettingsModel):
    """The dataset in the report."""

    name: DatasetName = Field(description="Name of the dataset.")
    voxel_size_nm: NmSize = Field(description="Voxel size (z, y, x), nm.")
    train: tuple[Entry, ...] = Field(description="What is trained on.")
    validation: tuple[Entry, ...] = Field(description="What the threshold is chosen on.")
    test: tuple[Entry, ...] = Field(description="What is scored.")


class ExperimentSettings(SettingsModel):
    """One experiment of the report."""

    dataset: ReportedDataset = Field(description="The dataset.")
    network: AnyNetwork = Field(description="The network, with the settings of its family.")
    segment: SegmentationSettings = Field(description="How the shown volume is segmented.")
    recipe_iterations: Count | None = Field(description="Iterations of the network's recipe.")
    volume: Text = Field(description="The volume that is shown.")
    layers: tuple[ViewLayerSource, ...] = Field(description="Layers of the picture.")
    test_layers: dict[str, tuple[ViewLayerSource, ...]] = Field(
        description="By test volume, the layers of the pictures of errors."
    )
    folder: Text = Field(description="Folder of the results.")

    @property
    def name(self) -> str:
        """DATASET_NETWORK."""
        return f"{self.dataset.name}_{self.network.name}"


class AlignmentExperiment(SettingsModel):
    """A network of the report that aligns sections."""

    dataset: DatasetName = Field(description="Name of the dataset.")
    network: Text = Field(description="Name of the network.")
    folder: Text = Field(description="Folder of the results.")

    @property
    def name(self) -> str:
        """DATASET_NETWORK."""
        return f"{self.dataset}_{self.network}"


class ReportSettings(SettingsModel):
    """What the report shows."""

    config: WorkflowConfig = Field(description="The configuration.")
    experiments: tuple[ExperimentSettings, ...] = Field(description="The experiments, in order.")
    alignments: tuple[AlignmentExperiment, ...] = Field(
        (), description="The networks that align sections, in order."
    )
