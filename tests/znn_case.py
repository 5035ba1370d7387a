"""Shared by tests of ZNN networks: sample networks, oracles and a tiny data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrace.config import networks, yaml_files
from retrace.networks.znn import ZnnNetwork
from retrace.znn.graph import Graph
from retrace.znn.layers import graph_of_layers
from retrace.znn.net import parse_net

NETWORKS = {name: networks.network_content(name) for name in yaml_files.names("networks")}
SAMPLES = sorted(n for n, network in NETWORKS.items() if network["family"] == "znn")
"""ZNN's own networks, by our names."""

SMALL = """\
nodes input
type input
size 1

edges conv1
type conv
init uniform
init_args 0.05
size 1,3,3
input input
output n1

nodes n1
type transfer
function tanh
function_args 1.7159
size 4

edges pool1
type max_filter
size 1,2,2
stride 1,2,2
input n1
output n2

nodes n2
type sum
function rectify_linear
size 4
load 0

edges conv2
type conv
size 2,2,2
input n2
output output
seeding 0

nodes output
type transfer
function linear
init constant
init_args 0.5
size 2
"""
"""A network of two filters as a .znn file."""

TRAINING_ORACLES = (
    "srini2d_softmax_3steps",
    "N4_A_even_binomial_2steps",
    "crop3d_square",
    "pool3d_binomial",
)


def sample_graph(name: str) -> Graph:
    """The graph of one of `SAMPLES`."""
    network: Any = networks.load_network(name)
    return graph_of_layers(name, network.layers, network.changes, network.init, network.pooling)


def torch_filter(true_kernel: np.ndarray) -> torch.Tensor:
    """Torch's weight (O, I, z, y, x) of a true kernel (I, O, z, y, x)."""
    return torch.from_numpy(true_kernel.transpose(1, 0, 2, 3, 4)[..., ::-1, ::-1, ::-1].copy())


def true_filter(weight: torch.Tensor) -> np.ndarray:
    """The inverse of `torch_filter`."""
    return weight.detach().numpy()[..., ::-1, ::-1, ::-1].transpose(1, 0, 2, 3, 4)


def oracle_network(oracle: Mapping[str, Any], dtype: torch.dtype) -> ZnnNetwork:
    """The network of an oracle with its first weights."""
    graph = parse_net(str(oracle["netfile"]), Path("oracle.znn"))
    module = ZnnNetwork(graph, {name: name for name in graph.outputs}).to(dtype)
    with torch.no_grad():
        for name, layer in module.convolutions.items():
            layer.weight.copy_(torch_filter(oracle[f"w0/{name}"]))
        for name, node in module.transfers.items():
            node.bias.copy_(torch.from_numpy(oracle[f"w0/{name}"]))
    return module


def oracle_input(oracle: Mapping[str, Any], graph: Graph, dtype: torch.dtype) -> torch.Tensor:
    """The inputs of an oracle as (1, C, Z, Y, X)."""
    parts = [torch.from_numpy(oracle[f"in/{name}"]) for name in graph.inputs]
    return torch.cat(parts)[None].to(dtype)
