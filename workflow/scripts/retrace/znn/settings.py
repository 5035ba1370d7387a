"""A network of the family znn, resolved: its graph, its outputs and ZNN's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError
from retrace.znn.cfg import KNOWN, read_cfg
from retrace.znn.graph import Graph
from retrace.znn.layers import graph_of_layers
from retrace.znn.net import read_net

Settings = dict[str, Any]

BOUNDARY, AFFINITIES, CLASSES = "boundary", "affs", "classes"
"""Heads: interior and membrane of cells; affinities to the lower neighbours z, y, x; a map for each
class of voxels."""
HEADS = {"boundary": BOUNDARY, "affinity": AFFINITIES, "semantic": CLASSES}
"""What an output is called by `out_type`."""
DIRECT = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
COSTS = {
    "boundary": "softmax_loss",
    "affinity": "binomial_cross_entropy",
    "semantic": "softmax_loss",
}
"""What `cost_fn: auto` means."""
CHANNELS = {"boundary": (1, 2), "affinity": (3,)}
"""Maps that an output may have; of classes, as many as there are."""
ELSEWHERE = (
    "fnet_spec",
    "fdata_spec",
    "num_threads",
    "train_range",
    "test_range",
    "forward_range",
    "train_net_prefix",
    "forward_net",
    "output_prefix",
    "is_stdio",
    "is_debug",
    "is_check",
    "max_iter",
    "num_iter_per_save",
)
"""Parameters of a .cfg that are no setting of a network here: the dataset, the workflow or
`iterations` and `checkpoint_every` have them."""


def resolve(network: Mapping[str, Any], boundaries_drawn: bool, only_xy: bool) -> Settings:
    """All that the scripts read of a network, from its file and the files that this names.

    `boundaries_drawn`: whether the labels it is trained on have boundaries between objects;
    `only_xy`: whether boundaries that have to be made are made section by section. ConfigError
    where its output fits no target.
    """
    parameters: Settings = {name: default for name, (_, default) in KNOWN.items()}
    parameters |= network.get("parameters", {})
    if "cfg" in network:
        parameters = read_cfg(Path(network["cfg"]))
    graph = _graph(network, parameters)
    kind = parameters["out_type"]
    heads = _heads(network["name"], graph, kind)
    if parameters["cost_fn"] == "auto":
        parameters["cost_fn"] = COSTS[kind]
    _check(network["name"], parameters, heads)
    seen = _seen(graph.dense(), parameters["train_outsz"])
    tile = parameters["forward_outsz"] or parameters["train_outsz"]
    grown = network.get("grow_boundary", "auto")
    if grown == "auto":
        needed = kind == "boundary" and not boundaries_drawn
        grown = {"steps": 1, "only_xy": only_xy} if needed else None
    return {
        **{key: value for key, value in parameters.items() if key not in ELSEWHERE},
        "name": network["name"],
        "family": "znn",
        **_parts(graph),
        **_recursive(network, graph),
        **_net_files(parameters),
        "heads": heads,
        **_classes(kind, heads),
        "neighborhood": DIRECT if kind == "affinity" else [],
        "input_channels": graph.channels,
        "inputs": list(graph.inputs),
        "input_shape": seen,
        "inference_shape": _seen(graph.dense(), tile),
        "predict_padding": "symmetric" if parameters["is_bd_mirror"] else "valid",
        "grow_boundary": grown,
        "iterations": parameters["max_iter"],
        "checkpoint_every": parameters["num_iter_per_save"],
        "snapshot_every": network.get("snapshot_every", 1000),
    }


def _graph(network: Mapping[str, Any], parameters: Mapping[str, Any]) -> Graph:
    if path := parameters["fnet_spec"] or network.get("net"):
        return read_net(Path(path))
    if "layers" not in network:
        raise ConfigError(
            f"network {network['name']!r} has no layers; give `net: PATH.znn`, `cfg: PATH.cfg` or "
            "`layers`"
        )
    return graph_of_layers(
        network["name"],
        network["layers"],
        network.get("changes", {}),
        network.get("init", "zero"),
        network.get("pooling", "max_filter"),
    )


def _parts(graph: Graph) -> Settings:
    """The graph as it decides what is computed, and apart from it how its weights begin."""
    return {
        "graph": graph.as_dict(),
        "inits": {name: asdict(init) for name, init in sorted(graph.inits.items())},
        "unseeded": list(graph.unseeded),
    }


def _net_files(parameters: Mapping[str, Any]) -> Settings:
    """Where a .cfg has ZNN write its networks while it trains; nothing where it does not say."""
    prefix = parameters["train_net_prefix"]
    return {"net_files": {"prefix": prefix, "is_stdio": parameters["is_stdio"]}} if prefix else {}


def _recursive(network: Mapping[str, Any], graph: Graph) -> Settings:
    """Per input node the network whose prediction it reads; nothing where no node does."""
    told = network.get("recursive", {})
    for node in told:
        if node not in graph.inputs[1:]:
            raise ConfigError(
                f"network {network['name']!r}: recursive names {node!r}; input nodes beside the "
                f"first one, which reads raw: {', '.join(graph.inputs[1:]) or 'none'}"
            )
    defaults = {"channel": 0, "preprocess": "symetric_rescale"}
    return {"recursive": {n: defaults | told[n] for n in sorted(told)}} if told else {}


def _heads(name: str, graph: Graph, kind: str) -> list[Settings]:
    """Each output node with its maps and array; of several the array has the node in its name."""
    heads = [_head(name, graph, node, kind) for node in graph.outputs]
    if len(heads) > 1:
        heads = [{**head, "name": f"{head['name']}_{head['node']}"} for head in heads]
    if kind == "semantic" and len({head["channels"] for head in heads}) > 1:
        raise ConfigError(
            f"network {name!r}: the outputs {', '.join(graph.outputs)} have different numbers of "
            "maps; with out_type semantic all have a map for each of the same classes"
        )
    return heads


def _head(name: str, graph: Graph, node: str, kind: str) -> Settings:
    channels = graph.nodes[node].size
    if channels not in CHANNELS.get(kind, (channels,)):
        allowed = " or ".join(map(str, CHANNELS[kind]))
        raise ConfigError(
            f"network {name!r}: output node {node!r} has {channels} maps; out_type {kind} needs "
            f"{allowed}. Set `maps` of the last layer, or, where each map is a class of voxels, "
            "`out_type: semantic`"
        )
    return {"name": HEADS[kind], "channels": channels, "node": node}


def _classes(kind: str, heads: Sequence[Mapping[str, Any]]) -> Settings:
    """What scoring reads of a network whose maps are classes."""
    if kind != "semantic":
        return {}
    return {"n_lab": heads[0]["channels"], "labels_are_classes": True}


def _check(name: str, parameters: Mapping[str, Any], heads: Sequence[Mapping[str, Any]]) -> None:
    if parameters["is_malis"] and parameters["out_type"] != "affinity":
        raise ConfigError(
            f"network {name!r}: is_malis needs out_type affinity; in ZNN too MALIS on boundaries "
            "never worked"
        )
    if parameters["cost_fn"] == "softmax_loss" and any(h["channels"] == 1 for h in heads):
        raise ConfigError(
            f"network {name!r}: softmax over its one map is always 1; take cost_fn square_loss or "
            "binomial_cross_entropy"
        )
    z, y, x = parameters["train_outsz"]
    if parameters["is_data_aug"] and y != x:
        raise ConfigError(
            f"network {name!r}: is_data_aug exchanges y and x, which train_outsz [{z}, {y}, {x}] "
            "does not allow; make them equal, or set is_data_aug: false"
        )


def _seen(graph: Graph, output: list[int]) -> list[int]:
    sizes = graph.sizes(output)
    return [max(sizes[name][axis] for name in graph.inputs) for axis in range(3)]
