"""A network of ZNN as a graph: nodes are sets of feature maps, edges the operations between them.

Sizes and dilations follow ZNN (seung-lab/znn-release, src/include/network). The stride of a filter
does not reduce the resolution; it multiplies the dilation of everything after it. Only `max_pool`
reduces the resolution. All triples are in the order z, y, x.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from retrace.errors import ConfigError
from retrace.limits import GRAPH_PARTS, MAPS, ZNN_SIZE, counted

Shape = tuple[int, int, int]

ONE: Shape = (1, 1, 1)
NODE_TYPES = ("input", "sum", "transfer", "maxout")
EDGE_TYPES = ("conv", "max_filter", "max_pool", "dropout", "crop", "maxout", "dummy")
FUNCTIONS: dict[str, tuple[float, ...]] = {
    "linear": (1.0, 0.0),
    "rectify_linear": (),
    "tanh": (1.0, 1.0),
    "soft_sign": (),
    "logistics": (),
    "forward_logistics": (),
}
"""Transfer functions and the defaults of their arguments."""
INITS: dict[str, tuple[int, int]] = {
    "zero": (0, 0),
    "constant": (1, 1),
    "uniform": (0, 2),
    "gaussian": (0, 2),
    "bernoulli": (0, 1),
    "xavier": (0, 0),
    "msra": (0, 0),
}
"""Initialisers, and the smallest and largest number of arguments they take."""
NODE_INITS = ("zero", "constant", "uniform", "gaussian", "bernoulli")
"""Initialisers that biases can have."""


@dataclass(frozen=True)
class Node:
    """A set of `size` feature maps."""

    name: str
    type: str
    size: int
    function: str = ""
    """Transfer function of a `transfer` node; the other types have none."""
    args: tuple[float, ...] = ()
    dense: bool = False
    """Whether the dilation of everything after it starts at 1 again."""


@dataclass(frozen=True)
class Edge:
    """An operation from node `input` to node `output`."""

    name: str
    type: str
    input: str
    output: str
    size: Shape = ONE
    stride: Shape = ONE
    offset: Shape = (0, 0, 0)
    """Voxels that a `crop` removes on each side."""
    ratio: float = 0.5
    """The fraction that a `dropout` keeps."""
    repeat: Shape = ONE
    """Size of the blocks of a filter whose voxels share one weight."""


@dataclass(frozen=True)
class Init:
    """How filters or biases are initialised."""

    kind: str
    args: tuple[float, ...] = ()


def _mul(a: Iterable[int], b: Iterable[int]) -> Shape:
    z, y, x = (p * q for p, q in zip(a, b, strict=True))
    return z, y, x


def _place(name: str) -> str:
    return f"network: {name!r}"


@dataclass(frozen=True)
class Graph:
    """Nodes, edges and initialisers by name; `check` raises ConfigError if they do not fit."""

    nodes: Mapping[str, Node]
    edges: Mapping[str, Edge]
    inits: Mapping[str, Init] = field(default_factory=dict)
    unseeded: tuple[str, ...] = ()
    """Nodes and edges that a file of earlier weights must not fill (`seeding 0`)."""

    def check(self, where: Callable[[str], str] = _place) -> Graph:
        """The graph itself; ConfigError for missing nodes, cycles and sizes that disagree.

        `where` gives for the name of a node or edge the place that error messages show.
        """
        self.check_counts(where)
        for edge in self.edges.values():
            for end in (edge.input, edge.output):
                if end not in self.nodes:
                    names = ", ".join(sorted(self.nodes))
                    raise ConfigError(
                        f"{where(edge.name)}: edge {edge.name!r} names node {end!r}, which does "
                        f"not exist; nodes: {names}"
                    )
        self._check_numbers(where)
        self._check_nodes(where)
        self._check_order(where)
        self._check_maps(where)
        self._dilations(where)
        self._sizes(ONE, where)
        return self

    def check_counts(self, where: Callable[[str], str] = _place) -> None:
        """ConfigError for more nodes and edges, feature maps or voxels than are allowed."""
        if (parts := len(self.nodes) + len(self.edges)) > GRAPH_PARTS:
            raise ConfigError(
                f"{where('')}: {parts} nodes and edges; allowed: up to {GRAPH_PARTS}. Take a "
                "smaller network"
            )
        for node in self.nodes.values():
            if node.size > MAPS:
                raise ConfigError(
                    f"{where(node.name)}: node {node.name!r} has {counted(node.size)} feature maps;"
                    f" allowed: 1 to {MAPS}. Lower `size`"
                )
        for edge in self.edges.values():
            for size in (edge.size, edge.stride, edge.offset):
                _limited(size, f"{where(edge.name)}: edge {edge.name!r}")

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input nodes, in alphabetical order."""
        return tuple(sorted(n.name for n in self.nodes.values() if n.type == "input"))

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the nodes that no edge starts from, in alphabetical order."""
        starts = {edge.input for edge in self.edges.values()}
        return tuple(sorted(set(self.nodes) - starts))

    def incoming(self, node: str) -> list[Edge]:
        """Edges that end in a node, sorted by name."""
        edges = (edge for edge in self.edges.values() if edge.output == node)
        return sorted(edges, key=lambda edge: edge.name)

    def outgoing(self, node: str) -> list[Edge]:
        """Edges that start from a node, sorted by name."""
        edges = (edge for edge in self.edges.values() if edge.input == node)
        return sorted(edges, key=lambda edge: edge.name)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Nodes in topological order; those in or after a cycle are missing."""
        waiting = {name: len(self.incoming(name)) for name in self.nodes}
        ready = sorted(name for name, count in waiting.items() if not count)
        order: list[str] = []
        while ready:
            order.append(ready.pop(0))
            for edge in self.outgoing(order[-1]):
                waiting[edge.output] -= 1
                if not waiting[edge.output]:
                    ready.append(edge.output)
        return tuple(order)

    @cached_property
    def dilations(self) -> dict[str, Shape]:
        """For each node the dilation (z, y, x) of the filters that start from it."""
        return self._dilations(_place)

    def sizes(self, output: Iterable[int]) -> dict[str, Shape]:
        """For each node its size for an output of `output` voxels at every output node."""
        z, y, x = output
        return self._sizes((z, y, x), _place)

    @cached_property
    def field_of_view(self) -> Shape:
        """Voxels of the largest input that one output voxel depends on (z, y, x)."""
        sizes = self.sizes(ONE)
        z, y, x = (max(sizes[name][axis] for name in self.inputs) for axis in range(3))
        return z, y, x

    @cached_property
    def channels(self) -> int:
        """Total number of channels of all inputs."""
        return sum(self.nodes[name].size for name in self.inputs)

    @cached_property
    def parameters(self) -> int:
        """Number of weights and biases."""
        filters = sum(
            self.nodes[e.input].size * self.nodes[e.output].size * math.prod(e.size)
            for e in self.edges.values()
            if e.type == "conv"
        )
        return filters + sum(n.size for n in self.nodes.values() if n.type == "transfer")

    def dense(self) -> Graph:
        """A graph that computes the same at every voxel: each `max_pool` becomes a max filter.

        The offset of a crop after a pooling counts voxels of the coarser grid, so it is scaled up.
        """
        downsampling: dict[str, Shape] = {}
        edges = {}
        for name in self.order:
            before = [_mul(downsampling[e.input], _pooling(e)) for e in self.incoming(name)]
            downsampling[name] = before[0] if before else ONE
        for edge in self.edges.values():
            if edge.type == "max_pool":
                edge = replace(edge, type="max_filter", stride=edge.size)
            elif edge.type == "crop":
                edge = replace(edge, offset=_mul(edge.offset, downsampling[edge.input]))
            edges[edge.name] = edge
        return replace(self, edges=edges)

    def as_dict(self) -> dict[str, Any]:
        """Nodes and edges as JSON values: everything that decides what is computed."""
        plain = {
            "nodes": {name: asdict(node) for name, node in sorted(self.nodes.items())},
            "edges": {name: asdict(edge) for name, edge in sorted(self.edges.items())},
        }
        content: dict[str, Any] = json.loads(json.dumps(plain))  # tuples become lists
        return content

    def _check_numbers(self, where: Callable[[str], str]) -> None:
        for node in self.nodes.values():
            fault = _function_fault(node) if node.type == "transfer" else None
            if fault is not None:
                raise ConfigError(f"{where(node.name)}: function {node.function} {fault}")
        for name, init in self.inits.items():
            fault = _init_fault(init)
            if fault is not None:
                raise ConfigError(f"{where(name)}: init {init.kind} {fault}")

    def _check_nodes(self, where: Callable[[str], str]) -> None:
        if not self.inputs:
            raise ConfigError(f"{where('')}: no node has the type input; every network needs one")
        for node in self.nodes.values():
            incoming = self.incoming(node.name)
            if node.type == "input" and incoming:
                raise ConfigError(
                    f"{where(node.name)}: edge {incoming[0].name!r} leads into the input "
                    f"{node.name!r}"
                )
            if node.type != "input" and not incoming:
                raise ConfigError(
                    f"{where(node.name)}: node {node.name!r} has no incoming edge; give it one, "
                    "or `type input`"
                )
            if node.type == "input" and not self.outgoing(node.name):
                raise ConfigError(f"{where(node.name)}: nothing reads the input {node.name!r}")
            is_mixed = {edge.type == "maxout" for edge in incoming} - {node.type == "maxout"}
            if is_mixed:
                raise ConfigError(
                    f"{where(node.name)}: maxout nodes need maxout edges, and other nodes others; "
                    f"node {node.name!r} is of type {node.type}"
                )

    def _check_order(self, where: Callable[[str], str]) -> None:
        if len(self.order) < len(self.nodes):
            cycle = sorted(set(self.nodes) - set(self.order))
            raise ConfigError(
                f"{where(cycle[0])}: the edges form a cycle, in or before: {', '.join(cycle)}"
            )

    def _check_maps(self, where: Callable[[str], str]) -> None:
        for edge in self.edges.values():
            before, after = self.nodes[edge.input].size, self.nodes[edge.output].size
            if edge.type != "conv" and before != after:
                raise ConfigError(
                    f"{where(edge.name)}: size mismatch: {edge.type} edge {edge.name!r} keeps the "
                    f"number of maps, but {edge.input!r} has {before} and {edge.output!r} {after}"
                )

    def _dilations(self, where: Callable[[str], str]) -> dict[str, Shape]:
        dilations: dict[str, Shape] = {}
        for name in self.order:
            by_edge = {e.name: _mul(dilations[e.input], _stride(e)) for e in self.incoming(name)}
            if len(set(by_edge.values())) > 1:
                raise ConfigError(
                    f"{where(name)}: size mismatch: edges into {name!r} come with different "
                    f"strides: {by_edge}"
                )
            starts_at_1 = self.nodes[name].dense or not by_edge
            dilation = ONE if starts_at_1 else next(iter(by_edge.values()))
            dilations[name] = _limited(dilation, f"{where(name)}: the strides before {name!r}")
        return dilations

    def _sizes(self, output: Shape, where: Callable[[str], str]) -> dict[str, Shape]:
        dilations = self._dilations(where)
        sizes: dict[str, Shape] = {}
        for name in reversed(self.order):
            needed = {
                e.name: _input_size(e, sizes[e.output], dilations[e.input])
                for e in self.outgoing(name)
            }
            if len(set(needed.values())) > 1:
                raise ConfigError(
                    f"{where(name)}: size mismatch: for an output of {list(output)} voxels the "
                    f"edges out of {name!r} need different sizes of it: {needed}"
                )
            size = next(iter(needed.values())) if needed else output
            sizes[name] = _limited(size, f"{where(name)}: the field of view from {name!r}")
        return sizes


def _limited(size: Shape, what: str) -> Shape:
    """`size` in voxels; ConfigError for one that no volume has."""
    if max(size) > ZNN_SIZE:
        raise ConfigError(
            f"{what} has {counted(max(size))} voxels along an axis; allowed: up to {ZNN_SIZE}. "
            "Lower sizes and strides"
        )
    return size


def with_defaults(function: str, args: Sequence[float] = ()) -> tuple[float, ...]:
    """Arguments of a transfer function; missing ones at the end have their defaults."""
    return (*args, *FUNCTIONS[function][len(args) :])


def _function_fault(node: Node) -> str | None:
    """What is wrong with the arguments of a transfer function, as the end of a sentence."""
    count = len(FUNCTIONS[node.function])
    if len(node.args) == count and all(map(math.isfinite, node.args)):
        return None
    return f"has the arguments {list(node.args)}; allowed: {count} finite numbers"


def _init_fault(init: Init) -> str | None:
    """What is wrong with the arguments of an initialiser, as the end of a sentence."""
    args = init.args
    fewest, most = INITS[init.kind]
    if not fewest <= len(args) <= most or not all(map(math.isfinite, args)):
        return f"has the arguments {list(args)}; allowed: {fewest} to {most} finite numbers"
    if init.kind == "uniform" and args and args[-1] < (args[0] if len(args) == 2 else 0):
        return f"has the arguments {list(args)}; allowed: MIN,MAX with MIN up to MAX, or MAX from 0"
    if init.kind == "gaussian" and len(args) == 2 and args[1] < 0:
        return f"has the standard deviation {args[1]:g}; allowed: numbers from 0"
    if init.kind == "bernoulli" and args and not 0 <= args[0] <= 1:
        return f"has the probability {args[0]:g}; allowed: numbers from 0 to 1"
    return None


def _stride(edge: Edge) -> Shape:
    return edge.stride if edge.type in ("conv", "max_filter") else ONE


def _pooling(edge: Edge) -> Shape:
    return edge.size if edge.type == "max_pool" else ONE


def _input_size(edge: Edge, output: Shape, dilation: Shape) -> Shape:
    """Input of an edge for an output of `output` voxels (z, y, x)."""
    if edge.type in ("conv", "max_filter"):
        sides = zip(output, edge.size, dilation, strict=True)
        z, y, x = (out + (size - 1) * step for out, size, step in sides)
    elif edge.type == "max_pool":
        z, y, x = _mul(output, edge.size)
    elif edge.type == "crop":
        z, y, x = (out + 2 * cut for out, cut in zip(output, edge.offset, strict=True))
    else:
        z, y, x = output
    return z, y, x


def graph_from(
    content: Mapping[str, Any],
    inits: Mapping[str, Any] | None = None,
    unseeded: Iterable[str] = (),
) -> Graph:
    """The graph of `Graph.as_dict`, also after it was stored as JSON."""
    return Graph(
        nodes={name: Node(**_fields(node)) for name, node in content["nodes"].items()},
        edges={name: Edge(**_fields(edge)) for name, edge in content["edges"].items()},
        inits={name: Init(**_fields(init)) for name, init in (inits or {}).items()},
        unseeded=tuple(unseeded),
    )


def _fields(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in part.items()}
