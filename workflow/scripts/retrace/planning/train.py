"""Jobs that train a network."""

from __future__ import annotations

from collections.abc import Sequence

from retrace.config.dataset_model import Dataset
from retrace.config.families import family_of
from retrace.config.network_settings import NetworkSettings
from retrace.config.networks import context_network, head_names, network_for
from retrace.config.sources import example_files
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import Settings, names
from retrace.job import Job
from retrace.planning.choices import COMPUTE, gpus_for, iterations_for, trained_network, without
from retrace.planning.experiment import Planner
from retrace.planning.network_names import aligning_networks
from retrace.planning.paths import (
    manifest,
    mask_stores,
    results,
    volume_files,
    volumes_of,
    with_manifests,
)
from retrace.planning.targets import pair_target
from retrace.planning.weights import context_model, first_weights


def train_settings(config: WorkflowConfig, dataset: Dataset, network: NetworkSettings) -> Settings:
    """What train.py reads: the volumes trained on, the network, iterations, seed, device.

    The boxes kept for validation and test are in each training entry's `exclude_nm`.
    """
    if "examples" in dataset:
        return _trained(config, network, {"name": dataset["name"], "examples": dataset["examples"]})
    held_out = validation_patches(dataset, network)
    used = trained_volumes(dataset, network)
    tested = {"validation": held_out} if family_of(network).draws_validation_patches else {}
    content = {
        "name": dataset["name"],
        "voxel_size_nm": dataset["voxel_size_nm"],
        "background_ids": dataset["background_ids"],
        "volumes": {v: _trained_volume(dataset, network, v) for v in used},
        "train": dataset["train"],
        **tested,
    }
    return _trained(config, network, content) | {"autocontext": context_network(network, dataset)}


def _trained_volume(dataset: Dataset, network: NetworkSettings, name: str) -> Settings:
    volume = without(dataset["volumes"][name], "skeletons")
    predicted = recursive_inputs(dataset, network, name)
    if not predicted:
        return volume
    return {**volume, "inputs": {**volume.get("inputs", {}), **predicted}}


WHOLE = "whole_prediction"
"""The prediction of a whole volume, which another network reads."""


def recursive_inputs(dataset: Dataset, network: NetworkSettings, volume: str) -> Settings:
    """By input node the prediction of another network that serves as input image.

    Input nodes for which the volume has an image of its own are left out.
    """
    own = dataset["volumes"][volume].get("inputs", {})
    sources = {}
    for node, settings in network.get("recursive", {}).items():
        if node in own:
            continue
        first = network_for(settings["network"], dataset)
        sources[node] = {
            "path": results(dataset["name"], first["name"], volume, f"{WHOLE}.zarr"),
            "array": head_names(first)[0],
            "voxel_size_nm": dataset["voxel_size_nm"],
            "offset_nm": None,
            "channel": settings["channel"],
            "preprocess": settings["preprocess"],
        }
    return sources


def _trained(config: WorkflowConfig, network: NetworkSettings, dataset: Settings) -> Settings:
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


def trained_volumes(dataset: Dataset, network: NetworkSettings) -> list[str]:
    """Volumes that a training reads: those of `train`, and of its test passes."""
    return volumes_of([*dataset["train"], *validation_patches(dataset, network)])


def validation_patches(dataset: Dataset, network: NetworkSettings) -> list[Settings]:
    """Entries that a training measures itself on, as training reads them; of some families."""
    if not family_of(network).draws_validation_patches:
        return []
    entries = [e for e in dataset["validation"] if "labels" in dataset["volumes"][e["volume"]]]
    return [
        {**without(e, "skeletons"), "probability": 1 / len(entries), "exclude_nm": []}
        for e in entries
    ]


def recursive_stores(
    dataset: Dataset, network: NetworkSettings, volumes: Sequence[str]
) -> list[str]:
    """Predictions of these volumes by other networks, which a recursive network reads."""
    sources = [recursive_inputs(dataset, network, volume) for volume in volumes]
    return with_manifests([s["path"] for by_node in sources for s in by_node.values()])


def train_job(planner: Planner, dataset: str, network: str) -> Job:
    """Trains a network until its last iteration."""
    experiment = planner.experiment("train", dataset, network)
    data, net = experiment.dataset, experiment.network
    weights = {**context_model(planner, dataset, network)}
    weights |= first_weights(planner, dataset, network)
    if "examples" in data:
        masks, volumes = {}, example_files(data.examples, "train")
    else:
        names = trained_volumes(data, net)
        masks = mask_stores(data, names)
        volumes = volume_files(data, names) + recursive_stores(data, net, names)
    waits = [*volumes, *with_manifests(masks.values())]
    if "published" in weights:
        waits.append(manifest(weights["published"]))
    return Job(train_settings(planner.config, data, net), {"masks": masks, **weights}, waits)


@pair_target("train")
def trained_files(planner: Planner, dataset: str, network: str) -> list[str]:
    """The model, and of ELEKTRONN's networks its curves."""
    net = planner.experiment("train", dataset, network).network
    names = ["model.safetensors"]
    if family_of(net).records_curves:
        names += ["history.csv", "timeline.png", "history.png", "errors.png"]
    return [results(dataset, network, name) for name in names]


def trainable_networks() -> list[str]:
    """Networks that train.py trains: all that do not align sections."""
    aligning = aligning_networks()
    return [name for name in names("networks") if name not in aligning]
