"""Settings of the programs that score: the scored part of a dataset, and how it is scored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retrace.config.dataset_model import ShownFigures, Tolerance
from retrace.config.workflow import Thresholds
from retrace.formats.source import Source
from retrace.planning.scored_dataset import ScoredDataset, ScoredSplit
from retrace.setting_types import Count, Flag, GrowBoundary, Text, ThresholdRule
from retrace.settings_model import SettingsModel

CountedArray = Literal["fragments", "segments"]


class CountSettings(SettingsModel):
    """What `evaluate.py count` counts."""

    dataset: ScoredDataset
    volume: Text = Field(description="The volume whose blocks are counted.")
    split: ScoredSplit = Field(description="The split of the entries.")
    array: CountedArray = Field(description="The array that is counted.")


class LearningSettings(SettingsModel):
    """What `evaluate.py learn` trains the classifier of edges on."""

    dataset: ScoredDataset


class ThresholdSettings(SettingsModel):
    """How `evaluate.py choose` chooses the threshold."""

    dataset: ScoredDataset
    thresholds: Thresholds = Field(description="Thresholds to try: first, end (excluded), step.")
    threshold_rule: ThresholdRule = Field(
        "least_voi", description="How one of them is chosen from the scores."
    )


class ScoreSettings(SettingsModel):
    """How `evaluate.py score` scores the test entries."""

    dataset: ScoredDataset
    thresholds: Thresholds = Field(
        description="Thresholds of the curves: first, end (excluded), step."
    )
    untrained: Flag = Field(True, description="Whether to score a watershed of raw too.")
    merge_threshold: Count = Field(
        1, description="Number of nodes of a second skeleton that make a segment a merger."
    )
    compute_mincut: Flag = Field(
        False, description="Whether to count the splits and merges that skeletons need."
    )
    errors: Count = Field(100, description="Number of errors of each test entry that are listed.")


class NodeSettings(SettingsModel):
    """What `evaluate.py nodes` writes."""

    dataset: ScoredDataset
    volume: Text = Field(description="The volume whose skeleton nodes are written.")
    thresholds: Thresholds = Field(
        description="Thresholds of the table: first, end (excluded), step."
    )


class BoundaryMapSettings(SettingsModel):
    """How evaluate_boundaries.py scores boundary maps."""

    dataset: ScoredDataset
    array: Text = Field(description="Array of the prediction; channel 0 is the inside of cells.")
    grow_boundary: GrowBoundary | None = Field(
        None, description="How labels of touching objects get a boundary."
    )
    thresholds: Thresholds = Field(description="Thresholds to try: first, end (excluded), step.")


class ClassMapSettings(SettingsModel):
    """How evaluate_classes.py scores classes of voxels."""

    dataset: ScoredDataset
    grow_boundary: GrowBoundary | None = Field(
        None, description="How labels of touching objects get a boundary."
    )
    labels_are_classes: Flag = Field(
        description="Whether label values are classes; otherwise they are objects, and class 1 is "
        "their boundary."
    )
    n_lab: Count = Field(description="Number of classes.")


class ComparisonSettings(SettingsModel):
    """What compare.py compares."""

    dataset: ScoredDataset
    planar: Flag = Field(description="Whether boundary maps are compared, without segmentation.")
    families: dict[str, str] = Field(description="The family of each network.")
    refused: dict[str, str] = Field({}, description="Networks that cannot run, and the reason.")
    segmentations: dict[str, dict[str, Source]] = Field(
        {}, description="Segmentations by others: name, volume, source."
    )
    published: ShownFigures | None = Field(None, description="Which published scores are shown.")


class ReproductionSettings(SettingsModel):
    """What reproduce.py compares with published scores."""

    dataset: Text = Field(description="Name of the dataset.")
    regions: tuple[Text, ...] = Field(description="Regions of the paper.")
    networks: tuple[Text, ...] = Field(description="Networks that were evaluated.")
    threshold: Literal["validation", "best_on_test"] = Field(
        description="How the threshold of the published numbers was chosen."
    )
    tolerance: dict[str, Tolerance] = Field(
        {}, description="How far each metric may be from the published value."
    )
