"""ELEKTRONN's networks in torch: numbers of the original, dense output, parameter files."""

from __future__ import annotations

import pickle
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import elektronn
import tiny_elektronn as tiny
from built_networks import built
from retrace.checkpoints.elektronn import (
    load_param,
    load_parameters,
    read_param,
    write_param,
)
from retrace.checkpoints.safetensors import load_model, save_model
from retrace.config import networks
from retrace.config.any_network import of_family
from retrace.config.network_settings import DatasetTraits
from retrace.elektronn.parameters import GradientDescentParameters
from retrace.errors import ConfigError, DataError
from retrace.geometry import VoxelBox
from retrace.inference.tiles import tile_for, tiles
from retrace.losses.elektronn import error_rate, nll
from retrace.networks import ElektronnNetwork
from retrace.networks.elektronn import Dropout, activate
from retrace.networks.pooling import pool
from retrace.settings_model import as_json
from retrace.training.elektronn_optimizers import elektronn_optimizer


def build(seed: int = 0, **changes: Any) -> ElektronnNetwork:
    module = built(tiny.network(**changes), seed=seed)
    assert isinstance(module, ElektronnNetwork)
    return module


def digits(seed: int = 0, **changes: Any) -> ElektronnNetwork:
    """A network of single inputs."""
    content = {"name": "digits", "family": "elektronn", "n_lab": 10, **changes}
    module = built(networks.resolved(content, DatasetTraits(), "digits"), seed=seed)
    assert isinstance(module, ElektronnNetwork)
    return module


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
    assert net["dropout_rates"] == (0.3, 0.3, 0.0)
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
    module = digits(
        mode="img-scalar",
        n_dim=2,
        desired_input=10,
        filters=[3],
        pool=[2],
        nof_filters=[2],
        MLP_layers=[5],
    )
    with pytest.raises(ConfigError, match="one output for a whole input"):
        module.context  # noqa: B018
    assert module(torch.rand(3, 1, 10, 10))["classes"].shape == (3, 10)


# ---------------------------------------------------------------- parameter files


def test_parameter_files_round_trip(tmp_path: Path) -> None:
    for name, module in {
        "deep": build(3),
        "flat": build(4, n_dim=2, desired_input=19, filters=[4, 3], pool=[2, 1]),
        "digits": digits(
            5,
            mode="img-scalar",
            n_dim=2,
            desired_input=10,
            filters=[3],
            pool=[2],
            nof_filters=[2],
            MLP_layers=[5],
        ),
    }.items():
        file = read_param(write_param(tmp_path / f"{name}.param", module))
        other = build_same(module)
        load_param(file, other)
        assert all(
            torch.equal(value, other.state_dict()[key])
            for key, value in module.state_dict().items()
        )
    values = read_values(tmp_path / "deep.param")
    assert values[0] == [(4, 1, 1, 4, 4), (6, 3, 4, 3, 3), (2, 1, 6, 1, 1)]
    assert values[-1] == [(1, 2, 2), (1, 1, 1), (1, 1, 1)]
    assert read_values(tmp_path / "flat.param")[0] == [(4, 1, 4, 4), (6, 4, 3, 3), (2, 6, 1, 1)]
    assert read_values(tmp_path / "digits.param")[0] == [(2, 1, 3, 3), (5,), (10,)]


def build_same(module: ElektronnNetwork) -> ElektronnNetwork:
    """The same layers with other weights."""
    other = ElektronnNetwork(module.architecture, [0.0] * len(module.parts))
    with torch.no_grad():
        for weight in other.parameters():
            weight.fill_(7)
    return other


def read_values(path: Path) -> list[Any]:
    """The arrays in the file, as any program reads them."""
    values = []
    with path.open("rb") as file:
        while file.peek(1):
            values.append(pickle.load(file, encoding="latin1"))
    return values


def test_old_programs_can_read_the_file(tmp_path: Path) -> None:
    """Numpy's modules have the names that versions for Python 2 know."""
    content = write_param(tmp_path / "net.param", build()).read_bytes()

    assert content.startswith(b"\x80\x02")
    assert b"numpy._core" not in content
    assert b"cnumpy.core.multiarray\n_reconstruct" in content


@pytest.mark.realdata
def test_the_file_of_an_auto_encoder_becomes_the_first_layers_of_a_classifier(
    shared_dir: Path,
) -> None:
    file = read_param(shared_dir / "oracles/elektronn/ae_enc.param")
    sizes = {"MLP_layers": [300, 200, 50], "activation_func": "tanh"}
    module = digits(mode="vect-scalar", desired_input=784, **sizes)
    last = module.parts[3].weight.detach().clone()
    lines = load_parameters(file, module)

    assert [weight.shape for weight, _ in file.layers] == [(784, 300), (300, 200), (200, 50)]
    assert len(lines) == 3
    assert torch.equal(module.parts[3].weight, last)
    expected = torch.from_numpy(file.layers[1][0].T.copy())
    assert torch.equal(module.parts[1].weight, expected)
    with pytest.raises(DataError, match="it has 3 layers, this network 4"):
        load_param(file, module)


def test_a_file_of_another_network_changes_nothing(tmp_path: Path) -> None:
    file = read_param(write_param(tmp_path / "net.param", build(1, nof_filters=[4, 7])))
    module = build()
    before = {key: value.clone() for key, value in module.state_dict().items()}

    with pytest.raises(DataError, match=r"layer 1 is \[7, 3, 4, 3, 3\].*\[6, 3, 4, 3, 3\]"):
        load_parameters(file, module)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert load_parameters(file, module, 1) == ["layer 0: [4, 1, 1, 4, 4] from net.param"]
    assert not torch.equal(before["layers.0.weight"], module.state_dict()["layers.0.weight"])
    assert torch.equal(before["layers.1.weight"], module.state_dict()["layers.1.weight"])


class Bad:
    """A pickle that runs a program when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch /tmp/retrace-was-here",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[(1,)], Bad(), []], "cannot be read as pickled arrays"),
        ([[(1,)]], "no parameter file of ELEKTRONN"),
        ([[(2, 3)], np.zeros((2, 3), np.float32), []], "truncated or no parameter file"),
        ([[(2, 2)], np.zeros((2, 3)), np.zeros(2), []], "layer 0 is"),
    ],
)
def test_a_file_that_is_no_parameter_file_is_refused(
    values: list[Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.param"
    path.write_bytes(b"".join(pickle.dumps(value, 2) for value in values))

    with pytest.raises(DataError, match=message):
        read_param(path)
    assert not Path("/tmp/retrace-was-here").exists()


def test_models_and_parameter_files_through_the_program(tmp_path: Path) -> None:
    """A .param becomes a model to predict with, and a trained model a .param."""

    net = tiny.network()
    module = build(9)
    write_param(tmp_path / "in.param", module)
    settings = as_json({"dataset": "cubes", "network": net})
    model, out = tmp_path / "published.safetensors", tmp_path / "out.param"
    elektronn.main(
        [
            "model",
            "--settings",
            settings,
            "--param",
            str(tmp_path / "in.param"),
            "--output",
            str(model),
        ]
    )
    elektronn.main(["network", "--model", str(model), "--output", str(out)])

    assert out.read_bytes() == (tmp_path / "in.param").read_bytes()
    save_model(model, module, {"network": {**net, "family": "znn"}})
    with pytest.raises(DataError, match="of the family 'znn'"):
        elektronn.main(["network", "--model", str(model), "--output", str(out)])


def test_a_model_of_other_layers_is_refused(tmp_path: Path) -> None:
    net = tiny.network()
    save_model(tmp_path / "model.safetensors", build(), {"network": net})
    other = tiny.network(activation_func="tanh")
    with pytest.raises(DataError, match="with architecture"):
        load_model(tmp_path / "model.safetensors", build(activation_func="tanh"), of_family(other))
    larger = tiny.network(desired_input=[3, 23, 23])
    load_model(tmp_path / "model.safetensors", build(desired_input=[3, 23, 23]), of_family(larger))


def test_profile_adds_a_row_for_each_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lateral sizes are the valid ones from the fifth on; a second run adds its rows."""
    table = tmp_path / "speed.csv"
    for _ in range(2):
        elektronn.main(["profile", "neuro3d_doc", "--largest", "51", "--output", str(table)])
    head, *rows = [line.split("\t") for line in table.read_text().splitlines()]

    assert head == ["z-shape", "xy-shape", "pixel", "Speed [MPix/s]"]
    sizes = [(int(z), int(xy), int(voxels)) for z, xy, voxels, _ in rows]
    assert sizes[: len(rows) // 2] == sizes[len(rows) // 2 :]
    assert {side for _, side, _ in sizes} == {47, 51}
    assert all(voxels == (z - 4) * (side - 30) ** 2 for z, side, voxels in sizes)
    assert all(float(row[3]) > 0 for row in rows)
    with pytest.raises(ConfigError, match="does not label voxels"):
        elektronn.main(["profile", "mlp"])
