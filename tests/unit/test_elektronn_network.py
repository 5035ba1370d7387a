"""ELEKTRONN's networks in torch: numbers of the original, dense output, parameter files."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import tiny_elektronn as tiny
from elektronn_modules import IMAGE_TO_SCALAR, build, digits
from retrace.checkpoints.elektronn import (
    load_param,
)
from retrace.elektronn.parameters import GradientDescentParameters
from retrace.errors import ConfigError
from retrace.geometry import VoxelBox
from retrace.inference.tiles import tile_for, tiles
from retrace.losses.elektronn import error_rate, nll
from retrace.networks import ElektronnNetwork
from retrace.networks.elektronn import Dropout, activate
from retrace.networks.pooling import pool
from retrace.training.elektronn_optimizers import elektronn_optimizer

# ---------------------------------------------------------------- numbers of the original


def flat_oracle() -> tuple[ElektronnNetwork, Tensor]:
    """A 2-D network and its input of 23 x 23; here axes are y, x."""
    module = build(
        n_dim=2,
        desired_input=23,
        filters=[4, 3, 2],
        pool=[2, 2, 1],
        nof_filters=[4, 5, 6],
        activation_func=["abs", "tanh", "relu"],
    )
    shapes = [(4, 1, 4, 4), (5, 4, 3, 3), (6, 5, 2, 2), (2, 6, 1, 1)]
    load_param(tiny.patterned(module, shapes), module)
    i, j = np.meshgrid(np.arange(23), np.arange(23), indexing="ij")
    x = np.sin(0.13 * i + 0.29 * j + 0.01 * i * j).astype(np.float32)
    return module, torch.from_numpy(x.T.copy())[None, None, None]


def test_probabilities_of_a_flat_network() -> None:
    module, x = flat_oracle()
    expected = [
        [0.528532, 0.531161, 0.543562],
        [0.532751, 0.540826, 0.562395],
        [0.529906, 0.568023, 0.545538],
    ]

    probabilities = module.as_probabilities(module.raw(x))[0, 1, 0].T
    assert probabilities.detach().numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_training_a_flat_network() -> None:
    module, x = flat_oracle()
    i, j = np.meshgrid(np.arange(3), np.arange(3), indexing="ij")
    labels = torch.from_numpy((i + j) % 2)[None, None]
    settings = GradientDescentParameters(LR=0.1, momentum=0.9)
    optimizer = elektronn_optimizer(module.parameters(), settings, weight_decay=0.01)
    assert float(error_rate(module.raw(x), labels)) == pytest.approx(0.555556, abs=1e-6)

    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = nll(module.raw(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    expected = [0.695724, 0.693515, 0.672824, 0.669349, 0.651116]
    assert losses == pytest.approx(expected, abs=2e-6)


def test_probabilities_of_a_deep_network() -> None:
    module = build(
        desired_input=[5, 17, 17],
        input_channels=2,
        filters=[[1, 4, 4], [3, 3, 3]],
        pool=[[1, 2, 2], [1, 1, 1]],
        nof_filters=[3, 4],
        n_lab=3,
    )
    shapes = [(3, 1, 2, 4, 4), (4, 3, 3, 3, 3), (3, 1, 4, 1, 1)]
    load_param(tiny.patterned(module, shapes), module)
    z, ch, i, j = np.meshgrid(*map(np.arange, (5, 2, 17, 17)), indexing="ij")
    x = np.sin(0.5 * z + 0.9 * ch + 0.13 * i + 0.29 * j + 0.01 * i * j)
    ours = torch.from_numpy(x.transpose(1, 0, 3, 2).astype(np.float32))[None]

    p = module.as_probabilities(module.raw(ours))[0].detach().numpy()
    assert p.shape == (3, 3, 5, 5)
    assert p[:, 0, 0, 0] == pytest.approx([0.318007, 0.351651, 0.330342], abs=1e-6)
    assert p[:, -1, -1, -1] == pytest.approx([0.342377, 0.323282, 0.334341], abs=1e-6)
    assert p.mean(axis=(1, 2, 3)) == pytest.approx([0.280657, 0.176001, 0.543341], abs=1e-6)


def test_the_pooling_by_size_keeps_the_sign() -> None:
    x = torch.tensor([1, -3, 2, 0.5]).reshape(1, 1, 2, 2)

    assert pool(x, [2, 2], "maxabs").item() == -3
    assert pool(x, [2, 2], "max").item() == 2
    assert pool(torch.tensor([[[[3.0, -3.0]]]]), [1, 2], "maxabs").item() == 3


@pytest.mark.parametrize("mode", ["max", "maxabs"])
def test_dense_pooling_is_pooling_at_every_offset(mode: str) -> None:
    x = torch.randn(1, 2, 4, 7, 8)
    dense = pool(x, [2, 1, 3], mode, dense=True)

    assert dense.shape == (1, 2, 3, 7, 6)
    strided = pool(x[:, :, 1:, :, 1:7], [2, 1, 3], mode)
    torch.testing.assert_close(dense[:, :, 1:2, :, 1::3][..., :1, :, :2], strided[:, :, :1])


# ---------------------------------------------------------------- layers


def test_pooling_comes_before_bias_and_activation() -> None:
    """For abs this differs from the activation first."""
    layers = {"filters": [[1, 1, 1]], "pool": [[1, 3, 3]], "nof_filters": [1]}
    module = build(activation_func="abs", **layers, desired_input=[3, 21, 21])
    first = module.parts[0]
    with torch.no_grad():
        first.weight.fill_(1)
        first.bias.fill_(0.5)
    x = torch.tensor([-5.0, -1, -2, -3, -4, -2, -2, -3, -3]).reshape(1, 1, 1, 3, 3)

    assert activate(first(x), "abs").item() == 0.5
    assert pool((x + 0.5).abs(), [1, 3, 3], "max").item() == 4.5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu", [0, 2]),
        ("abs", [1, 2]),
        ("linear", [-1, 2]),
        ("tanh", np.tanh([-1, 2])),
        ("sigmoid", 1 / (1 + np.exp([1, -2]))),
        ("maxout 2", [2]),
    ],
)
def test_activations(name: str, expected: Any) -> None:
    activated = activate(torch.tensor([[-1.0, 2.0]]), name)

    assert activated[0].numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_maxout_gives_fewer_maps_to_the_next_layer() -> None:
    module = build(activation_func="maxout 2")

    assert [part.weight.shape[1] for part in module.parts] == [1, 2, 3]
    with pytest.raises(ConfigError, match="makes one of every 3 maps"):
        build(activation_func="maxout 3", nof_filters=[4, 6])


def test_a_shared_mask_drops_the_same_places_everywhere() -> None:
    torch.manual_seed(1)
    ones = torch.ones(3, 4, 2, 5, 5)
    shared, own = Dropout(0.5, True)(ones), Dropout(0.5, False)(ones)

    assert (shared == shared[:1, :1]).all()
    assert not (own == own[:1, :1]).all()
    assert set(shared.unique().tolist()) == {0, 2}
    assert (Dropout(0.5, True).eval()(ones) == 1).all()
    rows = Dropout(0.5, True)(torch.ones(6, 40))
    assert (rows == rows[:1]).all()


def test_the_last_layer_drops_nothing() -> None:
    net = tiny.network(dropout_rates=0.3)
    assert net.dropout_rates == (0.3, 0.3, 0.0)
    with pytest.raises(ConfigError, match="dropout_rates has 3 entries for 2 layers"):
        tiny.network(dropout_rates=[0.1, 0.2, 0.3])


def test_weights_begin_as_in_the_original() -> None:
    """Means and ranges that ELEKTRONN's formulae give, within five standard errors."""
    module = build(nof_filters=[40, 60], filters=[[1, 4, 4], [3, 3, 3]])
    first = module.parts[0].weight
    std = (2 / (16 + 40 * 16 / 4)) ** 0.5
    assert float(first.detach().std()) == pytest.approx(std, rel=5 / (2 * first.numel()) ** 0.5)
    assert (module.parts[0].bias == 1 / 16).all()
    assert (module.parts[1].bias == 1 / 27).all()
    assert float(module.parts[2].bias.detach().abs().max()) <= 1e-6

    rows = digits(mode="vect-scalar", desired_input=100, MLP_layers=[200])
    high = (2 / 300) ** 0.5
    assert 0.95 * high < float(rows.parts[0].weight.detach().abs().max()) <= high
    assert (rows.parts[0].bias == 1).all()


def test_weights_follow_from_the_seed() -> None:
    same, other = build(seed=1).state_dict(), build(seed=2).state_dict()
    again = build(seed=1).state_dict()

    assert all(torch.equal(same[key], again[key]) for key in same)
    assert not torch.equal(same["layers.0.weight"], other["layers.0.weight"])


def test_a_decoder_is_tied_to_its_encoder() -> None:
    options = {"mode": "vect-scalar", "desired_input": 12, "MLP_layers": [8, 5]}
    module = digits(**options, activation_func="tanh", autoencoder={"input_noise": 0.3})
    x = torch.randn(4, 12)
    module.eval()
    code = module.encoded(x)
    by_hand = torch.tanh(torch.tanh(code @ module.parts[1].weight) @ module.parts[0].weight)

    torch.testing.assert_close(module(x)["reconstruction"], by_hand, atol=1e-5, rtol=1e-4)
    module(x)["reconstruction"].square().mean().backward()
    with torch.no_grad():
        for weight in module.parameters():
            weight.sub_(0.1 * weight.grad)
    assert not torch.allclose(module(x)["reconstruction"], by_hand)
    assert sum(module.architecture.parameters()) == 12 * 8 + 8 + 8 * 5 + 5
    assert {p.shape for p in module.decoder.parameters()} == {(8,), (12,)}  # type: ignore[union-attr]


def test_noise_of_a_decoder_ends_with_the_training() -> None:
    options = {"mode": "vect-scalar", "desired_input": 12, "MLP_layers": [8, 5]}
    still = digits(**options, autoencoder={"input_noise": 0.3})
    loud = digits(
        **options,
        autoencoder={"input_noise": 0.3, "noise_in_evaluation": True, "train_decoder_bias": False},
    )
    x = torch.randn(4, 12)

    for module, trains, differs in (
        (still, True, True),
        (still, False, False),
        (loud, False, True),
    ):
        module.train(trains)
        one, two = (module(x)["reconstruction"] for _ in range(2))
        assert torch.equal(one, two) is not differs
    assert not any(p.requires_grad for p in loud.decoder.parameters())  # type: ignore[union-attr]


# ---------------------------------------------------------------- dense


def stitched(module: ElektronnNetwork, x: Tensor) -> Tensor:
    """One strided pass for each offset below the stride, interleaved."""
    sizes = module.architecture.sizes
    assert sizes is not None
    steps = [axis[-1] for axis in sizes.strides]
    shape = module.output_shape(x.shape[-3:])
    whole = torch.full((1, module.architecture.layers[-1].maps, *shape), torch.nan)
    for begin in product(*map(range, steps)):
        target = whole[(..., *[slice(b, None, s) for b, s in zip(begin, steps, strict=True)])]
        if not target.numel():
            continue  # fewer voxels than offsets: the rest of the input gives no output
        parts = module.raw(x[(..., *[slice(b, None) for b in begin])])
        target.copy_(parts[(..., *map(slice, target.shape[-3:]))])
    return whole


def dilated(module: ElektronnNetwork, x: Tensor) -> Tensor:
    """The same with dilated filters and poolings, in one pass."""
    dilation = [1, 1, 1]
    for part in module.parts:
        x = functional.conv3d(x, part.weight, dilation=dilation)
        x = functional.max_pool3d(x, part.layer.pool, stride=1, dilation=dilation)
        x = x + part.bias.reshape(-1, 1, 1, 1)
        x = x if part is module.parts[-1] else activate(x, part.layer.activation)
        dilation = [d * p for d, p in zip(dilation, part.layer.pool, strict=True)]
    return x


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["relu", "abs", "tanh", "maxout 2"]),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)),
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 4)),
    st.integers(0, 99),
)
def test_dense_output_is_stitched_output(
    activation: str, pools: tuple[int, int, int], more: tuple[int, int, int], seed: int
) -> None:
    kernels = [2 if p == 2 else 1 for p in pools]
    module = build(
        seed,
        activation_func=activation,
        filters=[kernels, [3, 3, 3]],
        pool=[list(pools), [1, 1, 1]],
        desired_input=[k - 1 + 3 * p for k, p in zip(kernels, pools, strict=True)],
    ).eval()
    shape = [n + m for n, m in zip(module.valid_shape((2, 2, 2)), more, strict=True)]
    x = torch.randn((1, 1, *shape), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        dense = module.dense(x)
        torch.testing.assert_close(dense, stitched(module, x), atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(dense, dilated(module, x), atol=2e-5, rtol=1e-4)


def test_dense_output_of_the_pooling_by_size() -> None:
    module = build(pooling_mode="maxabs").eval()
    x = torch.randn(1, 1, *module.valid_shape((2, 5, 6)))
    with torch.no_grad():
        torch.testing.assert_close(module.dense(x), stitched(module, x), atol=2e-5, rtol=1e-4)


def test_tiles_equal_one_pass_and_belong_to_their_voxels() -> None:
    """pred[i] is the output for the field of view around voxel i."""
    module = build().eval()
    x = torch.rand(1, 1, 6, 30, 33)
    shape = module.output_shape(x.shape[-3:])
    box = VoxelBox(tuple(c // 2 for c in module.context), shape)
    stitched = torch.full((2, *shape), torch.nan)
    with torch.no_grad():
        whole = module(x)["classes"][0]
        for tile in tiles(module, box, (2, 9, 7)):
            part = module(x[(..., *tile.window.slices())])["classes"][0]
            stitched[(slice(None), *tile.core.slices(box.offset))] = part
        at = VoxelBox((3, 17, 12), (1, 1, 1))
        alone = module(x[(..., *tile_for(module, at).window.slices())])["classes"][0]

    torch.testing.assert_close(stitched, whole, atol=1e-5, rtol=1e-4)
    inside = [a - o for a, o in zip(at.offset, box.offset, strict=True)]
    torch.testing.assert_close(alone[:, 0, 0, 0], whole[:, *inside], atol=1e-5, rtol=1e-4)


def test_perceptrons_predict_no_volumes() -> None:
    module = digits(**IMAGE_TO_SCALAR)
    with pytest.raises(ConfigError, match="one output for a whole input"):
        module.context  # noqa: B018
    assert module(torch.rand(3, 1, 10, 10))["classes"].shape == (3, 10)


# ---------------------------------------------------------------- parameter files
