"""ZNN's networks in plain numpy, written without the library: loops over the voxels of filters.

Follows the definitions of ZNN's documentation (nodes, edges, functions) and of its program
(src/include/network): filters are flipped, strides multiply the dilation of what follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np

Shape = tuple[int, int, int]
ONE: Shape = (1, 1, 1)


@dataclass(frozen=True)
class NaiveNode:
    """A `nodes` object."""

    name: str
    type: str
    size: int
    function: str = ""
    args: tuple[float, ...] = ()
    dense: bool = False

    def text(self) -> str:
        """Its lines of a .znn file."""
        lines = [f"nodes {self.name}", f"type {self.type}", f"size {self.size}"]
        if self.function:
            lines.append(f"function {self.function}")
        if self.args:
            lines.append(f"function_args {written(self.args)}")
        return "\n".join([*lines, *(["dense 1"] if self.dense else []), ""])


@dataclass(frozen=True)
class NaiveEdge:
    """An `edges` object."""

    name: str
    type: str
    input: str
    output: str
    size: Shape = ONE
    stride: Shape = ONE
    offset: Shape = (0, 0, 0)

    def text(self) -> str:
        """Its lines of a .znn file."""
        lines = [f"edges {self.name}", f"type {self.type}"]
        lines += [f"input {self.input}", f"output {self.output}"]
        if self.type in ("conv", "max_filter"):
            lines += [f"size {written(self.size)}", f"stride {written(self.stride)}"]
        if self.type == "crop":
            lines.append(f"offset {written(self.offset)}")
        return "\n".join([*lines, ""])


def written(values: tuple[float, ...]) -> str:
    """Numbers as a .znn file has them."""
    return ",".join(f"{value:g}" for value in values)


class Weights(NamedTuple):
    """What a network learns, or gradients of it."""

    filters: dict[str, np.ndarray]
    """(inputs, outputs, z, y, x) by edge, in ZNN's orientation."""
    biases: dict[str, np.ndarray]
    """(maps,) by transfer node."""


@dataclass
class NaiveNetwork:
    """Nodes in the order in which they are computed, edges, and their weights."""

    nodes: list[NaiveNode]
    edges: list[NaiveEdge]
    weights: Weights = field(default_factory=lambda: Weights({}, {}))

    def text(self) -> str:
        """The .znn file."""
        return "\n".join(part.text() for part in [*self.nodes, *self.edges])

    def draw_weights(self, rng: np.random.Generator) -> None:
        """Normal weights that keep the size of the signal."""
        maps = {node.name: node.size for node in self.nodes}
        for edge in self.edges:
            if edge.type == "conv":
                shape = (maps[edge.input], maps[edge.output], *edge.size)
                scale = np.prod(shape[2:]) * shape[0]
                self.weights.filters[edge.name] = rng.normal(0, scale**-0.5, shape)
        for node in self.nodes:
            if node.type == "transfer":
                self.weights.biases[node.name] = rng.normal(0, 0.3, node.size)

    @cached_property
    def outputs(self) -> list[str]:
        """Nodes without outgoing edges."""
        starts = {edge.input for edge in self.edges}
        return [node.name for node in self.nodes if node.name not in starts]

    @cached_property
    def inputs(self) -> list[str]:
        """Input nodes, sorted by name."""
        return sorted(node.name for node in self.nodes if node.type == "input")

    def into(self, name: str) -> list[NaiveEdge]:
        """Edges that end in a node, sorted by name."""
        return sorted((e for e in self.edges if e.output == name), key=lambda e: e.name)

    @cached_property
    def dilations(self) -> dict[str, Shape]:
        """The product of all strides before each node, or since the last dense one."""
        dilations: dict[str, Shape] = {}
        for node in self.nodes:
            edges = self.into(node.name)
            reset = node.dense or not edges
            dilations[node.name] = (
                ONE if reset else times(dilations[edges[0].input], edges[0].stride)
            )
        return dilations

    def field_of_view(self, name: str) -> Shape:
        """Voxels of a node that one output voxel depends on."""
        edges = [edge for edge in self.edges if edge.input == name]
        if not edges:
            return ONE
        z, y, x = self.field_of_view(edges[0].output)
        dz, dy, dx = self._lost(edges[0])
        return z + dz, y + dy, x + dx

    def _lost(self, edge: NaiveEdge) -> Shape:
        if edge.type == "crop":
            return times(edge.offset, (2, 2, 2))
        if edge.type in ("conv", "max_filter"):
            z, y, x = edge.size
            return times((z - 1, y - 1, x - 1), self.dilations[edge.input])
        return 0, 0, 0

    def crop_inputs(self, x: np.ndarray, output: Shape) -> dict[str, np.ndarray]:
        """What each input node sees of `x` (C, Z, Y, X): windows around the same centre."""
        views = {name: self.field_of_view(name) for name in self.inputs}
        largest = np.max(list(views.values()), axis=0)
        maps = {node.name: node.size for node in self.nodes}
        parts, first = {}, 0
        for name, view in views.items():
            # Centres are at floor((size - 1) / 2), so those of even sizes lean to the front.
            sides = zip(largest, view, strict=True)
            begin = [(big - 1) // 2 - (own - 1) // 2 for big, own in sides]
            ends = [b + own + out - 1 for b, own, out in zip(begin, view, output, strict=True)]
            channels = slice(first, first + maps[name])
            parts[name] = x[(channels, *map(slice, begin, ends))]
            first += maps[name]
        return parts

    def forward(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The maps (C, Z, Y, X) of all nodes."""
        self.values, self.sums = dict(inputs), {}
        for node in self.nodes:
            if node.type != "input":
                parts = [self._edge(edge) for edge in self.into(node.name)]
                is_maxout = node.type == "maxout"
                total = np.max(parts, axis=0) if is_maxout else np.sum(parts, axis=0)
                if node.type == "transfer":
                    total = total + self.weights.biases[node.name][:, None, None, None]
                self.sums[node.name] = total
                self.values[node.name] = applied(node, total)[0]
        return self.values

    def _edge(self, edge: NaiveEdge) -> np.ndarray:
        x = self.values[edge.input]
        if edge.type == "crop":
            z, y, c = edge.offset
            depth, height, width = x.shape[1:]
            return x[:, z : depth - z, y : height - y, c : width - c]
        if edge.type == "conv":
            k = self.weights.filters[edge.name]
            return sum(
                np.einsum("izyx,io->ozyx", part, k[(..., *flipped(tap, edge.size))])
                for tap, part in self._taps(edge, x)
            )
        if edge.type == "max_filter":
            return np.max([part for _, part in self._taps(edge, x)], axis=0)
        return x

    def _taps(self, edge: NaiveEdge, x: np.ndarray) -> list[tuple[Shape, np.ndarray]]:
        """For each voxel of a window the view of `x` that it sees as the window slides."""
        step, lost = self.dilations[edge.input], self._lost(edge)
        taps = []
        for z, y, c in product(*map(range, edge.size)):
            begin = times((z, y, c), step)
            window = tuple(
                slice(b, b + size - less)
                for b, size, less in zip(begin, x.shape[1:], lost, strict=True)
            )
            taps.append(((z, y, c), x[(slice(None), *window)]))
        return taps

    def backward(self, gradients: dict[str, np.ndarray]) -> Weights:
        """Gradients of filters and biases after `forward`, from those of the outputs."""
        grads = {name: np.zeros_like(value) for name, value in self.values.items()}
        for name, gradient in gradients.items():
            grads[name] += gradient
        result = Weights({}, {})
        for node in reversed(self.nodes):
            if node.type == "input":
                continue
            gradient = grads[node.name] * applied(node, self.sums[node.name])[1]
            if node.type == "transfer":
                result.biases[node.name] = gradient.sum((1, 2, 3))
            edges = self.into(node.name)
            first = self.sums[node.name] * 0 == 1  # voxels that an edge has won already
            for edge in edges:
                own = gradient
                if node.type == "maxout":
                    won = (self._edge(edge) == self.sums[node.name]) & ~first
                    own, first = gradient * won, first | won
                self._edge_backward(edge, own, grads[edge.input], result)
        return result

    def _edge_backward(
        self, edge: NaiveEdge, gradient: np.ndarray, into: np.ndarray, result: Weights
    ) -> None:
        """Adds the gradient of an edge's input to `into`, and that of its filters to `result`."""
        if edge.type == "crop":
            z, y, x = edge.offset
            _, depth, height, width = gradient.shape
            into[:, z : z + depth, y : y + height, x : x + width] += gradient
        elif edge.type == "conv":
            k = self.weights.filters[edge.name]
            own = result.filters[edge.name] = np.zeros_like(k)
            seen = self._taps(edge, self.values[edge.input])
            for (tap, part), (_, target) in zip(seen, self._taps(edge, into), strict=True):
                place = (..., *flipped(tap, edge.size))
                own[place] = np.einsum("izyx,ozyx->io", part, gradient)
                target += np.einsum("ozyx,io->izyx", gradient, k[place])
        elif edge.type == "max_filter":
            highest, open_ = self._edge(edge), np.ones_like(gradient, bool)
            seen = self._taps(edge, self.values[edge.input])
            for (_, part), (_, target) in zip(seen, self._taps(edge, into), strict=True):
                won = (part == highest) & open_
                target += gradient * won
                open_ &= ~won
        else:
            into += gradient


def times(a: Shape, b: Shape) -> Shape:
    """Products of the three axes."""
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


def flipped(tap: Shape, size: Shape) -> Shape:
    """The voxel of a filter that a true convolution multiplies with voxel `tap` of a window."""
    return size[0] - 1 - tap[0], size[1] - 1 - tap[1], size[2] - 1 - tap[2]


def applied(node: NaiveNode, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A node's function of `x`, and the factor by which gradients pass it."""
    one = np.ones_like(x)
    a, b = (*node.args, *(1, 0 if node.function == "linear" else 1)[len(node.args) :])
    if node.function == "linear":
        return a * x + b, a * one
    if node.function == "rectify_linear":
        return np.where(x > 0, x, 0), np.where(x > 0, 1.0, 0.0)
    if node.function == "tanh":
        return a * np.tanh(b * x), a * b / np.cosh(b * x) ** 2
    if node.function == "soft_sign":
        return x / (1 + abs(x)), 1 / (1 + abs(x)) ** 2
    sigmoid = 1 / (1 + np.exp(-x))
    if node.function == "logistics":
        return sigmoid, sigmoid * (1 - sigmoid)
    if node.function == "forward_logistics":
        return sigmoid, one
    return x, one
