"""ZNN's network files that are damaged or diverged, their iteration, and networks in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import predict
import tiny_znn as tiny
import train
import znn
from built_networks import built
from retrace.checkpoints.safetensors import load_model, read_metadata
from retrace.checkpoints.znn import (
    NETWORK,
    STATISTICS,
    load_h5,
    network_file,
    read_h5,
    seed_from,
    write_h5,
    write_statistics,
)
from retrace.config.any_network import of_family
from retrace.errors import DataError
from retrace.geometry import VoxelBox
from retrace.planning import predict as planning_predict
from retrace.settings_model import as_json
from retrace.storage.normalised import open_normalised
from retrace.storage.volumes import open_volume
from retrace.training.znn_files import sgd_of
from retrace.training.znn_optimizer import ZnnOptimizer
from run_config import run_config
from tiny_training import arguments, training

pytestmark = pytest.mark.usefixtures("tiny_threads")

CURVE = {
    "train": {"it": [100, 200], "err": [0.5, 0.4], "cls": [0.3, 0.2]},
    "test": {"it": [150], "err": [0.5], "cls": [0.3]},
}


def stored(folder: Path, name: str = "net.h5", *, is_stdio: bool = True, **changes: Any) -> Path:
    """The h5 of a tiny network with random weights and velocities, and a curve up to 200."""
    settings = tiny.network(tiny.dataset(folder), parameters=changes)
    module = built(settings).to(getattr(torch, settings.dtype))
    file = network_file(module, sgd_of(settings), CURVE, folder / name, torch.rand_like)
    return write_h5(file, is_stdio=is_stdio)


def put(group: h5py.Group, key: str, value: Any) -> None:
    """Replaces a dataset."""
    if key in group:
        del group[key]
    group[key] = value


BAD: dict[str, tuple[Callable[[h5py.Group], Any], str]] = {
    "filters NaN": (lambda g: put(g, "conv1/filters", np.full((1, 4, 1, 4, 4), np.nan)), "NaN"),
    "filters infinite": (
        lambda g: put(g, "conv1/filters", np.full((1, 4, 1, 4, 4), -np.inf)),
        r"'conv1' holds NaN or infinity \(filters\), so its training diverged",
    ),
    "filters diverged": (
        lambda g: put(g, "conv1/filters", np.full((1, 4, 1, 4, 4), 1e26, np.float32)),
        r"'conv1' reaches 1e\+26 \(filters\)",
    ),
    "filters above float32": (
        lambda g: put(g, "conv1/filters", np.full((1, 4, 1, 4, 4), 1e39)),
        r"'conv1' reaches 1e\+39 \(filters\)",
    ),
    "filters of whole numbers": (
        lambda g: put(g, "conv1/filters", np.ones((1, 4, 1, 4, 4), int)),
        "'conv1' has filters of type int64; ZNN writes float32 or float64",
    ),
    "filters complex": (
        lambda g: put(g, "conv1/filters", np.ones((1, 4, 1, 4, 4), complex)),
        "'conv1' has filters of type complex128",
    ),
    "filters of four axes": (
        lambda g: put(g, "conv1/filters", np.ones((1, 4, 4, 4))),
        r"has filters of shape \[1, 4, 4, 4\]; allowed: \(inputs, outputs, z, y, x\)",
    ),
    "filters missing": (
        lambda g: g["conv1"].pop("filters"),
        "'conv1' is of type conv and has no filters",
    ),
    "filters of another size": (
        lambda g: put(g, "conv1/size", [1, 3, 3]),
        r"'conv1' has size \[1, 3, 3\], but filters \[1, 4, 4\]",
    ),
    "biases missing": (
        lambda g: g["n1"].pop("biases"),
        "'n1' is of type transfer and has no biases",
    ),
    "biases NaN": (lambda g: put(g, "n1/biases", np.full(4, np.nan)), "'n1' holds NaN"),
    "biases of two axes": (
        lambda g: put(g, "n1/biases", np.ones((4, 1))),
        r"'n1' has biases of shape \[4, 1\]; allowed: \(maps\)",
    ),
    "biases without values": (lambda g: put(g, "n1/biases", np.ones(0)), "each from 1"),
    "more biases than maps": (
        lambda g: put(g, "n1/size", [3]),
        r"'n1' has size \[3\], but biases \[4\]",
    ),
    "velocity of another shape": (
        lambda g: put(g, "conv1/momentum_vol", np.ones((1, 4, 1, 4, 3))),
        r"'conv1' has momentum_vol \[1, 4, 1, 4, 3\], but filters \[1, 4, 1, 4, 4\]",
    ),
    "velocity of other axes": (
        lambda g: put(g, "n1/momentum_vol", np.ones((4, 4))),
        r"'n1' has momentum_vol of shape \[4, 4\]",
    ),
    "velocity NaN": (
        lambda g: put(g, "n1/momentum_vol", np.full(4, np.nan)),
        r"'n1' holds NaN or infinity \(momentum_vol\)",
    ),
    "velocity infinite": (
        lambda g: put(g, "conv1/momentum_vol", np.full((1, 4, 1, 4, 4), np.inf)),
        r"'conv1' holds NaN or infinity \(momentum_vol\)",
    ),
    "velocity complex": (
        lambda g: put(g, "n1/momentum_vol", np.ones(4, complex)),
        "has momentum_vol of type complex128",
    ),
    "type missing": (lambda g: g["conv1"].pop("type"), "'conv1' has the type ''; allowed: conv"),
    "type unknown": (lambda g: put(g, "conv1/type", "convv"), "did you mean 'conv'"),
    "group_type unknown": (lambda g: put(g, "conv1/group_type", "edg"), "did you mean 'edge'"),
    "group_type missing": (lambda g: g["conv1"].pop("group_type"), "has the group_type ''"),
    "filters of a pooling": (
        lambda g: put(g, "pool1/filters", np.ones((4, 4, 1, 2, 2))),
        "'pool1' is of type max_filter and has filters",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_networks_that_znn_cannot_have_trained_are_refused(folder: Path, case: str) -> None:
    change, message = BAD[case]
    path = stored(folder)
    with h5py.File(path, "r+") as file:
        change(file[NETWORK])

    with pytest.raises(DataError, match=message) as refused:
        read_h5(path)
    assert str(path) in str(refused.value)


def test_training_and_prediction_refuse_a_diverged_network(folder: Path) -> None:
    """ZNN's history holds networks of NaN and 1e26, which it read without a word."""
    path = stored(folder)
    with h5py.File(path, "r+") as file:
        put(file[NETWORK], "conv1/momentum_vol", np.full((1, 4, 1, 4, 4), np.nan))
    data = tiny.dataset(folder)
    net = tiny.network(data)

    with pytest.raises(DataError, match="'conv1' holds NaN"):
        train.main(arguments(folder, training(data, net, 1), "--init", str(path)))
    settings = as_json({"dataset": "cells", "network": net})
    with pytest.raises(DataError, match="'conv1' holds NaN"):
        znn.main(["model", "--settings", settings, "--h5", str(path), "--output", "m.safetensors"])
    assert not Path("m.safetensors").exists()


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("train/it", [100, -5], "the learning curve `train` holds iteration -5; allowed: whole"),
        ("train/it", [100, np.nan], "holds iteration nan"),
        ("train/it", [100, 0.5], "holds iteration 0.5"),
        ("test/it", [[150]], "`test` has it of shape"),
        ("test/err", [0.5, 0.4], "`test` has err of shape"),
        ("train/cls", [1j, 2j], "`train` has cls of type complex128"),
    ],
)
def test_learning_curves_that_do_not_fit_are_refused(
    folder: Path, key: str, values: list[Any], message: str
) -> None:
    path = stored(folder)
    with h5py.File(path, "r+") as file:
        put(file[STATISTICS], key, np.array(values))

    with pytest.raises(DataError, match=message):
        read_h5(path)


def iteration_in_model(folder: Path, path: Path) -> Any:
    """What a model states that is converted from an h5."""
    settings = as_json({"dataset": "cells", "network": tiny.network(tiny.dataset(folder))})
    znn.main(["model", "--settings", settings, "--h5", str(path), "--output", "m.safetensors"])
    return read_metadata(Path("m.safetensors")).get("iteration")


def test_networks_of_both_layouts_have_their_iteration(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the curve, in the file of the curve, in the name; unknown is not 0."""
    assert iteration_in_model(folder, stored(folder)) == 200
    for name in ("net_current.h5", "net_200.h5"):
        path = stored(folder, name, is_stdio=False)
        write_statistics(CURVE, path.with_name(name.replace("net", "net_statistics")))
        assert read_h5(path).statistics["test"]["it"].tolist() == [150]
        assert iteration_in_model(folder, path) == 200
    for name, iteration in (("old_30.h5", 30), ("old_init.h5", 0)):
        assert iteration_in_model(folder, stored(folder, name, is_stdio=False)) == iteration
    assert "unknown" not in capsys.readouterr().out
    assert iteration_in_model(folder, stored(folder, "old_current.h5", is_stdio=False)) is None
    assert "old_current.h5: its iteration is unknown" in capsys.readouterr().out


def test_numbers_in_another_byte_order_are_the_same(folder: Path) -> None:
    path = stored(folder)
    expected = read_h5(path).layers["conv1"].arrays["filters"]
    with h5py.File(path, "r+") as file:
        put(file[NETWORK], "conv1/filters", expected.astype(">f4"))
    module = built(tiny.network(tiny.dataset(folder)))
    load_h5(read_h5(path), module)

    assert read_h5(path).layers["conv1"].arrays["filters"].dtype == np.float32
    np.testing.assert_array_equal(read_h5(path).layers["conv1"].arrays["filters"], expected)


def test_layers_without_a_velocity_are_listed(folder: Path) -> None:
    path = stored(folder)
    with h5py.File(path, "r+") as file:
        del file[NETWORK]["n1/momentum_vol"]
    module = built(tiny.network(tiny.dataset(folder)))
    velocities = {id(p): torch.ones_like(p) for p in module.parameters()}
    lines = seed_from(read_h5(path), module, lambda weight: velocities[id(weight)])

    assert lines == [f"n1: no momentum_vol in {path}, its velocity begins at 0"]


def test_a_network_in_float64_is_kept_and_predicted_in_float64(folder: Path) -> None:
    path = stored(folder, dtype="float64")
    data = tiny.dataset(folder)
    net = tiny.network(data, parameters={"dtype": "float64"})
    settings = as_json({"dataset": "cells", "network": net})
    znn.main(["model", "--settings", settings, "--h5", str(path), "--output", "m.safetensors"])
    module = built(net).to(torch.float64).eval()
    load_model(folder / "m.safetensors", module, of_family(net))
    again = network_file(module, sgd_of(net), {}, path)
    np.testing.assert_array_equal(
        again.layers["conv1"].values, read_h5(path).layers["conv1"].values
    )

    image = open_normalised(data.volumes["stack"].raw)
    x = torch.from_numpy(image.read(VoxelBox((4, -4, -4), (2, 48, 52))))[None, None]
    with torch.no_grad():
        expected = module(x)["boundary"][0]
    torch.testing.assert_close(expected.sum(0), torch.ones(2, 40, 44, dtype=torch.float64))
    assert expected.dtype == torch.float64

    config = run_config(prediction_dtype="float32", device="cpu", compile=False)
    plan = as_json(planning_predict.predict_settings(config, data, net, "stack"))
    places = ["--model", "m.safetensors", "--work", "pwork", "--output", "p.zarr"]
    predict.main(["--settings", plan, *places])
    predicted = open_volume(folder / "p.zarr", "boundary")
    np.testing.assert_array_equal(predicted.read(predicted.box), expected.numpy().astype("f4"))


def test_without_momentum_the_velocity_of_a_bias_is_its_last_step(folder: Path) -> None:
    """So does ZNN, which leaves that of filters as it was."""
    module = built(tiny.network(tiny.dataset(folder)))
    optimizer = ZnnOptimizer(
        module, eta=0.1, momentum=0, weight_decay=0.5, anneal_factor=1, anneal_every=1
    )
    before = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    for weight in module.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()

    for name, weight in module.named_parameters():
        step = -0.1 * (1 + 0.5 * before[name])
        torch.testing.assert_close(weight.detach(), before[name] + step)
        velocity = optimizer.velocity(weight)
        torch.testing.assert_close(velocity, step if weight.ndim == 1 else torch.zeros_like(step))


def test_seeding_0_keeps_a_layer_as_configured(folder: Path) -> None:
    settings = tiny.network(tiny.dataset(folder))
    module = built(settings.with_(unseeded=("conv1",)), seed=3)
    before = module.convolutions["conv1"].weight.clone()
    path = stored(folder)
    lines = seed_from(read_h5(path), module)

    assert lines == ["conv1: `seeding 0`, begins as configured"]
    assert torch.equal(module.convolutions["conv1"].weight, before)


def test_layers_computed_by_fft_are_marked_as_in_znn(folder: Path) -> None:
    settings = tiny.network(tiny.dataset(folder))
    module = built(settings)
    module.convolutions["conv2"].mode = "fft"
    layers = network_file(module, sgd_of(settings), {}, folder / "net.h5").layers

    assert [layers[name].fields["fft"] for name in ("conv1", "conv2")] == ["0", "1"]
