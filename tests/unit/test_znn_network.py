"""ZNN networks in torch: the original's numbers, and dense output against a sliding window."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from retrace.config.families import ZNN
from retrace.losses.znn_costs import with_gradient
from retrace.losses.znn_malis import pair_weights, true_segments, znn_malis_weights
from retrace.networks.convolution import convolve
from retrace.networks.phases import channels_are_last, merge_phases, split_phases
from retrace.networks.pooling import max_pool
from retrace.networks.znn import ZnnNetwork
from retrace.training.znn_optimizer import ZnnOptimizer
from retrace.znn.graph import Graph
from retrace.znn.net import parse_net
from znn_case import (
    SAMPLES,
    TRAINING_ORACLES,
    oracle_input,
    oracle_network,
    sample_graph,
    torch_filter,
    true_filter,
)

COSTS = {
    "softmax": "softmax_loss",
    "square": "square_loss",
    "binomial": "binomial_cross_entropy",
}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
XYZ = [[0, 0, -1], [0, -1, 0], [-1, 0, 0]]

pytestmark = pytest.mark.usefixtures("tiny_threads")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mode", ["direct", "fft"])
@pytest.mark.parametrize("name", TRAINING_ORACLES)
def test_outputs_and_updates_are_the_originals(
    shared_dir: Path, name: str, mode: str, dtype: torch.dtype
) -> None:
    oracle = np.load(shared_dir / "oracles" / "znn" / f"{name}.npz")
    module = oracle_network(oracle, dtype)
    for layer in module.convolutions.values():
        layer.mode = mode
    settings = {key: float(oracle[key]) for key in ("eta", "momentum", "weight_decay")}
    optimizer = ZnnOptimizer(module, **settings, anneal_factor=1.0, anneal_every=100)
    for layer, weight in named_weights(module):
        if f"v0/{layer}" in oracle:
            optimizer.velocity(weight).copy_(as_weight(oracle[f"v0/{layer}"]))
    x = oracle_input(oracle, module.graph, dtype)
    for step in range(int(oracle["steps"])):
        outputs = module.raw_outputs(x)
        total = torch.zeros((), dtype=dtype)
        for node, output in outputs.items():
            close(output[0].detach().numpy(), oracle[f"out{step}/{node}"], dtype)
            target = torch.from_numpy(oracle[f"lbl/{node}"]).to(dtype)
            cost = ZNN.load_all("losses")[COSTS[str(oracle["loss"])]]
            paid = cost(output[0], target, torch.ones_like(target))
            voxels = output[0, 0].numel()
            total = total + with_gradient(output[0], paid.error, paid.gradient / voxels)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    for layer, weight in named_weights(module):
        close(as_stored(weight), oracle[f"wN/{layer}"], dtype)
        close(as_stored(optimizer.velocity(weight)), oracle[f"vN/{layer}"], dtype)


def named_weights(module: ZnnNetwork) -> list[tuple[str, torch.Tensor]]:
    filters = [(name, layer.weight) for name, layer in module.convolutions.items()]
    return filters + [(name, node.bias) for name, node in module.transfers.items()]


def as_weight(stored: np.ndarray) -> torch.Tensor:
    return torch_filter(stored) if stored.ndim == 5 else torch.from_numpy(stored)


def as_stored(weight: torch.Tensor) -> np.ndarray:
    return true_filter(weight) if weight.ndim == 5 else weight.detach().numpy()


def close(actual: np.ndarray, expected: np.ndarray, dtype: torch.dtype) -> None:
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("plain", {}),
        ("frac", {"frac": True}),
        ("hi1lo.5", {"high": 1.0, "low": 0.5}),
        ("hi.5lo0", {"high": 0.5, "low": 0.0}),
    ],
)
def test_malis_weights_are_the_originals(
    shared_dir: Path, key: str, options: dict[str, float]
) -> None:
    oracle = np.load(shared_dir / "oracles" / "znn" / "malis_zalis.npz")
    labels = true_segments(oracle["taff"], XYZ)
    weights = pair_weights(oracle["aff"], labels, XYZ, **options)  # type: ignore[arg-type]

    # Whole numbers of pairs are equal; fractions differ in the order of their sums.
    exact = 0 if key != "frac" else 1e-14
    np.testing.assert_allclose(weights.merger, oracle[f"m_{key}"], rtol=exact)
    np.testing.assert_allclose(weights.splitter, oracle[f"s_{key}"], rtol=exact)
    _, voxels, *counts, _ = oracle[f"q_{key}"]
    assert voxels == (labels > 0).sum()
    names = ("TP", "TN", "FP", "FN")
    np.testing.assert_allclose([weights.counts[n] for n in names], counts, rtol=1e-12)


def test_malis_norms_divide_by_voxels_and_pairs() -> None:
    rng = np.random.default_rng(0)
    target = (rng.random((3, 1, 6, 6)) < 0.7).astype(float)
    predicted = rng.random((3, 1, 6, 6))
    voxels = int((true_segments(target, XYZ) > 0).sum())
    plain = znn_malis_weights(predicted, target, XYZ)

    np.testing.assert_allclose(znn_malis_weights(predicted, target, XYZ, "num"), plain / voxels)
    pairs = voxels * (voxels - 1)
    np.testing.assert_allclose(znn_malis_weights(predicted, target, XYZ, "pair"), plain / pairs)
    both = znn_malis_weights(predicted, target, XYZ, constrained=True)
    assert 0 < both.sum() <= 2
    assert not znn_malis_weights(predicted, target * 0, XYZ).any()


def reduced(graph: Graph) -> Graph:
    """The same graph with at most 3 maps a node, so that a sliding window is affordable."""
    inner = {
        name: replace(node, size=min(node.size, 3)) if node.type != "input" else node
        for name, node in graph.nodes.items()
    }
    return replace(graph, nodes=inner)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "kisuk_aws_optimized"])
def test_dense_output_is_the_sliding_window(name: str) -> None:
    graph = reduced(sample_graph(name))
    module = filled(ZnnNetwork(graph.dense(), heads(graph))).eval()
    window = filled(ZnnNetwork(graph, heads(graph))).eval()
    rng = torch.Generator().manual_seed(1)
    shape = [size + extra for size, extra in zip(graph.field_of_view, (1, 3, 2), strict=True)]
    x = torch.randn((1, graph.channels, *shape), generator=rng)
    with torch.no_grad():
        dense = module(x)["output"][0]
        for z, y, x_ in itertools.product((0, 1), (0, 3), (1, 2)):
            fov = graph.field_of_view
            part = x[..., z : z + fov[0], y : y + fov[1], x_ : x_ + fov[2]]
            naive = window(part)["output"][0, :, 0, 0, 0]
            torch.testing.assert_close(dense[:, z, y, x_], naive, rtol=1e-4, atol=1e-5)


def heads(graph: Graph) -> dict[str, str]:
    return {"output": graph.outputs[0]}


def filled(module: ZnnNetwork) -> ZnnNetwork:
    """Weights that keep the signal alive through many layers, the same for any form of a graph."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in module.convolutions.values():
            scale = layer.weight[0].numel() ** -0.5
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * scale)
            layer.tie()
        for node in module.transfers.values():
            node.bias.copy_(torch.randn(node.bias.shape, generator=generator) * 0.1)
    return module


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("shape", [(1, 9, 10), (5, 7, 11)])
def test_phases_split_stepwise_or_at_once_and_merge_back(
    shape: tuple[int, int, int], batch: int
) -> None:
    x = torch.randn(batch, 3, *shape)
    at_once = split_phases(x, (2, 6, 4))
    in_steps = split_phases(split_phases(x, (1, 2, 2)), (2, 3, 2), (1, 2, 2))

    torch.testing.assert_close(in_steps, at_once, rtol=0, atol=0)
    torch.testing.assert_close(merge_phases(at_once, (2, 6, 4), shape), x, rtol=0, atol=0)
    torch.testing.assert_close(at_once[:batch], x[..., ::2, ::6, ::4], rtol=0, atol=0)


@pytest.mark.parametrize("is_last", [False, True])
def test_phases_keep_their_layout_and_send_gradients_back(is_last: bool) -> None:
    x = torch.randn(4, 2, 1, 3, 4, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last_3d) if is_last else x
    x.requires_grad_()
    apart = split_phases(x, (2, 2, 3), (1, 2, 2))

    assert channels_are_last(apart) == is_last
    with torch.no_grad():
        torch.testing.assert_close(split_phases(x, (2, 2, 3), (1, 2, 2)), apart, rtol=0, atol=0)
    # Voxels of no phase are filled up with zeros.
    assert float(apart.detach().abs().sum()) == pytest.approx(float(x.detach().abs().sum()))
    assert torch.autograd.gradcheck(lambda v: split_phases(v, (2, 2, 3), (1, 2, 2)), (x,))


@pytest.mark.parametrize("channels", [1, 3])
def test_sections_are_the_same_in_both_layouts(channels: int) -> None:
    """Convolution and pooling of one section, and their gradients, against the library's in 3-D."""
    x = torch.randn(2, channels, 4, 9, 8, requires_grad=True)
    w = torch.randn(5, channels, 1, 4, 3, requires_grad=True)
    b = torch.randn(5, requires_grad=True)
    ours = max_pool(convolve(x, w, b, "direct"), (1, 2, 2), (1, 1, 1))
    plain = torch.nn.functional.max_pool3d(
        torch.nn.functional.conv3d(x, w, b), (1, 2, 2), (1, 1, 1)
    )
    grads = [torch.autograd.grad(y.square().sum(), (x, w, b)) for y in (ours, plain)]

    torch.testing.assert_close(ours, plain)
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_direct_and_spectral_convolution_agree_with_their_gradients() -> None:
    x = torch.randn(2, 3, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    w = torch.randn(5, 3, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(5, dtype=torch.float64, requires_grad=True)
    results = []
    for mode in ("direct", "fft"):
        y = convolve(x, w, b, mode)
        results.append((y, *torch.autograd.grad(y.square().sum(), (x, w, b))))

    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


FUNCTIONS = {
    "linear": (lambda v: 2 * v - 1, "2,-1"),
    "rectify_linear": (lambda v: np.maximum(v, 0), ""),
    "tanh": (lambda v: 1.5 * np.tanh(0.5 * v), "1.5,0.5"),
    "soft_sign": (lambda v: v / (1 + np.abs(v)), ""),
    "logistics": (lambda v: 1 / (1 + np.exp(-v)), ""),
    "forward_logistics": (lambda v: 1 / (1 + np.exp(-v)), ""),
}


def line(function: str, args: str) -> Graph:
    """One filter of one voxel, then the function."""
    args = f"function_args {args}\n" if args else ""
    return parse_net(
        "nodes a\ntype input\nsize 1\nedges e\ntype conv\nsize 1,1,1\ninput a\noutput b\n"
        f"nodes b\ntype transfer\nfunction {function}\n{args}size 1\n",
        Path("line.znn"),
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_transfer_functions_and_their_slopes(name: str) -> None:
    formula, args = FUNCTIONS[name]
    module = ZnnNetwork(line(name, args), {"output": "b"}).double()
    torch.nn.init.ones_(module.convolutions["e"].weight)
    values = np.array([-2.0, -0.3, 0.4, 3.0])
    x = torch.from_numpy(values).reshape(1, 1, 1, 1, 4).requires_grad_()
    y = module(x)["output"]
    y.sum().backward()

    np.testing.assert_allclose(y.detach().numpy().ravel(), formula(values), atol=1e-12)
    step = 1e-6
    slope = (formula(values + step) - formula(values - step)) / (2 * step)
    expected = np.ones(4) if name == "forward_logistics" else slope
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy().ravel(), expected, atol=1e-6)


def test_repeated_filter_values_are_the_means_of_their_blocks() -> None:
    module = filled(ZnnNetwork(sample_graph("hd3d"), {"output": "nl10"}))
    weight = module.convolutions["conv1"].weight.detach()

    blocks = weight.unflatten(3, (3, 2)).unflatten(5, (3, 2))
    assert torch.equal(blocks[:, :, :, :, 0], blocks[:, :, :, :, 1])
    assert torch.equal(blocks[..., 0], blocks[..., 1])
    assert len(weight[0, 0].unique()) == 9


def test_dropout_keeps_its_share_in_training_and_everything_afterwards() -> None:
    graph = parse_net(
        "nodes a\ntype input\nsize 1\nedges d\ntype dropout\nratio 0.8\ninput a\noutput b\n"
        "nodes b\ntype sum\nsize 1\n",
        Path("d.znn"),
    )
    module = ZnnNetwork(graph, {"output": "b"})
    x = torch.ones(1, 1, 1, 100, 100)
    torch.manual_seed(0)
    kept = module(x)["output"]

    assert set(kept.unique().tolist()) == {0.0, 1.25}
    assert abs(float((kept > 0).float().mean()) - 0.8) < 0.02
    assert torch.equal(module.eval()(x)["output"], x)


def test_maxout_takes_the_larger_edge() -> None:
    graph = parse_net(
        "nodes a\ntype input\nsize 1\n"
        "edges p\ntype conv\nsize 1,1,1\ninput a\noutput x\nnodes x\ntype sum\nsize 1\n"
        "edges q\ntype conv\nsize 1,1,1\ninput a\noutput y\nnodes y\ntype sum\nsize 1\n"
        "edges m\ntype maxout\ninput x\noutput z\nedges n\ntype maxout\ninput y\noutput z\n"
        "nodes z\ntype maxout\nsize 1\n",
        Path("m.znn"),
    )
    module = ZnnNetwork(graph, {"output": "z"})
    for name, value in (("p", 2.0), ("q", -1.0)):
        torch.nn.init.constant_(module.convolutions[name].weight, value)
    x = torch.tensor([-3.0, 5.0]).reshape(1, 1, 1, 1, 2)

    assert module(x)["output"].flatten().tolist() == [3.0, 10.0]


def test_first_weights_depend_on_the_seed_alone_and_have_the_range_of_their_kind() -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        module = ZnnNetwork(sample_graph("n4"), {"output": "output"})
        module.initialise(torch.Generator().manual_seed(seed))
        return module.state_dict()

    one, same, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(one[key], same[key]) for key in one)
    conv2 = one["edges.conv2_.weight"]
    assert not torch.equal(conv2, other["edges.conv2_.weight"])
    high = (6 / (48 * 25 + 48 * 25)) ** 0.5
    assert 0.99 * high < float(conv2.abs().max()) <= high
    assert not one["nodes.nconv1_.bias"].any()
