"""Sizes, parameters and costs of networks against what ELEKTRONN's own calculator gives."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import elektronn
from retrace.config import networks
from retrace.config.elektronn_network import ElektronnNetworkFile
from retrace.elektronn.architecture import Architecture
from retrace.elektronn.calculator import SizedAxis, axes_of, sizes_at, sizes_near
from retrace.elektronn.describe import description, in_units, table
from retrace.elektronn.layers import architecture_of
from retrace.errors import ConfigError

NEURO = ((4, 3, 3, 3, 2), (2, 2, 1, 1, 1))


def layers_of(name: str, **changes: Any) -> Architecture:
    network: Any = networks.load_network(name)
    return architecture_of(name, network.with_(**{"n_lab": 10, **changes}))


def axis(filters: tuple[int, ...], pools: tuple[int, ...], fragments: int = 0) -> SizedAxis:
    cut = tuple(index < fragments for index in range(len(filters)))
    return SizedAxis(filters, pools, cut)


@pytest.mark.parametrize(
    ("filters", "pools", "size", "unpooled", "sizes", "fields", "strides", "overlaps", "offset"),
    [
        ((3, 3), (2, 2), 26, [24, 10], [12, 5], [4, 10], [2, 4], [2, 6], 5.0),
        ((5, 5), (2, 2), 28, [24, 8], [12, 4], [6, 16], [2, 4], [4, 12], 8.0),
        (
            *NEURO,
            127,
            [124, 60, 28, 26, 25],
            [62, 30, 28, 26, 25],
            [5, 11, 19, 27, 31],
            [2, 4, 4, 4, 4],
            [3, 7, 15, 23, 27],
            15.5,
        ),
        (
            (1, 1, 3, 3, 1),
            (1,) * 5,
            7,
            [7, 7, 5, 3, 3],
            [7, 7, 5, 3, 3],
            [1, 1, 3, 5, 5],
            [1] * 5,
            [0, 0, 2, 4, 4],
            2.5,
        ),
    ],
)
def test_sizes_of_the_examples(
    filters: Any,
    pools: Any,
    size: int,
    unpooled: Any,
    sizes: Any,
    fields: Any,
    strides: Any,
    overlaps: Any,
    offset: float,
) -> None:
    result = sizes_at([axis(filters, pools)], [size], "x")

    assert result.unpooled == [unpooled]
    assert result.layers == [sizes]
    assert result.fields == [fields]
    assert result.strides == [strides]
    assert result.overlaps == [overlaps]
    assert result.offset == [offset]


@pytest.mark.parametrize(
    ("line", "first"),
    [
        (axis((3, 3), (2, 2)), [10, 14, 18, 22, 26, 30]),
        (axis((5, 5), (2, 2)), [16, 20, 24, 28]),
        (axis(*NEURO), [31, 35]),
        (axis((1, 1, 3, 3, 1), (1,) * 5), [5, 6, 7]),
        (axis(*NEURO, fragments=2), [34, 38]),
    ],
)
def test_valid_inputs(line: SizedAxis, first: list[int]) -> None:
    assert list(line.valid[: len(first)]) == first


def test_inputs_are_chosen_as_by_the_original() -> None:
    neuro, digits = axis(*NEURO), axis((3, 3), (2, 2))

    assert {123, 127, 131} <= set(neuro.valid)
    assert (neuro.snapped(128), neuro.snapped(5), neuro.snapped(127)) == (127, 31, 127)
    assert neuro.snapped(None) == max(neuro.valid)
    outputs = {size: sizes[1][-1] for size in neuro.valid if (sizes := neuro.sizes(size))}
    assert min(size for size, output in outputs.items() if output == 25) == 127
    assert digits.snapped(28) == 26


def test_max_fragment_pooling() -> None:
    neuro = axis(*NEURO, fragments=2)

    assert neuro.snapped(127) == 126
    assert neuro.sizes(126) == ([123, 59, 27, 25, 24], [61, 29, 27, 25, 24])
    assert neuro.snapped(300) == 298
    assert neuro.sizes(298)[1] == [147, 72, 70, 68, 67]  # type: ignore[index]
    assert 24 * 4 == 126 - 31 + 1


def test_the_examples_of_the_api_documentation() -> None:
    """In z the program gives 18, where its documentation says 22."""
    filters, pools = [[1, 6], [4, 4], [2, 2], [1, 1]], [[1, 2], [2, 2], [2, 2], [1, 1]]
    sizes = sizes_near(axes_of(filters, pools, [True, True, False, False]), [20, 211])

    assert sizes.input == (18, 210)
    assert sizes.unpooled == [[18, 15, 6, 3], [205, 99, 48, 24]]
    assert sizes.layers == [[18, 7, 3, 3], [102, 49, 24, 24]]
    assert sizes.fields == [[1, 5, 9, 9], [7, 15, 23, 23]]
    assert sizes.strides[1] == [2, 4, 8, 8]
    assert sizes.offset == [4.5, 11.5]


@pytest.mark.parametrize(("desired", "taken", "output"), [(80, 79, 5), (300, 299, 60)])
def test_the_self_test_of_its_class(desired: int, taken: int, output: int) -> None:
    sizes = sizes_near([axis((6, 4, 4, 4, 4, 4), (2, 2, 1, 1, 1, 1))], [desired])

    assert (sizes.input, sizes.output) == ((taken,), [output])
    assert sizes.fields == [[7, 15, 27, 39, 51, 63]]
    assert sizes.offset == [31.5]


def test_further_networks_of_its_authors() -> None:
    filters, pools = [[1, 6], [4, 4], [4, 4], [4, 4]], [[1, 2], [2, 2], [1, 2], [1, 1]]
    sizes = sizes_near(axes_of(filters, pools, [True] * 3 + [False]), [30, 180])
    assert (sizes.input, sizes.output) == ((30, 174), [7, 15])
    assert [fields[-1] for fields in sizes.fields] == [17, 55]
    assert [strides[-1] for strides in sizes.strides] == [2, 8]

    second = sizes_at(axes_of([[1, 6], [4, 6], [3, 3]], [[1, 2], [2, 2], [1, 1]]), [23, 183])
    assert second.output == [8, 40]
    assert [fields[-1] for fields in second.fields] == [9, 27]


@pytest.mark.parametrize(
    ("name", "parameters", "cost"),
    [
        ("neuro3d_doc", [170, 1820, 21640, 43240, 6440, 82], 247_012_720),
        (
            "neuro3d_file",
            [170, 2275, 27040, 54050, 12060, 122],
            [17_221_120, 56_700_000, 105_840_000, 109_512_000, 22_500_000, 225_000],
        ),
        (
            "cnn_warp",
            [160, 4640, 240_300, 90_300, 3010],
            [4_147_200, 23_040_000, 12_000_000, 4_500_000, 150_000],
        ),
        ("mlp", [203_100, 90_300, 3010], [10_140_000, 4_500_000, 150_000]),
        ("standalone", [260, 2008, 12_900, 8080, 810], 29_360_000),
        ("standalone_dropout", 59_728, 32_910_000),
        ("autoencoder", 305_750, 30_520_000),
    ],
)
def test_parameters_and_costs(name: str, parameters: Any, cost: Any) -> None:
    """Costs are those of a whole batch."""
    network = networks.load_network(name)
    assert isinstance(network, ElektronnNetworkFile)
    layers = layers_of(name, n_lab=2 if name.startswith("neuro3d") else 10)
    paid = layers.multiplications(network.batch_size)

    assert (layers.parameters() if isinstance(parameters, list) else sum(layers.parameters())) == (
        parameters
    )
    assert (paid if isinstance(cost, list) else sum(paid)) == cost


def test_totals_of_the_documents() -> None:
    totals = {"neuro3d_doc": 73_392, "neuro3d_file": 95_717, "cnn": 73_392}
    for name, total in totals.items():
        assert sum(layers_of(name, n_lab=2).parameters()) == total
    assert sum(layers_of("cnn_warp").parameters()) == 338_410
    assert sum(layers_of("mlp").parameters()) == 296_410
    assert sum(layers_of("standalone").parameters()) == 24_058
    assert sum(layers_of("neuro3d_file", n_lab=2).multiplications()) == 311_998_120


def test_the_neuro_network_gives_1875_outputs() -> None:
    sizes = layers_of("neuro3d_doc", n_lab=2).sizes

    assert sizes is not None
    assert math.prod(sizes.output) == 1875
    assert [fields[-1] for fields in sizes.fields] == [5, 31, 31]
    assert [strides[-1] for strides in sizes.strides] == [1, 4, 4]


def test_an_even_field_of_view_is_refused_where_voxels_are_labelled() -> None:
    changed = {"n_lab": 2, "filters": [3, 3], "pool": [2, 2], "nof_filters": [2, 2]}
    with pytest.raises(ConfigError, match="field of view on axis y is 10"):
        layers_of("neuro3d_doc", **changed, n_dim=2, desired_input=26)
    layers_of("neuro3d_doc", **{**changed, "filters": [4, 3]}, n_dim=2, desired_input=99)


def test_an_impossible_patch_names_the_valid_ones_around_it() -> None:
    with pytest.raises(ConfigError, match="128 on axis y .*: 119, 123, 127, 131, 135, 139"):
        layers_of("neuro3d_doc", n_lab=2, desired_input=[7, 128, 127])
    with pytest.raises(ConfigError, match="no input size up to 4999 fits"):
        axis((2, 2), (5000, 1)).check(30, "x")


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=4),
    st.integers(1, 60),
)
def test_sizes_follow_from_field_of_view_and_stride(
    layers: list[tuple[int, int]], size: int
) -> None:
    """Whatever fits has as many outputs as fields of view fit in at the stride."""
    line = axis(tuple(k for k, _ in layers), tuple(p for _, p in layers))
    sizes = line.sizes(size)

    if sizes is not None:
        assert sizes[1][-1] == (size - line.fields[-1]) // line.strides[-1] + 1
        assert (size - line.fields[-1]) % line.strides[-1] == 0


def test_describe_prints_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    elektronn.main(["describe", "cnn_warp"])
    text = capsys.readouterr().out

    assert "Layer/Fragment sizes: [[12, 5], [12, 5]]" in text
    assert "Receptive fields:     [[4, 10], [4, 10]]" in text
    assert "Not centred on axis y" in text
    for cost in ("4.1 Mega", "23.0 Mega", "12.0 Mega", "4.5 Mega", "150.0 kilo", "43.8 Mega"):
        assert cost in text
    assert "trainable parameters: 338410" in text


def test_describe_as_json_and_at_other_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    elektronn.main(["describe", "neuro3d_doc", "--desired", "7", "128", "5", "--json"])
    description = json.loads(capsys.readouterr().out)

    assert description["input"] == [7, 127, 31]
    assert description["output"] == [3, 25, 1]
    with pytest.raises(ConfigError, match="valid sizes around it"):
        elektronn.main(["describe", "neuro3d_doc", "--input", "7", "128", "127"])
    with pytest.raises(ConfigError, match="family 'lsd'"):
        elektronn.main(["describe", "mtlsd"])


def test_the_table_of_a_network_without_convolutions() -> None:
    text = table(description(layers_of("mlp"), 50))

    assert "296410" in text
    assert "14.8 Mega Ops" in text
    assert in_units(312) == "312.0 "
