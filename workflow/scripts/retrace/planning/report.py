"""The job that writes the report."""

from __future__ import annotations

from retrace.config.dataset_model import Dataset
from retrace.config.network_settings import NetworkSettings
from retrace.config.splits import SPLITS
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import Settings
from retrace.job import Job
from retrace.planning.evaluate import evaluation
from retrace.planning.experiment import Planner
from retrace.planning.paths import layer_files, predicted, results
from retrace.planning.segment import segment_settings
from retrace.planning.view import data_layers, result_layers


def _reported(config: WorkflowConfig, dataset: Dataset, network: NetworkSettings) -> Settings:
    volume = predicted(dataset)[-1]
    return {
        "dataset": {
            "name": dataset["name"],
            "voxel_size_nm": dataset["voxel_size_nm"],
            **{split: dataset[split] for split in SPLITS},
        },
        "network": dict(network),
        "segment": segment_settings(config, dataset, network, volume),
        "recipe_iterations": network.get("iterations"),
        "volume": volume,
        "layers": data_layers(dataset, volume) + result_layers(dataset, network, volume),
        "folder": results(dataset["name"], network["name"]),
    }


def report_job(planner: Planner) -> Job:
    """Writes the report of the experiments of the configuration."""
    reported, files = [], evaluated_files(planner)
    for dataset, network in planner.experiments():
        experiment = planner.experiment("evaluate", dataset, network)
        content = _reported(planner.config, experiment.dataset, experiment.network)
        reported.append(content)
        files += layer_files(content["layers"])
        files.append(results(dataset, network, "training.json"))
    return Job({"config": dict(planner.config), "experiments": reported}, prerequisites=files)


def evaluated_files(planner: Planner) -> list[str]:
    """The scores of all experiments of the configuration: the default target."""
    return [file for names in planner.experiments() for file in evaluation(planner, *names)]
