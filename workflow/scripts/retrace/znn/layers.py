"""Networks written as a list of layers in our own configuration.

Each layer is one edge and the node it leads to: `{conv: conv1, size: [1, 4, 4], to: nconv1,
maps: 48}`. `from` is the node of the layer before where nothing else is said, `function`
rectify_linear, a max filter's `stride` its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrace.errors import ConfigError, nearest
from retrace.znn.graph import EDGE_TYPES, FUNCTIONS, ONE, Edge, Graph, Init, Node, Shape

FIRST = "input"


def graph_of_layers(
    name: str,
    layers: Sequence[Mapping[str, Any]],
    changes: Mapping[str, Mapping[str, Any]],
    init: str,
    pooling: str,
) -> Graph:
    """The graph of network `name`.

    `changes`: settings laid over single layers, by edge. `init`: how filters begin. `pooling`:
    "max_filter" (dense), or "max_pool" in its place.
    """
    nodes: dict[str, Node] = {}
    edges: dict[str, Edge] = {}
    inits: dict[str, Init] = {}
    before = FIRST
    known = {_edge_name(layer)[1] for layer in layers}
    for changed in changes:
        if changed not in known:
            raise ConfigError(f"network {name!r}: changes {changed!r}; {nearest(changed, known)}")
    for layer in layers:
        layer = {**layer, **changes.get(_edge_name(layer)[1], {})}
        edge = _edge(layer, before, pooling)
        nodes.setdefault(edge.input, Node(edge.input, "input", 1))
        edges[edge.name] = edge
        node = _node(layer, edge, nodes)
        nodes.setdefault(node.name, node)
        if edge.type == "conv":
            inits[edge.name] = Init(layer.get("init", init), tuple(layer.get("init_args", ())))
        before = edge.output
    return Graph(nodes, edges, inits).check(lambda part: f"network {name!r}: {part!r}")


def _edge_name(layer: Mapping[str, Any]) -> tuple[str, str]:
    (kind,) = (key for key in layer if key in EDGE_TYPES)
    return kind, layer[kind]


def _edge(layer: Mapping[str, Any], before: str, pooling: str) -> Edge:
    kind, name = _edge_name(layer)
    size: Shape = tuple(layer.get("size", ONE))
    stride: Shape = tuple(layer.get("stride", size if kind == "max_filter" else ONE))
    if kind == "max_filter" and pooling == "max_pool":
        kind, stride = "max_pool", ONE
    return Edge(
        name,
        kind,
        layer.get("from", before),
        layer["to"],
        size,
        stride,
        ratio=layer.get("ratio", 0.5),
        repeat=tuple(layer.get("repeat", ONE)),
    )


def _node(layer: Mapping[str, Any], edge: Edge, nodes: Mapping[str, Node]) -> Node:
    """The node a layer leads to: convolutions end in a transfer node, all others in a sum."""
    if edge.type != "conv" and "function" not in layer:
        return Node(edge.output, "sum", nodes[edge.input].size)
    function = layer.get("function", "rectify_linear")
    args = tuple(layer.get("args", FUNCTIONS[function]))
    return Node(edge.output, "transfer", layer.get("maps", nodes[edge.input].size), function, args)
