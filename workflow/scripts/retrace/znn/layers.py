"""Networks written as a list of layers in a file of `config/networks`.

Each layer is one edge and the node it leads to: `{conv: conv1, size: [1, 4, 4], to: nconv1,
maps: 48}`. By default, `from` is the node of the layer before, `function` is
rectify_linear, and the `stride` of a max filter is its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retrace.errors import ConfigError, nearest
from retrace.znn.graph import ONE, Edge, Graph, Init, Node, with_defaults
from retrace.znn.parameters import ZnnLayer

FIRST = "input"
EDGE_KINDS = ("conv", "max_filter", "dropout")


def graph_of_layers(
    name: str,
    layers: Sequence[ZnnLayer],
    changes: Mapping[str, ZnnLayer],
    init: str,
    pooling: str,
) -> Graph:
    """The graph of network `name`.

    `changes`: settings that override those of single layers, by edge. `init`: how filters are
    initialised. `pooling`: "max_filter", which is dense, or "max_pool" in its place.
    """
    where = f"network {name!r}"
    nodes: dict[str, Node] = {}
    edges: dict[str, Edge] = {}
    inits: dict[str, Init] = {}
    before = FIRST
    names = {_kind_and_name(layer, where)[1] for layer in layers}
    for changed in changes:
        if changed not in names:
            raise ConfigError(f"{where}: changes {changed!r}; {nearest(changed, names)}")
    for layer in layers:
        change = changes.get(_kind_and_name(layer, where)[1])
        layer = layer.with_(**change.plain()) if change else layer
        edge = _edge(layer, before, pooling, where)
        nodes.setdefault(edge.input, Node(edge.input, "input", 1))
        edges[edge.name] = edge
        node = _node(layer, edge, nodes)
        nodes.setdefault(node.name, node)
        if edge.type == "conv":
            inits[edge.name] = Init(layer.init or init, layer.init_args or ())
        before = edge.output
    return Graph(nodes, edges, inits).check(lambda part: f"{where}: {part!r}")


def _kind_and_name(layer: ZnnLayer, where: str) -> tuple[str, str]:
    """Kind and name of a layer's edge; ConfigError unless it has exactly one."""
    named = [(kind, name) for kind in EDGE_KINDS if (name := getattr(layer, kind))]
    if len(named) != 1:
        raise ConfigError(
            f"{where}: layer {layer.plain()} needs exactly one of {', '.join(EDGE_KINDS)}, "
            "which gives its name"
        )
    return named[0]


def _edge(layer: ZnnLayer, before: str, pooling: str, where: str) -> Edge:
    kind, name = _kind_and_name(layer, where)
    if layer.to is None:
        raise ConfigError(f"{where}: layer {name!r} has no `to`, the node it leads to; add it")
    size = layer.size or ONE
    stride = layer.stride or (size if kind == "max_filter" else ONE)
    if kind == "max_filter" and pooling == "max_pool":
        kind, stride = "max_pool", ONE
    return Edge(
        name,
        kind,
        layer.from_ or before,
        layer.to,
        size,
        stride,
        ratio=0.5 if layer.ratio is None else layer.ratio,
        repeat=layer.repeat or ONE,
    )


def _node(layer: ZnnLayer, edge: Edge, nodes: Mapping[str, Node]) -> Node:
    """The node a layer leads to: a transfer node after convolutions, a sum after all others."""
    if edge.type != "conv" and layer.function is None:
        return Node(edge.output, "sum", nodes[edge.input].size)
    function = layer.function or "rectify_linear"
    args = with_defaults(function, layer.args or ())
    maps = layer.maps or nodes[edge.input].size
    return Node(edge.output, "transfer", maps, function, args)
