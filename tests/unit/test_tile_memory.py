"""How much memory a tile needs, counted from the shapes of a network's layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from built_networks import built
from random_znn import networks
from retrace.config.datasets import load_dataset
from retrace.config.networks import network_for
from retrace.inference import memory
from retrace.inference.memory import bytes_per_voxel
from retrace.networks import UNet
from retrace.networks.znn import build_znn
from retrace.znn.net import parse_net

pytestmark = pytest.mark.usefixtures("tiny_threads")


def passed_values(network: Any, window: Sequence[int]) -> int:
    """Values that the largest layer reads and writes in a pass of shapes alone (meta tensors)."""
    largest = 0

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal largest
        largest = max(largest, inputs[0].numel() + output.numel())

    leaves = [part for part in network.modules() if not list(part.children())]
    hooks = [leaf.register_forward_hook(record) for leaf in leaves]
    weights = {name: p.to("meta") for name, p in network.state_dict().items()}
    channels = getattr(network, "input_channels", None) or next(network.parameters()).shape[1]
    with torch.inference_mode():
        x = torch.empty((1, channels, *window), device="meta")
        torch.func.functional_call(network, weights, (x,))
    for hook in hooks:
        hook.remove()
    return largest


FACTORS = st.lists(st.lists(st.integers(1, 3), min_size=3, max_size=3), max_size=3)
OUTPUTS = st.tuples(*[st.integers(1, 30)] * 3)


@settings(max_examples=15, deadline=None)
@given(
    downsample=FACTORS,
    widths=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 3), st.integers(1, 20)),
    output=OUTPUTS,
)
def test_the_largest_layer_of_a_unet_is_that_of_a_pass(
    downsample: list[list[int]], widths: tuple[int, ...], output: tuple[int, ...]
) -> None:
    inputs, fmaps, factor, top = widths
    with torch.device("meta"):
        network = UNet(inputs, fmaps, factor, downsample, {"affs": 3, "lsds": 10}, top)
    window = network.valid_shape(output)
    assert network.layer_values(window) == passed_values(network, window)


@settings(max_examples=15, deadline=None)
@given(naive=networks(), output=OUTPUTS)
def test_the_largest_layer_of_a_znn_graph_is_that_of_a_pass(
    naive: Any, output: tuple[int, ...]
) -> None:
    graph = parse_net(naive.text(), "random.znn")
    network = build_znn(graph, {name: name for name in graph.outputs}, device="meta").eval()
    window = network.valid_shape(output)
    read = network.input_channels * math.prod(window)
    assert network.layer_values(window) == max(read, passed_values(network, window))


@pytest.mark.parametrize("name", ["aclsd", "n4", "vd2d3d", "neuro3d_doc"])
def test_the_largest_layer_of_configured_networks(name: str) -> None:
    network = built(network_for(name, load_dataset("phantom")), device="meta").eval()
    window = network.valid_shape((64, 64, 64))
    ours, least = network.layer_values(window), passed_values(network, window)
    # ELEKTRONN's convolutions are parts of layers, which a pass does not show.
    assert ours > least if name == "neuro3d_doc" else ours == least


def test_estimated_activation_memory_is_near_the_measured_memory() -> None:
    # 95,856,355 parameters, input 84 x 268 x 268: 1.2 GB of activations, 200 bytes a voxel.
    with torch.device("meta"):
        network = UNet(1, 12, 5, [[1, 3, 3], [1, 3, 3], [3, 3, 3]], {"affs": 3, "lsds": 10}, 14)
    assert 200 <= bytes_per_voxel(network, (84, 268, 268), 4) <= 400


@pytest.mark.parametrize("itemsize", [2, 4])
def test_no_layer_of_a_tile_on_a_large_gpu_has_more_values_than_cudnn_numbers(
    itemsize: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 139 << 30)
    with torch.device("meta"):
        network = UNet(1, 12, 5, [[1, 3, 3], [1, 3, 3], [3, 3, 3]], {"affs": 3, "lsds": 10}, 14)
    budget = memory.tile_budget(torch.device("cuda"), itemsize)
    window = budget / bytes_per_voxel(network, (100, 280, 280), itemsize)
    assert window * network.left[0][0].out_channels < 2**31
    monkeypatch.setattr(memory, "free_bytes", lambda device: 8 << 30)
    assert memory.tile_budget(torch.device("cuda"), itemsize) == int(0.8 * (8 << 30))
