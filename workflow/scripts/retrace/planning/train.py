"""Jobs that train a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retrace.config.dataset_model import Dataset, DatasetBase, DatasetVolume, Entry
from retrace.config.examples_model import ExamplesDataset
from retrace.config.families import family_of
from retrace.config.network_settings import NetworkSettings, VoxelNetworkSettings
from retrace.config.networks import context_network, head_names, network_for
from retrace.config.sources import example_files
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import names
from retrace.formats.source import Source
from retrace.job import Job
from retrace.planning.choices import gpus_for, iterations_for, trained_network
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
from retrace.planning.resumption import Start, planned_start
from retrace.planning.targets import pair_target
from retrace.planning.train_settings import TrainingDataset, TrainingExamples, TrainSettings
from retrace.planning.validation_checks import boxes_of_test, is_measured, labelled_validation
from retrace.planning.weights import context_model, first_weights, untracked_weights


def train_settings(
    config: WorkflowConfig, dataset: DatasetBase, network: VoxelNetworkSettings
) -> TrainSettings:
    """What train.py reads: the volumes trained on, the network, iterations, seed, device.

    The boxes kept for validation and test are in each training entry's `exclude_nm`.
    """
    limit = config.train_seconds
    return TrainSettings(
        dataset=_training_data(config, dataset, network),
        network=trained_network(config, network),
        autocontext=context_network(network, dataset),
        iterations=iterations_for(config, network.name) or network.iterations,
        seed=config.seed,
        gpus=gpus_for(config, "train"),
        device=config.device,
        precision=config.precision,
        compile=config.compile,
        **({} if limit is None else {"seconds": limit}),
        **validation_settings(config),
    )


def validation_settings(config: WorkflowConfig) -> dict[str, Any]:
    """How a training is measured; the legacy engine measures nothing."""
    if config.engine == "legacy":
        return {"validate_every": "never"}
    chosen = config.validation
    decisive = {"selection": chosen.complete()} if chosen.decides else {}
    return {"validate_every": chosen.every, **decisive}


def _training_data(
    config: WorkflowConfig, dataset: DatasetBase, network: VoxelNetworkSettings
) -> TrainingDataset | TrainingExamples:
    if isinstance(dataset, ExamplesDataset):
        return TrainingExamples(name=dataset.name, examples=dataset.examples)
    assert isinstance(dataset, Dataset)
    used = trained_volumes(config, dataset)
    return TrainingDataset(
        name=dataset.name,
        voxel_size_nm=dataset.voxel_size_nm,
        background_ids=dataset.background_ids,
        volumes={name: _trained_volume(dataset, network, name) for name in used},
        train=dataset.train,
        validation=tuple(validation_patches(config, dataset)),
    )


def _trained_volume(dataset: Dataset, network: NetworkSettings, name: str) -> DatasetVolume:
    volume = dataset.volumes[name].without("skeletons")
    predicted = recursive_inputs(dataset, network, name)
    if not predicted:
        return volume
    return volume.model_copy(update={"inputs": {**volume.inputs, **predicted}})


WHOLE = "whole_prediction"
"""The prediction of a whole volume, which another network reads."""


def recursive_inputs(dataset: Dataset, network: NetworkSettings, volume: str) -> dict[str, Source]:
    """By input node the prediction of another network that serves as input image.

    Input nodes for which the volume has an image of its own are left out.
    """
    own = dataset.volumes[volume].inputs
    sources = {}
    for node, settings in network.recursive.items():
        if node in own:
            continue
        first = network_for(settings.network, dataset)
        sources[node] = Source(
            path=results(dataset.name, first.name, volume, f"{WHOLE}.zarr"),
            array=head_names(first)[0],
            voxel_size_nm=dataset.voxel_size_nm,
            offset_nm=None,
            channel=settings.channel,
            preprocess=settings.preprocess,
        )
    return sources


def trained_volumes(config: WorkflowConfig, dataset: Dataset) -> list[str]:
    """Volumes that a training reads: those of `train`, and those that it is measured on."""
    return volumes_of([*dataset.train, *validation_patches(config, dataset)])


def validation_patches(config: WorkflowConfig, dataset: Dataset) -> list[Entry]:
    """Entries that a training is measured on, as training reads them.

    They exclude the test boxes of their volumes, which no measurement reads.
    """
    if not is_measured(config):
        return []
    entries = labelled_validation(dataset)
    return [
        entry.without("skeletons").model_copy(
            update={
                "probability": 1 / len(entries),
                "exclude_nm": boxes_of_test(dataset, entry.volume),
            }
        )
        for entry in entries
    ]


def recursive_stores(
    dataset: Dataset, network: NetworkSettings, volumes: Sequence[str]
) -> list[str]:
    """Predictions of these volumes by other networks, which a recursive network reads."""
    sources = [recursive_inputs(dataset, network, volume) for volume in volumes]
    return with_manifests([s.path for by_node in sources for s in by_node.values()])


def start_of(planner: Planner, settings: Any) -> Start | None:
    """How a training begins that continues networks of ZNN; None for all other jobs."""
    if not isinstance(settings, TrainSettings):
        return None
    return planned_start(settings, planner.init_of(settings.dataset.name, settings.network.name))


def train_job(planner: Planner, dataset: str, network: str) -> Job:
    """Trains a network until its last iteration."""
    planner.experiment("train", dataset, network)
    return described_training(planner, dataset, network)


def described_training(planner: Planner, dataset: str, network: str) -> Job:
    """A training as `train_job` plans it, also if it is not to run, and so without its checks."""
    data, net = planner.dataset(dataset), planner.network(dataset, network)
    weights = {**context_model(planner, dataset, network)}
    weights |= first_weights(planner, dataset, network)
    masks: dict[str, str] = {}
    measured: list[str] = []
    if isinstance(data, ExamplesDataset):
        waits = example_files(data.examples, "train")
    else:
        names = trained_volumes(planner.config, data)
        masks = mask_stores(data, names)
        waits = _files_of(data, net, names)
        decisive = _files_of(data, net, volumes_of(data.train))
        measured = [path for path in waits if path not in decisive]
    if "published" in weights:
        waits.append(manifest(weights["published"]))
    settings = train_settings(planner.config, data, net)
    start = start_of(planner, settings)
    resumed = {}
    if start is not None and start.copy is not None:
        weights.pop("init", None)
        resumed = {"resumed": str(start.copy)}
    return Job(
        settings,
        {"masks": masks, **weights, **resumed},
        waits,
        untracked=(*untracked_weights(planner, dataset, network), *resumed),
        measured=() if settings.validation_decides else measured,
    )


def _files_of(dataset: Dataset, network: NetworkSettings, volumes: Sequence[str]) -> list[str]:
    """The files that a training reads of these volumes, their masks included."""
    masks = mask_stores(dataset, volumes)
    stores = recursive_stores(dataset, network, volumes)
    return [*volume_files(dataset, volumes), *stores, *with_manifests(masks.values())]


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
