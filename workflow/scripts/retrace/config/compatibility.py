"""Which dataset, network and verb work together; refusals name the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config import alignment
from retrace.config import elektronn_network as elektronn
from retrace.config.dataset_model import Dataset, DatasetBase
from retrace.config.datasets import has_classes, is_planar
from retrace.config.examples_model import ExamplesDataset
from retrace.config.networks import (
    BOUNDARY,
    context_network,
    head_names,
    interior_map,
    is_scored_as_it_is,
    network_for,
    of_family,
)
from retrace.config.splits import scorable
from retrace.config.workflow import Segment
from retrace.elektronn.architecture import HEAD
from retrace.errors import ConfigError
from retrace.remote.addresses import is_address

EXAMPLE_VERBS = ("train", "predict", "evaluate", "fetch", "package")


def check_verb(dataset: DatasetBase, verb: str) -> None:
    """Refuses what cannot be done with single examples."""
    if isinstance(dataset, ExamplesDataset) and verb not in EXAMPLE_VERBS:
        raise ConfigError(
            f"{verb}_{dataset.name}: dataset {dataset.name!r} has single examples and no "
            f"volumes, so there is nothing to {verb.replace('_data', '')}; it can be: "
            f"{', '.join(EXAMPLE_VERBS)}"
        )


def check_pair(dataset: DatasetBase, network: Mapping[str, Any], verb: str) -> None:
    """Refuses what cannot work, before anything runs, with the reason."""
    pair = f"{verb}_{dataset.name}_{network['name']}"
    check_verb(dataset, verb)
    _check_verb(pair, network, verb)
    if not isinstance(dataset, Dataset):
        return
    if network["family"] == "seamless":
        alignment.check_pair(pair, dataset, network["height"] - network.get("topskips", 0))
        return
    if not dataset.train and dataset.alignment is not None:
        raise ConfigError(
            f"{pair}: dataset {dataset.name!r} holds sections to align and no labels; take a "
            f"network of the family seamless: {', '.join(of_family('seamless')) or 'none here'}"
        )
    if not dataset.train and (verb == "train" or dataset.weights_of is None):
        parent = dataset.weights_of
        hint = f"; it is predicted with what was published for {parent!r}" if parent else ""
        raise ConfigError(f"{pair}: dataset {dataset.name!r} has no `train` entry{hint}")
    _check_maps(pair, dataset, network)
    _check_sections(pair, dataset, network)
    _check_border_sections(pair, dataset, network, verb)
    _check_inputs(pair, dataset, network)
    _check_lazy_labels(pair, dataset, network)
    _check_outputs(pair, dataset, network, verb)
    _check_descriptors(pair, dataset, network)
    _check_autocontext(pair, dataset, network)
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


ALIGNMENT_VERBS = ("train", "align", "evaluate", "view", "package")
"""What can be done with networks of the family seamless."""


def _check_verb(pair: str, network: Mapping[str, Any], verb: str) -> None:
    """Sections are aligned by one family, which can do nothing else."""
    if network["family"] == "seamless" and verb not in ALIGNMENT_VERBS:
        raise ConfigError(
            f"{pair}: network {network['name']!r} aligns sections; it serves the verbs "
            f"{', '.join(ALIGNMENT_VERBS)}"
        )
    if network["family"] != "seamless" and verb == "align":
        raise ConfigError(
            f"{pair}: network {network['name']!r} of the family {network['family']!r} aligns "
            f"nothing; take one of {', '.join(of_family('seamless'))}"
        )


def _check_affinities(pair: str, dataset: Dataset, network: Mapping[str, Any], verb: str) -> None:
    if verb == "segment" and interior_map(network):
        if is_planar(dataset):
            raise ConfigError(
                f"{pair}: the objects of dataset {dataset.name!r} end with each section, so "
                "there is nothing to segment across them; evaluate_ scores its boundaries"
            )
    elif "affs" not in head_names(network):
        raise ConfigError(
            f"{pair}: network {network['name']!r} predicts no affinities, which a segmentation is "
            "made from; take mtlsd or baseline"
        )


def _check_sections(pair: str, dataset: Dataset, network: Mapping[str, Any]) -> None:
    """Membranes say nothing about what belongs together from section to section."""
    if not is_planar(dataset) or is_scored_as_it_is(network):
        return
    if network.get("out_type") == BOUNDARY:  # several outputs of boundaries
        return
    raise ConfigError(
        f"{pair}: the labels of dataset {dataset.name!r} are membranes, whose objects end with "
        f"each section; network {network['name']!r} predicts {', '.join(head_names(network))}, "
        "which need objects that go on across sections. Take a network that predicts boundaries, "
        "such as n4 or vd2d"
    )


def _check_border_sections(
    pair: str, dataset: Dataset, network: Mapping[str, Any], verb: str
) -> None:
    """Membranes are scored section by section, and stacks of them are no thicker than some are."""
    if verb != "evaluate" or not is_planar(dataset) or network["family"] != "elektronn":
        return
    if network["n_dim"] == 3 and network["predict_padding"] == "valid":
        raise ConfigError(
            f"{pair}: network {network['name']!r} sees several sections and predicts none near the "
            f"border of a stack, and each section of dataset {dataset.name!r} is scored. Set "
            "`predict_padding: symmetric` in a network that `extends` it, or take n4 or vd2d"
        )


def _check_maps(pair: str, dataset: Dataset, network: Mapping[str, Any]) -> None:
    """A map for each class needs labels that are classes."""
    if network.get("out_type") != "semantic" or has_classes(dataset):
        return
    count = network["n_lab"]
    raise ConfigError(
        f"{pair}: network {network['name']!r} has {count} maps, each a class of voxels (`out_type: "
        f"semantic`), and the labels of dataset {dataset.name!r} are no classes. Give labels "
        f"with `objects: classes` whose voxels are 0 to {count - 1} (`class_values` says which "
        "stored values make each class), or take a network of boundaries, such as n4"
    )


def _check_inputs(pair: str, dataset: Dataset, network: Mapping[str, Any]) -> None:
    """Every input node but the first is an image of its own."""
    for node in network.get("inputs", [])[1:]:
        if node in network.get("recursive", {}):
            _check_recursive(pair, dataset, network, node)
            continue
        for name, volume in dataset.volumes.items():
            if node not in volume.inputs:
                raise ConfigError(
                    f"{pair}: network {network['name']!r} reads {', '.join(network['inputs'])}; "
                    f"volume {name!r} has no image for {node!r}. Add `inputs: {{{node}: {{path: "
                    "...}}` to it"
                )


def _check_lazy_labels(pair: str, dataset: Dataset, network: Mapping[str, Any]) -> None:
    """Lazy labels name classes of the network; what needs them, or weights of voxels, has them."""
    if network["family"] != "elektronn":
        return
    lazy = {n: v.lazy_labels for n, v in dataset.volumes.items() if v.lazy_labels is not None}
    if network["label_prop_thresh"] is not None and not lazy:
        raise ConfigError(
            f"{pair}: `label_prop_thresh` trains on what is predicted of classes that were not "
            f"looked for, and no volume of dataset {dataset.name!r} says that there are any; "
            "add `lazy_labels: {labelled: [...]}` to a volume, or drop it"
        )
    if lazy and network["target"] != "nll":
        raise ConfigError(
            f"{pair}: volume {next(iter(lazy))!r} has `lazy_labels`, which `target: "
            f"{network['target']}` knows nothing of; only nll does"
        )
    for name, classes in lazy.items():
        numbers = {*(classes.labelled or ()), *(classes.absent or ())}
        wrong = sorted(number for number in numbers if number >= network["n_lab"])
        if wrong:
            raise ConfigError(
                f"{pair}: `lazy_labels` of volume {name!r} name {wrong}, and network "
                f"{network['name']!r} has the classes 0 to {network['n_lab'] - 1}"
            )
    _check_example_weights(pair, dataset, network)


def _check_example_weights(pair: str, dataset: Dataset, network: Mapping[str, Any]) -> None:
    if not network["use_example_weights"]:
        return
    if network["target"] != "nll":
        raise ConfigError(
            f"{pair}: `use_example_weights` needs `target: nll`, not {network['target']!r}"
        )
    used = {entry.volume for entry in (*dataset.train, *dataset.validation)}
    for name in sorted(used):
        if elektronn.EXAMPLE_WEIGHTS not in dataset.volumes[name].inputs:
            raise ConfigError(
                f"{pair}: `use_example_weights` needs weights of the voxels of volume {name!r}; "
                f"add `inputs: {{{elektronn.EXAMPLE_WEIGHTS}: {{path: ...}}}}` to it"
            )


LABELLED_VERBS = ("train", "package", "predict", "view", "crate", "bundle")
"""What can be done with networks of several outputs: all that needs no score of one of them."""


def _check_outputs(pair: str, dataset: Dataset, network: Mapping[str, Any], verb: str) -> None:
    """Of several output nodes each has labels of its own; which one is scored nobody says."""
    heads = network.get("heads", [])
    if network["family"] != "znn" or len(heads) < 2:
        return
    nodes = ", ".join(head["node"] for head in heads)
    if verb not in LABELLED_VERBS:
        raise ConfigError(
            f"{pair}: network {network['name']!r} has the outputs {nodes}; it serves the verbs "
            f"{', '.join(LABELLED_VERBS)}. To {verb} one of them, make a network that ends in it "
            "and begin from this one's h5 (`init`)"
        )
    for entry in [*dataset.train, *dataset.validation]:
        volume = dataset.volumes[entry.volume]
        for head in heads if volume.labels is not None else ():
            is_first = head is heads[0]
            if head["node"] not in volume.outputs and not (is_first and volume.labels):
                raise ConfigError(
                    f"{pair}: network {network['name']!r} has the outputs {nodes}; volume "
                    f"{entry.volume!r} has no labels for {head['node']!r}. Add `outputs: "
                    f"{{{head['node']}: {{path: ...}}}}` to it, or `{head['node']} = N` to its "
                    "[sample] in the .spec"
                )


def _check_recursive(pair: str, dataset: Dataset, network: Mapping[str, Any], node: str) -> None:
    """The network run first predicts the whole volume, a map of which is an input."""
    told = network["recursive"][node]
    if all(node in volume.inputs for volume in dataset.volumes.values()):
        return
    first = network_for(told["network"], dataset)
    heads = first.get("heads", [])
    if first["family"] != "znn" or first.get("recursive") or len(heads) != 1:
        reason = "is no network of the family znn with one output that reads images alone"
    elif told["channel"] >= heads[0]["channels"]:
        reason = f"has the maps 0 to {heads[0]['channels'] - 1}, and `channel` is {told['channel']}"
    elif first["predict_padding"] != "symmetric":
        reason = "has `is_bd_mirror: false`, so its prediction is smaller than the image"
    elif elsewhere := [n for n, v in dataset.volumes.items() if is_address(v.raw.path)]:
        reason = f"would predict all of {elsewhere[0]!r}, which is streamed; give `inputs`"
    else:
        check_pair(dataset, first, "predict")
        return
    raise ConfigError(
        f"{pair}: {node!r} of network {network['name']!r} reads what {first['name']!r} predicts; "
        f"{first['name']!r} {reason}"
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


def _check_descriptors(pair: str, dataset: Dataset, network: Mapping[str, Any]) -> None:
    if "lsd" not in network:
        return
    sigma = network["lsd"]["sigma_nm"]
    if sigma < max(dataset.voxel_size_nm):
        raise ConfigError(
            f"{pair}: descriptors of {sigma} nm see nothing on voxels of "
            f"{list(dataset.voxel_size_nm)} nm; set `lsd_sigma_nm` of the dataset higher"
        )


def _check_autocontext(pair: str, dataset: Dataset, network: Mapping[str, Any]) -> None:
    context = context_network(network, dataset)
    given = 0 if context is None else sum(head["channels"] for head in context["heads"])
    if context is not None and head_names(context) != ["lsds"]:
        raise ConfigError(
            f"{pair}: autocontext {context['name']!r} predicts {head_names(context)}; a network "
            "that predicts `lsds` alone is needed, such as lsd"
        )
    if network["family"] != "lsd":
        return
    if network["input_channels"] not in ((given, given + 1) if given else (1,)):
        raise ConfigError(
            f"{pair}: {network['input_channels']} input channels, but raw has 1 and autocontext "
            f"{network.get('autocontext')!r} gives {given}"
        )


def _check_validation(pair: str, dataset: Dataset) -> None:
    if not dataset.validation:
        raise ConfigError(
            f"{pair}: dataset {dataset.name!r} has no `validation` entry, on which the "
            "threshold is chosen; a part of a training volume will do (left out of training then)"
        )


def check_segmentation(segment: Segment, shards: int, network: Mapping[str, Any]) -> None:
    """Refuses a segmentation method that does not work with the network's affinities."""
    far = any(max(abs(step) for step in offset) > 1 for offset in network["neighborhood"])
    if segment.method == "mutex" and not far:
        raise ConfigError(
            f"segment.method 'mutex' needs long-range affinities, and network {network['name']!r} "
            "has direct ones only; take hist_quant_75"
        )
    if shards > 1 and segment.method == "mutex":
        raise ConfigError("segment.method 'mutex' sees a whole volume at once; set `shards: 1`")
    if shards > 1 and not segment.block_shape:
        raise ConfigError(
            f"`shards: {shards}` needs blocks that the shards divide; set `segment: block_shape` "
            "(z, y, x voxels), for example [256, 512, 512]"
        )


def check_legacy_loss(network: Mapping[str, Any], iterations: int) -> None:
    """Refuses a training that would come to MALIS, which the legacy engine does not have here."""
    loss = network["loss"]
    if loss["kind"] == "malis" and iterations > loss["start_iteration"]:
        raise ConfigError(
            f"network {network['name']!r} is trained with MALIS after iteration "
            f"{loss['start_iteration']}, which the legacy engine does not have here; ask for fewer "
            "iterations, predict with `weights: published`, or use `engine: modern`"
        )


def check_legacy_batch(network: Mapping[str, Any], gpus: int) -> None:
    """Refuses a training on more than one sample at a time, which the legacy engine cannot do."""
    size = network.get("batch_size", 1)
    if size > 1 or gpus > 1:
        raise ConfigError(
            f"network {network['name']!r}: `engine: legacy` trains on one sample at a time on one "
            f"GPU, and `batch_size` is {size}, `gpus` {gpus}; set both to 1 (to predict on several "
            "GPUs, use `engine: modern`)"
        )


def check_division(network: str, batch_size: int, gpus: int) -> None:
    """ConfigError where the samples of a batch cannot be dealt out evenly."""
    if batch_size % gpus:
        some = ", ".join(str(gpus * factor) for factor in (1, 2, 3))
        divisors = [n for n in range(1, batch_size + 1) if not batch_size % n]
        raise ConfigError(
            f"network {network!r}: `batch_size` {batch_size} cannot be dealt out evenly to {gpus} "
            f"GPUs; set `batch_size` (config or network) to {some} ..., or the GPUs of a training "
            f"(`gpus: {{train: N, predict: M}}`) to {' or '.join(map(str, divisors))}"
        )
