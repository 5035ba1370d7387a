"""The job that writes the report."""

from __future__ import annotations

import os
from pathlib import Path

from retrace.config.dataset_model import Dataset
from retrace.config.families import family_of
from retrace.config.network_settings import VoxelNetworkSettings
from retrace.config.view_model import ViewLayerSource
from retrace.config.workflow import WorkflowConfig
from retrace.job import Job
from retrace.planning.evaluate import evaluation
from retrace.planning.experiment import Planner
from retrace.planning.paths import layer_files, predicted, results, volumes_of
from retrace.planning.program_files import PAGE_TEMPLATE
from retrace.planning.report_settings import (
    AlignmentExperiment,
    ExperimentSettings,
    ReportedDataset,
    ReportSettings,
)
from retrace.planning.segment import segment_settings
from retrace.planning.view import data_layers, result_layers


def _reported(
    config: WorkflowConfig, dataset: Dataset, network: VoxelNetworkSettings
) -> ExperimentSettings:
    volume = predicted(dataset)[-1]
    return ExperimentSettings(
        dataset=ReportedDataset(
            name=dataset.name,
            voxel_size_nm=dataset.voxel_size_nm,
            train=dataset.train,
            validation=dataset.validation,
            test=dataset.test,
        ),
        network=network,
        segment=segment_settings(config, dataset, network, volume),
        recipe_iterations=network.iterations,
        volume=volume,
        layers=tuple(data_layers(dataset, volume) + result_layers(dataset, network, volume)),
        test_layers={v: _error_layers(dataset, network, v) for v in volumes_of(dataset.test)},
        folder=results(dataset.name, network.name),
    )


def _error_layers(
    dataset: Dataset, network: VoxelNetworkSettings, volume: str
) -> tuple[ViewLayerSource, ...]:
    """What pictures of errors show; networks of boundaries have segments if they were computed."""
    store = results(dataset.name, network.name, volume, "segmentation.zarr")
    segments = ViewLayerSource(kind="segments", path=store, array="segments")
    return (*data_layers(dataset, volume), segments)


def report_job(planner: Planner) -> Job:
    """Writes the report of the experiments of the configuration."""
    reported, aligned, files = [], [], evaluated_files(planner)
    for dataset, network in planner.experiments():
        experiment = planner.experiment("evaluate", dataset, network)
        folder = results(dataset, network)
        files.append(f"{folder}/training.json")
        if family_of(experiment.network).aligns:
            aligned.append(AlignmentExperiment(dataset=dataset, network=network, folder=folder))
            continue
        content = _reported(planner.config, experiment.dataset, experiment.network)
        reported.append(content)
        files += layer_files(content.layers)
    settings = ReportSettings(
        config=planner.config, experiments=tuple(reported), alignments=tuple(aligned)
    )
    inputs = {"template": os.path.relpath(PAGE_TEMPLATE), "comparisons": _comparisons(planner)}
    return Job(settings, inputs, files, untracked=("comparisons",))


def _comparisons(planner: Planner) -> list[str]:
    """Existing comparisons of the datasets, which the page shows and no report computes."""
    datasets = dict.fromkeys(dataset for dataset, _ in planner.experiments())
    names = ("comparison.json", "reproduction.json")
    paths = [results(dataset, name) for dataset in datasets for name in names]
    return [path for path in paths if Path(path).is_file()]


def evaluated_files(planner: Planner) -> list[str]:
    """The scores of all experiments of the configuration: the default target."""
    return [file for names in planner.experiments() for file in evaluation(planner, *names)]
