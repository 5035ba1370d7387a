"""Initialisers and transfer functions of .znn files, with their arguments: closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retrace.errors import ConfigError
from retrace.networks.znn import ZnnNetwork
from retrace.znn.layers import graph_of_layers
from retrace.znn.net import parse_net
from retrace.znn.parameters import ZnnLayer

MAPS = (3, 400)
SIZE = (2, 3, 4)
TAPS = 24


def net(edge: str = "", node: str = "function linear") -> str:
    """A .znn of one convolution of `MAPS` and `SIZE`, with lines added to edge and node."""
    return (
        f"nodes input\ntype input\nsize {MAPS[0]}\n"
        f"edges e\ntype conv\nsize 2,3,4\nstride 1,1,1\n{edge}\ninput input\noutput output\n"
        f"nodes output\ntype transfer\n{node}\nsize {MAPS[1]}\n"
    )


def drawn(text: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The filters (outputs, inputs, z, y, x) and biases (outputs,) that a .znn text draws."""
    module = ZnnNetwork(parse_net(text, Path("a.znn")), {"output": "output"}).double()
    module.initialise(torch.Generator().manual_seed(seed))
    weight, bias = module.convolutions["e"].weight, module.transfers["output"].bias
    return weight.detach().numpy(), bias.detach().numpy()


GLOROT = float(np.sqrt(6 / (MAPS[0] * TAPS + MAPS[1] * TAPS)))
"""Glorot and Bengio 2010, equation 16."""
HE = float(np.sqrt(2 / (MAPS[0] * TAPS)))
"""He et al. 2015, equation 10."""


@pytest.mark.parametrize(
    ("lines", "value"),
    [("init zero", 0.0), ("init constant\ninit_args 0.25", 0.25), ("", 0.0)],
)
def test_filters_of_one_value(lines: str, value: float) -> None:
    filters, biases = drawn(net(lines))

    assert filters.shape == (MAPS[1], MAPS[0], *SIZE)
    assert (filters == value).all() and not biases.any()


@pytest.mark.parametrize(
    ("lines", "low", "high"),
    [
        ("init uniform", -0.1, 0.1),
        ("init uniform\ninit_args 0.05", -0.05, 0.05),
        ("init uniform\ninit_args -0.2,0.6", -0.2, 0.6),
        ("init xavier", -GLOROT, GLOROT),
    ],
)
def test_filters_of_a_uniform_range(lines: str, low: float, high: float) -> None:
    filters, _ = drawn(net(lines))
    span = high - low

    assert low <= filters.min() < low + 0.001 * span and high - 0.001 * span < filters.max() <= high
    assert filters.mean() == pytest.approx((low + high) / 2, abs=0.01 * span)
    assert filters.std() == pytest.approx(span / np.sqrt(12), rel=0.02)


@pytest.mark.parametrize(
    ("lines", "mean", "deviation"),
    [
        ("init gaussian", 0.0, 0.01),
        ("init gaussian\ninit_args 0.5", 0.5, 0.01),
        ("init gaussian\ninit_args -1,2", -1.0, 2.0),
        ("init msra", 0.0, HE),
    ],
)
def test_filters_of_a_normal_distribution(lines: str, mean: float, deviation: float) -> None:
    filters, _ = drawn(net(lines))

    assert filters.mean() == pytest.approx(mean, abs=0.02 * deviation)
    assert filters.std() == pytest.approx(deviation, rel=0.02)
    within = np.abs(filters - mean) < deviation
    assert within.mean() == pytest.approx(0.6827, abs=0.01)


@pytest.mark.parametrize(("lines", "p"), [("", 0.5), ("\ninit_args 0.2", 0.2)])
def test_filters_of_a_bernoulli_distribution(lines: str, p: float) -> None:
    filters, _ = drawn(net(f"init bernoulli{lines}"))

    assert set(np.unique(filters)) == {0.0, 1.0}
    assert filters.mean() == pytest.approx(p, abs=0.02)


def test_biases_are_drawn_by_the_init_of_their_node() -> None:
    assert (drawn(net(node="function linear\ninit constant\ninit_args 0.5"))[1] == 0.5).all()
    biases = drawn(net(node="function linear\ninit uniform\ninit_args 1,2"))[1]
    assert 1 <= biases.min() < biases.max() <= 2
    with pytest.raises(ConfigError, match="init is 'xavier'; allowed: bernoulli, constant"):
        drawn(net(node="function linear\ninit xavier"))


def test_the_seed_decides_what_is_drawn() -> None:
    one, same, other = (drawn(net("init msra"), seed)[0] for seed in (1, 1, 2))

    assert (one == same).all() and (one != other).any()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("init unifrom", "a.znn:8: init is 'unifrom'; did you mean 'uniform'"),
        ("init constant", "a.znn:8: init is 'constant'; allowed: 1 to 1 arguments"),
        ("init zero\ninit_args 1", "init_args is '1'; allowed: 0 to 0 arguments for init zero"),
        ("init uniform\ninit_args 1,2,3", "allowed: 0 to 2 arguments for init uniform"),
        ("init gaussian\ninit_args 0,x", "allowed: numbers separated by commas"),
        ("init gaussian\ninit_args 0, 1", "no spaces between them"),
        ("init constant\ninit_args nan", "a.znn:4: init constant has the arguments .nan.; allowed"),
        ("init gaussian\ninit_args 0,inf", "allowed: 0 to 2 finite numbers"),
        ("init gaussian\ninit_args 0,-1", "has the standard deviation -1; allowed: numbers from 0"),
        ("init uniform\ninit_args 0.1,-0.1", "allowed: MIN,MAX with MIN up to MAX, or MAX from 0"),
        ("init uniform\ninit_args -0.1", "allowed: MIN,MAX with MIN up to MAX, or MAX from 0"),
        ("init bernoulli\ninit_args 2", "has the probability 2; allowed: numbers from 0 to 1"),
    ],
)
def test_inits_that_do_not_exist_are_refused(lines: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_net(net(lines), Path("a.znn"))


FUNCTIONS = {
    "linear": ("", lambda v: v),
    "linear 2": ("2", lambda v: 2 * v),
    "linear 2,-1": ("2,-1", lambda v: 2 * v - 1),
    "rectify_linear": ("", lambda v: np.maximum(v, 0)),
    "tanh": ("", np.tanh),
    "tanh 1.7159": ("1.7159", lambda v: 1.7159 * np.tanh(v)),
    "tanh 1.7159,0.6666": ("1.7159,0.6666", lambda v: 1.7159 * np.tanh(0.6666 * v)),
    "soft_sign": ("", lambda v: v / (1 + np.abs(v))),
    "logistics": ("", lambda v: 1 / (1 + np.exp(-v))),
    "forward_logistics": ("", lambda v: 1 / (1 + np.exp(-v))),
}
"""Arguments and formula of each transfer function: table of nodes, `function` and its args."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_with_their_arguments(name: str, dtype: torch.dtype) -> None:
    args, formula = FUNCTIONS[name]
    lines = f"function {name.split()[0]}" + (f"\nfunction_args {args}" if args else "")
    text = net("init constant\ninit_args 0.1", lines).replace("size 2,3,4", "size 1,1,1")
    module = ZnnNetwork(parse_net(text, Path("a.znn")), {"output": "output"}).to(dtype)
    module.initialise(torch.Generator())
    module.transfers["output"].bias.data.fill_(0.3)
    values = np.linspace(-3, 3, 7)
    x = torch.from_numpy(values).to(dtype).expand(1, MAPS[0], 1, 1, 7)
    y = module(x)["output"][0, 0, 0, 0].detach().numpy()

    expected = formula(MAPS[0] * 0.1 * values + 0.3)  # a sum over the inputs, and the bias
    np.testing.assert_allclose(y, expected, atol=1e-12 if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("function relu", "function is 'relu'; allowed: forward_logistics, linear"),
        ("function tanh\nfunction_args 1,2,3", "allowed: 2 numbers for tanh"),
        ("function rectify_linear\nfunction_args 1", "allowed: 0 numbers for rectify_linear"),
        ("function tanh\nfunction_args nan", r"function tanh has the arguments \[nan, 1.0\]"),
        ("function tanh\nfunction_args a", "allowed: numbers separated by commas"),
        ("", "nodes 'output' has no `function`; add it"),
    ],
)
def test_functions_that_do_not_exist_are_refused(lines: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_net(net(node=lines), Path("a.znn"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"init": "constant"}, r"'e': init constant has the arguments \[\]; allowed: 1 to 1"),
        ({"init": "zero", "init_args": [1.0]}, r"init zero has the arguments \[1.0\]"),
        ({"function": "rectify_linear", "args": [2.0]}, "allowed: 0 finite numbers"),
    ],
)
def test_arguments_in_files_of_layers_are_checked_too(change: dict[str, Any], message: str) -> None:
    layer = {"conv": "e", "size": [1, 1, 1], "to": "output", "maps": 2, **change}
    with pytest.raises(ConfigError, match=message):
        graph_of_layers("mine", [ZnnLayer.model_validate(layer)], {}, "xavier", "max_filter")


def test_missing_arguments_in_files_of_layers_have_their_defaults() -> None:
    layer = {"conv": "e", "to": "output", "maps": 2, "function": "tanh", "args": [1.7159]}
    graph = graph_of_layers("mine", [ZnnLayer.model_validate(layer)], {}, "xavier", "max_filter")

    assert graph.nodes["output"].args == (1.7159, 1.0)
