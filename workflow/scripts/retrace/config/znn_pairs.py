"""Checks of networks of the family znn with a dataset, before anything runs."""

from __future__ import annotations

from retrace.config.compatibility import check_input
from retrace.config.compatibility import check_pair as check_any_pair
from retrace.config.dataset_model import Dataset
from retrace.config.datasets import has_classes
from retrace.config.networks import network_for
from retrace.config.znn_network import ZnnNetworkSettings
from retrace.errors import ConfigError
from retrace.remote.addresses import is_address

SEVERAL_OUTPUT_VERBS = ("train", "package", "predict", "view", "view_batch", "crate", "bundle")
"""What can be done with networks of several outputs: all that needs no score of one of them."""

PROBABILITY_FUNCTIONS = ("logistics", "forward_logistics")
"""Transfer functions with values from 0 to 1."""


def check_znn_pair(pair: str, dataset: Dataset, network: ZnnNetworkSettings, verb: str) -> None:
    """ConfigError for a dataset that the network cannot learn from or predict."""
    _check_maps(pair, dataset, network)
    if verb == "train":
        _check_cost(pair, network)
    for node in network.inputs[1:]:
        if node in network.recursive:
            _check_recursive(pair, dataset, network, node)
        else:
            check_input(pair, dataset, network, node)
    if len(network.heads) > 1:
        _check_outputs(pair, dataset, network, verb)


def _check_maps(pair: str, dataset: Dataset, network: ZnnNetworkSettings) -> None:
    """One map for each class needs labels that are classes."""
    if network.out_type != "semantic" or has_classes(dataset):
        return
    count = network.heads[0].channels
    raise ConfigError(
        f"{pair}: network {network.name!r} has {count} maps, each a class of voxels (`out_type: "
        f"semantic`), and the labels of dataset {dataset.name!r} are no classes. Give labels "
        f"with `objects: classes` whose voxels are 0 to {count - 1} (`class_values` says which "
        "stored values make each class), or take a network of boundaries, such as n4"
    )


def _check_cost(pair: str, network: ZnnNetworkSettings) -> None:
    """Outputs whose logarithm the cost takes are in [0, 1]; in ZNN others gave nan."""
    if network.cost_fn != "binomial_cross_entropy":
        return
    for head in network.heads:
        node = network.graph.nodes[head.node]
        if node.type == "transfer" and node.function not in PROBABILITY_FUNCTIONS:
            raise ConfigError(
                f"{pair}: cost_fn binomial_cross_entropy needs outputs from 0 to 1; output node "
                f"{head.node!r} of network {network.name!r} has function {node.function}. Set it "
                "to forward_logistics, as ZNN's networks have it, or take another cost_fn: "
                "square_loss, or softmax_loss"
            )


def _check_outputs(pair: str, dataset: Dataset, network: ZnnNetworkSettings, verb: str) -> None:
    """Each of several output nodes has its own labels, and none of them is scored."""
    nodes = ", ".join(head.node for head in network.heads)
    if verb not in SEVERAL_OUTPUT_VERBS:
        raise ConfigError(
            f"{pair}: network {network.name!r} has the outputs {nodes}; it serves the verbs "
            f"{', '.join(SEVERAL_OUTPUT_VERBS)}. To {verb} one of them, make a network that ends "
            "in it and begin from this one's h5 (`init`)"
        )
    for entry in [*dataset.train, *dataset.validation]:
        volume = dataset.volumes[entry.volume]
        # The first output may use the volume's own `labels`.
        others = () if volume.labels is None else network.heads[1:]
        for head in others:
            if head.node not in volume.outputs:
                raise ConfigError(
                    f"{pair}: network {network.name!r} has the outputs {nodes}; volume "
                    f"{entry.volume!r} has no labels for {head.node!r}. Add `outputs: "
                    f"{{{head.node}: {{path: ...}}}}` to it, or `{head.node} = N` to its "
                    "[sample] in the .spec"
                )


def _check_recursive(pair: str, dataset: Dataset, network: ZnnNetworkSettings, node: str) -> None:
    """The other network predicts whole volumes, and has the map that is the input."""
    if all(node in volume.inputs for volume in dataset.volumes.values()):
        return
    recursive = network.recursive[node]
    first = network_for(recursive.network, dataset)
    if not isinstance(first, ZnnNetworkSettings) or first.recursive or len(first.heads) != 1:
        reason = "is no network of the family znn with one output that reads images alone"
    elif recursive.channel >= first.heads[0].channels:
        last = first.heads[0].channels - 1
        reason = f"has the maps 0 to {last}, and `channel` is {recursive.channel}"
    elif first.predict_padding != "symmetric":
        reason = "has `is_bd_mirror: false`, so its prediction is smaller than the image"
    elif streamed := [n for n, v in dataset.volumes.items() if is_address(v.raw.path)]:
        reason = f"would predict all of {streamed[0]!r}, which is streamed; give `inputs`"
    else:
        check_any_pair(dataset, first, "predict", trained=bool(dataset.train))
        return
    raise ConfigError(
        f"{pair}: {node!r} of network {network.name!r} reads what {first.name!r} predicts; "
        f"{first.name!r} {reason}"
    )
