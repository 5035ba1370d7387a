"""The job that writes the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.splits import SPLITS
from retrace.config.yaml_files import Settings
from retrace.planning.paths import predicted, results
from retrace.planning.segment import segment_settings
from retrace.planning.view import data_layers, result_layers


def report_settings(
    config: Mapping[str, Any], pairs: Iterable[tuple[Dataset, Mapping[str, Any]]]
) -> Settings:
    """What report.py reads: configuration, and datasets, networks and layers of the experiments."""
    return {
        "config": dict(config),
        "experiments": [_reported(config, data, network) for data, network in pairs],
    }


def _reported(config: Mapping[str, Any], dataset: Dataset, network: Mapping[str, Any]) -> Settings:
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
