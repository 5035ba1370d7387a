"""Settings of a training: the data, the network, how long, and where it runs."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from retrace.config.any_network import VoxelNetwork, of_family
from retrace.config.dataset_model import DatasetVolume, Entry
from retrace.config.lsd_network import LsdNetworkSettings
from retrace.config.schema import check
from retrace.config.validation_model import Interval, Validation
from retrace.formats.examples_source import ExamplesSource
from retrace.setting_types import (
    Compile,
    Count,
    Device,
    LabelId,
    NmSize,
    Positive,
    Precision,
    Text,
    WholeFrom0,
)
from retrace.settings_model import NO_EFFECT, NOT_TRAINED, SettingsModel


class TrainingDataset(SettingsModel):
    """The volumes that a training reads."""

    name: Text = Field(description="Name of the dataset.")
    voxel_size_nm: NmSize = Field(description="Voxel size (z, y, x), nm.")
    background_ids: tuple[LabelId, ...] = Field((), description="Labels that are not neurons.")
    volumes: dict[str, DatasetVolume] = Field(description="The volumes, by name.")
    train: tuple[Entry, ...] = Field(description="What is trained on.")
    validation: tuple[Entry, ...] = Field((), description="What the training is measured on.")


class TrainingExamples(SettingsModel):
    """The single examples that a training reads."""

    name: Text = Field(description="Name of the dataset.")
    examples: ExamplesSource = Field(description="Where they are, and how they are divided.")


class TrainingExecution(SettingsModel):
    """How any network is trained, without an effect on its weights."""

    not_decided_by: ClassVar[frozenset[object]] = frozenset({NOT_TRAINED})

    device: Annotated[Device, NO_EFFECT] = Field(
        "auto", description="Where the network is trained."
    )
    threads: Annotated[Count | None, NO_EFFECT] = Field(
        None, description="CPU threads. None: as torch chooses."
    )
    workers: Annotated[WholeFrom0 | None, NO_EFFECT] = Field(
        None, description="Threads that prepare batches ahead. None: 2 with a GPU, else 1."
    )
    checkpoint_seconds: Annotated[Positive, NO_EFFECT] = Field(
        300.0, description="Longest time between two saved states, s."
    )


class MeasuredTraining(TrainingExecution):
    """How any network is trained, and measured on validation data meanwhile."""

    validate_every: Annotated[Interval, NO_EFFECT] = Field(
        "auto", description="Iterations between two measurements on validation data."
    )
    selection: Validation | None = Field(
        None, description="How measurements decide which weights are the result. None: not at all."
    )

    @property
    def validation(self) -> Validation:
        """All settings of the validation."""
        return self.selection or Validation(every=self.validate_every)


class TrainSettings(MeasuredTraining):
    """What train.py reads."""

    dataset: TrainingDataset | TrainingExamples = Field(description="The data.")
    network: VoxelNetwork = Field(description="The network, resolved for the dataset.")
    autocontext: Annotated[LsdNetworkSettings, BeforeValidator(of_family)] | None = Field(
        None, description="The network whose descriptors an auto-context network reads."
    )
    iterations: Count = Field(description="The last iteration.")
    seed: WholeFrom0 = Field(description="Seed of the weights and the batches.")
    gpus: Annotated[Count, NO_EFFECT] = Field(
        1, description="Processes, each with its own GPU, that divide a batch."
    )
    seconds: Positive | None = Field(
        None, description="Longest training time, all runs together, s. None: no limit."
    )
    precision: Precision = Field("auto", description="Number format of the computation.")
    compile: Annotated[Compile, NO_EFFECT] = Field(
        "auto", description="Whether torch compiles the network."
    )

    @property
    def validation_decides(self) -> bool:
        """Whether measurements on validation data decide which weights are the result."""
        return self.selection is not None or self.network.follows_validation


def read_train_settings(content: Any) -> TrainSettings:
    """The settings in a job's JSON; ConfigError names the setting and what is allowed."""
    return check(TrainSettings, content, "settings of the training")
