"""Jobs that train a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.networks import context_network, head_names, network_for
from retrace.config.yaml_files import Settings
from retrace.planning.paths import results, volumes_of
from retrace.settings_model import SettingsModel

MEASURED = ("znn", "elektronn")
"""Families whose trainings draw patches of the validation split."""


COMPUTE = ("device", "precision", "compile")


def iterations_for(config: Mapping[str, Any], network: str) -> int | None:
    """The iterations that the configuration asks of a network; None: the network's own number."""
    asked = config["iterations"]
    if isinstance(asked, Mapping):
        asked = asked.get(network)
    return None if asked is None else int(asked)


def gpus_for(config: Mapping[str, Any], verb: str) -> int:
    """The GPUs that one job of a verb, `train` or `predict`, uses."""
    asked = config["gpus"]
    return int(asked.get(verb, 1) if isinstance(asked, Mapping) else asked)


def trained_network(config: Mapping[str, Any], network: Mapping[str, Any]) -> Settings:
    """The network with the `batch_size` that the configuration asks for, if it does."""
    asked = config["batch_size"]
    return {**network, **({} if asked is None else {"batch_size": asked})}


def is_published(config: Mapping[str, Any], network: str) -> bool:
    """Whether a network is used as it was published, with no training after it."""
    return config["weights"] == "published" and iterations_for(config, network) is None


def model_file(config: Mapping[str, Any], dataset: str, network: str) -> str:
    """The weights that are predicted with."""
    name = "published" if is_published(config, network) else "model"
    return results(dataset, network, f"{name}.safetensors")


def without(content: Mapping[str, Any] | SettingsModel, *keys: str) -> Settings:
    return {key: value for key, value in content.items() if key not in keys}


def train_settings(
    config: Mapping[str, Any], dataset: Dataset, network: Mapping[str, Any]
) -> Settings:
    """What train.py reads: the volumes trained on, the network, iterations, seed, device.

    The boxes kept for validation and test are in each training entry's `exclude_nm`.
    """
    if "examples" in dataset:
        return _trained(config, network, {"name": dataset["name"], "examples": dataset["examples"]})
    held_out = validation_patches(dataset, network)
    used = trained_volumes(dataset, network)
    tested = {"validation": held_out} if network["family"] in MEASURED else {}
    told = {
        "name": dataset["name"],
        "voxel_size_nm": dataset["voxel_size_nm"],
        "background_ids": dataset["background_ids"],
        "volumes": {v: _trained_volume(dataset, network, v) for v in used},
        "train": dataset["train"],
        **tested,
    }
    return _trained(config, network, told) | {"autocontext": context_network(network, dataset)}


def _trained_volume(dataset: Dataset, network: Mapping[str, Any], name: str) -> Settings:
    volume = without(dataset["volumes"][name], "skeletons")
    made = recursive_inputs(dataset, network, name)
    return {**volume, "inputs": {**volume.get("inputs", {}), **made}} if made else volume


WHOLE = "whole_prediction"
"""The prediction of a whole volume, which another network reads."""


def recursive_inputs(dataset: Dataset, network: Mapping[str, Any], volume: str) -> Settings:
    """By input node the source that another network's prediction is, where the volume has none."""
    given = dataset["volumes"][volume].get("inputs", {})
    found = {}
    for node, told in network.get("recursive", {}).items():
        if node in given:
            continue
        first = network_for(told["network"], dataset)
        found[node] = {
            "path": results(dataset["name"], first["name"], volume, f"{WHOLE}.zarr"),
            "array": head_names(first)[0],
            "voxel_size_nm": dataset["voxel_size_nm"],
            "offset_nm": None,
            "channel": told["channel"],
            "preprocess": told["preprocess"],
        }
    return found


def _trained(config: Mapping[str, Any], network: Mapping[str, Any], dataset: Settings) -> Settings:
    """The part of a training's settings that all families share."""
    limit = config["train_seconds"]
    return {
        "dataset": dataset,
        "network": trained_network(config, network),
        "autocontext": None,
        "iterations": iterations_for(config, network["name"]) or network["iterations"],
        "seed": config["seed"],
        "gpus": gpus_for(config, "train"),
        **({} if limit is None else {"seconds": limit}),
        **{key: config[key] for key in COMPUTE},
    }


def examples_settings(
    config: Mapping[str, Any], dataset: Dataset, network: Mapping[str, Any]
) -> Settings:
    """What examples.py reads to predict and to score."""
    told = {"name": dataset["name"], "examples": dataset["examples"]}
    own = trained_network(config, network)
    return {"dataset": told, "network": own, "seed": config["seed"], "device": config["device"]}


def trained_volumes(dataset: Dataset, network: Mapping[str, Any]) -> list[str]:
    """Volumes that a training reads: those of `train`, and of its test passes."""
    return volumes_of([*dataset["train"], *validation_patches(dataset, network)])


def validation_patches(dataset: Dataset, network: Mapping[str, Any]) -> list[Settings]:
    """Entries that a training measures itself on, as training reads them; of some families."""
    if network["family"] not in MEASURED:
        return []
    entries = [e for e in dataset["validation"] if "labels" in dataset["volumes"][e["volume"]]]
    return [
        {**without(e, "skeletons"), "probability": 1 / len(entries), "exclude_nm": []}
        for e in entries
    ]
