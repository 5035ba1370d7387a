"""Random networks of ZNN against a naive implementation: outputs, and gradients of all weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naive_znn import NaiveEdge, NaiveNetwork, NaiveNode, Shape
from random_znn import networks
from retrace.networks.tuning import set_convolution_modes
from retrace.networks.znn import ZnnNetwork, build_znn
from retrace.training.znn_optimizer import ZnnOptimizer
from retrace.znn.net import parse_net
from znn_case import torch_filter, true_filter

pytestmark = pytest.mark.usefixtures("tiny_threads")

OUTPUTS = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3))


def as_module(naive: NaiveNetwork, dtype: torch.dtype) -> ZnnNetwork:
    """The library's network of the same .znn text and weights."""
    graph = parse_net(naive.text(), Path("random.znn"))
    module = build_znn(graph, {name: name for name in graph.outputs}).to(dtype)
    with torch.no_grad():
        for name, layer in module.convolutions.items():
            layer.weight.copy_(torch_filter(naive.weights.filters[name]))
        for name, node in module.transfers.items():
            node.bias.copy_(torch.from_numpy(naive.weights.biases[name]))
    return module.eval()


def close(actual: torch.Tensor | np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Equal up to `tolerance` of the largest value."""
    values = actual.detach().numpy() if isinstance(actual, torch.Tensor) else actual
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance * scale)


def compare(
    naive: NaiveNetwork, output: Shape, module: ZnnNetwork, tolerance: float, *, gradients: bool
) -> None:
    """Outputs and gradients of `module` against those of `naive`, for a random image."""
    rng = np.random.default_rng(0)
    dtype = next(module.parameters(), torch.zeros(0, dtype=torch.float64)).dtype
    x = rng.normal(0, 1, (module.input_channels, *module.valid_shape(output)))
    values = naive.forward(naive.crop_inputs(x, output))
    outputs = module.raw_outputs(torch.from_numpy(x)[None].to(dtype))
    assert sorted(outputs) == sorted(naive.outputs)
    sent = {name: rng.normal(0, 1, values[name].shape) for name in naive.outputs}
    for name in naive.outputs:
        close(outputs[name][0], values[name], tolerance)
    if not gradients or not any(y.requires_grad for y in outputs.values()):
        return
    total = sum((outputs[n][0] * torch.from_numpy(g).to(dtype)).sum() for n, g in sent.items())
    module.zero_grad()
    assert isinstance(total, torch.Tensor)
    total.backward()
    expected = naive.backward(sent)
    for name, layer in module.convolutions.items():
        assert layer.weight.grad is not None
        close(true_filter(layer.weight.grad), expected.filters[name], tolerance)
    for name, node in module.transfers.items():
        assert node.bias.grad is not None
        close(node.bias.grad, expected.biases[name], tolerance)


@settings(max_examples=60)
@given(naive=networks(), output=OUTPUTS, modes=st.integers(0, 2**16))
def test_random_networks_are_the_naive_ones(naive: NaiveNetwork, output: Shape, modes: int) -> None:
    """In float64, all layers direct, all by FFT, and a mixture as `optimize` gives."""
    module = as_module(naive, torch.float64)
    assert module.graph.field_of_view == tuple(
        np.max([naive.field_of_view(name) for name in naive.inputs], axis=0)
    )
    for mode in ("direct", "fft", "mixed"):
        for number, layer in enumerate(module.convolutions.values()):
            drawn = "fft" if modes >> number & 1 else "direct"
            layer.mode = drawn if mode == "mixed" else mode
        compare(naive, output, module, 1e-9, gradients=True)


@settings(max_examples=30)
@given(naive=st.one_of(networks(), networks(smooth=True)), output=OUTPUTS)
def test_random_networks_in_float32(naive: NaiveNetwork, output: Shape) -> None:
    """Outputs always; gradients where rounding cannot move them over a kink."""
    kinks = {"max_filter", "maxout", "rectify_linear"}
    kinds = {edge.type for edge in naive.edges} | {node.function for node in naive.nodes}
    module = as_module(naive, torch.float32)
    for mode in ("direct", "fft"):
        for layer in module.convolutions.values():
            layer.mode = mode
        compare(naive, output, module, 2e-4, gradients=not kinds & kinks)


def strided(function: str) -> NaiveNetwork:
    """Two inputs into strided convolutions, a strided max filter, and two outputs."""
    window, stride = (1, 4, 4), (1, 2, 2)
    nodes = [
        NaiveNode("input", "input", 1),
        NaiveNode("input2", "input", 2),
        NaiveNode("n", "transfer", 3, function),
        NaiveNode("pooled", "sum", 3),
        NaiveNode("output", "transfer", 2, "linear"),
        NaiveNode("output2", "transfer", 1, function),
    ]
    edges = [
        NaiveEdge("c", "conv", "input", "n", window, stride),
        NaiveEdge("c2", "conv", "input2", "n", (2, 2, 3), stride),
        NaiveEdge("m", "max_filter", "n", "pooled", (1, 2, 2), (1, 1, 2)),
        NaiveEdge("d", "conv", "pooled", "output", (1, 3, 3), (1, 3, 1)),
        NaiveEdge("d2", "conv", "pooled", "output2", (1, 3, 3), (1, 3, 1)),
    ]
    network = NaiveNetwork(nodes, edges)
    network.draw_weights(np.random.default_rng(1))
    return network


@pytest.mark.parametrize("mode", ["direct", "fft", "optimize"])
@pytest.mark.parametrize(
    "function",
    ["linear", "rectify_linear", "tanh", "soft_sign", "logistics", "forward_logistics"],
)
def test_strided_convolutions_train_with_every_function(
    tmp_path: Path, function: str, mode: str
) -> None:
    """In both precisions: outputs, gradients, and one step of the optimizer."""
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        naive = strided(function)
        module, shape = as_module(naive, dtype).train(), (1, 5, 5)
        device, cache = torch.device("cpu"), tmp_path / "modes.json"
        size = module.valid_shape(shape)
        set_convolution_modes(module, mode, size, device, training=True, cache=cache)
        compare(naive, shape, module, tolerance, gradients=True)
        optimizer = ZnnOptimizer(
            module, eta=0.1, momentum=0.9, weight_decay=0, anneal_factor=1, anneal_every=1
        )
        before = {name: weight.detach().clone() for name, weight in module.named_parameters()}
        optimizer.step()
        for name, weight in module.named_parameters():
            assert weight.grad is not None and weight.grad.any()
            torch.testing.assert_close(weight.detach(), before[name] - 0.1 * weight.grad)
