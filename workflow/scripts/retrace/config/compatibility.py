"""Which dataset, network and verb work together; refusals name the reason.

What one family needs is checked by its own module, which the family's entry names.
"""

from __future__ import annotations

from retrace.config.dataset_model import Dataset, DatasetBase
from retrace.config.datasets import is_planar
from retrace.config.examples_model import ExamplesDataset
from retrace.config.families import family_of
from retrace.config.lsd_network import FIRST_LOSS, LsdNetworkSettings
from retrace.config.network_settings import NetworkSettings
from retrace.config.networks import (
    BOUNDARY,
    head_names,
    interior_map,
    is_scored_as_it_is,
    networks_that_align,
)
from retrace.config.splits import scorable
from retrace.config.workflow import Segment
from retrace.elektronn.architecture import HEAD
from retrace.errors import ConfigError

EXAMPLE_VERBS = ("train", "predict", "evaluate", "fetch", "package")


def check_verb(dataset: DatasetBase, verb: str) -> None:
    """Refuses what cannot be done with single examples."""
    if isinstance(dataset, ExamplesDataset) and verb not in EXAMPLE_VERBS:
        raise ConfigError(
            f"{verb}_{dataset.name}: dataset {dataset.name!r} has single examples and no "
            f"volumes, so there is nothing to {verb.split('_')[0]}; it can be: "
            f"{', '.join(EXAMPLE_VERBS)}"
        )


def check_pair(
    dataset: DatasetBase, network: NetworkSettings, verb: str, *, trained: bool | None = None
) -> None:
    """ConfigError for combinations that cannot work, with the reason, before anything runs.

    `trained`: whether the network is trained for it, so that there must be labels to train on; by
    default it is, unless the dataset has the weights of another one.
    """
    pair = f"{verb}_{dataset.name}_{network.name}"
    family = family_of(network)
    check_verb(dataset, verb)
    _check_network_verb(pair, network, verb)
    if not isinstance(dataset, Dataset):
        return
    if not family.reads_stacks:
        if trained is None:
            trained = verb == "train" or dataset.weights_of is None
        _check_volumes(pair, dataset, network, trained=trained)
    family.load("check_pair")(pair, dataset, network, verb)
    if not family.reads_stacks:
        _check_scores(pair, dataset, network, verb)


def _check_network_verb(pair: str, network: NetworkSettings, verb: str) -> None:
    """Networks that align sections can do nothing else, and no other network can align."""
    family = family_of(network)
    if verb in family.verbs:
        return
    if family.aligns:
        raise ConfigError(
            f"{pair}: network {network.name!r} aligns sections; it serves the verbs "
            f"{', '.join(family.verbs)}"
        )
    raise ConfigError(
        f"{pair}: network {network.name!r} of the family {network.family!r} aligns nothing; take "
        f"one of {', '.join(networks_that_align())}"
    )


def _check_volumes(pair: str, dataset: Dataset, network: NetworkSettings, *, trained: bool) -> None:
    """Volumes to train on, or published weights; labels whose objects the network can learn."""
    entries = (*dataset.train, *dataset.validation, *dataset.test)
    if not entries and dataset.alignment is not None:
        raise ConfigError(
            f"{pair}: dataset {dataset.name!r} holds sections to align and no labels; take a "
            f"network that aligns: {', '.join(networks_that_align()) or 'none here'}"
        )
    if not dataset.train and trained:
        parent = dataset.weights_of
        hint = f"; it is predicted with what was published for {parent!r}" if parent else ""
        raise ConfigError(f"{pair}: dataset {dataset.name!r} has no `train` entry{hint}")
    if is_planar(dataset) and not predicts_single_sections(network):
        raise ConfigError(
            f"{pair}: the labels of dataset {dataset.name!r} are membranes, whose objects end "
            f"with each section; network {network.name!r} predicts "
            f"{', '.join(head_names(network))}, which need objects that go on across sections. "
            "Take a network that predicts boundaries, such as n4 or vd2d"
        )


def predicts_single_sections(network: NetworkSettings) -> bool:
    """Whether a network's predictions have a meaning within a single section.

    Affinities and descriptors have none if objects are not connected across sections.
    """
    return is_scored_as_it_is(network) or all(
        name.startswith(f"{BOUNDARY}_") for name in head_names(network)
    )


def _check_scores(pair: str, dataset: Dataset, network: NetworkSettings, verb: str) -> None:
    """Predictions that can be segmented or scored, and ground truth for it."""
    if verb == "evaluate" and head_names(network) == [BOUNDARY]:
        _check_labels(pair, dataset)
    elif verb == "evaluate" and head_names(network) == [HEAD]:
        _check_classes(pair, dataset)
    elif verb in ("segment", "evaluate", "export"):
        _check_affinities(pair, dataset, network, verb)
        _check_validation(pair, dataset)
    if verb == "evaluate" and not scorable(dataset, "test"):
        raise ConfigError(
            f"{pair}: dataset {dataset.name!r} has no `test` entry with labels or skeletons"
        )


def _check_affinities(pair: str, dataset: Dataset, network: NetworkSettings, verb: str) -> None:
    if verb == "segment" and interior_map(network):
        if is_planar(dataset):
            raise ConfigError(
                f"{pair}: the objects of dataset {dataset.name!r} end with each section, so "
                "there is nothing to segment across them; evaluate_ scores its boundaries"
            )
    elif "affs" not in head_names(network):
        raise ConfigError(
            f"{pair}: network {network.name!r} predicts no affinities, which a segmentation is "
            "made from; take mtlsd or baseline"
        )


def _check_classes(pair: str, dataset: Dataset) -> None:
    """Classes are scored on test labels alone; no threshold is chosen."""
    if not any(dataset.volumes[e.volume].labels is not None for e in dataset.test):
        raise ConfigError(
            f"{pair}: dataset {dataset.name!r} has no `test` entry with labels, on which error "
            "and likelihood are measured"
        )


def _check_labels(pair: str, dataset: Dataset) -> None:
    """Boundaries are scored on labels alone, and the threshold on validation."""
    _check_validation(pair, dataset)
    for entry in dataset.validation:
        if dataset.volumes[entry.volume].labels is None:
            raise ConfigError(
                f"{pair}: volume {entry.volume!r} of `validation` has no labels, on which "
                "boundaries are scored"
            )


def _check_validation(pair: str, dataset: Dataset) -> None:
    if not dataset.validation:
        raise ConfigError(
            f"{pair}: dataset {dataset.name!r} has no `validation` entry, on which the "
            "threshold is chosen; a part of a training volume will do (left out of training then)"
        )


def check_input(pair: str, dataset: Dataset, network: NetworkSettings, name: str) -> None:
    """ConfigError unless each volume has an image for the input `name`."""
    for volume_name, volume in dataset.volumes.items():
        if name not in volume.inputs:
            raise ConfigError(
                f"{pair}: network {network.name!r} reads {', '.join(network.inputs)}; volume "
                f"{volume_name!r} has no image for {name!r}. Add `inputs: {{{name}: {{path: "
                "...}}` to it"
            )


def check_segmentation(segment: Segment, shards: int, network: NetworkSettings) -> None:
    """Refuses a segmentation method that does not work with the network's affinities."""
    far = any(max(abs(step) for step in offset) > 1 for offset in network.neighborhood)
    if segment.method == "mutex" and not far:
        raise ConfigError(
            f"segment.method 'mutex' needs long-range affinities, and network {network.name!r} "
            "has direct ones only; take hist_quant_75"
        )
    if shards > 1 and segment.method == "mutex":
        raise ConfigError("segment.method 'mutex' sees a whole volume at once; set `shards: 1`")
    if shards > 1 and not segment.block_shape:
        raise ConfigError(
            f"`shards: {shards}` needs blocks that the shards divide; set `segment: block_shape` "
            "(z, y, x voxels), for example [256, 512, 512]"
        )


ADDED_TO_ADAM = ("warmup", "decay", "weight_decay")
"""Settings of the optimizer that the original trainings do not have."""


def check_legacy_loss(network: LsdNetworkSettings, iterations: int) -> None:
    """Refuses a training with another loss than mse, the legacy engine's only one."""
    loss = network.loss
    if loss.in_force(iterations) != FIRST_LOSS:
        raise ConfigError(
            f"network {network.name!r} is trained with {loss.kind.upper()} after iteration "
            f"{loss.start_iteration}, which the legacy engine does not have here; ask for fewer "
            "iterations, predict with `weights: published`, or use `engine: modern`"
        )


def check_legacy_recipe(network: LsdNetworkSettings) -> None:
    """Refuses settings of a training that the legacy engine does not have."""
    adam = network.optimizer
    settings = {f"optimizer.{name}": getattr(adam, name) for name in ADDED_TO_ADAM}
    for name, value in {**settings, "dropout": network.dropout}.items():
        if value:
            raise ConfigError(
                f"network {network.name!r}: `{name}` is set, which `engine: legacy` does not have; "
                "remove it, or use `engine: modern`"
            )


def check_legacy_batch(network: LsdNetworkSettings, gpus: int) -> None:
    """Refuses a training on more than one sample at a time, which the legacy engine cannot do."""
    size = network.batch_size
    if size > 1 or gpus > 1:
        raise ConfigError(
            f"network {network.name!r}: `engine: legacy` trains on one sample at a time on one "
            f"GPU, and `batch_size` is {size}, `gpus` {gpus}; set both to 1 (to predict on several "
            "GPUs, use `engine: modern`)"
        )


def check_division(network: str, batch_size: int, gpus: int) -> None:
    """ConfigError if a batch does not divide evenly among the processes."""
    if batch_size % gpus:
        some = ", ".join(str(gpus * factor) for factor in (1, 2, 3))
        divisors = [n for n in range(1, batch_size + 1) if not batch_size % n]
        raise ConfigError(
            f"network {network!r}: `batch_size` {batch_size} cannot be dealt out evenly to {gpus} "
            f"GPUs; set `batch_size` (config or network) to {some} ..., or the GPUs of a training "
            f"(`gpus: {{train: N, predict: M}}`) to {' or '.join(map(str, divisors))}"
        )
