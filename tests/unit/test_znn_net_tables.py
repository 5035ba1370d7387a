"""The tables of nodes and edges in ZNN's documentation: what each property of a .znn does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from retrace.errors import ConfigError
from retrace.networks.znn import ZnnNetwork
from retrace.znn.net import parse_net, unused_keys
from znn_case import SMALL

PATH = Path("net.znn")
ENDS = "nodes in\ntype input\nsize 2\nnodes out\ntype sum\nsize {out}\n"


def output(text: str, values: list[list[float]], weight: float = 1.0) -> torch.Tensor:
    """What a .znn computes for rows (C, X) of voxels; all filter values are `weight`."""
    graph = parse_net(text, PATH)
    module = ZnnNetwork(graph, {name: name for name in graph.outputs})
    for layer in module.convolutions.values():
        torch.nn.init.constant_(layer.weight, weight)
    x = torch.tensor(values, dtype=torch.float32)[None, :, None, None]
    return module(x)[graph.outputs[0]][0, :, 0, 0].detach()


def edge(kind: str, *lines: str, name: str = "e") -> str:
    """An edge from `in` to `out`."""
    return "\n".join([f"edges {name}", f"type {kind}", "input in", "output out", *lines, ""])


def test_size_of_nodes_is_the_number_of_their_maps() -> None:
    graph = parse_net(ENDS.format(out=5) + edge("conv", "size 1,1,1"), PATH)

    assert (graph.nodes["in"].size, graph.nodes["out"].size) == (2, 5)
    assert graph.inputs == ("in",) and graph.outputs == ("out",)
    assert graph.parameters == 2 * 5


def test_input_and_output_are_usual_names_not_special_ones() -> None:
    """The documentation calls them special; the program takes types and edges instead, as here."""
    text = SMALL.replace(" input", " image").replace(" output", " labels")
    text = text.replace("type image", "type input")
    for end in ("image", "labels"):
        text = text.replace(f"\n{end} ", f"\n{end}put ")
    text = text.replace("imageput", "input").replace("labelsput", "output")
    graph = parse_net(text, PATH)

    assert (graph.inputs, graph.outputs) == (("image",), ("labels",))


def test_a_sum_node_adds_its_edges_without_weights_or_bias() -> None:
    text = ENDS.format(out=2) + edge("dummy", name="a") + edge("dummy", name="b")

    assert output(text, [[1, 2], [3, 4]]).tolist() == [[2, 4], [6, 8]]
    assert parse_net(text, PATH).parameters == 0


def test_a_transfer_node_applies_its_function_to_the_sum() -> None:
    ends = ENDS.format(out=2).replace("sum", "transfer\nfunction rectify_linear")
    text = ends + edge("dummy", name="a") + edge("dummy", name="b")

    assert output(text, [[1, -2], [-3, 4]]).tolist() == [[2, 0], [0, 8]]


def test_conv_edges_connect_all_maps_and_max_filters_each_to_its_own() -> None:
    values = [[1.0, 5.0, 2.0], [10.0, 20.0, 30.0]]

    assert output(ENDS.format(out=1) + edge("conv", "size 1,1,2"), values).tolist() == [[36, 57]]
    pooled = edge("max_filter", "size 1,1,2", "stride 1,1,2")
    assert output(ENDS.format(out=2) + pooled, values).tolist() == [[5, 5], [20, 30]]
    with pytest.raises(ConfigError, match="max_filter edge 'e' keeps the number of maps"):
        parse_net(ENDS.format(out=3) + pooled, PATH)


@pytest.mark.parametrize("kind", ["conv", "max_filter"])
def test_stride_is_how_far_the_next_window_jumps(kind: str) -> None:
    """Every voxel has an output: the next filter sees every second voxel."""
    text = (
        "nodes in\ntype input\nsize 1\nnodes middle\ntype sum\nsize 1\n"
        "nodes out\ntype sum\nsize 1\n"
        f"edges a\ntype {kind}\nsize 1,1,1\nstride 1,1,2\ninput in\noutput middle\n"
        "edges b\ntype conv\nsize 1,1,2\nstride 1,1,1\ninput middle\noutput out\n"
    )

    assert output(text, [[1, 20, 300, 4000]]).tolist() == [[301, 4020]]
    assert parse_net(text, PATH).field_of_view == (1, 1, 3)


def test_axes_of_size_and_stride_are_z_y_x() -> None:
    """The table calls them X,Y,Z, but its example N4 has 1,4,4 for 2-D filters, as the program."""
    graph = parse_net(ENDS.format(out=1) + edge("conv", "size 1,4,5", "stride 1,2,3"), PATH)

    assert (graph.edges["e"].size, graph.edges["e"].stride) == ((1, 4, 5), (1, 2, 3))
    assert graph.field_of_view == (1, 4, 5)


REQUIRED = [
    ("type input\n", "nodes 'in' has no `type`"),
    ("size 2\n", "nodes 'in' has no `size`"),
    ("type max_filter\n", "edges 'e' has no `type`"),
    ("size 1,1,2\n", "edges 'e' has no `size`"),
    ("stride 1,1,2\n", "edges 'e' has no `stride`"),
    ("input in\n", "edges 'e' has no `input`"),
    ("output out\n", "edges 'e' has no `output`"),
]


@pytest.mark.parametrize(("line", "message"), REQUIRED)
def test_required_properties_are_asked_for(line: str, message: str) -> None:
    text = ENDS.format(out=2) + edge("max_filter", "size 1,1,2", "stride 1,1,2")
    assert line in text

    with pytest.raises(ConfigError, match=message):
        parse_net(text.replace(line, "", 1), PATH)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("strid 1,1,1",), "edges 'e' has the unknown key 'strid'; did you mean 'stride'"),
        (("init_arg 1",), "has the unknown key 'init_arg'; did you mean 'init_args'"),
        (("size 1,1,2",), "net.znn:12: edges 'e' has 'size' twice, first at net.znn:11"),
        (
            ("init gaussian", "init_args 0 0.1"),
            "init_args is '0 0.1'; allowed: numbers with commas",
        ),
        (("stride 0,1,1",), "stride is '0,1,1'; allowed: three whole numbers z,y,x, each from 1"),
        (("stride 1,2",), "stride is '1,2'; allowed: three whole numbers z,y,x"),
    ],
)
def test_properties_that_would_be_ignored_are_refused(lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_net(ENDS.format(out=1) + edge("conv", "size 1,1,2", *lines), PATH)


def test_sizes_of_nodes_are_whole_numbers_from_1() -> None:
    for size in ("0", "-1", "1.5", "many"):
        with pytest.raises(ConfigError, match="size is '.*'; allowed: whole numbers from 1"):
            parse_net(ENDS.format(out=size) + edge("conv", "size 1,1,1"), PATH)


def test_properties_without_effect_are_listed(tmp_path: Path) -> None:
    file = tmp_path / "net.znn"
    file.write_text(SMALL.replace("seeding 0", "seeding 0\neta 0.1 # earlier\nfft 1\n# a comment"))
    lines = unused_keys(file)

    assert [line.split(": ", 1)[1] for line in lines] == [
        "function = rectify_linear has no effect: nodes of type sum have none",
        "load = 0 has no effect: layers with the same name and shape are loaded, unless "
        "`seeding 0` says otherwise",
        "eta = 0.1 has no effect: that of the .cfg counts, as in ZNN",
        "fft = 1 has no effect: the conv modes of the .cfg decide",
    ]
    assert lines[0].startswith(f"{file}:28: ")
    parse_net(file.read_text(), file)
